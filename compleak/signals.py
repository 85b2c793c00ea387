"""What the models answer: one `signals.npz` a variant, asked once, cached, and all that an attack ever sees.

Format (PROTOCOL §4), which any framework can write; R models (row 0 the victim, then the shadows), N points, C classes:

    logits       (R, N, C) float32   before the softmax
    labels       (N,) int64          class of each point
    member       (R, N) bool         the model was trained on the point
    audit        (R, N) bool         the point is in that model's balanced audit set
    sensitivity  (R, N, C) float32   optional; mean |softmax f(x + e u) - softmax f(x)| / e, NaN outside the audit sets

The null control compares the first half of the victim's audited non-members, in file order, with the second. Here
the first half is queried together with the members, in one call, and the second with all other points.
"""

import hashlib
import json
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from attacks.arrays import Signals
from compleak import compression, paths, runs
from compleak.training import ask, predict
from core import arguments, console
from core.errors import UserError
from core.files import write_atomically
from data.inputs import to_input
from data.splits import Split, fingerprint

# What a missing or broken .npz may raise; RuntimeError where it seems encrypted or of another version.
DAMAGED = (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)
FORMAT = 3  # of what `collect` computes: another number makes cached files again
EPSILON = 1e-3
DRAWS = 10


class Record(NamedTuple):
    """The content of a signals file, with the victim's membership: for the metrics, not for attacks."""

    logits: np.ndarray  # (R, N, C) float32
    labels: np.ndarray  # (N,) int64
    member: np.ndarray  # (R, N) bool
    audit: np.ndarray  # (R, N) bool
    sensitivity: np.ndarray | None  # (R, N, C) float32

    @property
    def truth(self) -> np.ndarray:
        """(A,) bool: which of the victim's audit points, in file order, are members."""
        return self.member[0, self.audit[0]]


def attacker_view(record: Record) -> Signals:
    """What the attacker knows: the record with the victim's membership withheld (-1) on its audit points."""
    member = record.member.astype(np.int8)
    member[0, record.audit[0] | record.member[0]] = -1  # that the rest, the pool, is not the victim's he knows
    return Signals(record.logits, record.labels, member, record.audit, record.sensitivity)


def file_of(run: runs.Run, variant: str) -> Path:
    return paths.variant_dir(run.root, run.name, variant) / "signals.npz"


def collect(run: runs.Run, variant: str, device: torch.device, batch_size: int, draws: int | None = None) -> Path:
    """Join the answers of every model of a variant in `signals.npz`, asking those that have not been asked.

    A file that is these models' already is left as it is; one of fewer shadows gives what it has. draws: `draws_of`.
    """
    file, asked, draws = file_of(run, variant), questions(run), draws_of(run, variant, draws)
    wanted = [answer_source(run, asked, variant, role, draws) for role in run.roles]
    source = {"split": fingerprint(asked.split), "audit": fingerprint(asked.audit), "answers": wanted}
    known = _source(file)
    if known != source:
        old = [] if known is None else known.get("answers", [])
        kept = _rows(file, [old.index(own) if own in old else None for own in wanted])
        options = (device, batch_size, draws)
        rows = [row or answers(run, asked, variant, role, *options) for row, role in zip(kept, run.roles, strict=True)]
        _write(file, asked, runs.dataset(run).labels, rows, source)
    for role in run.roles:
        answers_file(run, variant, role).unlink(missing_ok=True)
    return file


class Questions(NamedTuple):
    """What every model of a run is asked."""

    split: Split
    audit: Split
    calls: tuple[np.ndarray, np.ndarray]  # points, in the two calls of `query_order`

    @property
    def points(self) -> np.ndarray:
        return np.concatenate(self.calls)  # (N,)


class Answers(NamedTuple):
    """One model's row of a signals file."""

    logits: np.ndarray  # (N, C) float32
    sensitivity: np.ndarray  # (N, C) float32, NaN outside the model's audit set, and everywhere without draws


def questions(run: runs.Run) -> Questions:
    split, audit = runs.split(run)
    return Questions(split, audit, query_order(split, audit))


def _write(file: Path, asked: Questions, labels: np.ndarray, rows: list[Answers], source: dict) -> None:
    points = asked.points
    arrays = {
        "logits": np.stack([row.logits for row in rows]),
        "labels": labels[points],
        "member": np.stack([np.isin(points, pair.train) for pair in asked.split.pairs]),
        "audit": np.stack([np.isin(points, np.concatenate(pair)) for pair in asked.audit.pairs]),
        "points": points,  # of the data set, for the blind control and for people
        "source": np.array(json.dumps(source)),
    }
    if source["answers"][0]["draws"]:
        arrays["sensitivity"] = np.stack([row.sensitivity for row in rows])
    write_atomically(file, lambda part: np.savez_compressed(part, **arrays))


