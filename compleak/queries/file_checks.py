"""What may be wrong with the arrays of a signals file: one function per check, in the order of CHECKS.

A check gets all arrays by name and returns a sentence, or None. The sentence says what the array holds and, where one
line of numpy mends it, that line. R models, N points, C classes, as in `compleak.queries.signals_file`.
"""

import itertools

import numpy as np

from compleak.queries.logits import CLASSES_ALONE, LOSSES, PERCENTAGES, PROBABILITIES, Scale, scale_of
from compleak.queries.probes import PROBES

Arrays = dict[str, np.ndarray]
ARRAYS = ("logits", "labels", "member", "audit")
ARRAYS_OF_POINTS = ("group", "columns")  # a file may hold them
FLOOR = 1e-12  # of a probability, before its logarithm is taken
MOST_NAMES = 6  # of a file's other arrays that a message lists


def find_problem(arrays: Arrays, names: list[str]) -> str | None:
    """What is wrong, or None: what the first check that finds something says. names: of all arrays in the file."""
    problem = find_missing_array(names)
    for check in CHECKS:
        problem = problem or check(arrays)
    return problem


def find_missing_array(names: list[str]) -> str | None:
    missing = sorted(set(ARRAYS) - set(names))
    if not missing:
        return None
    others = [name for name in names if name not in (*ARRAYS, *ARRAYS_OF_POINTS, *PROBES)][:MOST_NAMES]
    hint = f" (the file holds {', '.join(others)})" if others else ""
    return f"the array {missing[0]} is missing{hint}: np.savez(file, logits=..., labels=..., member=..., audit=...)"


def find_wrong_type_of_logits(arrays: Arrays) -> str | None:
    logits = arrays["logits"]
    if logits.dtype.kind in "iu":
        return (
            f"logits holds whole numbers ({logits.dtype}), perhaps predicted classes: what the model answers before "
            "the softmax is needed, as np.float32"
        )
    if logits.dtype.kind != "f" or logits.dtype.itemsize > 8:
        return f"logits has type {logits.dtype}: store logits.astype(np.float32)"
    return None


def find_wrong_labels(arrays: Arrays) -> str | None:
    """Labels that are not one whole number per point; whether the numbers are classes is checked later."""
    labels = arrays["labels"]
    if labels.ndim == 2 and labels.shape[1] == 1:
        return f"labels has shape {labels.shape}: store labels[:, 0]"
    if labels.ndim == 2 and _are_numbers(labels) and (labels.sum(axis=1) == 1).all() and labels.max() <= 1:
        return f"labels has shape {labels.shape} and is one-hot: store np.argmax(labels, axis=1)"
    if labels.ndim == 2 and _are_numbers(labels) and (labels == labels[:1]).all():
        return f"labels has shape {labels.shape}, the same row for each model: store labels[0]"
    if labels.dtype.kind in "iu":
        return None
    if _are_numbers(labels) and (labels == np.round(labels)).all():
        return f"labels has type {labels.dtype}: store labels.astype(np.int64)"
    return f"labels has type {labels.dtype}: for each point, the number of its class's column in logits is needed"


def find_wrong_masks(arrays: Arrays) -> str | None:
    """`member` and `audit` that are not bool."""
    for name in ("member", "audit"):
        mask = arrays[name]
        if mask.dtype.kind == "b":
            continue
        if _are_numbers(mask) and np.isin(mask, (0, 1)).all():
            return f"{name} has type {mask.dtype} and holds 0 and 1: bool is needed, store {name}.astype(bool)"
        if _are_numbers(mask) and np.isin(mask, (-1, 1)).all():
            return f"{name} has type {mask.dtype} and holds -1 and 1: bool is needed, store {name} > 0"
        meaning = {"member": "the model was trained on the point", "audit": "the point is in the model's audit set"}
        return f"{name} has type {mask.dtype}: bool of shape (models, points) is needed, True where {meaning[name]}"
    return None


def _are_numbers(array) -> bool:
    return array.dtype.kind in "biuf" and array.size > 0


