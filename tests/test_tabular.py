"""Tables of features and their network, from small files of the authors' three formats; SVHN; group normalisation."""

import io
import json
import tarfile

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import THREE_VARIANTS, stopped_in
from scipy.io import savemat
from torch.nn import functional as F

import models
import reproduce
import train
from clustering import kmeans
from compleak.pipeline.presets import PRESETS, Preset
from compleak.runs import checkpoints
from compleak.runs.run import open_run
from compleak.training import loop
from compleak.training.compress import LEAST_FEATURES, content_bytes
from compleak.training.loop import Recipe
from core.errors import UserError
from data import datasets, inputs
from defenses import Procedure, build
from pruning import masks
from quantization import degrees, int8

CPU = torch.device("cpu")
TECHNIQUES = [
    pytest.param(masks, masks.Pruning("l1unstructure", 0.7)),
    pytest.param(int8, "int8"),
    pytest.param(kmeans, 4),
]
FEATURES = 20
CLASSES = 4


def table(rows=48, columns=FEATURES):
    """Features (rows, columns) of zeros and ones, labels from 1, every class in turn."""
    features = np.random.default_rng(0).integers(0, 2, size=(rows, columns))
    return features, np.arange(rows) % CLASSES + 1


def lines(rows, quote=""):
    return "".join(",".join(f"{quote}{value}{quote}" for value in row) + "\n" for row in rows)


def contents(name, rows=48, quote=""):
    """path in the archive -> text, as the authors' files have it."""
    features, labels = table(rows)
    if name == "texas100":
        return {"texas/100/feats": lines(features, quote), "texas/100/labels": lines(labels[:, None], quote)}
    file = {"purchase100": "dataset_purchase", "location": "bangkok"}[name]
    return {file: lines(np.column_stack([labels, features]), quote)}


def write(folder, files):
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def write_archive(file, files):
    with tarfile.open(file, "w:gz") as archive:
        for path, text in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return file


def load(name, place):
    return datasets.load(name, place, place)


@pytest.mark.parametrize(
    ("name", "archive"),
    [("purchase100", "dataset_purchase.tgz"), ("texas100", "dataset_texas.tgz"), ("location", "dataset_location.tgz")],
)
def test_a_table_is_the_same_from_files_or_an_archive_with_or_without_quotes(tmp_path, name, archive):
    plain = write(tmp_path / "plain", contents(name))
    (tmp_path / "packed").mkdir()
    packed = write_archive(tmp_path / "packed" / archive, contents(name, quote='"'))
    loaded = [datasets.load(name, None, plain), datasets.load(name, None, tmp_path / "packed"), load(name, packed)]
    assert len({data.fingerprint for data in loaded}) == 1
    data = loaded[0]
    features, labels = table()
    assert np.array_equal(data.images, features) and data.images.dtype == np.uint8
    assert np.array_equal(data.labels, labels - 1) and data.classes == ("1", "2", "3", "4")
    assert data.features == FEATURES and data.kind is inputs.FEATURES and not data.flip


@pytest.mark.parametrize(("names", "sorted_names"), [("b a c", ("a", "b", "c")), ("10 9 2", ("2", "9", "10"))])
def test_a_csv_file_is_a_table_with_columns_of_one_size_and_labels_that_are_names_or_numbers(
    tmp_path, names, sorted_names
):
    names = names.split()
    rows = [[1000 * i, 7, names[i % 3], 0.25 * i] for i in range(12)]
    (tmp_path / "t.csv").write_text("big,same,kind,small\n" + lines(rows))
    data = datasets.load("mine", tmp_path / "t.csv", tmp_path, datasets.Reading(label_column="kind"))
    assert [data.classes[label] for label in data.labels] == [names[i % 3] for i in range(12)]
    assert data.classes == sorted_names and data.kind is inputs.FEATURES
    big, same, small = data.images.T
    assert np.allclose(big, small) and not same.any() and data.images.dtype == np.float32
    assert np.allclose([big.mean(), big.std()], [0, 1], atol=1e-6) and (np.diff(big) > 0).all()


