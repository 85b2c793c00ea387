"""Anybody's data: every source, what is refused of it, and preprocessing against torchvision's and transformers'."""

import gzip
import io
import json
import lzma
import string
import struct
import sys
import tarfile
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import torch
from conftest import ROOT
from numpy.lib import format as npy
from PIL import Image

from core.errors import UserError
from data.foreign import (
    Preprocessing,
    content_digests,
    fit_to_model,
    limits,
    preprocess,
    preprocessing_from_config,
    read_list,
    read_pair,
    read_points,
    summarise,
)

REAL = ROOT.parent / "shared" / "data"


def real(name):
    file = REAL / name
    if not file.exists():
        pytest.skip(f"real data are not here: {file}")
    return file


def picture(seed=0, size=(20, 30), mode="RGB", format="png"):
    """The bytes of an image of random pixels, (height, width)."""
    content = io.BytesIO()
    Image.fromarray(pixels(seed, size)).convert(mode).save(content, format)
    return content.getvalue()


def pixels(seed, size):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def folder_of(tmp_path, name="train", classes=("cat", "dog"), each=2, first=0):
    files = {
        f"{label}/{i}.png": picture(first + 100 * c + i) for c, label in enumerate(classes) for i in range(first, each)
    }
    return write(tmp_path / name, files)


def save(file, **arrays):
    np.savez(file, **arrays)
    return file


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def refused(source, says, **options):
    with pytest.raises(UserError, match=says) as error:
        read_points(source, **options)
    one_line(error)


def load_all(points):
    return points.load(np.arange(len(points.labels)))


# Folders and archives of images


def test_images_of_any_format_and_size_are_read_by_class_in_colour(tmp_path, capsys):
    source = write(
        tmp_path / "train",
        {
            "cat/a.png": picture(1),
            "cat/deeper/b.JPEG": picture(2, (8, 9), format="jpeg"),
            "dog/c.bmp": picture(3, (5, 5), format="bmp"),
            "dog/no_ending": picture(4, (6, 6), "L"),
            "dog/.DS_Store": b"x",
            "Thumbs.db": b"x",
            "readme.md": b"x",
            "dog/boxes.txt": b"1 2 3",
        },
    )
    points = read_points(source)
    assert points.kind == "images" and points.classes == ("cat", "dog") and points.labels.tolist() == [0, 0, 1, 1]
    assert points.names == ("cat/a.png", "cat/deeper/b.JPEG", "dog/c.bmp", "dog/no_ending")
    images = points.load(np.array([3, 0, 2]))
    assert [image.shape for image in images] == [(6, 6, 3), (20, 30, 3), (5, 5, 3)]
    assert np.array_equal(images[1], pixels(1, (20, 30))) and images[1].dtype == np.uint8
    line = capsys.readouterr().out
    assert line.startswith(f"{source}: 4 images of 2 classes; skipped 2 hidden or of the system (Thumbs.db, ...)")
    assert "1 outside the class folders (readme.md)" in line and "1 of another kind than images (dog/boxes.txt)" in line


def test_where_a_folder_lies_does_not_change_its_fingerprint_but_every_byte_name_and_label_does(tmp_path):
    fingerprint = read_points(folder_of(tmp_path, "a")).fingerprint
    assert read_points(folder_of(tmp_path, "b")).fingerprint == fingerprint
    others = [folder_of(tmp_path, name) for name in ("byte", "name", "label")]
    (others[0] / "cat/0.png").write_bytes(picture(9))
    (others[1] / "cat/0.png").rename(others[1] / "cat/00.png")
    (others[2] / "cat").rename(others[2] / "cow")
    assert len({fingerprint, *(read_points(other).fingerprint for other in others)}) == 4


def test_class_folders_are_numbered_in_sorted_order_numbers_as_numbers_or_as_the_user_says(tmp_path, capsys):
    source = folder_of(tmp_path, classes=("10", "9", "2"), each=1)
    assert read_points(source).classes == ("2", "9", "10")
    assert "torchvision's ImageFolder has 10 before 2" in capsys.readouterr().out
    points = read_points(source, classes=["10", "2", "9", "1"])
    assert "ImageFolder" not in capsys.readouterr().out
    assert points.classes == ("10", "2", "9", "1") and points.labels.tolist() == [0, 1, 2]
    assert points.names == ("10/0.png", "2/0.png", "9/0.png")
    refused(source, "'9' is not among the 2 classes .10, 2.", classes=["10", "2"])
    refused(source, "names '2' twice", classes=["10", "2", "2"])


def test_a_class_folder_without_an_image_is_numbered_and_reported(tmp_path, capsys):
    source = folder_of(tmp_path, classes=("cat", "dog"))
    (source / "bird").mkdir()
    points = read_points(source)
    assert points.classes == ("bird", "cat", "dog") and set(points.labels) == {1, 2}
    assert "2 of 3 classes; skipped 1 without an image (bird)" in capsys.readouterr().out


@pytest.mark.parametrize("names", [("train", "test"), ("train",), ("train", "test", "extra")])
def test_a_folder_of_splits_is_refused_with_the_way_out(tmp_path, names):
    refused(folder_of(tmp_path, "data", names), "instead of class folders: give the folder of .*data/train and data/te")


def test_damaged_images_are_named_in_one_line(tmp_path):
    source = folder_of(tmp_path)
    (source / "dog/1.png").write_bytes(picture()[:400])
    points = read_points(source)
    with pytest.raises(UserError, match="dog/1.png is not an image .*: remove it or replace it") as error:
        points.load(np.array([0, 3]))
    one_line(error)
    (source / "dog/1.png").write_bytes(b"no image")
    refused(source, "dog/1.png is not an image .of no known format.")
    (source / "dog/1.png").write_bytes(b"")
    refused(source, "dog/1.png is not an image .the file is empty.")


def test_an_image_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 599)
    with pytest.warns(Image.DecompressionBombWarning):
        refused(folder_of(tmp_path), "cat/0.png is not an image .30 x 20 pixels are more than the 599 allowed")


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz")])
@pytest.mark.parametrize("prefix", ["", "./", "top/below/"])
def test_a_tar_of_class_folders_holds_the_same_records_as_the_folder(tmp_path, name, mode, prefix):
    folder = folder_of(tmp_path)
    with tarfile.open(tmp_path / name, mode) as archive:
        for file in sorted(folder.rglob("*.png"), reverse=True):
            archive.add(file, f"{prefix}{file.relative_to(folder)}")
    packed = read_points(tmp_path / name)
    plain = read_points(folder)
    assert packed.fingerprint == plain.fingerprint and packed.names == plain.names
    assert all(np.array_equal(a, b) for a, b in zip(load_all(packed), load_all(plain), strict=True))


