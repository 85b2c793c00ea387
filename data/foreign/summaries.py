"""What a classifier that sees no model is given of each record: the blind control (PROTOCOL section 6)."""

import zlib

import numpy as np
from PIL import Image

from data.pictures import SIDE

MOST_COLUMNS = 4096  # of arrays; from more of them, evenly spaced values are taken
BUCKETS = 256  # for character trigrams


def summarise(raw: list, kind: str) -> np.ndarray:
    """(n, F) float32 of raw records from `Points.load`.

    Images: resized to 32 x 32, then `data.inputs.IMAGES.summarise`. Features and arrays: their values, at most 4,096 of
    them. Text: counts of character trigrams in 256 buckets, by CRC-32.
    """
    if kind == "text":
        return np.stack([_count_trigrams(text) for text in raw])
    if kind == "images":
        from data.inputs import IMAGES  # it imports torch, which reading needs not

        return IMAGES.summarise(np.stack([_to_small_colour(image) for image in raw])).astype(np.float32)
    values = np.stack([np.asarray(value, dtype=np.float32).reshape(-1) for value in raw])
    if values.shape[1] <= MOST_COLUMNS:
        return values
    return values[:, np.linspace(0, values.shape[1] - 1, MOST_COLUMNS).astype(np.int64)]


def _to_small_colour(image: np.ndarray) -> np.ndarray:
    """(32, 32, 3) uint8."""
    picture = Image.fromarray(np.ascontiguousarray(image)).convert("RGB")
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _count_trigrams(text: str) -> np.ndarray:
    """(BUCKETS,) float32; a space stands before and behind the text."""
    padded = f" {text} "
    trigrams = [padded[start : start + 3].encode("utf-8", "surrogatepass") for start in range(len(padded) - 2)]
    buckets = np.array([zlib.crc32(trigram) % BUCKETS for trigram in trigrams], dtype=np.int64)
    return np.bincount(buckets, minlength=BUCKETS).astype(np.float32)