def test_a_csv_file_of_zeros_and_ones_stays_as_it_is(tmp_path):
    (tmp_path / "bits.csv").write_text("a,b,label\n" + lines([[0, 1, 0], [1, 1, 1]] * 6))
    data = load("mine", tmp_path / "bits.csv")
    assert data.images.dtype == np.uint8 and data.images[:2].tolist() == [[0, 1], [1, 1]]


def test_data_dir_may_be_the_file_its_folder_or_any_folder_above(tmp_path):
    one = write(tmp_path / "location", contents("location"))
    assert load("location", one / "bangkok").fingerprint == load("location", one).fingerprint
    two = write(tmp_path / "both", contents("texas100"))
    assert load("texas100", two / "texas/100").fingerprint == load("texas100", two).fingerprint
    with pytest.raises(UserError, match="is one file, texas100 needs .*give their folder"):
        load("texas100", two / "texas/100/feats")


def test_features_that_are_not_small_whole_numbers_are_float32(tmp_path):
    write(tmp_path, {"bangkok": "2,0.5,-3\n1,0,1000\n"})
    data = load("location", tmp_path)
    assert data.images.dtype == np.float32 and data.images.tolist() == [[0.5, -3], [0, 1000]]
    assert data.labels.tolist() == [1, 0]


def test_a_table_is_read_in_parts_to_the_same_values(tmp_path, monkeypatch):
    whole = load("location", write(tmp_path / "a", contents("location")))
    monkeypatch.setattr("data.tables.ROWS", 7)
    assert load("location", write(tmp_path / "b", contents("location"))).fingerprint == whole.fingerprint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1,0,1\n2,1,x\n", "row 2, column 3 is 'x', no number"),
        ("label,0,1\n1,0,1\n", "row 1, column 1 is 'label', no number; delete this row if it is a header"),
        ("1,0,x\n2,1,1\n", "row 1, column 3 is 'x', no number; delete this row"),
        ("label,a\n1,1\n2,x\n", "row 2, column 2 is 'x', no number; rows are counted behind the header"),
        ("label,a\n0,1\n", "row 1 has the label 0, .*; rows are counted behind the header"),
        (",\n1,1\n", "row 1, column 1 is empty"),
        ("label,a\n", "No columns"),
        ("1,0,1\n2,1\n", "row 2, column 3 is empty"),
        ("1,0\n2,1,1\n", "Expected 2 fields in line 2, saw 3"),
        ("1,0,1\n0,1,1\n", "row 2 has the label 0, not one from 1 to 30"),
        ("31,0,1\n", "row 1 has the label 31"),
        ("1.5,0,1\n", "row 1 has the label 1.5"),
        ("1\n2\n", "0 columns of features"),
        ("", "No columns"),
    ],
)
def test_a_damaged_table_is_named_with_its_fault_and_its_source(tmp_path, text, says):
    write(tmp_path, {"bangkok": text})
    with pytest.raises(UserError, match=f"bangkok cannot be used .*{says}.*get dataset_location.tgz from https://"):
        load("location", tmp_path)


@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["location", "texas100"])
def test_a_header_is_skipped_and_reported(tmp_path, capsys, name, packed, quote):
    plain = load(name, write(tmp_path / "plain", contents(name))).fingerprint
    width = {"bangkok": FEATURES + 1, "texas/100/feats": FEATURES, "texas/100/labels": 1}
    titled = {
        file: "\ufeff" + lines([[f"name {i}" for i in range(width[file])]], quote) + text
        for file, text in contents(name, quote=quote).items()
    }
    place = write_archive(tmp_path / "titled.tgz", titled) if packed else write(tmp_path / "titled", titled)
    assert load(name, place).fingerprint == plain
    plain_line, header_line = capsys.readouterr().out.splitlines()
    assert plain_line.endswith("48 rows of 20 features of 4 classes")
    assert header_line.endswith(f"48 rows of 20 features of 4 classes; skipped {len(titled)} header")


@pytest.mark.parametrize("cut", [0.4, 0.95])
def test_a_truncated_archive_is_named(tmp_path, cut):
    file = write_archive(tmp_path / "dataset_location.tgz", contents("location", rows=500))
    file.write_bytes(file.read_bytes()[: int(cut * file.stat().st_size)])
    with pytest.raises(UserError, match="dataset_location.tgz cannot be used"):
        load("location", tmp_path)


