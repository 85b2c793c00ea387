"""Make what people ship: a classifier as ONNX, its int8 version, and two folders of images. Then audit it.

    python examples/ship_models.py --out shipped
    python audit.py shipped/original.onnx shipped/int8.onnx --members shipped/data/train --nonmembers shipped/data/test

The classifier is a scikit-learn network on handwritten digits. Two fifths of the labels are drawn at random, for
members and non-members alike: a wrong label can only be memorised, which is a leak. onnxruntime's dynamic quantization
makes the int8 version. The example imports nothing from this project.
"""

import argparse
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

SIDE = 8  # pixels
MEMBERS = 898  # half of the images
WRONG_LABELS = 0.4
EPOCHS = 400


def load_images_and_labels(seed=7):
    """(n, 8, 8) uint8 and (n,), in random order, with wrong labels."""
    images, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    wrong = rng.random(len(labels)) < WRONG_LABELS
    labels = np.where(wrong, rng.integers(10, size=len(labels)), labels)
    pixels = (images[order] * (255 / 16)).astype(np.uint8)  # the package has values from 0 to 16
    return pixels.reshape(-1, SIDE, SIDE), labels[order]


def train(images, labels):
    """A network that is trained for long, without anything that keeps it from memorising."""
    inputs = images.reshape(len(images), -1) / 255
    options = {"learning_rate_init": 0.003, "alpha": 0, "tol": 0, "n_iter_no_change": EPOCHS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return MLPClassifier((128,), max_iter=EPOCHS, random_state=0, **options).fit(inputs, labels)


def write_onnx(network, file):
    """Images (N, 1, 8, 8) from 0 to 1 -> logits (N, 10): two linear layers with a ReLU between them."""
    tensors = {"weight_1": network.coefs_[0], "bias_1": network.intercepts_[0]}
    tensors |= {"weight_2": network.coefs_[1], "bias_2": network.intercepts_[1]}
    nodes = [
        helper.make_node("Flatten", ["image"], ["row"]),
        helper.make_node("MatMul", ["row", "weight_1"], ["product_1"]),
        helper.make_node("Add", ["product_1", "bias_1"], ["sum_1"]),
        helper.make_node("Relu", ["sum_1"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "weight_2"], ["product_2"]),
        helper.make_node("Add", ["product_2", "bias_2"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, file)


def write_images(folder, images, labels):
    """A folder a class."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / str(label) / f"{number:04}.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("shipped"), help="folder for models and data")
    out = parser.parse_args().out
    images, labels = load_images_and_labels()
    write_images(out / "data" / "train", images[:MEMBERS], labels[:MEMBERS])
    write_images(out / "data" / "test", images[MEMBERS:], labels[MEMBERS:])
    write_onnx(train(images[:MEMBERS], labels[:MEMBERS]), out / "original.onnx")
    logging.disable(logging.WARNING)  # onnxruntime advises a preprocessing that such a small network does not need
    quantize_dynamic(out / "original.onnx", out / "int8.onnx", weight_type=QuantType.QInt8)
    print(f"wrote {out / 'original.onnx'}, {out / 'int8.onnx'} and the images in {out / 'data'}")


if __name__ == "__main__":
    main()
