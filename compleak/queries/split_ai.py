"""What Split-AI itself answers, SELENA's teacher, as a signals file: an audit of it must read 0.5.

Members are answered by sub-models that did not train on them, all other points by those of a random member
(`defenses.selena`). No user of the model ever gets these answers; the student is trained on them.
"""

from pathlib import Path

import numpy as np

from compleak.queries.logits import SMALLEST
from compleak.queries.signals_file import load, points, read_source, write
from compleak.runs.run import Run
from compleak.runs.variants import ORIGINAL
from compleak.training.finished import model_meta
from core.console import say
from core.errors import UserError
from defenses import selena

FILE = "split_ai_signals.npz"


def refuse_without_split_ai(run: Run) -> None:
    """UserError where the run is not defended by SELENA, or Split-AI's answers are missing or damaged."""
    if run.defence.name != "selena":
        raise UserError(f"--split_ai is for runs of --defend selena, and {run.name} is none: leave it out")
    for role in run.roles:
        if run.defence.defends(role):
            selena.read(run.role_dir(ORIGINAL, role) / selena.FILE, made_from(run, role))


def write_split_ai(run: Run) -> Path:
    """Write the original's signals once more, with Split-AI's answers in the rows of the models that SELENA defends.

    Shadow models that are not defended answer as they are.
    """
    signals = run.signals_file(ORIGINAL)
    record = load(signals)
    asked = points(signals)
    logits = record.logits.copy()
    for row, role in enumerate(run.roles):
        if run.defence.defends(role):
            logits[row] = split_ai_logits(run, role, asked)
    arrays = {
        "logits": logits,
        "labels": record.labels,
        "member": record.member,
        "audit": record.audit,
        "points": asked,
    }
    file = run.dir / FILE
    write(file, arrays, {"signals": read_source(signals), "answered_by": "Split-AI"})
    say(f"the answers of Split-AI are in {file}; attack them: python CompLeakNR.py --signals {file} --out FOLDER")
    return file


def split_ai_logits(run: Run, role: str, asked: np.ndarray) -> np.ndarray:
    """(N, C) float32: the logarithms of Split-AI's posteriors about these points of the data set."""
    answers = selena.answers_about(run.role_dir(ORIGINAL, role), made_from(run, role), asked)
    return np.log(np.maximum(answers, SMALLEST))


def made_from(run: Run, role: str) -> dict:
    """What the role's original was made from, which its Split-AI's file states, too."""
    return model_meta(run, ORIGINAL, role)["made_from"]
