"""Folders of pretrained weights, from which networks for texts can start."""

import hashlib
from pathlib import Path

import models
from core.errors import UserError
from core.files import sha256
from models import text
from models.foreign.hugging_face import weight_files


def check(folder: Path, model_name: str) -> None:
    """UserError where the network cannot start from pretrained weights, or the folder holds none for it."""
    if model_name not in models.FOR_TEXT:
        raise UserError(f"--pretrained is for {' and '.join(models.FOR_TEXT)}, not for {model_name}: leave it out")
    text.check_pretrained(folder, model_name)


def fingerprint(folder: Path | None) -> str | None:
    """A short hash of a pretrained network, its weights and its config.json; None where there is none."""
    if folder is None:
        return None
    files = [folder / "config.json", *weight_files(folder)]
    return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()[:16]
