"""The answers of one model to all questions of an audit, and what they follow from."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from compleak.queries.probes import PROBES
from compleak.queries.signals_file import Answers, read_rows, read_source, write
from compleak.queries.targets import Targets, targets_of
from compleak.runs.run import Run, dataset
from compleak.runs.variants import Variant
from compleak.training.assignment import defence_of
from compleak.training.evaluate import ask
from compleak.training.finished import load_model, model_meta
from core.console import progress
from defenses import DEFENCES

SMALLEST_POSTERIOR = 1e-30  # that a defence of answers may give; a logarithm of 0 would not be finite
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
    def file(self) -> Path:
        """Where one model's answers are kept until those of all models of its variant are joined."""
        return answers_file(self.run, self.variant, self.role)

    def source(self) -> dict:
        """All that the answers follow from."""
        return {
            "data": self.run.config["data"],
            **self.targets.fingerprints(self.row),
            "model": model_meta(self.run, self.variant, self.role)["sha256"],
            **{PROBES[name].amount_key: amount for name, amount in self.amounts.items()},
            "format": FORMAT,
            **self.defence_facts(),
        }

    def defence_facts(self) -> dict:
        """What is done to the answers, which a model's tensors do not say; nothing without a defence of answers."""
        if defence_of_answers(self) is None:
            return {}
        return {"answers": [self.run.defence.name, self.run.defence.argument]}


def answers_file(run: Run, variant: Variant, role: str) -> Path:
    return run.role_dir(variant, role) / "answers.npz"


def answers_of(question: Question, device: torch.device, batch_size: int) -> Answers:
    """A model's answers: those that were kept, or asked for now."""
    if read_source(question.file) == question.source():
        (answers,) = read_rows(question.file, [...])
        return answers._replace(probes={name: answers.probes[name] for name in question.asked_probes})
    return ask_model(question, device, batch_size)


def ask_ahead(
    run: Run, variant: Variant, role: str, draws: int | None, *, device: torch.device, batch_size: int
) -> None:
    """Keep one model's answers in a file of their own, for `collect`, where signals.npz does not hold them yet."""
    question = Question(run, targets_of(run), variant, role, probe_amounts(run, variant, draws))
    known = read_source(run.signals_file(variant)) or {}
    source = question.source()
    if source in known.get("answers", []) or read_source(question.file) == source:
        return
    answers = ask_model(question, device, batch_size)
    write(question.file, {"logits": answers.logits, **answers.probes}, source)


def ask_model(question: Question, device: torch.device, batch_size: int) -> Answers:
    """Ask one model about every target, and its probes about its audit set."""
    data, targets = dataset(question.run), question.targets
    audited = targets.audited(question.row)
    model = answering_model(question)
    machine = (device, batch_size)
    total = len(audited) + int(audited.sum()) * sum(question.asked_probes.values())
    with progress(None, f"asking {question.variant} {question.role}", total=total) as bar:
        logits = np.concatenate([ask(model, data.images[call], *machine, bar, data.kind) for call in targets.calls])
        probes = {}
        for name, amount in question.asked_probes.items():
            probes[name] = np.full_like(logits, np.nan)
            points = data.images[targets.points[audited]]
            query = PROBES[name].query
            probes[name][audited] = query(model, points, logits[audited], *machine, amount, bar, data.kind)
    return Answers(logits, probes)


def answering_model(question: Question) -> nn.Module:
    """The model as it answers: with what its defence does to answers, where it has a defence that does something."""
    model = load_model(question.run, question.variant, question.role)
    answers = defence_of_answers(question)
    return model if answers is None else DefendedAnswers(model, answers, question.run.defence.argument)


def defence_of_answers(question: Question) -> Callable | None:
    name = defence_of(question.run, question.role, question.variant)
    return DEFENCES[name].answers if name else None


class DefendedAnswers(nn.Module):
    """A model behind a defence of answers: its logits are the logarithms of the posteriors that the defence gives."""

    def __init__(self, model: nn.Module, answers: Callable, argument: float) -> None:
        super().__init__()
        self.model, self.answers, self.argument = model, answers, argument

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:  # (B, ...) -> (B, C) float32
        posteriors = self.model(inputs).double().softmax(dim=1).cpu().numpy()
        defended = np.maximum(self.answers(posteriors, self.argument), SMALLEST_POSTERIOR)
        return torch.from_numpy(np.log(defended)).float().to(inputs.device)


def probe_amounts(run: Run, variant: Variant, draws: int | None) -> dict[str, int]:
    """How much is asked of each probe: as --sensitivity_draws says, else as the variant's answers have.

    To ask again needs weights, which may have been dropped; hence the answers at hand come before the default.
    """
    probe = PROBES["sensitivity"]
    if draws is not None:
        return {"sensitivity": draws}
    source = next(sources_at_hand(run, variant), {})
    return {"sensitivity": source.get(probe.amount_key, probe.default_amount)}


def sources_at_hand(run: Run, variant: Variant) -> Iterator[dict]:
    """`Question.source` of all answers that are kept: those that the signals file joins, then those of one model each.

    The two kinds of files must not be told apart by their keys, because the source of one model may have a key
    "answers" as well, for its defence of answers.
    """
    joined = read_source(run.signals_file(variant)) or {}
    yield from joined.get("answers", [])
    for role in run.roles:
        source = read_source(answers_file(run, variant, role))
        if source is not None:
            yield source