def test_an_archive_that_is_cut_off_too_large_or_full_of_links_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "a.tar"
    with tarfile.open(file, "w") as archive:
        archive.add(folder_of(tmp_path), "train")
        link = tarfile.TarInfo("train/cat/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    refused(file, "train/cat/link.png is a link: pack the files themselves")
    with monkeypatch.context() as patch:
        patch.setattr("data.foreign.image_folders.HELD", 1000)
        refused(file, "a.tar holds more than .*: unpack it and give the folder")
    file.write_bytes(file.read_bytes()[:3000])
    refused(file, "a.tar cannot be read .*is it a complete tar archive")


def test_a_folder_without_images_and_a_place_without_anything_are_refused(tmp_path):
    refused(write(tmp_path / "empty", {"cat/notes.txt": "x"}), "holds no images in class folders.*skipped 1 of another")
    (tmp_path / "bare").mkdir()
    refused(tmp_path / "bare", "holds no images in class folders")
    refused(tmp_path / "nowhere", "does not exist: give a folder or tar")
    refused(write(tmp_path, {"list.txt": "cat"}) / "list.txt", "list.txt is of no kind that is read")


def test_a_link_to_nothing_is_an_error(tmp_path):
    source = folder_of(tmp_path)
    (source / "cat/lost.png").symlink_to(tmp_path / "nowhere")
    refused(source, "cat/lost.png is a link to nothing")


# Arrays


@pytest.mark.parametrize(("inputs", "labels"), [("x", "y"), ("X", "Y"), ("images", "labels"), ("data", "targets")])
def test_an_npz_is_read_by_its_usual_names(tmp_path, inputs, labels):
    x = np.arange(12, dtype=np.float64).reshape(4, 3)
    points = read_points(save(tmp_path / "a.npz", **{inputs: x, labels: np.array([0, 2, 2, 0])}))
    assert points.kind == "features" and points.labels.tolist() == [0, 2, 2, 0] and points.classes == ("0", "1", "2")
    assert points.names == ("row 1", "row 2", "row 3", "row 4")
    rows = points.load(np.array([3, 1]))
    assert [row.tolist() for row in rows] == [[9, 10, 11], [3, 4, 5]] and rows[0].dtype == np.float32


@pytest.mark.parametrize(
    ("shape", "dtype", "kind", "record", "stored"),
    [
        ((2, 5, 4), "uint8", "images", (5, 4), "uint8"),
        ((2, 5, 4, 1), "uint8", "images", (5, 4), "uint8"),
        ((2, 5, 4, 3), "uint8", "images", (5, 4, 3), "uint8"),
        ((2, 3, 5, 4), "uint8", "images", (5, 4, 3), "uint8"),
        ((2, 4, 5, 4), "uint8", "arrays", (4, 5, 4), "uint8"),
        ((2, 3, 5, 4), "float64", "arrays", (3, 5, 4), "float32"),
        ((2, 3, 4), "int32", "arrays", (3, 4), "int64"),
        ((2, 3, 4), "bool", "arrays", (3, 4), "uint8"),
        ((2, 7), "uint8", "features", (7,), "float32"),
        ((2,), "int64", "features", (1,), "float32"),
    ],
)
def test_the_shape_and_type_of_an_array_say_what_its_records_are(tmp_path, shape, dtype, kind, record, stored):
    x = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    points = read_points(save(tmp_path / "a.npz", x=x, y=np.array([[0], [1]])))
    value = points.load(np.array([1]))[0]
    assert (points.kind, value.shape, value.dtype) == (kind, record, stored)
    assert np.array_equal(np.sort(value, axis=None), np.sort(x[1].astype(stored), axis=None))


def test_texts_and_names_of_classes_are_read_from_an_npz(tmp_path):
    points = read_points(save(tmp_path / "a.npz", x=np.array(["hello", "you"]), y=np.array(["b", "a"])))
    assert points.kind == "text" and load_all(points) == ["hello", "you"]
    assert points.classes == ("a", "b") and points.labels.tolist() == [1, 0]


def test_labels_that_are_numbers_stand_for_themselves_unless_the_classes_are_named(tmp_path, capsys):
    x = np.zeros((3, 2))
    gap = save(tmp_path / "gap.npz", x=x, y=np.array([1, 3, 3]))
    assert read_points(gap).labels.tolist() == [1, 3, 3]
    assert "label 1 means the model's second output" in capsys.readouterr().out
    read_pair(gap, save(tmp_path / "zero.npz", x=x + 1, y=np.array([0, 1, 1])))
    assert "second output" not in capsys.readouterr().out
    assert read_points(gap, classes=["1", "2", "3"]).labels.tolist() == [0, 2, 2]
    assert read_points(gap, classes=["cat", "dog", "cow", "elk"]).labels.tolist() == [1, 3, 3]
    refused(gap, "'3' is not among the 3 classes .cat, dog, cow.", classes=["cat", "dog", "cow"])
    signs = read_points(save(tmp_path / "signs.npz", x=x, y=np.array([1.0, -1.0, 1.0])))
    assert signs.classes == ("-1", "1") and signs.labels.tolist() == [1, 0, 1]
    refused(save(tmp_path / "ids.npz", x=x, y=np.array([0, 1, 10**9])), "label 1000000000 is too large")


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x_train": np.zeros((2, 2)), "y_train": np.zeros(2)}, "holds none of x, .*it has: x_train, y_train.*: save"),
        ({"x": np.zeros((2, 2)), "data": np.zeros((2, 2)), "y": np.zeros(2)}, "holds x and data"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(2)}, "inputs of shape .3, 2. and 2 labels do not go together"),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0)}, "holds no records: its inputs have shape .0, 2."),
        ({"x": np.zeros((2, 0)), "y": np.zeros(2)}, "holds no records: its inputs have shape .2, 0."),
        ({"x": np.array([[1.0], [np.nan]]), "y": np.zeros(2)}, "row 2 has a value that is missing or not finite"),
        ({"x": np.array([[1.0], [1e300]]), "y": np.zeros(2)}, "row 2 has a value that is missing or not finite"),
        ({"x": np.zeros((2, 2), complex), "y": np.zeros(2)}, "inputs are complex128"),
        ({"x": np.zeros((2, 2)), "y": np.eye(2)}, "y has shape .2, 2.: give the number or name of one class"),
        ({"x": np.zeros((2, 2)), "y": np.array([0.5, 1])}, "y holds something else than whole numbers"),
        (
            {"x": np.zeros((2, 2)), "y": np.array(["a", "b"], dtype=object)},
            "y.npy holds Python objects, which are not read: save numbers, or y.astype.str.",
        ),
        ({"x": np.array(["a", "b\ud83d"]), "y": np.zeros(2)}, "row 2 holds half of a character"),
        ({"x": np.zeros((2, 2)), "y": np.array(["a\ud83d", "b"])}, "y: row 1 holds half of a character"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, says):
    refused(save(tmp_path / "a.npz", **arrays), says)


