"""Models that were trained outside this project, as ONNX files: what tests of `audit.py` audit."""

import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier


def train_network(inputs, labels, *, epochs=100, seed=0) -> MLPClassifier:
    """A scikit-learn network that memorises: no regularisation, and a training that goes on."""
    options = {"learning_rate_init": 0.01, "alpha": 0, "tol": 0, "n_iter_no_change": epochs}
    network = MLPClassifier((256,), max_iter=epochs, random_state=seed, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return network.fit(inputs, labels)


def write_onnx(network: MLPClassifier, file: Path, *, softmax=True) -> Path:
    """Rows (N, F) -> probabilities (N, C), or logits: linear layers with ReLU between them."""
    nodes, tensors, value = [], {}, "input"
    layers = list(zip(network.coefs_, network.intercepts_, strict=True))
    for number, (weights, bias) in enumerate(layers):
        tensors |= {f"weight_{number}": weights, f"bias_{number}": bias}
        nodes.append(helper.make_node("MatMul", [value, f"weight_{number}"], [f"product_{number}"]))
        nodes.append(helper.make_node("Add", [f"product_{number}", f"bias_{number}"], [f"sum_{number}"]))
        value = f"sum_{number}"
        if number < len(layers) - 1:
            nodes.append(helper.make_node("Relu", [value], [f"hidden_{number}"]))
            value = f"hidden_{number}"
    nodes.append(helper.make_node("Softmax" if softmax else "Identity", [value], ["output"]))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", network.coefs_[0].shape[0]])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", network.coefs_[-1].shape[1]])],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in tensors.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    return file


def write_npz(file: Path, inputs, labels) -> Path:
    np.savez(file, x=np.asarray(inputs, dtype=np.float32), y=np.asarray(labels))
    return file