def answers_file(run: runs.Run, variant: str, role: str) -> Path:
    """Where one model's answers are kept until those of all its variant's models are joined."""
    return paths.role_dir(run.root, run.name, variant, role) / "answers.npz"


def answer_source(run: runs.Run, asked: Questions, variant: str, role: str, draws: int) -> dict:
    """All that a model's answers follow from."""
    return {
        "data": run.config["data"],
        "points": hashlib.sha256(asked.points.tobytes()).hexdigest()[:16],
        "audit": fingerprint(Split([asked.audit.pairs[run.roles.index(role)]])),
        "model": compression.model_meta(run, variant, role)["sha256"],
        "draws": draws,
        "format": FORMAT,
    }


def draws_of(run: runs.Run, variant: str, draws: int | None) -> int:
    """As many as asked for, else as the variant's answers have: to ask again needs weights that may be dropped."""
    kept = [file_of(run, variant), *(answers_file(run, variant, role) for role in run.roles)]
    found = (source.get("answers", [source])[0] for source in map(_source, kept) if source)
    return next(found, {}).get("draws", DRAWS) if draws is None else draws


def ask_ahead(run: runs.Run, variant: str, role: str, device: torch.device, batch_size: int, draws: int | None) -> None:
    """Keep one model's answers for `collect`, where they are not in `signals.npz` yet."""
    known, asked, draws = _source(file_of(run, variant)) or {}, questions(run), draws_of(run, variant, draws)
    if answer_source(run, asked, variant, role, draws) not in known.get("answers", []):
        answers(run, asked, variant, role, device, batch_size, draws, keep=True)


def answers(
    run: runs.Run,
    asked: Questions,
    variant: str,
    role: str,
    device: torch.device,
    batch_size: int,
    draws: int,
    keep: bool = False,
) -> Answers:
    """Ask one model about every point, unless it was asked before; `keep` leaves its answers in a file of their own."""
    file, source = answers_file(run, variant, role), answer_source(run, asked, variant, role, draws)
    if _source(file) == source:
        return _rows(file, [...])[0]

    data, points = runs.dataset(run), asked.points
    audited = np.isin(points, np.concatenate(asked.audit.pairs[run.roles.index(role)]))
    model = compression.load_model(run, variant, role)
    with console.progress(None, f"asking {variant} {role}", total=len(points) + draws * int(audited.sum())) as bar:
        logits = np.concatenate([ask(model, data.images[part], device, batch_size, bar) for part in asked.calls])
        shaken = np.full_like(logits, np.nan)
        if draws:
            options = (device, batch_size, draws, bar)
            shaken[audited] = sensitivity(model, data.images[points[audited]], logits[audited], *options)
    made = Answers(logits, shaken)
    if keep:
        content = {**made._asdict(), "source": np.array(json.dumps(source))}
        write_atomically(file, lambda part: np.savez_compressed(part, **content))
    return made


def query_order(split: Split, audit: Split) -> tuple[np.ndarray, np.ndarray]:
    """The two calls in which all points are asked: members with half of the non-members, then everything else.

    Each is in the order of the data set. A place in the second call says that the point is no member: attacks must not
    look at the order.
    """
    members, others = audit.victim
    half = len(others) // 2
    pool = split.pool if split.shadows else np.array([], dtype=np.int64)
    return np.sort(np.concatenate([members, others[:half]])), np.sort(np.concatenate([others[half:], pool]))


def sensitivity(model, images: np.ndarray, logits: np.ndarray, device, batch_size: int, draws: int, bar=None):
    """(n, C) float32: mean over `draws` of |softmax f(x + e u) - softmax f(x)| / e, u ~ N(0, I), e = 1e-3.

    Yuan & Zhang 2022, section 4.2 (SAMIA's input); x is the network's input. logits: (n, C), f(x) as `ask` gave it.
    Softmax and mean are float64: where p is close to 1, float32 turns a fifth of the differences into exact zeros.
    """
    model.to(device, memory_format=torch.channels_last).eval()
    found = []
    for start in range(0, len(images), batch_size):
        batch = to_input(torch.from_numpy(images[start : start + batch_size]).to(device))
        still = torch.from_numpy(logits[start : start + batch_size]).to(device).double().softmax(dim=1)
        generator, moved = torch.Generator(device).manual_seed(start), torch.zeros_like(still)
        for _ in range(draws):
            noise = torch.randn(batch.shape, generator=generator, device=device)
            moved += (predict(model, batch + EPSILON * noise).double().softmax(dim=1) - still).abs()
            if bar is not None:
                bar.update(len(batch))
        found.append((moved / (draws * EPSILON)).float().cpu().numpy())
    return np.concatenate(found)