def test_a_file_that_is_no_npz_or_is_cut_off_is_refused(tmp_path):
    refused(write(tmp_path, {"a.npz": b"nothing"}) / "a.npz", "a.npz is no complete .npz")
    file = save(tmp_path / "b.npz", x=np.zeros((9, 9)), y=np.zeros(9))
    file.write_bytes(file.read_bytes()[:300])
    refused(file, "b.npz is no complete .npz")
    file = save(tmp_path / "c.npz", x=np.arange(999.0).reshape(9, 111), y=np.zeros(9))
    file.write_bytes(file.read_bytes().replace(np.float64(500).tobytes(), np.float64(501).tobytes()))
    refused(file, "c.npz is no complete .npz .Bad CRC-32")


def header(shape, dtype):
    content = io.BytesIO()
    npy.write_array_header_1_0(content, {"descr": dtype, "fortran_order": False, "shape": shape})
    return content.getvalue()


def write_zip_bomb(file, n):
    """A `.npz` of a few megabytes whose x is n million zeros; the deflated zeros are one block again and again."""
    block = zlib.compressobj(9, zlib.DEFLATED, -15)
    begin = block.compress(header((n * 10**6,), "|u1")) + block.flush(zlib.Z_FULL_FLUSH)
    zeros = block.compress(bytes(10**6)) + block.flush(zlib.Z_FULL_FLUSH)
    with zipfile.ZipFile(file, "w") as archive:
        with archive.open(zipfile.ZipInfo("x.npy"), "w", force_zip64=True) as stream:
            stream.write(begin)
            for _ in range(n):
                stream.write(zeros)
            stream.write(block.flush())
        entry = archive.getinfo("x.npy")
        entry.compress_type, entry.file_size = zipfile.ZIP_DEFLATED, len(header((n * 10**6,), "|u1")) + n * 10**6
        archive.writestr("y.npy", header((n * 10**6,), "|u1"))
    return file


def test_an_array_of_ten_gigabytes_of_zeros_is_refused_before_it_is_inflated(tmp_path, monkeypatch):
    bomb = write_zip_bomb(tmp_path / "bomb.npz", 10_000)
    assert bomb.stat().st_size < 20e6
    monkeypatch.setattr(npy, "read_array", None)
    refused(bomb, "bomb.npz inflates to 9.31 GiB or more, more than 200 times its size")
    monkeypatch.setattr(limits, "LARGEST", 9 * limits.GIB)
    refused(bomb, "more than the 9 GiB that are read")


@pytest.mark.parametrize("shape", [(10**12, 4), (2, 2), (-3, 4), (3, -4, -1)])
def test_a_header_that_lies_about_the_size_is_refused(tmp_path, shape):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", header(shape, "<f4") + bytes(48))
        archive.writestr("y.npy", header((3,), "<f4") + bytes(12))
    refused(tmp_path / "a.npz", "x.npy says that it holds .* of float32, .* bytes, but has 48: save it again")


# CSV


def test_a_table_of_numbers_is_read_with_the_label_column_found_or_named(tmp_path, capsys):
    text = "a,Class, b\n1,dog,2.5\n-3,cat,1e3\n"
    points = read_points(write(tmp_path, {"a.csv": "\ufeff" + text}) / "a.csv")
    assert capsys.readouterr().out == f"{tmp_path}/a.csv: 2 rows of 2 features of 2 classes\n"
    assert points.kind == "features" and points.classes == ("cat", "dog") and points.labels.tolist() == [1, 0]
    assert [row.tolist() for row in load_all(points)] == [[1, 2.5], [-3, 1000]] and points.names == ("row 1", "row 2")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "a.csv.xz").write_bytes(lzma.compress(text.encode()))
    for ending in ("gz", "xz"):
        assert read_points(tmp_path / f"a.csv.{ending}").fingerprint == points.fingerprint


def test_a_table_is_read_in_parts_to_the_same_records(tmp_path, monkeypatch):
    lines = [f"{i % 3},{i},{i / 7}" for i in range(50)]
    file = write(tmp_path, {"a.csv": "y,a,b\n" + "\n".join(lines)}) / "a.csv"
    whole = read_points(file)
    monkeypatch.setattr("data.foreign.csv_files.ROWS", 7)
    parts = read_points(file)
    assert parts.fingerprint == whole.fingerprint and len(parts.labels) == 50
    file.write_text(file.read_text().replace("\n2,41,", "\n2,x,"))
    refused(file, "row 42, column 'a' is 'x', no finite number")


def test_one_column_of_text_is_read_as_texts_and_na_is_a_word(tmp_path):
    source = write(tmp_path, {"a.csv": 'label,text\nNA,"one, two"\nspam,NA\nspam,1984\n'}) / "a.csv"
    points = read_points(source)
    assert points.kind == "text" and load_all(points) == ["one, two", "NA", "1984"] and points.classes == ("NA", "spam")


