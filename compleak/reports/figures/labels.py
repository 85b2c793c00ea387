"""Names beside points, placed so that they cover neither each other nor what is drawn."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from compleak.reports.figures.style import GREY, SMALL

DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
DISTANCES = (7, 13, 20, 28, 38, 50, 64)  # points, tried in this order
PLACES = list(itertools.product(DISTANCES, DIRECTIONS))
ALIGNMENT = {1: ("left", "bottom"), -1: ("right", "top"), 0: ("center", "center")}  # of a text by its side of the point
POINT, LINE = 4, 1  # half the width of what a point, a place on a line, covers, in points
PADDING = 2  # points of room around a text
UNREADABLE = 10  # to cover another label or to be cut off is so much worse than to cover a line or a point
STEPS = np.linspace(0, 1, 60)  # places on a piece of a line


class Label(NamedTuple):
    x: float
    y: float
    text: str
    colour: str


def label_points(figure, axes, labels: Sequence[Label]) -> None:
    """Write each label beside its point, in the first place that is free, or else in the one that covers least.

    To be called when everything else is drawn, other texts too: places are found in pixels of the finished layout.
    """
    figure.draw_without_rendering()
    scale = figure.dpi / 72  # pixels a point
    points = np.array([axes.transData.transform((label.x, label.y)) for label in labels])
    drawn = np.concatenate([_boxes(points, POINT * scale), _boxes(_places_on_lines(axes), LINE * scale)])
    written = np.array([text.get_window_extent().extents for text in axes.texts]).reshape(-1, 4)
    inside = axes.get_window_extent().extents
    for label, point in zip(labels, points, strict=True):
        boxes = [_extent(axes, label, place, scale) for place in PLACES]
        leaders = [_leader(point, box, place, scale) for box, place in zip(boxes, PLACES, strict=True)]
        costs = [
            _cost(box, drawn, written, inside) + UNREADABLE * _overlaps(leader, written)
            for box, leader in zip(boxes, leaders, strict=True)
        ]
        best = int(np.argmin(costs))
        _write(axes, label, PLACES[best], _has_leader(PLACES[best]))
        written = np.vstack([written, boxes[best], leaders[best]])


def _has_leader(place: tuple) -> bool:
    """Whether a label in this place is so far from its point that a line joins them."""
    return place[0] > DISTANCES[0]


def _leader(point: np.ndarray, box: np.ndarray, place: tuple, scale: float) -> np.ndarray:
    """(n, 4): squares along the line from a point to the middle of its label's box (4,), where there is a line."""
    if not _has_leader(place):
        return np.empty((0, 4))
    middle = (box[:2] + box[2:]) / 2
    return _boxes(_between(np.array([point, middle])), LINE * scale)


def _extent(axes, label: Label, place: tuple, scale: float) -> np.ndarray:
    """(4,) left, bottom, right and top of the label in this place."""
    text = _write(axes, label, place, has_leader=False)
    extent = text.get_window_extent().padded(PADDING * scale).extents
    text.remove()
    return extent


def _write(axes, label: Label, place: tuple, has_leader: bool):
    distance, (right, up) = place
    leader = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
    text = axes.annotate(
        label.text,
        (label.x, label.y),
        xytext=(distance * right, distance * up),
        textcoords="offset points",
        ha=ALIGNMENT[right][0],
        va=ALIGNMENT[up][1],
        color=label.colour,
        fontsize=SMALL,
        arrowprops=leader if has_leader else None,
    )
    text.set_in_layout(False)
    return text


def _places_on_lines(axes) -> np.ndarray:
    """(n, 2) pixels: places along every line and bar that is drawn."""
    pieces = [line.get_transform().transform(line.get_xydata()) for line in axes.lines]
    for bars in axes.collections:
        pieces += [bars.get_transform().transform(path.vertices) for path in bars.get_paths()]
    return np.concatenate([_between(corners) for corners in pieces])


def _between(corners: np.ndarray) -> np.ndarray:
    starts = corners[:-1, None]
    ends = corners[1:, None]
    return (starts + STEPS[:, None] * (ends - starts)).reshape(-1, 2)


def _boxes(places: np.ndarray, half: float) -> np.ndarray:
    """(n, 4): left, bottom, right and top of squares around these places."""
    return np.hstack([places - half, places + half])


def _cost(box: np.ndarray, drawn: np.ndarray, written: np.ndarray, inside: np.ndarray) -> float:
    """The area of what is drawn that a label would cover; other labels, and what would leave the axes, weigh more."""
    outside = _overlap(box, box[None]).sum() - _overlap(box, inside[None]).sum()
    return float(_overlap(box, drawn).sum() + UNREADABLE * (_overlap(box, written).sum() + outside))


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> float:
    """The area that all boxes (n, 4) together share with others (m, 4)."""
    return float(sum(_overlap(box, others).sum() for box in boxes))


def _overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) areas that a box (4,) shares with others (n, 4)."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:], others[:, 2:])
    return np.clip(high - low, 0, None).prod(axis=1)