def draws_flag(group) -> None:
    group.add_argument(
        "--sensitivity_draws",
        type=arguments.whole_number,
        help=f"noise draws for SAMIA, 0 for none (default: what the answers at hand have, else {DRAWS})",
    )


def load(path: Path) -> Record:
    """Read and check a signals file, ours or anybody's. UserError names in one line what is wrong with it."""
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is not a complete .npz file: see the README for the format of signals")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in ("logits", "labels", "member", "audit", "sensitivity") if key in file}
    except (*DAMAGED, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not a readable signals file ({error}): see the README for the format of signals"
        ) from error
    problem = _problem(arrays)
    if problem:
        raise UserError(f"{path}: {problem}; see the README for the format of signals")
    return Record(**{"sensitivity": None, **arrays})


def points(path: Path) -> np.ndarray:
    """(N,) int64: which images of the data set the points of one of our own signals files are."""
    with np.load(path, allow_pickle=False) as file:
        return file["points"]


def _problem(arrays: dict[str, np.ndarray]) -> str | None:
    """What is wrong with the arrays of a signals file, or None."""
    missing = {"logits", "labels", "member", "audit"} - arrays.keys()
    if missing:
        return f"the array {sorted(missing)[0]} is missing"
    kinds = {"logits": "f", "labels": "iu", "member": "b", "audit": "b", "sensitivity": "f"}
    for key, array in arrays.items():
        if array.dtype.kind not in kinds[key]:
            return f"{key} has type {array.dtype}"
    logits, labels, member, audit = (arrays[key] for key in ("logits", "labels", "member", "audit"))
    if logits.ndim != 3 or logits.shape[2] < 2:
        return f"logits has shape {logits.shape}, expected (models, points, classes)"
    expected = {
        "labels": logits.shape[1:2],
        "member": logits.shape[:2],
        "audit": logits.shape[:2],
        "sensitivity": logits.shape,
    }
    for key in expected.keys() & arrays.keys():
        if arrays[key].shape != expected[key]:
            return f"{key} has shape {arrays[key].shape}, expected {expected[key]}"
    if 0 in logits.shape[:2]:
        return f"logits has shape {logits.shape}: there is no model or no point"
    if not np.isfinite(logits).all():
        return "logits holds values that are not finite"
    if labels.min() < 0 or labels.max() >= logits.shape[2]:
        return f"labels holds classes outside 0..{logits.shape[2] - 1}"
    for row in range(len(logits)):
        members, size = int(member[row, audit[row]].sum()), int(audit[row].sum())
        if members < 2 or 2 * members != size:
            return f"the audit set of model {row} has {members} members of {size} points, expected half and at least 2"
    if "sensitivity" in arrays and not np.isfinite(arrays["sensitivity"][audit]).all():
        return "sensitivity is not finite on the audit sets"
    return None


def same_points(records: list[Record], names: list[str]) -> None:
    """UserError unless all records describe the same models' roles on the same points."""
    for record, name in zip(records[1:], names[1:], strict=True):
        if record.logits.shape != records[0].logits.shape:
            raise UserError(f"{names[0]} and {name} differ in the shape of logits: they are not signals of one run")
        for key in ("labels", "member", "audit"):
            if not np.array_equal(getattr(record, key), getattr(records[0], key)):
                raise UserError(f"{names[0]} and {name} differ in {key}: they are not signals of one run")


def _rows(file: Path, places: list) -> list[Answers | None]:
    """The answers in these rows of a file, None where the place is; `...` is the whole of a file of one model."""
    if all(place is None for place in places):
        return [None] * len(places)
    with np.load(file, allow_pickle=False) as found:
        logits = found["logits"]
        shaken = found["sensitivity"] if "sensitivity" in found else np.full_like(logits, np.nan)
    return [None if place is None else Answers(logits[place], shaken[place]) for place in places]


def _source(file: Path) -> dict | None:
    """What an existing signals file was made from; None where it does not say, and is then made again."""
    try:
        with np.load(file, allow_pickle=False) as found:
            return json.loads(str(found["source"]))
    except DAMAGED:
        return None
