"""The answers of one model to all questions of an audit, and what they follow from."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from compleak.queries.probes import PROBES
from compleak.queries.signals_file import Answers, read_rows, read_source, write
from compleak.queries.subject import Subject
from compleak.queries.targets import Targets, targets_of
from compleak.runs.run import Run, dataset
from compleak.runs.variants import Variant
from compleak.training.evaluate import ask
from compleak.training.finished import load_model, model_meta
from core.console import progress
from core.errors import UserError

FORMAT = 3  # of what `ask_model` computes: another number makes kept answers again


class Question(NamedTuple):
    """One model of a run and what it is asked: the plain answer to all targets, and the probes in their amounts."""

    run: Run
    targets: Targets
    variant: Variant
    role: str
    amounts: dict[str, int]  # by probe; 0 leaves the probe out

    @property
    def row(self) -> int:
        return self.run.row_of(self.role)

    @property
    def asked_probes(self) -> dict[str, int]:
        """The probes whose amount is not 0."""
        return {name: amount for name, amount in self.amounts.items() if amount}

    @property
    def audited(self) -> np.ndarray:
        """(N,) bool: the targets in this model's audit set."""
        return self.targets.audited(self.row)

    @property
    def member(self) -> np.ndarray:
        """(N,) bool: the targets that this model was trained on."""
        return self.targets.members(self.row)

    @property
    def file(self) -> Path:
        """Where one model's answers are kept until those of all models of its variant are joined."""
        return answers_file(self.run, self.variant, self.role)

    def source(self) -> dict:
        """All that the answers follow from."""
        return {
            "data": self.run.config["data"],
            **self.targets.fingerprints(self.row),
            "model": model_meta(self.run, self.variant, self.role)["sha256"],
            **self.amount_facts(),
            "format": FORMAT,
        }

    def amount_facts(self) -> dict:
        """How much is asked of each probe. A probe that is asked by default is listed with 0 where it is left out."""
        said = {name: amount for name, amount in self.amounts.items() if amount or PROBES[name].default_amount}
        return {PROBES[name].amount_key: amount for name, amount in said.items()}


def answers_file(run: Run, variant: Variant, role: str) -> Path:
    return run.role_dir(variant, role) / "answers.npz"


def answers_of(question: Question, device: torch.device, batch_size: int, joined: Path | None = None) -> Answers:
    """A model's answers: those that were kept, alone or in the joined file of its variant, and the rest asked for now.

    UserError where a probe cannot be asked about such points.
    """
    return ask_model(question, known_answers(question, joined), device, batch_size)


def known_answers(question: Question, joined: Path | None = None) -> Answers | None:
    """What this model has answered already of what is asked now: None where that is not even the plain answer."""
    answers = None
    wanted = without_amounts(question.source())
    for file, row, source in kept_answers(question, joined):
        if without_amounts(source) == wanted:
            (kept,) = read_rows(file, [row])
            probes = {name: kept.probes[name] for name in same_probes(question, source) if name in kept.probes}
            answers = Answers(kept.logits, {**probes, **(answers.probes if answers else {})})
            if question.asked_probes.keys() <= answers.probes.keys():
                break
    return answers


def kept_answers(question: Question, joined: Path | None) -> Iterator[tuple]:
    """(file, row, source) of all answers at hand: of this model alone, of its variant, and of other runs.

    The runs of a defence share models (`checkpoints.copy_identical_model`), and a shared model is asked once.
    """
    alone = read_source(question.file)
    if alone is not None:
        yield question.file, ..., alone
    files = [] if joined is None else [joined]
    if question.run.defence.name:
        own = question.run.signals_file(question.variant)
        files += [file for file in sorted(own.parent.parent.glob(f"*/{own.name}")) if file != own]
    for file in files:
        for row, source in enumerate(sources_in(file)):
            yield file, row, source


def sources_in(signals: Path) -> list[dict]:
    """`Question.source` of each row of a signals file; none where a defence of answers changed them."""
    source = read_source(signals) or {}
    return [] if "undefended" in source else source.get("answers", [])


def without_amounts(source: dict) -> dict:
    """What the plain answers follow from."""
    keys = {probe.amount_key for probe in PROBES.values()}
    return {key: value for key, value in source.items() if key not in keys}