def find_single_output(arrays: Arrays) -> str | None:
    """One output per point, as binary classifiers have; (R, N, 1), or (R, N) with no axis for it."""
    logits = arrays["logits"]
    one_column = logits.ndim == 3 and logits.shape[2] == 1
    if not one_column and not (logits.ndim == 2 and logits.shape == arrays["member"].shape):
        return None
    join = "concatenate" if one_column else "stack"
    if logits.size and logits.min() >= 0 and logits.max() <= 1:
        return (
            f"logits has shape {logits.shape}, one probability per point: two columns are needed, store "
            f"np.log(np.{join}([1 - p, p], axis=2)) with p = np.clip(logits.astype(float), {FLOOR}, 1 - {FLOOR})"
        )
    return (
        f"logits has shape {logits.shape}, one value per point: two columns are needed; if it is the output before a "
        f"sigmoid, store np.{join}([np.zeros_like(logits), logits], axis=2)"
    )


def find_wrong_shape(arrays: Arrays) -> str | None:
    shape = arrays["logits"].shape
    if len(shape) != 3:
        hint = "; of a single model, logits[None]" if shape[:1] == arrays["labels"].shape else ""
        return f"logits has shape {shape}, expected (models, points, classes){hint}"
    if 0 in shape:
        return f"logits has shape {shape}: there is no model, no point or no class"
    return find_swapped_axes(arrays) or find_shapes_that_differ(arrays)


def find_swapped_axes(arrays: Arrays) -> str | None:
    """Logits whose models, points and classes come in another order, as labels and membership show."""
    logits, labels, member = (arrays[name] for name in ("logits", "labels", "member"))
    if logits.shape[:2] == member.shape and logits.shape[1:2] == labels.shape:
        return None
    for axes in itertools.permutations(range(3)):
        models, points, _ = (logits.shape[axis] for axis in axes)
        if labels.shape == (points,) and sorted(member.shape) == sorted((models, points)) and axes != (0, 1, 2):
            return f"logits has shape {logits.shape}, expected (models, points, classes): store logits.transpose{axes}"
    return None


def find_shapes_that_differ(arrays: Arrays) -> str | None:
    models, points, _ = arrays["logits"].shape
    for name, expected in {"labels": (points,), "member": (models, points), "audit": (models, points)}.items():
        shape = arrays[name].shape
        if shape != expected:
            hint = f": store {name}.T" if shape == expected[::-1] != expected else ""
            return f"{name} has shape {shape}, expected {expected} as logits has {arrays['logits'].shape}{hint}"
    return None


def find_infinite_logits(arrays: Arrays) -> str | None:
    logits = arrays["logits"]
    infinite = ~np.isfinite(logits)
    if not infinite.any():
        return None
    model, point, column = np.argwhere(infinite)[0]
    value = logits[model, point, column]
    start = f"logits is not finite: {infinite.sum()} values, the first {value} of model {model}, point {point}"
    if np.isneginf(logits[infinite]).all():
        return (
            f"{start}, as the logarithm of a probability of 0 is: store np.log(np.maximum(p, {FLOOR})), or of this "
            f"array np.maximum(logits, np.log({FLOOR}))"
        )
    return f"{start}: ask the model again in float32, or leave such points out of all arrays"


def find_huge_logits(arrays: Arrays) -> str | None:
    largest = float(np.abs(arrays["logits"]).max())
    if largest <= float(np.finfo(np.float32).max):
        return None
    return f"logits holds values up to {largest:.3g}, beyond float32: store np.clip(logits, -1e30, 1e30)"


def find_probabilities(arrays: Arrays) -> str | None:
    """Rows of some model that are probabilities in place of logits, whatever they are rounded to."""
    for model, answers in enumerate(arrays["logits"]):
        advice = advise_on_scale(scale_of(answers.astype(np.float64)))
        if advice:
            return f"logits holds {advice[0]}, as model {model} shows: store {advice[1]}"
    return None


