"""Data sets from every source, and what a kind of input does to the values of one."""

import bz2
import gzip
import inspect
import io
import lzma
import os
import tarfile
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY
from PIL import Image

import models
import train
from compleak.queries import answers
from compleak.queries.run_models import open_run_model
from compleak.queries.targets import targets_of
from compleak.runs import run as runs
from compleak.runs.variants import ORIGINAL
from compleak.training import loop
from compleak.training.evaluate import accuracy
from core.errors import UserError
from data import datasets
from data.inputs import FEATURES, IMAGES, KINDS


def image_files(size=32, classes=("cat", "dog"), each=2):
    """`train/<class>/i.png` -> PNG bytes, each of one colour."""
    files = {}
    for split in ("train", "test"):
        for c, label in enumerate(classes):
            for i in range(each):
                colour = (40 * c, 10 * i, 200 if split == "test" else 100)
                content = io.BytesIO()
                Image.new("RGB", (size, size), colour).save(content, "png")
                files[f"{split}/{label}/{i}.png"] = content.getvalue()
    return files


def write_tar(path, files, prefix=""):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(prefix + name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def load(tmp_path, source):
    return datasets.load("mine", source, tmp_path)


def test_a_folder_and_a_tar_of_the_same_images_are_the_same_data(tmp_path):
    files = image_files()
    write_folder(tmp_path / "folder", files)
    write_tar(tmp_path / "images.tar.gz", dict(reversed(files.items())), prefix="top/")
    folder = load(tmp_path, tmp_path / "folder")
    archive = load(tmp_path, tmp_path / "images.tar.gz")
    assert folder.fingerprint == archive.fingerprint
    assert folder.classes == ("cat", "dog") and folder.labels.tolist() == [0, 0, 1, 1] * 2
    assert folder.images.shape == (8, 32, 32, 3) and folder.images[0, 0, 0].tolist() == [0, 0, 100]


def test_other_sizes_are_resized(tmp_path):
    write_tar(tmp_path / "large.tar", image_files(size=50))
    assert load(tmp_path, tmp_path / "large.tar").images.shape == (8, 32, 32, 3)


# Pictures that go missing, come in or change


def write_folder(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def sixteen_bit_tif(value):
    content = io.BytesIO()
    Image.fromarray(np.full((32, 32), value, dtype=np.uint16)).save(content, "tiff")
    return content.getvalue()


def picture(mode="RGB", format="png", size=32, **options):
    content = io.BytesIO()
    Image.new("RGB", (size, size), (200, 100, 50)).convert(mode).save(content, format, **options)
    return content.getvalue()


def test_one_line_says_how_many_images_and_classes_there_are(tmp_path, capsys):
    load(tmp_path, write_folder(tmp_path / "plain", image_files(each=3)))
    assert capsys.readouterr().out == f"{tmp_path}/plain: 12 images (6 in train, 6 in test) of 2 classes\n"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("train/.ipynb_checkpoints/x.png", "1 hidden or of the system (train/.ipynb_checkpoints)"),
        ("__MACOSX/train/cat/._0.png", "1 hidden or of the system (__MACOSX)"),
        ("train/cat/Thumbs.db", "1 hidden or of the system (train/cat/Thumbs.db)"),
        ("test/dog/.DS_Store", "1 hidden or of the system (test/dog/.DS_Store)"),
        ("val/cat/0.png", "1 outside train/<class>/ and test/<class>/ (val/cat/0.png)"),
        ("train/0.png", "1 outside train/<class>/ and test/<class>/ (train/0.png)"),
        ("train/cat/close/0.png", "1 in a folder below a class (train/cat/close/0.png)"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_is_not_an_image_of_a_class_is_skipped_with_its_reason(tmp_path, capsys, name, says, packed):
    files = image_files()
    plain = load(tmp_path, write_folder(tmp_path / "plain", files))
    source = tmp_path / "more"
    if packed:
        write_tar(source, {**files, name: picture()})
    else:
        write_folder(source, {**files, name: picture()})
    assert load(tmp_path, source).fingerprint == plain.fingerprint
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .endswith(f"8 images (4 in train, 4 in test) of 2 classes; skipped {says}")
    )


def test_a_class_without_images_is_reported(tmp_path, capsys):
    source = write_folder(tmp_path / "folder", image_files())
    (source / "train/bird").mkdir()
    load(tmp_path, source)
    assert capsys.readouterr().out.endswith("of 2 classes; skipped 1 without an image (train/bird)\n")


def test_if_no_image_is_read_the_message_names_what_was_skipped(tmp_path):
    source = write_folder(tmp_path / "folder", image_files())
    with pytest.raises(UserError, match="holds no images train.*; skipped 2 outside train.*0.png"):
        load(tmp_path, source / "train/cat")


@pytest.mark.parametrize("packed", [False, True])
def test_class_folders_need_no_train_and_test_and_images_get_the_size_that_is_asked_for(tmp_path, capsys, packed):
    """As CHMNIST comes: class folders with `.tif` files of 150 x 150 pixels."""
    content = {}
    for name, mode in (("1 TUMOR/a", "RGB"), ("1 TUMOR/b", "RGBA"), ("2 STROMA/a", "L"), ("2 STROMA/b", "P")):
        content[f"{name}.tif"] = picture(mode, "tiff", size=150)
    content["2 STROMA/deeper/c.tif"] = sixteen_bit_tif(0x8040)
    source = tmp_path / ("images.tar.gz" if packed else "images")
    if packed:
        write_tar(source, content, prefix="top/")
    else:
        write_folder(source, content)
    data = datasets.load("chmnist", source, tmp_path, datasets.Reading(image_size=64))
    assert data.images.shape == (5, 64, 64, 3) and data.labels.tolist() == [0, 0, 1, 1, 1]
    assert data.classes == ("1 TUMOR", "2 STROMA")
    assert data.images[0, 0, 0].tolist() == data.images[1, 0, 0].tolist() == [200, 100, 50]
    assert len(set(data.images[2, 0, 0].tolist())) == 1 and data.images[4, 0, 0].tolist() == [0x80] * 3
    said = capsys.readouterr().out
    assert "5 images of 2 classes, as 64x64" in said and "1 of 16 bits, of which the upper 8 are used" in said


def idx_files(folder, prefix, pixels, labels):
    """MNIST's two files of images (n, H, W) and labels (n,), compressed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("images", pixels), ("labels", labels)):
        header = bytes([0, 0, 8, array.ndim]) + b"".join(length.to_bytes(4, "big") for length in array.shape)
        file = folder / f"{prefix}-{name}-idx{array.ndim}-ubyte.gz"
        file.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def test_fashion_mnist_is_the_same_from_idx_files_and_by_torchvision_and_its_grey_fills_all_channels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, size=(12, 28, 28), dtype=np.uint8)
    labels = np.arange(12) % 10
    raw = tmp_path / "FashionMNIST/raw"
    idx_files(raw, "t10k", pixels[10:], labels[10:])
    idx_files(raw, "train", pixels[:10], labels[:10])
    from_files = load(tmp_path, raw)
    assert from_files.images.shape == (12, 32, 32, 3) and from_files.labels.tolist() == labels.tolist()
    assert (from_files.images == from_files.images[..., :1]).all()
    by_torchvision = datasets.load("fashion_mnist", None, tmp_path)
    assert by_torchvision.fingerprint == from_files.fingerprint and by_torchvision.classes[9] == "Ankle boot"
    assert np.array_equal(datasets.load("mine", raw, tmp_path, datasets.Reading(image_size=28)).images[..., 0], pixels)


@pytest.mark.parametrize("linked", ["train", "train/dog", "train/dog/0.png"])
def test_links_are_followed(tmp_path, linked):
    source = write_folder(tmp_path / "folder", image_files())
    plain = load(tmp_path, source).fingerprint
    (source / linked).rename(tmp_path / "elsewhere")
    (source / linked).symlink_to(tmp_path / "elsewhere")
    datasets.load.cache_clear()
    assert load(tmp_path, source).fingerprint == plain


def test_a_link_that_leads_back_up_is_skipped_with_its_reason(tmp_path, capsys):
    source = write_folder(tmp_path / "folder", image_files())
    (source / "train/cat/again").symlink_to(source)
    load(tmp_path, source)
    assert "skipped 1 linking back to a folder above (train/cat/again)" in capsys.readouterr().out


def test_a_file_that_two_links_lead_to_is_refused(tmp_path):
    source = write_folder(tmp_path / "folder", image_files())
    (source / "test/dog/new.png").symlink_to(source / "train/dog/0.png")
    with pytest.raises(UserError, match="test/dog/new.png and train/dog/0.png are one file"):
        load(tmp_path, source)


@pytest.mark.parametrize(
    ("make", "says"), [(os.mkfifo, "no regular file"), (lambda p: p.symlink_to("x"), "to nothing")]
)
def test_something_other_than_a_readable_file_in_an_images_place_is_refused(tmp_path, make, says):
    source = write_folder(tmp_path / "folder", image_files())
    make(source / "train/cat/2.png")
    with pytest.raises(UserError, match=f"train/cat/2.png is .*{says}"):
        load(tmp_path, source)


def test_a_link_in_an_archive_is_refused_with_the_command_that_packs_it_right(tmp_path):
    source = write_folder(tmp_path / "folder", image_files())
    (source / "train/bird").symlink_to("dog")
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        archive.add(source, "top")
    with pytest.raises(UserError, match="top/train/bird is a link: pack .* --dereference"):
        load(tmp_path, tmp_path / "images.tar")


def damaged(header, content, end):
    """A tar that was damaged at the header of a member, or that lacks its end mark, which starts at `end`."""
    return {
        "header": content[:header] + b"\xff" + content[header + 1 :],
        "hole": content[:header] + bytes(512) + content[header + 512 :],
        "cut before a member": content[:header],
        "cut in a header": content[: header + 100],
        "cut in the data": content[: header + 600],
        "cut before the end": content[:end],
        "joined": content + content,
    }


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_an_archive_that_is_not_read_to_its_end_is_refused(tmp_path, compress):
    with tarfile.open(tmp_path / "whole.tar", "w") as archive:
        archive.add(write_folder(tmp_path / "folder", image_files()), "top")
    content = (tmp_path / "whole.tar").read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as archive:
        members = [member for member in archive if member.isfile()]
    end = members[-1].offset_data + 512 * -(-members[-1].size // 512)
    (tmp_path / "damaged").write_bytes(compress(content))
    assert len(load(tmp_path, tmp_path / "damaged").labels) == 8
    for fault, part in damaged(members[3].offset, content, end).items():
        datasets.load.cache_clear()
        (tmp_path / "damaged").write_bytes(compress(part))
        with pytest.raises(UserError, match="damaged cannot be read .*complete tar archive"):
            load(tmp_path, tmp_path / "damaged")
            pytest.fail(fault)


def test_a_checksum_that_is_wrong_is_refused(tmp_path):
    write_tar(tmp_path / "images.tar.gz", image_files())
    content = bytearray((tmp_path / "images.tar.gz").read_bytes())
    content[-6] ^= 1  # of gzip's four bytes of CRC
    (tmp_path / "images.tar.gz").write_bytes(content)
    with pytest.raises(UserError, match="images.tar.gz cannot be read .*CRC"):
        load(tmp_path, tmp_path / "images.tar.gz")


@pytest.mark.parametrize("name", [b"d\xf6g", b"two\nlines"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_class_whose_name_cannot_be_written_is_refused(tmp_path, name, packed):
    source = write_folder(tmp_path / "folder", image_files())
    os.rename(source / "train/dog", os.fsencode(source / "train") + b"/" + name)
    if packed:
        with tarfile.open(tmp_path / "images.tar", "w") as archive:
            archive.add(source, "top")
    with pytest.raises(
        UserError, match=r"class folder (top/)?train/(d\\xf6g|two\\nlines) is not UTF-8 or has"
    ) as refused:
        load(tmp_path, tmp_path / "images.tar" if packed else source)
    str(refused.value).encode()


def test_sixteen_bit_grey_keeps_its_upper_eight_bits_and_says_so(tmp_path, capsys):
    grey = np.arange(1024, dtype=np.uint16).reshape(32, 32) * 64
    for name, format in (("train/cat/16.png", "png"), ("train/dog/16.tif", "tiff")):
        content = io.BytesIO()
        Image.fromarray(grey).save(content, format)
        data = load(tmp_path, write_folder(tmp_path / format, {**image_files(), name: content.getvalue()}))
        assert (data.images == (grey >> 8).astype(np.uint8)[None, :, :, None]).all(axis=(1, 2, 3)).sum() == 1
        assert f"1 of 16 bits, of which the upper 8 are used ({name})" in capsys.readouterr().out


def test_pixels_of_unknown_range_are_refused(tmp_path):
    content = io.BytesIO()
    Image.fromarray(np.full((32, 32), 300, dtype=np.float32)).save(content, "tiff")
    with pytest.raises(UserError, match="train/cat/2.tif is not an image .32 bits a pixel"):
        load(tmp_path, write_folder(tmp_path / "folder", {**image_files(), "train/cat/2.tif": content.getvalue()}))


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture(exif=exif)


def animated():
    frames = [Image.new("L", (32, 32), shade) for shade in (10, 20)]
    content = io.BytesIO()
    frames[0].save(content, "gif", save_all=True, append_images=frames[1:])
    return content.getvalue()


def translucent():
    image = Image.new("RGBA", (32, 32), (200, 100, 50, 128))
    content = io.BytesIO()
    image.save(content, "png")
    return content.getvalue()


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")  # of the comparison with Pillow
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (picture(), ""),
        (picture("L"), ""),
        (picture("1"), ""),
        (picture("P", "gif"), ""),
        (picture("RGBA"), ""),  # opaque throughout
        (translucent(), "; 1 with transparency, which is ignored (train/cat/2)"),
        (picture("P", transparency=bytes([0] * 256)), "; 1 with transparency, which is ignored (train/cat/2)"),
        (rotated(), "; 1 with a rotation in EXIF, which is ignored (train/cat/2)"),
        (animated(), "; 1 with several frames, of which the first is used (train/cat/2)"),
        (picture("CMYK", "jpeg"), "; 1 converted from CMYK (train/cat/2)"),
    ],
    ids=["RGB", "grey", "black and white", "palette", "opaque", "alpha", "palette alpha", "EXIF", "frames", "CMYK"],
)
def test_pixels_are_those_of_the_stored_picture_and_ignored_metadata_is_reported(tmp_path, capsys, content, says):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load(tmp_path, write_folder(tmp_path / "folder", {**image_files(), "train/cat/2": content}))
    assert capsys.readouterr().out.endswith(f"of 2 classes{says}\n")
    assert np.array_equal(data.images[2], np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


def test_resized_pictures_are_counted(tmp_path, capsys):
    load(tmp_path, write_folder(tmp_path / "folder", image_files(size=40)))
    assert "2 classes; 8 resized to 32x32 (test/cat/0.png, ...)" in capsys.readouterr().out


def test_an_empty_file_is_named(tmp_path):
    with pytest.raises(UserError, match="train/cat/2.png is not an image .the file is empty.: remove"):
        load(tmp_path, write_folder(tmp_path / "folder", {**image_files(), "train/cat/2.png": b""}))


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_truncated_tar_is_named(tmp_path, cut):
    file = tmp_path / "cut.tar.gz"
    write_tar(file, image_files())
    file.write_bytes(file.read_bytes()[: int(cut * file.stat().st_size)])
    with pytest.raises(UserError, match="cut.tar.gz"):
        load(tmp_path, file)


def test_a_file_that_is_not_an_image_is_named(tmp_path):
    write_tar(tmp_path / "bad.tar", {**image_files(), "train/cat/broken.png": b"no image"})
    with pytest.raises(UserError, match="train/cat/broken.png is not an image"):
        load(tmp_path, tmp_path / "bad.tar")


def test_images_of_one_name_in_two_places_are_refused_rather_than_dropped(tmp_path):
    name, content = next(iter(image_files().items()))
    for place in ("", "more"):
        (tmp_path / "folder" / place / name).parent.mkdir(parents=True)
        (tmp_path / "folder" / place / name).write_bytes(content)
    with pytest.raises(UserError, match="holds two images train/cat/0.png: rename or remove one"):
        load(tmp_path, tmp_path / "folder")


def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch):
    import torchvision

    def fail(*args, **options):
        raise OSError("no network")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fail)
    with pytest.raises(UserError, match="put cifar-10-python.tar.gz into .*digits.*--data_dir"):
        datasets.load("cifar10", None, tmp_path)


def test_digits_need_no_download(tmp_path):
    data = datasets.load("digits", None, tmp_path)
    assert data.images.shape == (1797, 32, 32, 3) and data.images.dtype == np.uint8 and len(data.classes) == 10
    assert not data.flip and not any(tmp_path.iterdir())


@pytest.mark.slow
def test_the_jpeg_archive_is_all_of_cifar10(cifar_jpeg, tmp_path):
    data = datasets.load("cifar10", cifar_jpeg, tmp_path)
    assert data.images.shape == (60_000, 32, 32, 3)
    assert np.bincount(data.labels).tolist() == [6_000] * 10


def test_a_run_of_another_image_size_has_it_in_its_name_and_its_models_take_it(tmp_path):
    flags = ["--dataset_name", "digits", "--model_name", "densenet121", "--width", "0.125", "--root", str(tmp_path)]
    with pytest.raises(UserError, match="densenet121 halves images 4 times: --image_size must be at least 16"):
        train.main([*flags, "--image_size", "15", *TINY])
    with pytest.raises(UserError, match="letters is a table of features, --image_size is for images"):
        (tmp_path / "letters.csv").write_text("label,a\n1,2\n0,3\n")
        table = ["--dataset_name", "letters", "--data_dir", str(tmp_path / "letters.csv"), "--model_name", "mlp"]
        train.main([*table, "--image_size", "16", *TINY])
    train.main([*flags, "--image_size", "16", *TINY, "--roles", "victim_model"])
    settings = train.parse([*flags, "--image_size", "16"]).run
    run = runs.open_run(settings)
    assert run.name == "digits_densenet121_w0.125_16px" and run.name_flags()[6:8] == ["--image_size", "16"]
    assert runs.dataset(run).images.shape[1:] == (16, 16, 3)
    assert open_run_model(tmp_path, run.name, "cpu").input_shape == (3, 16, 16)
    with pytest.raises(UserError, match="was made with image_size 16, not 64"):
        runs.open_run(replace(settings, run_name=run.name, image_size=64))


def random_images(count):
    return torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8)


def test_the_query_transform_gives_the_same_pixels_every_time_and_takes_images_alone():
    images = random_images(5)
    once = IMAGES.to_input(images)
    twice = IMAGES.to_input(images)
    assert torch.equal(once, twice) and once.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal((once * 63.75 + 127.5).round().to(torch.uint8), images.permute(0, 3, 1, 2))
    assert list(inspect.signature(IMAGES.to_input).parameters) == ["images"]


def test_training_augments_and_queries_do_not(tiny_run, tmp_path, monkeypatch):
    class Augmented(Exception):
        pass

    def augmented(*args):
        raise Augmented

    kind = IMAGES._replace(augmented_batch=augmented)
    data = runs.dataset(tiny_run)._replace(kind=kind)
    monkeypatch.setattr(answers, "dataset", lambda run: data)
    cpu = torch.device("cpu")
    question = answers.Question(tiny_run, targets_of(tiny_run), ORIGINAL, "victim_model", {"sensitivity": 3})
    answers.ask_model(question, None, cpu, 64)
    accuracy(runs.network(tiny_run), data.images[:4], data.labels[:4], cpu, 64, kind)
    with pytest.raises(Augmented):
        options = {"flip": False, "device": cpu, "resume": tmp_path / "resume.pt", "identity": {}, "desc": "test"}
        points = torch.from_numpy(data.images[:4]), torch.from_numpy(data.labels[:4])
        loop.fit(runs.network(tiny_run), *points, loop.Recipe(1, 0.1, 4, 0), kind=kind, **options)


def test_augmentation_is_drawn_for_each_image_and_is_a_crop_of_the_padded_image():
    images = random_images(64)
    draws = IMAGES.draw_augmentation(64, True, torch.Generator().manual_seed(0))
    assert len(draws.unique(dim=0)) > 32
    batch = IMAGES.augmented_batch(IMAGES.pad(images), torch.arange(64), draws)
    for image, augmented, (row, column, mirror) in zip(images, batch, draws.tolist(), strict=True):
        padded = np.pad(image.numpy(), ((4, 4), (4, 4), (0, 0)))
        literal = padded[row : row + 32, column : column + 32]
        assert np.array_equal(augmented.numpy(), literal[:, ::-1] if mirror else literal)


def test_no_augmentation_leaves_images_as_they_are():
    images = random_images(4)
    batch = IMAGES.augmented_batch(IMAGES.pad(images), torch.arange(4), IMAGES.no_augmentation(4))
    assert torch.equal(batch, images)


@pytest.mark.parametrize("kind", [IMAGES, FEATURES])
def test_perturbed_inputs_are_the_inputs_and_gaussian_noise_of_the_generator(kind):
    inputs = torch.rand(6, 5)
    noise = torch.randn(6, 5, generator=torch.Generator().manual_seed(3))
    with kind.perturb(torch.nn.Identity(), inputs, 0.25, torch.Generator().manual_seed(3)) as perturbed:
        assert torch.equal(perturbed, inputs + 0.25 * noise)


def test_every_network_takes_a_known_kind_of_input():
    assert {network.takes for network in models.NETWORKS.values()} == KINDS.keys()
    assert datasets.kind_of("location") is FEATURES and datasets.kind_of("anything") is IMAGES
