"""From raw records to the inputs of a user's network: the one path, for members and non-members alike.

A field of `Preprocessing` that is None was not stated by the user. `fit_to_model` fills such fields in from the model's
input shape, and `preprocess` takes the usual value for those that are left.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from core.errors import UserError

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
WORDS = {  # what these settings may say
    "layout": ("NCHW", "NHWC", "NHW"),
    "channels": ("RGB", "BGR", "grey"),
    "resample": tuple(RESAMPLING),
    "crop_offset": ("even", "down"),
}


class Preprocessing(NamedTuple):
    """What is done to a raw record before the network sees it. None: not stated, the usual value stands behind it."""

    size: tuple[int, int] | None = None  # (height, width) that the network takes; usual: as stored, all images alike
    # The shortest edge, or (height, width), before a central crop to `size`, as torchvision's evaluation transforms do
    # it; usual: no crop, images are resized straight to `size`.
    resize: int | tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None  # of each channel in the network's order, or one for all; usual: 0
    std: tuple[float, ...] | None = None  # as `mean`; usual: 1
    range: tuple[float, float] | None = None  # what 0 and 255 become before mean and std; usual: (0, 1)
    layout: str | None = None  # "NCHW" (usual), "NHWC", or "NHW" for grey images without an axis of channels
    channels: str | None = None  # "RGB" (usual), "BGR" or "grey"
    resample: str | None = None  # a name in RESAMPLING; usual: bilinear
    flatten: bool | None = None  # an image becomes one row, in the order of its layout; usual: no
    # Which way the crop leans where an odd number of rows or columns falls away: to an "even" offset (usual, as
    # torchvision) or "down" (as transformers).
    crop_offset: str | None = None


USUAL = Preprocessing(
    mean=(0.0,),
    std=(1.0,),
    range=(0.0, 1.0),
    layout="NCHW",
    channels="RGB",
    resample="bilinear",
    flatten=False,
    crop_offset="even",
)


def with_usual_values(how: Preprocessing) -> Preprocessing:
    """`how` with the usual value for every field that is not stated; `size` and `resize` may stay None."""
    return Preprocessing(*(usual if value is None else value for value, usual in zip(how, USUAL, strict=True)))


def stated(how: Preprocessing) -> dict[str, object]:
    """The fields that the user stated."""
    return {name: value for name, value in how._asdict().items() if value is not None}


# Checks


def check(how: Preprocessing) -> None:
    """UserError in one line where a stated setting is not usable by itself."""
    for name, allowed in WORDS.items():
        value = getattr(how, name)
        if value is not None and value not in allowed:
            raise UserError(f"preprocessing: {name} {value!r} is none of {', '.join(allowed)}")
    _check_sizes(how)
    _check_statistics(how)
    if how.range is not None and not _is_range(how.range):
        raise UserError(f"preprocessing: range {how.range!r} is not what 0 and 255 become, such as (0, 1)")
    if how.channels is not None:
        _check_channels(how)


def _check_sizes(how: Preprocessing) -> None:
    if how.size is not None and not _is_size(how.size):
        raise UserError(f"preprocessing: size {how.size!r} is not (height, width) in pixels")
    if how.resize is not None and not (_is_edge(how.resize) or _is_size(how.resize)):
        raise UserError(f"preprocessing: resize {how.resize!r} is neither an edge in pixels nor (height, width)")
    if how.size and how.resize and not _leaves_enough(how.resize, how.size):
        raise UserError(f"preprocessing: resize {how.resize} is smaller than size {how.size}, which is cut out of it")


def _leaves_enough(resize: int | tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether some image can be resized so that `size` can be cut out of it."""
    if isinstance(resize, int):
        return resize >= min(size)
    return resize[0] >= size[0] and resize[1] >= size[1]


def _is_range(value) -> bool:
    return isinstance(value, tuple | list) and len(set(value)) == len(value) == 2 and all(map(_is_number, value))


def _check_statistics(how: Preprocessing) -> None:
    for name in ("mean", "std"):
        values = getattr(how, name)
        if values is not None and not (isinstance(values, tuple | list) and all(map(_is_number, values)) and values):
            raise UserError(f"preprocessing: {name} {values!r} is no list of numbers, such as [0.5, 0.5, 0.5]")
    if how.std is not None and min(how.std) <= 0:
        raise UserError(f"preprocessing: std {how.std!r} must be larger than 0")


def _is_number(value) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _check_channels(how: Preprocessing) -> None:
    """UserError where other settings do not go with the stated channels."""
    count = 1 if how.channels == "grey" else 3
    for name in ("mean", "std"):
        values = getattr(how, name)
        if values is not None and len(values) not in (1, count):
            raise UserError(f"preprocessing: {name} has {len(values)} values, {how.channels} has {count} channel(s)")
    if how.layout == "NHW" and how.channels != "grey":
        raise UserError(f"preprocessing: layout NHW is for channels grey, not {how.channels}")