def same_probes(question: Question, source: dict) -> list[str]:
    """The probes that are asked now and were asked in the same amount."""
    return [name for name, amount in question.asked_probes.items() if source.get(PROBES[name].amount_key) == amount]


def ask_ahead(
    run: Run,
    variant: Variant,
    role: str,
    amounts: Mapping[str, int],
    *,
    device: torch.device,
    batch_size: int,
) -> None:
    """Keep one model's answers in a file of their own, for `collect`, where signals.npz does not hold them yet.

    amounts: see `probe_amounts`.
    """
    question = Question(run, targets_of(run), variant, role, probe_amounts(run, variant, amounts))
    joined = run.signals_file(variant)
    known = read_source(joined) or {}
    source = question.source()
    if source in known.get("answers", []) or read_source(question.file) == source:
        return
    answers = answers_of(question, device, batch_size, joined)
    write(question.file, {"logits": answers.logits, **answers.probes}, source)


def ask_model(question: Question, earlier: Answers | None, device: torch.device, batch_size: int) -> Answers:
    """Ask one model about every target, and its probes about the points that each of them is for, but what is known."""
    check_probes(question)
    known = earlier.probes if earlier else {}
    missing = {name: amount for name, amount in question.asked_probes.items() if name not in known}
    if earlier and not missing:
        return earlier
    data, targets = dataset(question.run), question.targets
    model = load_model(question.run, question.variant, question.role)
    places = {name: PROBES[name].is_asked(question.audited, question.member) for name in missing}
    probe_total = sum(int(places[name].sum()) * PROBES[name].queries_per_point(missing[name]) for name in missing)
    total = probe_total + (0 if earlier else len(targets.points))
    with progress(None, f"asking {question.variant} {question.role}", total=total) as bar:
        if earlier:
            logits = earlier.logits
        else:
            calls = [ask(model, data.images[call], device, batch_size, bar, data.kind) for call in targets.calls]
            logits = np.concatenate(calls)
        probes = {}
        for name, amount in missing.items():
            subject = subject_of(question, model, logits, places[name], device, batch_size, bar.update)
            probes[name] = spread(PROBES[name].query(subject, amount), places[name])
    return Answers(logits, {name: known.get(name, probes.get(name)) for name in question.asked_probes})


def check_probes(question: Question) -> None:
    """UserError where points of this kind cannot be asked in one of these ways, or a package for it is missing."""
    kind = dataset(question.run).kind
    for name in question.asked_probes:
        if not PROBES[name].suits(kind):
            raise UserError(f"{kind.sets} have no {PROBES[name].needs}: leave out --{PROBES[name].flag}")
        PROBES[name].check_installed()


def subject_of(
    question: Question,
    model: nn.Module,
    logits: np.ndarray,
    places: np.ndarray,
    device: torch.device,
    batch_size: int,
    advance: Callable[[int], object],
) -> Subject:
    """The model and those of the targets, (N,) bool, that a probe asks it about."""
    data = dataset(question.run)
    points = question.targets.points[places]
    member = question.member[places]
    about = (data.images[points], logits[places], data.labels[points], member)
    return Subject(model, *about, data.kind, data.images, data.flip, device, batch_size, advance)


def spread(answers: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Answers about some of the targets, (n, ...), as an array of all, (N, ...): NaN or False about the others."""
    blank = np.nan if answers.dtype.kind == "f" else False
    whole = np.full((len(places), *answers.shape[1:]), blank, dtype=answers.dtype)
    whole[places] = answers
    return whole


def probe_amounts(run: Run, variant: Variant, amounts: Mapping[str, int]) -> dict[str, int]:
    """How much is asked of each probe: as was said, else as the variant's answers have, else the default.

    amounts: by the probe's name, of those that were said. To ask again needs weights, which may have been dropped;
    hence the answers at hand come before the default.
    """
    at_hand = next(sources_at_hand(run, variant), {})
    usual = {name: at_hand.get(probe.amount_key, probe.default_amount) for name, probe in PROBES.items()}
    return {**usual, **amounts}


def sources_at_hand(run: Run, variant: Variant) -> Iterator[dict]:
    """`Question.source` of all kept answers: those that the signals file joins, then those of one model each."""
    yield from sources_in(run.signals_file(variant))
    for role in run.roles:
        source = read_source(answers_file(run, variant, role))
        if source is not None:
            yield source
