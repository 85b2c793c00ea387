"""The tokenizer of a run on texts: made with the run, kept beside run.json, read by every later stage."""

import hashlib
from pathlib import Path

import numpy as np

import models
from compleak.runs.checkpoints import refuse_difference
from core.errors import UserError
from data import tokens
from models.text import LENGTH, PADDING, padding_of


def make(model_name: str, texts: np.ndarray, pretrained: Path | None) -> str:
    """The tokenizer for a network as JSON: the one beside its pretrained weights, else one trained on these texts."""
    if pretrained is not None:
        return tokens.read_pretrained(pretrained, LENGTH, padding_of(pretrained))
    return tokens.train(models.NETWORKS[model_name].tokenizer, texts, LENGTH, PADDING)


def read(file: Path, stated: str) -> str:
    """The tokenizer in a file. UserError where it is missing or has another fingerprint than is stated in run.json."""
    try:
        tokenizer = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{file} cannot be read ({error}): without the tokenizer no text can be read: run train.py again"
        ) from error
    refuse_difference(file, {"tokenizer": fingerprint(tokenizer)}, {"tokenizer": stated})
    return tokenizer


def fingerprint(tokenizer: str) -> str:
    return hashlib.sha256(tokenizer.encode()).hexdigest()[:16]