def test_a_column_called_text_is_read_as_the_texts_whatever_stands_beside_it(tmp_path):
    source = write(tmp_path, {"a.csv": "id,text,label\n7,one,1\n8,two,2\n", "b.csv": "y,text\n1,2.5\n2,3.5\n"})
    points = read_points(source / "a.csv")
    assert points.kind == "text" and load_all(points) == ["one", "two"]
    assert read_points(source / "b.csv").kind == "features"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", "which column holds the labels. none is called label, class, target, y, letter.*names a, b"),
        ("y,label,b\n1,2,3\n", "which column holds the labels. y, label could be named with --label_column"),
        ("y,a\n1,\n", "row 1, column 'a' is empty"),
        ("y,a\n1,2\n,3\n", "row 2, column 'y' is empty"),
        ("y,a\n1,2\n1,3\n1,x\n", "row 3, column 'a' is 'x', no finite number"),
        ("y,a\n1,2\n1,inf\n", "row 2, column 'a' is .*inf.*, no finite number"),
        ("y,a,b\n1,2,3\n1,2\n", "row 2, column 'b' is empty"),
        ("y,a\n1,2,3\n1,2,3\n", "cannot be read as CSV"),
        ("y,a\n1,2\n1,2,3\n", "cannot be read as CSV"),
        (
            "y,a,note\n1,2,red\n1,3,blue\n",
            "column 'note' holds text, row 1 'red', but .* where it holds the texts to audit, call it text .train.py",
        ),
        ("y,a,is_member\n1,2,1\n", "column 'is_member' says who was a member"),
        ("y,Membership,a\n1,2,1\n", "column 'Membership' says who was a member"),
        (",y,a\n0,1,2\n", "column 1 has no name: remove it .pandas writes row numbers so"),
        ("y,a,a\n0,1,2\n", "two columns are called 'a'"),
        ("y;a;b\n0;1;2\n", "the first row has one column, 'y;a;b': separate columns by commas"),
        ("y\n0\n", "has no column beside 'y'"),
        ("y,a\n", "holds a header and no records"),
        ("", "cannot be read as CSV"),
        ("y,a\n1,1\n1e40,1\n", "column 'y' holds 1e40, a label is a whole number or a name"),
        ("y,a\n0.5,1\n", "column 'y' holds 0.5, a label is a whole number or a name"),
    ],
)
def test_a_table_that_is_not_clear_or_damaged_is_refused_by_row_and_column(tmp_path, text, says):
    refused(write(tmp_path, {"a.csv": text}) / "a.csv", says)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_one_long_text_does_not_make_all_texts_long(tmp_path, name):
    texts = ["x" * 100_000, *("yz" for _ in range(1000))]
    if name == "a.csv":
        lines = ["label,text", *(f"1,{text}" for text in texts)]
    else:
        lines = [json.dumps({"label": 1, "text": text}) for text in texts]
    source = write(tmp_path, {name: "\n".join(lines)}) / name
    tracemalloc.start()
    points = read_points(source)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert load_all(points) == texts
    assert most < 20e6  # one array of characters would take 400 MB


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"label": 1, "text": "\\ud83d"}', "row 2: 'text' holds half of a character: remove or repair"),
        ('{"label": "\\ud83d", "text": "a"}', "row 2: 'label' holds half of a character"),
        ('{"\\ud83d": 1, "text": "a"}', "row 2: 'label' is None"),
    ],
)
def test_half_of_a_character_is_refused_by_its_row(tmp_path, line, says):
    refused(write(tmp_path, {"a.jsonl": '{"label": 1, "text": "a"}\n' + line}) / "a.jsonl", says)


def test_a_key_that_is_half_of_a_character_can_be_shown(tmp_path):
    source = write(tmp_path, {"b.jsonl": '{"\\ud83d": 1, "text": "a"}'})
    refused(source / "b.jsonl", r"The first row names \\ud83d$")


def test_a_label_column_that_is_not_there_or_not_used_is_refused(tmp_path):
    refused(write(tmp_path, {"a.csv": "y,a\n1,2\n"}) / "a.csv", "has no column 'z'; it has y, a", label_column="z")
    refused(save(tmp_path / "a.npz", x=np.zeros((1, 1)), y=[0]), "is no CSV file: leave out", label_column="z")


@pytest.mark.parametrize(("ending", "compress"), [("gz", gzip.compress), ("xz", lzma.compress)])
def test_a_csv_that_inflates_too_far_is_refused(tmp_path, monkeypatch, ending, compress):
    monkeypatch.setattr(limits, "LARGE", 10**6)
    source = tmp_path / f"a.csv.{ending}"
    source.write_bytes(compress(b"y,a\n" + b"0,0\n" * 10**6))
    refused(source, "inflates to .* more than 200 times its size")
    source.write_bytes(source.read_bytes()[:-20])
    monkeypatch.setattr(limits, "LARGE", limits.GIB)
    refused(source, "cannot be read .*: is it complete")


def test_the_real_letters_are_read():
    points = read_points(real("letter-recognition.csv.xz"))
    assert points.kind == "features" and len(points.labels) == 20_000
    assert "".join(points.classes) == string.ascii_uppercase
    assert points.classes[points.labels[0]] == "T" and points.load(np.array([0]))[0][:4].tolist() == [2, 8, 3, 5]


# idx


def write_idx(folder, name="train", dot="-", n=3, compress=gzip.compress):
    images = np.random.default_rng(len(name)).integers(0, 256, (n, 4, 5), dtype=np.uint8)
    labels = np.arange(n, dtype=np.uint8)
    content = struct.pack(">4I", 0x803, n, 4, 5) + images.tobytes()
    ending = "" if compress is bytes else ".gz"
    files = {
        f"{name}-images{dot}idx3-ubyte{ending}": compress(content),
        f"{name}-labels{dot}idx1-ubyte{ending}": compress(struct.pack(">2I", 0x801, n) + labels.tobytes()),
    }
    write(folder, files)
    return folder / next(iter(files)), images


@pytest.mark.parametrize(("dot", "compress"), [("-", gzip.compress), (".", bytes)])
def test_idx_files_are_read_by_the_images_file_or_their_folder(tmp_path, dot, compress):
    file, images = write_idx(tmp_path, dot=dot, compress=compress)
    points = read_points(file)
    assert points.kind == "images" and points.labels.tolist() == [0, 1, 2] and len(points.files) == 2
    assert np.array_equal(np.stack(load_all(points)), images)
    assert read_points(tmp_path).fingerprint == points.fingerprint
    write_idx(tmp_path, "t10k")
    refused(tmp_path, "holds 2 sets of idx files .t10k.*, train.*: give one of these files")


def test_damaged_idx_files_are_refused(tmp_path):
    file, _ = write_idx(tmp_path, compress=bytes)
    labels = tmp_path / "train-labels-idx1-ubyte"
    content = file.read_bytes()
    for damaged, says in (
        (content[:-1], "says that it holds .3, 4, 5. bytes and does not"),
        (content + b"x", "says that it holds"),
        (b"\0\0\x0d\x03" + content[4:], "is no idx file of bytes with 3 axes"),
        (content[:9], "is no idx file"),
        (struct.pack(">4I", 0x803, 2**31, 2**31, 4), "inflates to .* GiB or more"),
        (struct.pack(">4I", 0x803, 2, 4, 5) + content[16:56], "holds 2 images, train-labels-idx1-ubyte 3 labels"),
    ):
        file.write_bytes(damaged)
        refused(file, says)
    labels.unlink()
    refused(file, "the labels are missing: put train-labels-idx1-ubyte")


