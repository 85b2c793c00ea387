"""Whether a model and its data fit together: classes in the same order, and answers that are better than chance.

A wrong mean, channels in another order or classes in another order make every answer a guess, and an audit of guesses
reads as "no leak". So the audit looks at the accuracy first, and asks.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import chi2_contingency, fisher_exact

from compleak.tasks.points import AuditPoints
from core.console import say
from core.errors import UserError

MARGIN = 0.1  # of the way from chance to 1, below which an accuracy is near chance; a difference worth a word
RARE = 1e-3  # a p-value below which a difference is no chance
SHOWN_CLASSES = 4  # that a message lists


def with_classes_of_model(
    points: AuditPoints, outputs: int, model: str, class_names: Sequence[str] | None, stated: bool
) -> AuditPoints:
    """The points with labels that are numbers of the model's outputs.

    stated: whether the user named the classes in the model's order. UserError where the order is not known.
    """
    if stated:
        check_stated_classes(points.classes, outputs, model)
    else:
        order = order_of_classes(points.classes, outputs, class_names)
        if order is None:
            starts_at_one = points.labels.min() == 1 and len(points.classes) == outputs + 1
            hint = f" (labels start at 1 here: --classes 1 2 ... {outputs})" if starts_at_one else ""
            raise UserError(
                f"the data have {len(points.classes)} classes ({shown(points.classes)}), {model} answers {outputs} "
                f"values: name all classes in the order of its outputs, with classes: in a task file or --classes{hint}"
            )
        names = {number: name for name, number in zip(points.classes, order, strict=True)}
        numbered = tuple(names.get(number, str(number)) for number in range(outputs))
        points = points._replace(labels=np.asarray(order)[points.labels], classes=numbered)
    if points.labels.max() >= outputs:
        raise UserError(f"{model} names {len(class_names)} classes, but answers {outputs} values")
    return points


def check_stated_classes(classes: Sequence[str], outputs: int, model: str) -> None:
    """UserError unless the user has named as many classes as the model has outputs."""
    if len(classes) != outputs:
        raise UserError(
            f"{len(classes)} classes are named, but {model} answers {outputs} values: name one for each value, in order"
        )


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
    if accept:
        return
    if _surely_better_on_others(right, member):
        raise UserError(
            f"{model} is right more often on non-members ({accuracies[1]:.1%}) than on members ({accuracies[0]:.1%}): "
            "are the two exchanged? If not, --accept_low_accuracy goes on"
        )
    chance = max(1 / logits.shape[1], np.bincount(labels).max() / len(labels))
    is_near_chance = max(accuracies) < chance + MARGIN * (1 - chance)
    other_order = _better_order(logits, labels, classes)
    if not is_near_chance and not other_order:
        return
    cause = other_order or "Is the preprocessing right (mean, std, range, layout, channels, size), and the output?"
    raise UserError(
        f"{model} is right on {accuracies[0]:.1%} of the members and {accuracies[1]:.1%} of the non-members, and a "
        f"guess on {chance:.1%}. {cause} If all is as it should be, --accept_low_accuracy goes on"
    )


def _surely_better_on_others(right: np.ndarray, member: np.ndarray) -> bool:
    """Whether a model is right more often on non-members, by more than chance makes it."""
    counts = [[right[kind].sum(), (~right[kind]).sum()] for kind in (~member, member)]
    return fisher_exact(counts, alternative="greater").pvalue < RARE


def _better_order(logits: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> str:
    """A question about an order of the classes under which the model would be right much more often; "" if none."""
    count = logits.shape[1]
    confusion = np.zeros((count, count), dtype=np.int64)
    np.add.at(confusion, (labels, logits.argmax(axis=1)), 1)
    rows, columns = linear_sum_assignment(-confusion)
    accuracy = confusion[rows, columns].sum() / len(labels)
    # The best of all orders is better by chance, the more so with few points of a class.
    by_chance = np.sqrt(count / len(labels))
    if accuracy <= np.trace(confusion) / len(labels) + MARGIN + by_chance:
        return ""
    moved = [f"{classes[r]} is output {c}" for r, c in zip(rows, columns, strict=True) if r != c]
    return (
        f"With its outputs in another order it would be right on {accuracy:.1%} "
        f"({'; '.join(moved[:SHOWN_CLASSES])}): are the classes in the order of its outputs (--classes)?"
    )


def note_on_classes(labels: np.ndarray, member: np.ndarray) -> list[str]:
    """A sentence where members and others differ in how often the classes occur: labels alone then tell them apart."""
    counts = np.stack([np.bincount(labels[kind], minlength=labels.max() + 1) for kind in (member, ~member)])
    counts = counts[:, counts.sum(axis=0) > 0]
    if counts.shape[1] < 2 or chi2_contingency(counts).pvalue >= RARE:
        return []
    return [
        "Members and non-members differ in how often the classes occur, so that a label alone says something about "
        "membership. Audit as many of each class on both sides."
    ]


def note_on_shadows(gaps: Sequence[float]) -> list[str]:
    """A sentence where shadow models do not resemble the audited model. gaps: of accuracy, its own first."""
    audited, *shadows = gaps
    if not shadows or abs(np.mean(shadows) - audited) <= MARGIN:
        return []
    return [
        f"The audited model is right more often on its members than on others by {audited:.1%}, the shadow models by "
        f"{np.mean(shadows):.1%} on average. Attacks that learn from such shadow models may miss what the audited "
        "model gives away. Train them longer or like it, or audit with --attacker known_half as well."
    ]
