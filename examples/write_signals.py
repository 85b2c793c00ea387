"""Audit a model of any framework: write what it answers to a signals file, then attack the file.

    python examples/write_signals.py --out /tmp/mine
    python CompLeakNR.py --signals /tmp/mine/original.npz
    python CompLeakSR.py --signals /tmp/mine/original.npz /tmp/mine/compressed.npz
    python CompLeakMR.py --signals /tmp/mine/original.npz /tmp/mine/compressed.npz

Here a scikit-learn network on handwritten digits, and the same with its weights rounded. Nothing is imported from this
project: the four arrays written at the end are the whole interface.
"""

import argparse
import copy
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier


def train(images, labels, seed):
    return MLPClassifier((128,), alpha=0, max_iter=200, random_state=seed).fit(images, labels)


def rounded(model, step=0.1):
    """A compressed version: weights on a grid."""
    model = copy.deepcopy(model)
    model.coefs_ = [np.round(weights / step) * step for weights in model.coefs_]
    return model


def logits(model, images):
    return np.log(np.clip(model.predict_proba(images), 1e-12, None)).astype(np.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("signals"), help="folder for the two files")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)

    images, labels = load_digits(return_X_y=True)
    labels = labels.copy()
    rng = np.random.default_rng(7)
    wrong = rng.random(len(labels)) < 0.2  # mislabelled images have to be memorised: a leak worth auditing
    labels[wrong] = rng.integers(10, size=wrong.sum())

    # Four equal parts in random order: the victim trains on the first, the shadow on the third.
    order = rng.permutation(len(labels))[: len(labels) // 4 * 4]
    images, labels = images[order] / 16, labels[order]
    quarter = np.arange(len(order)) // (len(order) // 4)
    member = np.stack([quarter == 0, quarter == 2])  # (R, N): row 0 the victim, row 1 the shadow
    audit = np.stack([quarter < 2, quarter >= 2])  # as many members as non-members of each

    originals = [train(images[own], labels[own], seed) for seed, own in enumerate(member)]
    for name, models in (("original", originals), ("compressed", [rounded(model) for model in originals])):
        answers = np.stack([logits(model, images) for model in models])  # (R, N, C)
        np.savez(out / f"{name}.npz", logits=answers, labels=labels, member=member, audit=audit)
        print(f"wrote {out / name}.npz")


if __name__ == "__main__":
    main()