def test_the_real_fashion_mnist_is_read():
    file = real("fashion-mnist/t10k-images-idx3-ubyte.gz")
    points = read_points(file)
    assert points.kind == "images" and len(points.labels) == 10_000 and len(points.classes) == 10
    assert points.load(np.array([5]))[0].shape == (28, 28) and np.bincount(points.labels).tolist() == [1000] * 10
    refused(file.parent, "holds 2 sets of idx files")


# Python files


PLUGIN = """
import numpy as np, torch
from PIL import Image
from models import scale  # the user's own, not this project's

class Data:
    def __len__(self):
        return 5
    def __getitem__(self, i):
        return {x}, {y}

def get_dataset():
    return Data()
"""


def write_plugin(folder, x="torch.full((3, 4, 4), scale * i)", y="i % 2", models="scale = 2.0\n"):
    return write(folder, {"data.py": PLUGIN.format(x=x, y=y), "models.py": models}) / "data.py"


@pytest.mark.parametrize(
    ("x", "kind", "shape"),
    [
        ("torch.full((3, 4, 4), scale * i)", "arrays", (3, 4, 4)),
        ("torch.full((3, 4, 4), i, dtype=torch.uint8)", "arrays", (3, 4, 4)),
        ("torch.full((4,), scale * i, dtype=torch.bfloat16)", "arrays", (4,)),
        ("np.full((4, 4, 3), i, np.uint8)", "images", (4, 4, 3)),
        ("np.full(4, scale * i)", "features", (4,)),
        ("Image.new('L', (6, 4), i)", "images", (4, 6, 3)),
    ],
)
def test_the_data_set_of_a_python_file_is_read(tmp_path, capsys, x, kind, shape):
    points = read_points(write_plugin(tmp_path, x))
    assert points.kind == kind and points.labels.tolist() == [0, 1, 0, 1, 0] and points.names[4] == "row 5"
    values = points.load(np.array([3, 1]))
    assert [value.shape for value in values] == [shape] * 2
    assert [value.reshape(-1)[0] for value in values] == ([6, 2] if "scale" in x else [3, 1])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{tmp_path}/data.py: its get_dataset() is run, which is your own code"
    assert said[1].startswith(f"{tmp_path}/data.py: 5 ") and said[1].endswith(" of 2 classes")


def test_a_folder_with_one_python_file_stands_for_it_also_after_a_run(tmp_path):
    file = write(tmp_path, {"set.py": PLUGIN.replace("from models", "# ").format(x="torch.ones(2) * i", y="i")})
    points = read_points(tmp_path)
    (tmp_path / "__pycache__").mkdir(exist_ok=True)
    assert read_points(file).fingerprint == points.fingerprint
    (tmp_path / "images").mkdir()
    refused(tmp_path, "holds folders and set.py with get_dataset..: give .*set.py, or move it away")
    (tmp_path / "images").rmdir()
    write(tmp_path, {"second.py": ""})
    refused(tmp_path, "holds 2 Python files .second.py, set.py.: give one of these files")


def test_neighbours_of_two_python_files_and_the_projects_modules_do_not_mix(tmp_path):
    import models

    one = write_plugin(tmp_path / "one")
    two = write_plugin(tmp_path / "two", models="scale = 5.0\n")
    first, second = read_pair(one, two)
    assert first.load(np.array([1]))[0][0, 0, 0] == 2 and second.load(np.array([1]))[0][0, 0, 0] == 5
    assert sys.modules["models"] is models and hasattr(models, "build")


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        ("torch.rand(3)", "0", "row 1 is not the same when it is fetched again: .*without random transforms"),
        ("torch.ones(3 + i % 2)", "0", "row 1 has shape .3,., row 2 .4,.: give all records one shape"),
        ("np.ones(3) if i else 'text'", "0", "row 1 is of kind text, row 2 of kind features"),
        ("{'pixels': 1}", "0", "row 1: x is dict: return a tensor"),
        ("torch.ones(3)", "'cat'", "row 1: y is 'cat': return the number of one class"),
        ("torch.ones(3)", "torch.zeros(4)", "row 1: y is tensor.*: return the number of one class"),
        ("torch.ones(3) / 0", "0", "row 1: row 1 has a value|row 1.* not finite"),
        ("torch.ones(3)", "0, 1", "row 1 is .*not .x, y."),
        ("1 / 0", "0", "row 1 cannot be fetched .ZeroDivisionError: division by zero."),
    ],
)
def test_a_data_set_that_cannot_be_used_is_refused_by_its_row(tmp_path, x, y, says):
    file = write_plugin(tmp_path, x, y)
    if y == "0, 1":
        file.write_text(file.read_text().replace(f"{x}, {y}", f"({x}, {y})"))
    refused(file, says)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def other(): pass", "has no function get_dataset..: define it"),
        ("x = 1\nraise ValueError('two\\nlines')", "the file failed .line 2, ValueError: two lines"),
        ("def get_dataset(:", "the file failed .line 1, SyntaxError"),
        ("import sys\nsys.exit(3)", "the file failed .line 2, SystemExit: 3"),
        ("def get_dataset():\n    return 1 / 0", r"get_dataset\(\) failed .line 2, ZeroDivisionError"),
        ("def get_dataset():\n    return 7", "returns no data set with a length"),
        ("def get_dataset():\n    return []", "returns a data set without records"),
    ],
)
def test_a_python_file_that_fails_is_named_in_one_line(tmp_path, code, says):
    refused(write(tmp_path, {"set.py": code}) / "set.py", says)


LATE = """
import numpy as np

class Data:
    def __len__(self):
        return 5
    def __getitem__(self, i):
        from near import value
        return np.full(2, value), 0

def get_dataset():
    return Data()
"""


def test_a_data_set_may_import_its_neighbours_when_a_record_is_fetched(tmp_path):
    write(tmp_path, {"set.py": LATE, "near/__init__.py": "value = 7.0\n"})
    points = read_points(tmp_path / "set.py")
    assert points.load(np.array([4]))[0].tolist() == [7, 7] and "near" not in sys.modules


# Pairs, digests and lists


@pytest.mark.parametrize("swap", [False, True])
def test_both_sources_share_one_numbering_of_classes(tmp_path, swap):
    sources = [folder_of(tmp_path, "a", ("dog", "cat")), folder_of(tmp_path, "b", ("elk", "dog"), each=3, first=1)]
    pair = read_pair(*(reversed(sources) if swap else sources))
    first, second = reversed(pair) if swap else pair
    assert first.classes == second.classes == ("cat", "dog", "elk")
    assert first.labels.tolist() == [0, 0, 1, 1] and second.labels.tolist() == [1, 1, 2, 2]


