"""The two controls that run with every attack and must find nothing (PROTOCOL §7)."""

import contextlib
import hashlib
from pathlib import Path

import numpy as np

import attacks
from compleak.queries import signals_file
from compleak.runs.run import Run, dataset
from core.console import say
from core.files import write_atomically


def null_control(scores: np.ndarray, decision: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, ...]:
    """The attack on the victim's non-members alone: scores, decisions, and which half was queried like members.

    The first half in file order went through the members' call (`queries.targets.query_calls`). No attack can tell the
    halves apart unless members are loaded or queried in another way than non-members.
    """
    others = np.flatnonzero(~truth)
    first_half = np.arange(len(others)) < len(others) // 2
    return scores[others], decision[others], first_half


def blind_control(run: Run | None, file: Path, record: signals_file.Record, seed: int, code: str) -> np.ndarray | None:
    """Scores (A,) of the classifier that sees the points and no model, NaN on the half that it was fitted on.

    They are kept with the run, whose variants share them. None without a run, since signals files hold no images.
    """
    if run is None:
        say("blind left out: it needs the images, and these signals are from files alone")
        return None
    points = signals_file.points(file)[record.audit[0]]
    content = points.tobytes() + record.truth.tobytes() + f"{seed} {code}".encode()
    key = hashlib.sha256(content).hexdigest()
    kept_file = run.dir / "blind.npz"
    with contextlib.suppress(*signals_file.DAMAGED), np.load(kept_file, allow_pickle=False) as kept:
        if str(kept["key"]) == key:
            return kept["scores"]
    data = dataset(run)
    scores = attacks.blind(data.kind.summarise(data.images[points]), record.truth, seed=seed)
    write_atomically(kept_file, lambda part: np.savez(part, scores=scores, key=np.array(key)))
    return scores
