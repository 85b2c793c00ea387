"""Images of a folder or a tar with train/<class>/ and test/<class>/ as one array of RGB pixels of one size.

Pixels are taken as they are stored: a rotation in the EXIF data and transparency are left out of account, but named in
the line that is printed. So is everything else that changes what a picture looks like. A grey picture has the same
value in all three channels. Transparency is dropped and no background is put behind it, since any would be made up.
"""

import io
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from core import console
from core.errors import UserError, escape
from data.image_files import ImageFile, Notes, image_files

SIDE = 32  # pixels of height and width, unless --image_size says otherwise (PROTOCOL §2)
ORIENTATION = 0x0112  # the EXIF tag; 1 is upright
PLAIN_MODES = {"1", "L", "P", "RGB"}
ALPHA_MODES = {"LA", "La", "PA", "RGBA", "RGBa"}
SIXTEEN_BIT_MODES = {"I;16", "I;16L", "I;16B", "I;16N"}

TRANSPARENT = "with transparency, which is ignored"
ROTATED = "with a rotation in EXIF, which is ignored"
SIXTEEN_BITS = "of 16 bits, of which the upper 8 are used"
FRAMES = "with several frames, of which the first is used"


class NoSplit(UserError):
    """There is no image in train/<class>/ and test/<class>/."""


def read(source: Path, side: int = SIDE) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Images (N, side, side, 3) uint8, labels (N,) int64 and the classes, ordered by split, class and file name.

    Prints a line that says how many there are, what was skipped or changed, and why.
    Raises NoSplit where there are no images, UserError where one cannot be read, or two are the same file or have the
    same place.
    """
    skipped, changed = Notes(), Notes()
    images = _read_images(source, side, skipped, changed)
    places = sorted(images)
    classes = tuple(sorted({label for _, label, _ in places}))
    console.say(_describe(source, places, classes, skipped, changed))
    number = {label: i for i, label in enumerate(classes)}
    labels = np.array([number[label] for _, label, _ in places], dtype=np.int64)
    return np.stack([images[place] for place in places]), labels, classes


def _read_images(source: Path, side: int, skipped: Notes, changed: Notes) -> dict[tuple[bool, str, str], np.ndarray]:
    """The pixels of each image by its place."""
    images = {}
    paths_by_origin: dict[str, PurePosixPath] = {}
    for file in console.progress(image_files(source, skipped), f"reading {source.name}"):
        _check_name(file.path.parent, source)
        if file.place in images:
            place = escape(PurePosixPath(*file.path.parts[-3:]))
            raise UserError(f"{escape(source)} holds two images {place}: rename or remove one, {escape(file.path)}")
        other = paths_by_origin.setdefault(file.origin, file.path)
        if other != file.path:
            paths = f"{escape(other)} and {escape(file.path)}"
            raise UserError(f"{escape(source)}: {paths} are one file: remove one of the links")
        images[file.place] = _decode(file, side, changed)
    if not images:
        reasons = f"; skipped {skipped}" if skipped.places else ""
        raise NoSplit(f"{escape(source)} holds no images train/<class>/* and test/<class>/*, nor <class>/*{reasons}")
    return images


def _check_name(class_folder: PurePosixPath, source: Path) -> None:
    """UserError where a class could not be written in tables and pages."""
    if escape(class_folder.name) != class_folder.name:
        raise UserError(
            f"{escape(source)}: the name of the class folder {escape(class_folder)} is not UTF-8 or has "
            "characters that cannot be printed: rename it"
        )


def _describe(source: Path, places: list, classes: tuple[str, ...], skipped: Notes, changed: Notes) -> str:
    """What was loaded, what was left out and what was changed, in one line."""
    test = sum(is_test for is_test, _, _ in places)
    counts = f"{len(places):,} images ({len(places) - test:,} in train, {test:,} in test) of {len(classes):,} classes"
    parts = [f"{escape(source)}: {counts}", str(changed), f"skipped {skipped}" if skipped.places else ""]
    return "; ".join(part for part in parts if part)


def _decode(file: ImageFile, side: int, changed: Notes) -> np.ndarray:
    """The pixels (side, side, 3) uint8 of one image; UserError that names the file where there are none."""
    try:
        image = Image.open(io.BytesIO(file.content))
        note_changes(image, file.path, changed)
        pixels = to_rgb(image)
        if getattr(image, "n_frames", 1) > 1:  # counting them moves to other frames
            changed.add(FRAMES, file.path)
    except Exception as error:  # Pillow's decoders raise many kinds
        reason = "of no known format" if isinstance(error, UnidentifiedImageError) else escape(str(error))
        reason = reason if file.content else "the file is empty"
        raise UserError(f"{escape(file.path)} is not an image ({reason}): remove it or replace it") from error
    if pixels.size != (side, side):
        changed.add(f"resized to {side}x{side}", file.path)
    return resize(pixels, side)


def resize(picture: Image.Image, side: int) -> np.ndarray:
    """The pixels (side, side, 3) uint8 of a picture in grey or colour. A picture of this size keeps its pixels."""
    return np.asarray(picture.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))


def resize_all(images: np.ndarray, side: int) -> np.ndarray:
    """(N, side, side, 3) uint8 of images (N, H, W) or (N, H, W, 3) uint8."""
    if images.shape[1:] == (side, side, 3):
        return images
    return np.stack([resize(Image.fromarray(image), side) for image in images])


def to_rgb(image: Image.Image) -> Image.Image:
    """The first frame in eight bits a channel, without transparency."""
    if _has_sixteen_bits(image):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("32 bits a pixel, of unknown range: convert it to 8 bits")
    image.info.pop("transparency", None)  # it changes no pixel, but Pillow would warn
    return image.convert("RGB")


def _has_sixteen_bits(image: Image.Image) -> bool:
    """Pillow reads some formats' 16-bit grey as mode I, which holds 32."""
    return image.mode in SIXTEEN_BIT_MODES or (image.mode == "I" and image.format in ("PNG", "PPM"))


def note_changes(image: Image.Image, path: PurePosixPath, changed: Notes) -> None:
    """Note what `to_rgb` leaves out or converts."""
    if _has_sixteen_bits(image):
        changed.add(SIXTEEN_BITS, path)
    elif image.mode not in PLAIN_MODES | ALPHA_MODES:
        changed.add(f"converted from {image.mode}", path)
    elif _is_transparent(image):
        changed.add(TRANSPARENT, path)
    if _orientation(image) != 1:
        changed.add(ROTATED, path)


def _is_transparent(image: Image.Image) -> bool:
    """Whether any pixel is not fully opaque."""
    if image.mode not in ALPHA_MODES and "transparency" not in image.info:
        return False
    return image.convert("RGBA").getchannel("A").getextrema()[0] < 255


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF data rotates nothing
        return 1