def test_numbers_in_both_sources_mean_the_same_class(tmp_path):
    x = np.zeros((2, 3))
    one, two = save(tmp_path / "a.npz", x=x, y=np.array([0, 4])), save(tmp_path / "b.npz", x=x + 1, y=np.array([1, 2]))
    first, second = read_pair(one, two)
    assert first.classes == second.classes == tuple("01234")
    assert first.labels.tolist() == [0, 4] and second.labels.tolist() == [1, 2]


def test_pairs_of_one_source_of_copies_of_two_kinds_or_of_names_and_numbers_are_refused(tmp_path):
    images = folder_of(tmp_path, "a")
    (tmp_path / "link").symlink_to(images)
    table = write(tmp_path, {"a.csv": "y,a\n0,1\n"}) / "a.csv"
    array = save(tmp_path / "a.npz", x=np.zeros((4, 20, 30, 3), np.uint8), y=np.zeros(4))
    for other, says in (
        (tmp_path / "link", "members and non-members are both .*: give two sources"),
        (folder_of(tmp_path, "copy"), "hold the same records"),
        (table, "members are 4 images, non-members are 1 rows of 1 features: give both in one form"),
        (array, "labels are names and numbers .cat in .* and 0 in .*name the classes"),
    ):
        with pytest.raises(UserError, match=says) as error:
            read_pair(images, other)
        one_line(error)
    first, second = read_pair(images, array, classes=["cat", "dog"])
    assert first.labels.tolist() == [0, 0, 1, 1] and second.labels.tolist() == [0] * 4


@pytest.mark.parametrize(
    ("members", "others", "says"),
    [
        ("y,a,b\n0,1,2\n", "y,b,a\n0,1,2\n", "feature 1 is 'a' in .*a.csv, but 'b' in .*b.csv: give both the same"),
        ("y,a,b\n0,1,2\n", "y,a\n0,1\n", "members are 1 rows of 2 features, non-members are 1 rows of 1 features"),
    ],
)
@pytest.mark.parametrize("swap", [False, True])
def test_tables_with_other_columns_are_refused(tmp_path, members, others, says, swap):
    write(tmp_path, {"a.csv": members, "b.csv": others})
    if swap:
        write(tmp_path, {"b.csv": members, "a.csv": others})
        says = "feature 1 is 'b'" if "feature 1" in says else "members are 1 rows of 1 features"
    with pytest.raises(UserError, match=says) as error:
        read_pair(tmp_path / "a.csv", tmp_path / "b.csv")
    one_line(error)


def test_a_table_may_lack_a_class_and_have_its_label_in_another_place(tmp_path):
    write(tmp_path, {"a.csv": "y ,a,b\n1,1,2\n3,1,2\n", "b.csv": "a,b, y\n1,2,0\n"})
    first, second = read_pair(tmp_path / "a.csv", tmp_path / "b.csv")
    assert first.labels.tolist() == [1, 3] and second.labels.tolist() == [0] and len(first.classes) == 4
    assert content_digests(first, np.array([0, 1])) == content_digests(second, np.array([0])) * 2


def test_equal_pixels_have_equal_digests_whatever_their_file_place_or_label(tmp_path):
    image = pixels(5, (4, 5))
    grey = np.asarray(Image.fromarray(image).convert("L"))
    files = {"a/0.png": picture(5, (4, 5)), "a/1.bmp": picture(5, (4, 5), format="bmp"), "b/g.png": picture(6, (4, 5))}
    folder = read_points(write(tmp_path / "f", {**files, "b/l.png": picture(5, (4, 5), "L")}))
    colour = read_points(save(tmp_path / "c.npz", x=image[None], y=[1]))
    plain = read_points(save(tmp_path / "g.npz", x=grey[None], y=[1]))
    digests = content_digests(folder, np.arange(4))
    assert digests[0] == digests[1] != digests[2] and content_digests(colour, np.array([0])) == digests[:1]
    assert content_digests(plain, np.array([0])) == digests[3:]
    assert content_digests(folder, np.array([3, 0])) == [digests[3], digests[0]]


def test_digests_tell_every_value_apart_and_report_progress(tmp_path):
    x = np.zeros((600, 2), np.float32)
    x[:, 1] = np.arange(600) // 2
    points = read_points(save(tmp_path / "a.npz", x=x, y=np.zeros(600)))
    calls = []
    digests = content_digests(points, np.arange(600), lambda items, desc, total: calls.append(total) or items)
    assert len(digests) == 600 and len(set(digests)) == 300 and digests[0] == digests[1] and calls == [3]


def test_a_list_of_records_holds_numbers_or_names(tmp_path):
    points = read_points(folder_of(tmp_path))
    file = write(tmp_path, {"list.txt": "\ufeff3\n\ncat/1.png\r\n 0 \n"}) / "list.txt"
    assert read_list(file, points).tolist() == [3, 1, 0]
    for text, says in (
        ("cat/9.png", "line 1: 'cat/9.png' is no record, the first one is called 'cat/0.png'"),
        ("0\n4", "line 2: 4 is no record, numbers run from 0 to 3"),
        ("-1", "line 1: -1 is no record"),
        ("9" * 5000, "is no record"),
        ("1\n0\ncat/1.png", "lines 1 and 3 are one record"),
        ("\n", "lists no record"),
        (b"\xff\xfe\x00", "cannot be read"),
    ):
        write(tmp_path, {"list.txt": text})
        with pytest.raises(UserError, match=says) as error:
            read_list(file, points)
        one_line(error)


# Preprocessing

SHAPES = [(40, 51), (57, 40), (33, 33), (64, 47)]
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def images(shapes=SHAPES):
    """Smooth pictures, in which a shift by a pixel or another filter shows, (H, W, 3) uint8 each."""
    pictures = [Image.fromarray(pixels(seed, (6, 7))) for seed in range(len(shapes))]
    return [
        np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
        for image, (height, width) in zip(pictures, shapes, strict=True)
    ]


@pytest.mark.parametrize("resample", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("resize", [None, 36, (38, 45)])
def test_preprocessing_is_torchvisions_own(resample, resize):
    from torchvision import transforms

    mode = transforms.InterpolationMode(resample)
    steps = [transforms.Resize((32, 31) if resize is None else resize, mode)]
    steps += [] if resize is None else [transforms.CenterCrop((32, 31))]
    usual = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(**IMAGENET)])
    expected = torch.stack([usual(Image.fromarray(image)) for image in images()]).numpy()
    how = Preprocessing(size=(32, 31), resize=resize, resample=resample, **IMAGENET)
    given = preprocess(images(), "images", how)
    assert given.dtype == np.float32 and np.array_equal(given, expected)


