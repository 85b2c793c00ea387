"""Audit a model from any framework: write its answers to a signals file, then attack the file.

    python examples/write_signals.py --out /tmp/mine
    python CompLeakNR.py --signals /tmp/mine/original.npz
    python CompLeakSR.py --signals /tmp/mine/original.npz /tmp/mine/compressed.npz
    python CompLeakMR.py --signals /tmp/mine/original.npz /tmp/mine/compressed.npz

The example trains a scikit-learn network on handwritten digits and compresses it by rounding its weights. It imports
nothing from this project: the four arrays that it writes at the end are all that the attacks need.
"""

import argparse
import copy
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier


def train(images, labels, seed):
    return MLPClassifier((128,), alpha=0, max_iter=200, random_state=seed).fit(images, labels)


def round_weights(model, step=0.1):
    """A compressed copy of the model: each weight is a multiple of `step`."""
    model = copy.deepcopy(model)
    model.coefs_ = [np.round(weights / step) * step for weights in model.coefs_]
    return model


def logits(model, images):
    return np.log(np.clip(model.predict_proba(images), 1e-12, None)).astype(np.float32)


def load_images_and_labels(rng):
    """Digits in random order, a fifth of them mislabelled: mislabelled images have to be memorised, which is a leak."""
    images, labels = load_digits(return_X_y=True)
    labels = labels.copy()
    wrong = rng.random(len(labels)) < 0.2
    labels[wrong] = rng.integers(10, size=wrong.sum())
    order = rng.permutation(len(labels))[: len(labels) // 4 * 4]  # so many that four equal parts are possible
    return images[order] / 16, labels[order]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("signals"), help="folder for the two files")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)

    images, labels = load_images_and_labels(np.random.default_rng(7))
    # The points form four equal parts. The victim trains on the first, the shadow model on the third.
    quarter = np.arange(len(labels)) // (len(labels) // 4)
    member = np.stack([quarter == 0, quarter == 2])  # (R, N): row 0 is the victim, row 1 the shadow model
    audit = np.stack([quarter < 2, quarter >= 2])  # each model is audited on as many members as non-members

    originals = [train(images[points], labels[points], seed) for seed, points in enumerate(member)]
    compressed = [round_weights(model) for model in originals]
    for name, models in (("original", originals), ("compressed", compressed)):
        answers = np.stack([logits(model, images) for model in models])  # (R, N, C)
        np.savez(out / f"{name}.npz", logits=answers, labels=labels, member=member, audit=audit)
        print(f"wrote {out / name}.npz")


if __name__ == "__main__":
    main()