def test_a_missing_table_or_part_of_it_is_named_with_its_source(tmp_path):
    with pytest.raises(
        UserError, match="location is not in .*dataset_location.tgz from https://github.com/privacytrust"
    ):
        load("location", tmp_path)
    write_archive(tmp_path / "dataset_location.tgz", {"readme": "nothing"})
    with pytest.raises(UserError, match="holds no bangkok"):
        load("location", tmp_path)
    write(tmp_path, contents("texas100"))
    (tmp_path / "texas/100/labels").write_text("1\n2\n")
    with pytest.raises(UserError, match="48 rows of features and 2 labels"):
        load("texas100", tmp_path)
    (tmp_path / "texas/100/labels").unlink()
    with pytest.raises(UserError, match="labels is missing"):
        load("texas100", tmp_path)


def test_svhn_is_its_two_parts_joined_as_rows_of_pixels_and_never_mirrored(tmp_path, monkeypatch):
    import torchvision

    pixels = np.random.default_rng(0).integers(0, 256, size=(32, 32, 3, 6), dtype=np.uint8)
    for split, part in (("train", slice(0, 4)), ("test", slice(4, 6))):
        y = np.array([10, 1, 2, 3, 9, 10], dtype=np.uint8)[part, None]  # ten stands for the digit 0
        savemat(tmp_path / f"{split}_32x32.mat", {"X": pixels[..., part], "y": y})
    monkeypatch.setattr(torchvision.datasets.SVHN, "download", lambda self: None)
    monkeypatch.setattr(torchvision.datasets.SVHN, "_check_integrity", lambda self: True)
    data = datasets.load("svhn", None, tmp_path)
    assert np.array_equal(data.images, pixels.transpose(3, 0, 1, 2)) and data.images.dtype == np.uint8
    assert data.labels.tolist() == [0, 1, 2, 3, 9, 0] and len(data.classes) == 10 and not data.flip


def test_features_reach_the_network_as_they_are_in_training_and_in_queries():
    rows = torch.randint(0, 2, (9, 5), dtype=torch.uint8)
    index = torch.tensor([4, 0, 4])
    kind = inputs.FEATURES
    generator = torch.Generator().manual_seed(0)
    for draws in (kind.draw_augmentation(3, True, generator), kind.no_augmentation(3)):
        assert torch.equal(kind.augmented_batch(kind.pad(rows), index, draws), rows[index])
    assert kind.to_input(rows).dtype == torch.float32 and torch.equal(kind.to_input(rows), rows.float())
    fractions = torch.rand(9, 5)
    assert torch.equal(kind.to_input(fractions), fractions)


# The networks


def test_the_mlp_is_the_papers_and_any_width_of_it():
    model = models.build("mlp", 30, features=446)
    sizes = [tuple(p.shape) for p in model.parameters() if p.dim() == 2]
    assert sizes == [(256, 446), (128, 256), (30, 128)]
    kinds = [type(layer).__name__ for layer in model]
    assert kinds == ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert [layer.p for layer in model if isinstance(layer, torch.nn.Dropout)] == [0.1, 0.1]
    assert models.build("mlp", 3, 0.05, features=1)(torch.zeros(2, 1)).shape == (2, 3)