def _is_edge(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_size(value) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(_is_edge(edge) for edge in value)


# What the model's input shape says


def fit_to_model(how: Preprocessing, input_shape: tuple[int | None, ...] | None, kind: str) -> Preprocessing:
    """What is done to these data so that the model can take them.

    For images this is `how` with every field but `size` and `resize` filled in, from the model's input shape where it
    tells. For other kinds it is `how` itself, which may state no more than mean and std of features.

    input_shape: without the axis of the batch; None for an unknown length, or for a shape that is not known at all.
    Images: (3, H, W) means NCHW, (H, W, 3) NHWC, one channel grey, (H, W) grey without an axis of channels, and (D,)
    flattened images, which must be square where no size is stated.

    Raises UserError where a stated setting contradicts the model, or there are no such settings for this kind.
    """
    if kind != "images":
        return _fit_others(how, input_shape, kind)
    check(how)
    if input_shape is not None:
        how = _fit_images(how, tuple(input_shape))
    how = with_usual_values(how)
    check(how)
    return how


def _fit_others(how: Preprocessing, input_shape: tuple | None, kind: str) -> Preprocessing:
    allowed = {"features": {"mean", "std", "layout"}}.get(kind, {"layout"})
    if wrong := sorted(set(stated(how)) - allowed):
        raise UserError(f"preprocessing: {', '.join(wrong)} changes images, but the data are {kind}: leave it out")
    _check_statistics(how)
    if kind == "features" and input_shape is not None and len(input_shape) != 1:
        raise UserError(f"the data are rows of features, the model takes {_show(input_shape)}: give the fitting data")
    return how


def _fit_images(how: Preprocessing, shape: tuple[int | None, ...]) -> Preprocessing:
    fit = {1: _fit_row, 2: _fit_plane, 3: _fit_volume}.get(len(shape))
    if fit is None:
        raise UserError(f"the data are images, the model takes {_show(shape)}: give the fitting data")
    return fit(how, shape)


def _fit_volume(how: Preprocessing, shape: tuple[int | None, ...]) -> Preprocessing:
    """(C, H, W) or (H, W, C)."""
    places = {"NCHW": 0, "NHWC": 2}
    fitting = [layout for layout, place in places.items() if shape[place] in (1, 3)]
    if how.layout is not None:
        fitting = [layout for layout in (fitting or places) if layout == how.layout]
    elif len(fitting) == 2:
        raise UserError(f"preprocessing: the model takes {_show(shape)}, say which layout this is, NCHW or NHWC")
    elif shape.count(None) == 3:
        return how
    if not fitting:
        layout = f" in layout {how.layout}" if how.layout else ""
        raise UserError(f"preprocessing: the model takes {_show(shape)}, which is no image of 1 or 3 channels{layout}")
    _refuse("flatten", how.flatten, False, shape)
    place = places[fitting[0]]
    how = _fit_channels(how._replace(layout=fitting[0], flatten=False), shape[place], shape)
    return _fit_size(how, tuple(length for axis, length in enumerate(shape) if axis != place), shape)


def _fit_plane(how: Preprocessing, shape: tuple[int | None, ...]) -> Preprocessing:
    """(H, W)."""
    _refuse("layout", how.layout, "NHW", shape)
    _refuse("flatten", how.flatten, False, shape)
    how = _fit_channels(how._replace(layout="NHW", flatten=False), 1, shape)
    return _fit_size(how, shape, shape)


def _fit_row(how: Preprocessing, shape: tuple[int | None, ...]) -> Preprocessing:
    """(D,)."""
    _refuse("flatten", how.flatten, True, shape)
    how = how._replace(flatten=True)
    if shape[0] is None:
        return how
    known = {"grey": (1,), "RGB": (3,), "BGR": (3,), None: (1, 3)}[how.channels]
    sizes = {count: how.size or _square(shape[0], count) for count in known}
    fitting = [count for count, size in sizes.items() if size and count * math.prod(size) == shape[0]]
    if len(fitting) != 1:
        raise UserError(
            f"preprocessing: the model takes rows of {shape[0]:,} values, which are no pixels of images of "
            f"{'size ' + _show(how.size) if how.size else 'a square size'} in {how.channels or 'RGB or grey'}: state "
            "size and channels"
        )
    return _fit_channels(how._replace(size=sizes[fitting[0]]), fitting[0], shape)


def _square(count: int, channels: int) -> tuple[int, int] | None:
    """(height, width) of a square image of so many values, None where there is none."""
    side = math.isqrt(count // channels)
    return (side, side) if side * side * channels == count else None


def _fit_channels(how: Preprocessing, count: int | None, shape: tuple) -> Preprocessing:
    if count is None:
        return how
    if how.channels is not None and (how.channels == "grey") != (count == 1):
        raise UserError(f"preprocessing: channels is {how.channels}, but the model takes {_show(shape)}")
    return how._replace(channels=how.channels or ("grey" if count == 1 else "RGB"))


def _fit_size(how: Preprocessing, size: tuple[int | None, ...], shape: tuple) -> Preprocessing:
    if how.size is not None and any(edge not in (None, wanted) for edge, wanted in zip(size, how.size, strict=True)):
        raise UserError(f"preprocessing: size is {_show(how.size)}, but the model takes {_show(shape)}")
    return how if how.size or None in size else how._replace(size=size)


def _refuse(name: str, value, needed, shape: tuple) -> None:
    """UserError where a stated value is not what the model needs."""
    if value is not None and value != needed:
        raise UserError(f"preprocessing: {name} is {value}, but the model takes {_show(shape)}")


def _show(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("any" if length is None else str(length) for length in shape) + ")"


# Preprocessing itself


def preprocess(raw: list, kind: str, how: Preprocessing) -> np.ndarray:
    """The network's inputs (B, ...) of raw records from `Points.load`.

    Images: float32, scaled, cropped, ordered and normalised as `how` says; grey is taken before resizing. Features:
    float32, with mean and std where these are stated. Arrays: stacked, in the type that they have. Text: (B,) of str,
    for a tokenizer.

    Raises UserError where records do not have one shape.
    """
    how = with_usual_values(how)
    if kind == "text":
        return np.array(raw, dtype=object)
    if kind == "arrays":
        return _stack(raw)
    if kind == "features":
        return _normalise(_stack(raw).astype(np.float32), how)
    _check_channels(how)
    pixels = _stack([_to_pixels(image, how) for image in raw])  # (B, H, W, C) uint8
    low, high = how.range
    values = pixels.astype(np.float32)
    values *= np.float32(high - low)  # before the division: 255 then stays 255, and 0 to 1 is torchvision's own
    values /= np.float32(255)
    values += np.float32(low)
    values = _arrange(_normalise(values, how), how.layout)
    return values.reshape(len(values), -1) if how.flatten else values


def _stack(arrays: list[np.ndarray]) -> np.ndarray:
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        first, second = sorted(shapes)[:2]
        raise UserError(
            f"records have several shapes, such as {first} and {second}: state the size that the network takes, or "
            "give all records one shape"
        )
    return np.stack(arrays)


def _to_pixels(image: np.ndarray, how: Preprocessing) -> np.ndarray:
    """(H, W, C) uint8 of the size and in the channels that the network takes."""
    picture = Image.fromarray(np.ascontiguousarray(image)).convert("L" if how.channels == "grey" else "RGB")
    resample = RESAMPLING[how.resample]
    if how.resize is not None:
        picture = _resize(picture, _size_before_crop(picture, how.resize), resample)
        picture = _crop(picture, how.size, how.crop_offset) if how.size else picture
    elif how.size is not None:
        picture = _resize(picture, how.size, resample)
    pixels = np.asarray(picture)
    if how.channels == "grey":
        return pixels[..., None]
    return pixels[..., ::-1] if how.channels == "BGR" else pixels


def _resize(picture: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    height, width = size
    return picture.resize((width, height), resample)


def _size_before_crop(picture: Image.Image, resize: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width); the longer edge is rounded down, as torchvision does."""
    if not isinstance(resize, int):
        return tuple(resize)
    width, height = picture.size
    longer = int(resize * max(width, height) / min(width, height))
    if resize * longer > Image.MAX_IMAGE_PIXELS:
        raise UserError(f"an image of {width} x {height} pixels would become {resize} x {longer}: remove it")
    return (resize, longer) if height <= width else (longer, resize)


def _crop(picture: Image.Image, size: tuple[int, int], crop_offset: str) -> Image.Image:
    halve: Callable[[int], int] = (lambda rest: round(rest / 2)) if crop_offset == "even" else (lambda rest: rest // 2)
    top = halve(picture.height - size[0])
    left = halve(picture.width - size[1])
    return picture.crop((left, top, left + size[1], top + size[0]))


def _normalise(values: np.ndarray, how: Preprocessing) -> np.ndarray:
    """(values - mean) / std in place; the last axis is that of channels or features."""
    count = values.shape[-1]
    for name in ("mean", "std"):
        if len(getattr(how, name)) not in (1, count):
            raise UserError(f"preprocessing: {name} has {len(getattr(how, name))} values, records have {count}")
    values -= np.float32(how.mean)
    values /= np.float32(how.std)
    return values


def _arrange(values: np.ndarray, layout: str) -> np.ndarray:
    """(B, H, W, C) in the order that the network takes."""
    if layout == "NHW":
        return values[..., 0]
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2)) if layout == "NCHW" else values