def test_grey_images_and_grey_networks_are_torchvisions_own():
    from torchvision import transforms

    usual = transforms.Compose([transforms.Grayscale(), transforms.Resize((9, 8)), transforms.ToTensor()])
    expected = torch.stack([usual(Image.fromarray(image)) for image in images()]).numpy()
    assert np.array_equal(preprocess(images(), "images", Preprocessing(size=(9, 8), channels="grey")), expected)
    plain = [pixels(seed, (4, 5))[..., 0] for seed in range(2)]
    assert np.array_equal(preprocess(plain, "images", Preprocessing(range=(0, 255)))[:, 2], np.stack(plain))


def test_every_setting_changes_the_input_as_it_says():
    raw = [pixels(seed, (4, 5)) for seed in range(3)]
    stored = np.stack(raw).astype(np.float32)
    assert np.array_equal(preprocess(raw, "images", Preprocessing(range=(0, 255), layout="NHWC")), stored)
    assert np.array_equal(preprocess(raw, "images", Preprocessing(range=(0, 255))), stored.transpose(0, 3, 1, 2))
    symmetric = preprocess(raw, "images", Preprocessing(range=(-1, 1), layout="NHWC"))
    assert np.allclose(symmetric, stored / 127.5 - 1, atol=1e-6) and np.abs(symmetric).max() <= 1
    swapped = Preprocessing(range=(0, 255), channels="BGR", layout="NHWC", mean=(1, 2, 3), std=(2.0,))
    assert np.array_equal(preprocess(raw, "images", swapped), (stored[..., ::-1] - np.float32([1, 2, 3])) / 2)
    row = preprocess(raw, "images", Preprocessing(range=(0, 255), flatten=True))
    assert np.array_equal(row, stored.transpose(0, 3, 1, 2).reshape(3, 60))
    plane = preprocess(raw, "images", Preprocessing(channels="grey", layout="NHW", range=(0, 255)))
    assert plane.shape == (3, 4, 5)


def test_a_record_is_preprocessed_alone_as_in_company():
    how = Preprocessing(size=(16, 16), resize=20, **IMAGENET)
    together = preprocess(images(), "images", how)
    alone = [preprocess([image], "images", how)[0] for image in images()]
    assert np.array_equal(together, np.stack(alone))


def test_other_kinds_than_images_are_stacked():
    rows = [np.float32([1, 2]), np.float32([3, 6])]
    assert preprocess(rows, "features", Preprocessing()).tolist() == [[1, 2], [3, 6]]
    assert preprocess(rows, "features", Preprocessing(mean=(1, 2), std=(2.0,))).tolist() == [[0, 0], [1, 2]]
    for dtype in (np.float32, np.int64, np.uint8):
        arrays = preprocess([np.ones((2, 3, 4), dtype)] * 2, "arrays", Preprocessing(mean=(5.0,)))
        assert arrays.dtype == dtype and (arrays == 1).all() and arrays.shape == (2, 2, 3, 4)
    assert preprocess(["a", "bc"], "text", Preprocessing()).tolist() == ["a", "bc"]


def test_a_very_long_image_is_refused_before_it_fills_the_memory():
    with pytest.raises(UserError, match="an image of 60000 x 1 pixels would become 256 x 15360000: remove it"):
        preprocess([np.zeros((1, 60000, 3), np.uint8)], "images", Preprocessing(size=(224, 224), resize=256))


def test_images_of_several_sizes_need_a_stated_size():
    with pytest.raises(UserError, match=r"several shapes, such as .*: state the size that the network takes"):
        preprocess(images(), "images", Preprocessing())


@pytest.mark.parametrize(
    ("shape", "settings", "filled"),
    [
        ((3, 32, 30), {}, {"layout": "NCHW", "size": (32, 30), "channels": "RGB", "flatten": False}),
        ((32, 30, 3), {}, {"layout": "NHWC", "size": (32, 30), "channels": "RGB"}),
        ((1, 28, 28), {}, {"layout": "NCHW", "size": (28, 28), "channels": "grey"}),
        ((28, 28, 1), {}, {"layout": "NHWC", "size": (28, 28), "channels": "grey"}),
        ((28, 28), {}, {"layout": "NHW", "size": (28, 28), "channels": "grey"}),
        ((3, 32, 3), {"layout": "NHWC"}, {"layout": "NHWC", "size": (3, 32)}),
        ((3, None, None), {}, {"layout": "NCHW", "size": None, "channels": "RGB"}),
        ((None, None, 3), {"size": (9, 9)}, {"layout": "NHWC", "size": (9, 9)}),
        ((3, 32, 32), {"channels": "BGR", "resize": 36}, {"channels": "BGR", "size": (32, 32), "resize": 36}),
        ((784,), {}, {"flatten": True, "size": (28, 28), "channels": "grey"}),
        ((3072,), {}, {"flatten": True, "size": (32, 32), "channels": "RGB"}),
        ((60,), {"size": (4, 5)}, {"flatten": True, "size": (4, 5), "channels": "RGB"}),
        ((None, None, None), {}, {"layout": "NCHW", "size": None, "channels": "RGB"}),
        (None, {}, {"layout": "NCHW", "size": None, "channels": "RGB", "mean": (0.0,), "std": (1.0,)}),
    ],
)
def test_what_is_not_stated_follows_from_the_models_input(shape, settings, filled):
    how = fit_to_model(Preprocessing(**settings), shape, "images")
    assert {name: getattr(how, name) for name in filled} == filled
    if shape and None not in shape:
        assert preprocess(images(), "images", how).shape == (4, *shape)