def test_the_group_norm_resnet_has_no_batch_norm_and_answers_a_sample_alone_as_in_a_batch():
    torch.manual_seed(0)
    for width in (0.125, 0.375):  # 0.375 has 24 channels, which 16 does not divide
        model = models.build("resnet18_gn", 10, width).train()
        assert not any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in model.modules())
        assert not list(model.buffers())
        images = torch.randn(4, 3, 32, 32)
        images[1:] *= 5
        assert torch.allclose(model(images)[:1], model(images[:1]), atol=1e-5)
    full = models.build("resnet18_gn", 10).modules()
    assert {m.num_channels // m.num_groups for m in full if isinstance(m, torch.nn.GroupNorm)} == {16}


def fit(folder, epochs=6):
    torch.manual_seed(3)
    model = models.build("mlp", CLASSES, 0.25, features=FEATURES)
    features, labels = (torch.from_numpy(array) for array in table())
    recipe = Recipe(epochs, 0.05, 16, 5, augment=False)
    options = {"flip": False, "device": CPU, "resume": folder / "resume.pt", "identity": {}, "desc": "test"}
    options["kind"] = inputs.FEATURES
    return loop.fit(model, features.to(torch.uint8), labels - 1, recipe, **options), model.state_dict()


@pytest.mark.parametrize("defence", ["adv", "dp"])
def test_an_int8_network_with_dropout_is_the_same_whatever_random_numbers_were_drawn_before(tmp_path, defence):
    features, labels = (torch.from_numpy(array) for array in table())
    options = {"flip": False, "device": CPU, "identity": {}, "desc": "test", "kind": inputs.FEATURES}
    options["reserve"] = (features[40:].to(torch.uint8), labels[40:] - 1)
    trained = []
    for seed in (1, 2):
        torch.manual_seed(3)
        model = int8.prepare(models.build("mlp", CLASSES, 0.25, features=FEATURES), "int8")
        torch.manual_seed(seed)
        procedure = build(defence, 1.0, num_cls=CLASSES, seed=5)
        recipe = Recipe(1, 0.05, 16, 5, augment=False)
        points = features[:40].to(torch.uint8), labels[:40] - 1
        loop.fit(model, *points, recipe, resume=tmp_path / "resume.pt", procedure=procedure, **options)
        trained.append(model.state_dict())
    assert all(torch.equal(trained[0][key], trained[1][key]) for key in trained[0])


@pytest.mark.parametrize("stop", [1, 3])
def test_a_stopped_training_with_dropout_goes_on_to_the_very_same_weights(tmp_path, stop):
    loss, weights = fit(tmp_path / "undisturbed")
    with stopped_in(stop):
        fit(tmp_path / "stopped")
    torch.rand(7)  # another process would be elsewhere in its random numbers
    again, resumed = fit(tmp_path / "stopped")
    assert again == loss and all(torch.equal(weights[key], resumed[key]) for key in weights)


def test_dropout_drops_other_units_in_every_epoch(monkeypatch):
    seeds = []
    monkeypatch.setattr(loop.torch, "manual_seed", seeds.append)
    model = models.build("mlp", CLASSES, 0.25, features=FEATURES)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    rows, labels = (torch.from_numpy(array) for array in table())
    points = loop.Points(rows, labels - 1, False, inputs.FEATURES)
    for seed, epoch in ((1, 0), (1, 1), (2, 0), (1, 0)):
        recipe = Recipe(2, 0.1, 16, seed, augment=False)
        loop.train_epoch(model, points, None, optimizer, Procedure(), recipe, epoch)
    assert len(set(seeds)) == 3 and seeds[0] == seeds[3]


# Compression


def fine_tuned(prepared, steps=3):
    optimizer = torch.optim.SGD([p for p in prepared.parameters() if p.requires_grad], 1e-2, momentum=0.9)
    rows, labels = (torch.from_numpy(array) for array in table())
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(prepared.train()(rows.float()), labels - 1).backward()
        optimizer.step()
    return prepared.eval()


@pytest.mark.parametrize(("technique", "degree"), TECHNIQUES)
def test_the_mlp_is_compressed_as_promised_and_restored_exactly(technique, degree):
    torch.manual_seed(0)
    model = models.build("mlp", CLASSES, 0.25, features=FEATURES).eval()
    prepared = fine_tuned(technique.prepare(model, degree))
    restored = technique.unpack(models.build("mlp", CLASSES, 0.25, features=FEATURES), technique.pack(prepared))
    rows = torch.from_numpy(table()[0]).float()
    assert "3 layers" in technique.verify(prepared, restored, degree, rows)
    with torch.no_grad():
        assert torch.equal(restored(rows), prepared(rows)) and not torch.equal(restored(rows), model(rows))


@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [
        *(("mlp", 100, 600), ("mlp", 100, 6169), ("mlp", 30, 446), ("mlp", 2, LEAST_FEATURES)),
        ("resnet18_gn", 10, None),
    ],
)
def test_the_int8_model_is_at_most_27_percent_of_the_float_one(name, classes, count):
    model = models.build(name, classes, features=count)
    prepared = int8.prepare(model, "int8").train()
    with torch.no_grad():
        prepared(torch.randn(2, count) if count else torch.randn(2, 3, 32, 32))
    share = content_bytes(int8.pack(prepared)) / content_bytes(model.state_dict())
    assert share <= degrees.DEGREES["int8"].largest_share


