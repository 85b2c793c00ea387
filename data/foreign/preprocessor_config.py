"""Hugging Face's `preprocessor_config.json` as a `Preprocessing`.

Which processors it may be of, and what they do where a setting is left out, is that of transformers' image processors
(https://huggingface.co/docs/transformers/main_classes/image_processor).
"""

from typing import NamedTuple

from core.errors import UserError
from data.foreign.preprocessing import RESAMPLING, Preprocessing, check

NAMES = {int(filter_): name for name, filter_ in RESAMPLING.items()}  # Pillow's numbers of its filters
LARGEST_CROPPED = 384  # pixels; from here on ConvNeXT resizes to the whole size
CONVNEXT_SHARE = 224 / 256


class Processor(NamedTuple):
    """What a kind of processor does where its file does not say it."""

    square: bool  # a size that is one number is height and width, not the shortest edge
    crop: bool
    resample: str
    shares: bool = False  # ConvNeXT: `size` is what is cut out, `crop_pct` its share of the resized image


PROCESSORS = {
    "ViT": Processor(square=True, crop=False, resample="bilinear"),
    "DeiT": Processor(square=True, crop=True, resample="bicubic"),
    "Beit": Processor(square=True, crop=False, resample="bicubic"),
    "CLIP": Processor(square=False, crop=True, resample="bicubic"),
    "Bit": Processor(square=False, crop=True, resample="bicubic"),
    "MobileNetV1": Processor(square=False, crop=True, resample="bilinear"),
    "MobileNetV2": Processor(square=False, crop=True, resample="bilinear"),
    "ConvNext": Processor(square=False, crop=False, resample="bicubic", shares=True),
}
SUFFIXES = ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor")
TYPES = {f"{name}{suffix}": processor for name, processor in PROCESSORS.items() for suffix in SUFFIXES}
SETTINGS = {
    *("do_resize", "size", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize"),
    *("image_mean", "image_std", "resample", "crop_pct", "default_to_square", "image_processor_type"),
    "feature_extractor_type",
}
WITHOUT_EFFECT = {  # on the one classification of an image, which is RGB and comes as an array
    *("processor_class", "do_convert_rgb", "data_format", "input_data_format", "return_tensors", "device"),
    *("_valid_processor_keys", "disable_grouping", "do_reduce_labels", "reduce_labels"),
}


def preprocessing_from_config(config: dict) -> Preprocessing:
    """What the image processor of this configuration does; its layout is left to `fit_to_model`.

    Raises UserError that names a setting that is not understood, or one that is missing and has no usual value.
    """
    unknown = [name for name in sorted(set(config) - SETTINGS - WITHOUT_EFFECT) if config[name] not in (None, False)]
    if unknown:
        raise _refusal(unknown[0], config[unknown[0]])
    processor = _processor(config)
    how = Preprocessing(channels="RGB", crop_offset="down")
    how = _set_sizes(how, config, processor)
    how = _set_values(how, config)
    check(how)
    return how


def _refusal(name: str, value) -> UserError:
    return UserError(
        f"preprocessor_config.json: {name} = {value!r} is not understood: state the preprocessing in the task file"
    )


def _processor(config: dict) -> Processor:
    name = config.get("image_processor_type") or config.get("feature_extractor_type") or "ViTImageProcessor"
    if name not in TYPES:
        raise _refusal("image_processor_type", name)
    return TYPES[name]


# Sizes


def _set_sizes(how: Preprocessing, config: dict, processor: Processor) -> Preprocessing:
    resizes = config.get("do_resize", True)
    crops = config.get("do_center_crop", processor.crop)
    if crops and not resizes:
        raise _refusal("do_center_crop without do_resize", crops)
    if not resizes:
        return how
    resample = config.get("resample")
    if resample is not None and resample not in NAMES:
        raise _refusal("resample", resample)
    how = how._replace(resample=processor.resample if resample is None else NAMES[resample])
    edges = _edges(config.get("size"), "size", processor.square and config.get("default_to_square", True))
    if processor.shares:
        return how._replace(**_share(edges, config))
    if not crops:
        return how._replace(size=edges) if isinstance(edges, tuple) else how._replace(resize=edges)
    size = _edges(config.get("crop_size"), "crop_size", square=True)
    return how._replace(resize=edges, size=size)


def _share(edges: int | tuple[int, int], config: dict) -> dict:
    """ConvNeXT's way: small images are cut out of a larger one, large ones are resized straight."""
    if not isinstance(edges, int) or config.get("do_center_crop"):
        raise _refusal("size", config.get("size"))
    if edges >= LARGEST_CROPPED:
        return {"size": (edges, edges)}
    share = config.get("crop_pct") or CONVNEXT_SHARE
    return {"resize": int(edges / share), "size": (edges, edges)}


def _edges(value, name: str, square: bool) -> int | tuple[int, int]:
    """(height, width), or the shortest edge alone."""
    if _is_edge(value):
        return (value, value) if square else value
    if isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_edge, value)):
        return tuple(value)
    if isinstance(value, dict):
        given = {key: edge for key, edge in value.items() if edge is not None}
        if set(given) == {"height", "width"} and all(map(_is_edge, given.values())):
            return given["height"], given["width"]
        if set(given) == {"shortest_edge"} and _is_edge(given["shortest_edge"]) and name == "size":
            return given["shortest_edge"]
    raise _refusal(name, value)


def _is_edge(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


# Values


def _set_values(how: Preprocessing, config: dict) -> Preprocessing:
    factor = config.get("rescale_factor") or 1 / 255
    largest = _round(255 * factor) if config.get("do_rescale", True) else 255.0
    how = how._replace(range=(0.0, largest))
    if not config.get("do_normalize", True):
        return how._replace(mean=(0.0,), std=(1.0,))
    return how._replace(mean=_statistics(config, "image_mean"), std=_statistics(config, "image_std"))


def _round(value: float) -> float:
    """Without the last digits: configurations write 1/255 as 0.00392156862745098, or shorter."""
    return float(f"{value:.6g}")


def _statistics(config: dict, name: str) -> tuple[float, ...]:
    values = config.get(name)
    values = [values] if isinstance(values, int | float) else values
    if not isinstance(values, list | tuple) or not all(isinstance(value, int | float) for value in values):
        raise _refusal(name, values)
    return tuple(map(float, values))