def advise_on_scale(scale: Scale) -> tuple[str, str] | None:
    """(what the answers of a model are, what to store); None where they are logits."""
    if scale is LOSSES:
        return "negative log-probabilities (losses, one for each class)", "-logits"
    if scale.total is None:
        return None
    share = _logarithm_of_share(scale.total)
    if scale is CLASSES_ALONE:
        advice = f"the scores before the softmax; if the model tells its class only, {share}"
        return "one-hot answers, the predicted class alone", advice
    if scale is PROBABILITIES:
        return "probabilities (rows sum to 1)", share
    if scale is PERCENTAGES:
        return "percentages (rows sum to 100)", share
    return f"counts (rows of whole numbers that sum to {scale.total:g})", share


def _logarithm_of_share(total: float) -> str:
    """The line that turns shares of `total` into log-probabilities; in float64, because float16 has no 1e-12."""
    share = "logits.astype(float)" if total == 1 else f"logits.astype(float) / {total:g}"
    return f"np.log(np.maximum({share}, {FLOOR}))"


def find_unknown_class(arrays: Arrays) -> str | None:
    labels, classes = arrays["labels"], arrays["logits"].shape[2]
    low, high = int(labels.min()), int(labels.max())
    if low >= 0 and high < classes:
        return None
    if low >= 1 and high == classes:
        return f"labels runs from {low} to {high}, outside 0..{classes - 1}: store labels - 1"
    return f"labels holds classes outside 0..{classes - 1}, the columns of logits: it runs from {low} to {high}"


def find_unbalanced_audit(arrays: Arrays) -> str | None:
    """An audit set that is not half members. A model after the victim may have none: it is a reference."""
    for model, audit in enumerate(arrays["audit"]):
        if model > 0 and not audit.any():
            continue
        members = int(arrays["member"][model, audit].sum())
        size = int(audit.sum())
        if members < 2 or 2 * members != size:
            return (
                f"the audit set of model {model} has {members} members of {size} points, expected half and at least 2: "
                "set audit to False for points of the kind there is more of"
            )
    return None


def find_probe_problem(arrays: Arrays) -> str | None:
    for name, probe in PROBES.items():
        asked = probe.is_asked(arrays["audit"], arrays["member"])
        problem = probe.find_problem(arrays[name], arrays["logits"], asked) if name in arrays else None
        if problem:
            return problem
    return None


def find_wrong_group(arrays: Arrays) -> str | None:
    """`group`, where it is there: one whole number for each point."""
    if "group" not in arrays:
        return None
    group, labels = arrays["group"], arrays["labels"]
    if group.shape != labels.shape:
        return f"group has shape {group.shape}, expected {labels.shape}: one number for each point, copies share theirs"
    if group.dtype.kind not in "iu":
        return f"group has type {group.dtype}: store np.unique(group, return_inverse=True)[1]"
    return None


def find_wrong_columns(arrays: Arrays) -> str | None:
    """`columns`, where it is there: finite numbers, a row for each point."""
    if "columns" not in arrays:
        return None
    columns, points = arrays["columns"], len(arrays["labels"])
    if columns.ndim > 2 and len(columns) == points and columns.size:
        return f"columns has shape {columns.shape}, expected (points, columns): store columns.reshape({points}, -1)"
    if columns.ndim != 2 or len(columns) != points or columns.shape[1] == 0:
        return f"columns has shape {columns.shape}, expected ({points}, columns): a row for each point"
    if not _are_numbers(columns):
        return f"columns has type {columns.dtype}: numbers are needed, as np.float32"
    if not np.isfinite(columns).all():
        return "columns is not finite: store np.nan_to_num(columns)"
    return None


# In this order: a check may rely on what those before it have made sure of.
CHECKS = (
    find_wrong_type_of_logits,
    find_wrong_labels,
    find_wrong_masks,
    find_single_output,
    find_wrong_shape,
    find_infinite_logits,
    find_huge_logits,
    find_probabilities,
    find_unknown_class,
    find_unbalanced_audit,
    find_probe_problem,
    find_wrong_group,
    find_wrong_columns,
)


def find_doubt(logits) -> str | None:
    """What may be wrong with logits, (R, N, C), that are taken all the same; or None."""
    if logits.min() >= 0 and 0.5 < logits.max() <= 1:
        return (
            "all logits lie between 0 and 1; if they are probabilities p, each class by itself, the results are worse "
            "than they need be: store np.log(p) - np.log1p(-p)"
        )
    return None