def test_int8_leaves_group_normalisation_in_float():
    model = models.build("resnet18_gn", 10, 0.125)
    packed = int8.pack(seen(int8.prepare(model, "int8")))
    norms = {key for key in model.state_dict() if "0.0.1." in key or "conv1.1." in key}
    assert norms and all(torch.equal(packed[key], model.state_dict()[key]) for key in norms)


def seen(prepared):
    with torch.no_grad():
        prepared.train()(torch.randn(2, 3, 32, 32))
    return prepared.eval()


# The stages


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--dataset_name location", "location is a table of features, .*use --model_name mlp"),
        ("--dataset_name texas100 --model_name vgg16_bn", "texas100 is a table .*use --model_name mlp"),
        ("--dataset_name digits --model_name mlp", "digits is images, mlp .*use --model_name resnet18 or"),
        ("--dataset_name location --model_name mlp", "location is not in"),
    ],
)
def test_a_network_for_the_other_kind_of_data_is_refused_before_anything_is_written(tmp_path, flags, says):
    with pytest.raises(UserError, match=says):
        train.main([*flags.split(), "--root", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_a_run_made_before_tables_were_known_still_opens(tmp_path):
    command = ["--dataset_name", "digits", "--width", "0.125", "--root", str(tmp_path), "--max_points", "10"]
    file = tmp_path / "results/digits_resnet18_w0.125/run.json"
    train.main([*command, "--roles"])
    config = json.loads(file.read_text())
    assert config.pop("features") is None
    file.write_text(json.dumps(config))
    assert open_run(train.parse(command).run).config["features"] is None
    train.main([*command, "--roles"])


@pytest.mark.slow
def test_an_audit_of_a_table_ends_in_tables_and_has_no_pictures_of_its_points(tmp_path, monkeypatch):
    one_epoch = {"epochs": 1}
    preset = Preset(
        train={"epochs": 2, "label_noise": 0.2},  # with augmentation, which tables do not have
        pruning=one_epoch,
        quantization=one_epoch,
        clustering=one_epoch,
        attack={"asked": {"sensitivity": 1}},
    )
    monkeypatch.setitem(PRESETS, "tiny", preset)
    write(tmp_path / "data" / "datasets", contents("location", rows=360))
    command = ["--dataset_name", "location", "--model_name", "mlp", "--preset", "tiny", "--root", str(tmp_path)]
    reproduce.main([*command, "--variants", *THREE_VARIANTS])
    folder = tmp_path / "results" / "location_mlp_tiny"
    assert json.loads((folder / "run.json").read_text())["features"] == FEATURES
    for place in (folder, tmp_path / "results_quantization" / "location_mlp_tiny_int8"):
        assert checkpoints.load_meta(place / "victim_model")["made_from"]["augment"] is False
    written = pd.read_csv(folder / "summary.csv", keep_default_na=False)
    assert set(written["scenario"]) == {"NR", "SR", "MR"} and {"null", "blind", "samia"} <= set(written["attack"])
    text = (folder / "summary.md").read_text()
    assert "without augmentation" in text and "sees the features and no model" in text
    assert "exposed.png" not in text and not (folder / "exposed.png").exists()


def test_blind_looks_at_the_features_that_vary_most():
    rows = np.zeros((50, inputs.WIDEST + 40), dtype=np.uint8)
    rows[::2, 40:] = 1
    assert np.array_equal(inputs.summarise_table(rows)[:, :-1], rows[:, 40:])
    assert np.allclose(inputs.summarise_table(rows)[:, -1], rows.mean(axis=1))