@pytest.mark.parametrize(
    ("shape", "settings", "says"),
    [
        ((3, 32, 32), {"size": (28, 28)}, "size is .28, 28., but the model takes .3, 32, 32."),
        ((3, 32, 32), {"layout": "NHWC"}, "no image of 1 or 3 channels in layout NHWC"),
        ((3, 32, 32), {"channels": "grey"}, "channels is grey, but the model takes"),
        ((1, 28, 28), {"channels": "RGB"}, "channels is RGB, but the model takes"),
        ((1, 28, 28), {"mean": (0.1, 0.2, 0.3)}, "mean has 3 values, grey has 1 channel"),
        ((3, 28, 28), {"std": (0.1, 0.2)}, "std has 2 values, RGB has 3 channel"),
        ((3, 32, 32), {"flatten": True}, "flatten is True, but the model takes"),
        ((784,), {"flatten": False}, "flatten is False, but the model takes .784."),
        ((784,), {"channels": "RGB"}, "rows of 784 values, which are no pixels of images of a square size in RGB"),
        ((785,), {}, "rows of 785 values"),
        ((784,), {"size": (32, 32)}, "rows of 784 values, which are no pixels of images of size .32, 32."),
        ((28, 28), {"layout": "NCHW"}, "layout is NCHW, but the model takes .28, 28."),
        ((4, 32, 32), {}, "takes .4, 32, 32., which is no image of 1 or 3 channels"),
        ((3, 32, 3), {}, "say which layout this is"),
        ((1, 2, 3, 4), {}, "the data are images, the model takes .1, 2, 3, 4."),
        ((3, 32, 32), {"resize": 30}, "resize 30 is smaller than size .32, 32."),
        (None, {"layout": "CHW"}, "layout 'CHW' is none of NCHW, NHWC, NHW"),
        (None, {"resample": "cubic"}, "resample 'cubic' is none of nearest, bilinear"),
        (None, {"std": (0.0,)}, "std .0.0,. must be larger than 0"),
        (None, {"size": (0, 3)}, "size .0, 3. is not .height, width."),
        (None, {"mean": 0.5}, "mean 0.5 is no list of numbers"),
        (None, {"mean": ("x",)}, "mean .'x',. is no list of numbers"),
        (None, {"size": (8, 9), "resize": (9, 8)}, "resize .9, 8. is smaller than size .8, 9."),
        (None, {"range": (1, 1)}, "range .1, 1. is not what 0 and 255 become"),
    ],
)
def test_a_stated_setting_that_contradicts_the_model_is_refused(shape, settings, says):
    with pytest.raises(UserError, match=says) as error:
        fit_to_model(Preprocessing(**settings), shape, "images")
    one_line(error)


def test_settings_for_images_are_refused_for_other_kinds():
    assert fit_to_model(Preprocessing(mean=(1.0,)), (16,), "features").mean == (1.0,)
    for kind, settings, shape, says in (
        ("features", {"size": (3, 3)}, (16,), "size changes images, but the data are features"),
        ("arrays", {"mean": (1.0,)}, None, "mean changes images, but the data are arrays"),
        ("features", {}, (3, 32, 32), "rows of features, the model takes .3, 32, 32."),
    ):
        with pytest.raises(UserError, match=says):
            fit_to_model(Preprocessing(**settings), shape, kind)


VALUES = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "do_normalize": True}
CONFIGS = {
    "vit": {"image_processor_type": "ViTImageProcessor", "size": {"height": 24, "width": 20}, "resample": 2, **VALUES},
    "old vit": {"feature_extractor_type": "ViTFeatureExtractor", "size": 24, "do_resize": True, **VALUES},
    "deit": {"image_processor_type": "DeiTImageProcessor", "size": 30, "crop_size": 24, "resample": 3, **VALUES},
    "clip": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 25}, "crop_size": 24, **VALUES},
    "cut": {
        "image_processor_type": "BitImageProcessor",
        "size": 30,
        "crop_size": {"height": 21, "width": 24},
        **VALUES,
    },
    "convnext": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 28}, **VALUES},
    "share": {"image_processor_type": "ConvNextImageProcessor", "size": 28, "crop_pct": 0.95, **VALUES},
    "large": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}, **VALUES},
    "plain": {"image_processor_type": "ViTImageProcessor", "size": 24, "do_normalize": False, "resample": 0},
    "pixels": {"image_processor_type": "ViTImageProcessor", "size": 24, "do_rescale": False, **VALUES},
    "factor": {"image_processor_type": "ViTImageProcessor", "size": 24, "rescale_factor": 1 / 127.5, **VALUES},
    "mobile": {"image_processor_type": "MobileNetV2ImageProcessor", "size": 32, "crop_size": 27, **VALUES},
    "beit": {"image_processor_type": "BeitImageProcessor", "size": 24, "do_reduce_labels": False, **VALUES},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_preprocessor_config_does_what_transformers_does(tmp_path, name):
    transformers = pytest.importorskip("transformers")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(CONFIGS[name]))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    expected = np.stack([processor(Image.fromarray(image))["pixel_values"][0] for image in images()])
    how = fit_to_model(preprocessing_from_config(CONFIGS[name]), expected.shape[1:], "images")
    given = preprocess(images(), "images", how)
    assert given.shape == expected.shape and np.abs(given - expected).max() < 1e-5 * max(1, np.abs(expected).max())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"do_pad": True}, "do_pad = True is not understood"),
        ({"rescale_offset": True}, "rescale_offset = True is not understood"),
        ({"image_processor_type": "LevitImageProcessor"}, "image_processor_type = 'LevitImageProcessor'"),
        ({"size": {"longest_edge": 30}}, "size = .*longest_edge.* is not understood"),
        ({"size": None}, "size = None is not understood"),
        ({"resample": 9}, "resample = 9 is not understood"),
        ({"do_center_crop": True}, "crop_size = None is not understood"),
        ({"do_center_crop": True, "do_resize": False}, "do_center_crop without do_resize"),
        ({"image_mean": None}, "image_mean = None is not understood"),
        ({"image_std": ["a"]}, "image_std = .'a'. is not understood"),
    ],
)
def test_a_setting_of_a_preprocessor_config_that_is_not_understood_is_named(change, says):
    with pytest.raises(UserError, match=says) as error:
        preprocessing_from_config({**CONFIGS["vit"], **change})
    one_line(error)


# The blind control's columns


def test_summaries_have_one_row_a_record_and_do_not_depend_on_its_company():
    texts = ["hello you", "", "x", "ünï"]
    rows = np.random.default_rng(0).normal(size=(3, 5000)).astype(np.float32)
    for raw, kind, columns in (
        (images(), "images", 204),
        ([image[..., 0] for image in images()], "images", 204),
        (list(rows), "features", 4096),
        (list(rows[:, :6].reshape(3, 2, 3)), "arrays", 6),
        (texts, "text", 256),
    ):
        summary = summarise(raw, kind)
        assert summary.shape == (len(raw), columns) and summary.dtype == np.float32
        assert np.array_equal(summarise(raw[1:2], kind)[0], summary[1])


def test_the_summary_of_a_text_counts_its_trigrams_in_stable_buckets():
    summary = summarise(["aaaa"], "text")[0]
    counts = {text: zlib.crc32(text.encode()) % 256 for text in (" aa", "aaa", "aa ")}
    assert summary[counts["aaa"]] == 2 and summary[counts[" aa"]] == 1 and summary.sum() == 4
