"""Audit models that are shipped: from an original and its compressed versions to a report that a decision can rest on.

    python audit.py original.onnx int8.onnx --members data/train --nonmembers data/test
    python audit.py task.yaml

The first model is the original, the others are compressed versions of it. Models: .onnx, .pt2, .tflite, a Hugging Face
folder, a Python file with get_model() beside its weights, run:<run>/<variant>, or answers in .npz or .csv. Data: a
folder of class folders, .npz with x and y, CSV with a label column, idx files, or a Python file with get_dataset().
A task file says all of this and more (docs/audit.md); flags override it. PrivBox's task files are read as well.

Gives results/audits/<name>/ (or --out): report.html, report.md, audit.json, NR.csv, SR.csv, MR.csv, figures, and the
signals files, with which the attack scripts go on. A stopped audit goes on where it was: the
same command asks each model again about at most 32 points, and about those of the last seconds before the stop.
Exit code 0; 1 where --fail_above says so; 2 where something is wrong with what was given.
"""

import sys

from compleak.tasks.audit import run_audit, say_result
from compleak.tasks.flags import tasks_of
from core.console import run_script


def parse(argv=None):
    return tasks_of(__doc__, argv)


def main(argv=None):
    audits = []
    for task in parse(argv):
        audits.append(run_audit(task))
        say_result(task, audits[-1])
    if any(audit.fails for audit in audits):
        sys.exit(1)
    return audits


if __name__ == "__main__":
    run_script(main)
