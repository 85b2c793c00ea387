"""The points that the shadow model is trained on."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

FIRST, LAST = 900, 1500  # of the digits in mixed order; the four data sets share none


def get_dataset():
    """Pictures (1, 8, 8) from 0 to 1 as the network takes them, and their classes.

    A fifth of the labels are wrong: they have to be memorised, which is a leak.
    """
    images, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(7)
    order = rng.permutation(len(labels))
    wrong = rng.random(len(labels)) < 0.2
    labels = np.where(wrong, rng.integers(10, size=len(labels)), labels)
    chosen = order[FIRST:LAST]
    pictures = torch.tensor(images[chosen] / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    return TensorDataset(pictures, torch.tensor(labels[chosen]))
