"""Whether a model and its data fit together: classes in the same order, and answers that are better than chance.

A wrong mean, channels in another order or classes in another order make every answer a guess, and an audit of guesses
reads as "no leak". So the audit looks at the accuracy first, and asks.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from compleak.tasks.points import AuditPoints
from core.console import say
from core.errors import UserError

MARGIN = 0.1  # of the way from chance to 1: accuracies below that are near chance
SHOWN_CLASSES = 4  # that a message lists


def with_classes_of_model(
    points: AuditPoints, outputs: int, model: str, class_names: Sequence[str] | None, stated: bool
) -> AuditPoints:
    """The points with labels that are numbers of the model's outputs.

    stated: whether the user named the classes in the model's order. UserError where the order is not known.
    """
    if not stated:
        order = order_of_classes(points.classes, outputs, class_names)
        if order is None:
            raise UserError(
                f"the data have {len(points.classes)} classes ({shown(points.classes)}), {model} answers {outputs} "
                "values: name all classes in the order of its outputs, with classes: in a task file or --classes"
            )
        names = {number: name for name, number in zip(points.classes, order, strict=True)}
        numbered = tuple(names.get(number, str(number)) for number in range(outputs))
        points = points._replace(labels=np.asarray(order)[points.labels], classes=numbered)
    if points.labels.max() >= outputs:
        raise UserError(f"{len(points.classes)} classes are named, but {model} answers {outputs} values")
    return points


def order_of_classes(classes: Sequence[str], outputs: int, class_names: Sequence[str] | None) -> list[int] | None:
    """For each class of the data the number of the model's output; None where it is not known."""
    if class_names and set(classes) <= set(class_names):
        return [list(class_names).index(name) for name in classes]
    numbers = [int(name) if name.isdecimal() else outputs for name in classes]
    if max(numbers) < outputs:
        return numbers
    return list(range(outputs)) if len(classes) == outputs else None


def shown(classes: Sequence[str]) -> str:
    more = f" and {len(classes) - SHOWN_CLASSES} more" if len(classes) > SHOWN_CLASSES else ""
    return ", ".join(classes[:SHOWN_CLASSES]) + more


def check_accuracy(
    model: str, logits: np.ndarray, labels: np.ndarray, member: np.ndarray, classes: Sequence[str], accept: bool
) -> None:
    """Print the accuracy on members and non-members, (n,) each. UserError where both are near chance.

    accept: go on all the same.
    """
    right = logits.argmax(axis=1) == labels
    accuracies = right[member].mean(), right[~member].mean()
    say(f"{model}: {accuracies[0]:.1%} right on members, {accuracies[1]:.1%} on non-members")
    chance = max(1 / logits.shape[1], np.bincount(labels).max() / len(labels))
    if max(accuracies) >= chance + MARGIN * (1 - chance) or accept:
        return
    raise UserError(
        f"{model} is right on {accuracies[0]:.1%} of the members and {accuracies[1]:.1%} of the non-members, and a "
        f"guess on {chance:.1%}. {_likely_cause(logits, labels, classes)} If the model really is that bad, "
        "--accept_low_accuracy goes on"
    )


def _likely_cause(logits: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> str:
    """A permutation of the classes under which the model would be right, or what else to look at."""
    count = logits.shape[1]
    confusion = np.zeros((count, count), dtype=np.int64)
    np.add.at(confusion, (labels, logits.argmax(axis=1)), 1)
    rows, columns = linear_sum_assignment(-confusion)
    accuracy = confusion[rows, columns].sum() / len(labels)
    if accuracy > max(0.5, 3 / count):
        moved = [f"{classes[r]} is output {c}" for r, c in zip(rows, columns, strict=True) if r != c]
        return (
            f"With its outputs in another order it would be right on {accuracy:.1%} "
            f"({'; '.join(moved[:SHOWN_CLASSES])}): are the classes in the order of its outputs (--classes)?"
        )
    return "Is the preprocessing right (mean, std, range, layout, channels, size), and is it the right output?"
