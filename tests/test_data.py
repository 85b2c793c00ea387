"""Data sets from every source, and what a kind of input does to the values of one."""

import inspect
import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

import models
from compleak.queries import answers
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
    for name, content in files.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    write_tar(tmp_path / "images.tar.gz", dict(reversed(files.items())), prefix="top/")
    folder, archive = load(tmp_path, tmp_path / "folder"), load(tmp_path, tmp_path / "images.tar.gz")
    assert folder.fingerprint == archive.fingerprint
    assert folder.classes == ("cat", "dog") and folder.labels.tolist() == [0, 0, 1, 1] * 2
    assert folder.images.shape == (8, 32, 32, 3) and folder.images[0, 0, 0].tolist() == [0, 0, 100]


def test_other_sizes_are_resized(tmp_path):
    write_tar(tmp_path / "large.tar", image_files(size=50))
    assert load(tmp_path, tmp_path / "large.tar").images.shape == (8, 32, 32, 3)


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_truncated_tar_is_named(tmp_path, cut):
    file = tmp_path / "cut.tar.gz"
    write_tar(file, image_files())
    file.write_bytes(file.read_bytes()[: int(cut * file.stat().st_size)])
    with pytest.raises(UserError, match="cut.tar.gz"):
        load(tmp_path, file)


def test_a_file_that_is_no_image_is_named(tmp_path):
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


def test_the_jpeg_archive_is_all_of_cifar10(cifar_jpeg, tmp_path):
    data = datasets.load("cifar10", cifar_jpeg, tmp_path)
    assert data.images.shape == (60_000, 32, 32, 3)
    assert np.bincount(data.labels).tolist() == [6_000] * 10


def random_images(count):
    return torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8)


def test_the_query_transform_gives_the_same_pixels_every_time_and_takes_images_alone():
    images = random_images(5)
    once, twice = IMAGES.to_input(images), IMAGES.to_input(images)
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
    answers.ask_model(question, cpu, 64)
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


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_perturbed_inputs_are_the_inputs_and_gaussian_noise_of_the_generator(kind):
    inputs = torch.rand(6, 5)
    noise = torch.randn(6, 5, generator=torch.Generator().manual_seed(3))
    perturbed = kind.perturb(inputs, 0.25, torch.Generator().manual_seed(3))
    assert torch.equal(perturbed, inputs + 0.25 * noise)


def test_every_network_takes_a_known_kind_of_input():
    assert {network.takes for network in models.NETWORKS.values()} == KINDS.keys()
    assert datasets.kind_of("location") is FEATURES and datasets.kind_of("anything") is IMAGES
