"""Texts: read, split and turned into tokens of the attacker's pool; bert and gpt2, their compressions and controls."""

import csv
import gzip
import json
import lzma
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import stopped_in
from networks import one_thread  # noqa: F401
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional as F

import attacks
import CompLeakNR
import export
import models
import train
from clustering import kmeans
from compleak.queries.answers import Question, ask_model
from compleak.queries.run_models import open_run_model
from compleak.queries.sensitivity import EPSILON, sensitivity
from compleak.queries.targets import targets_of
from compleak.runs import run as runs
from compleak.runs import tokenizers
from compleak.runs.places import tokenizer_file
from compleak.runs.variants import ORIGINAL, compressed_variant
from compleak.training import loop
from compleak.training.compress import content_bytes
from compleak.training.finished import load_model, model_meta
from core.errors import UserError
from data import datasets, tokens
from data.inputs import TEXT
from defenses import DEFENCES
from models.text import LENGTH, turn_into_linear
from models.tools import weighted_layers
from pruning import masks, prune
from quantization import ptq, qat
from quantization.degrees import DEGREES

CPU = torch.device("cpu")
TOKENS = 300
NETWORKS = ("bert", "gpt2")
WORDS = ["red", "green", "blue", "round", "square", "large", "small", "quick", "slow", "bright", "dark", "old", "new"]


def make_texts(count: int) -> tuple[list[str], list[str]]:
    """Texts of five words, of which the last is the text's own, and a label of three."""
    rng = np.random.default_rng(0)
    texts = [" ".join([*rng.choice(WORDS, 4), f"thing{number:04d}"]) for number in range(count)]
    return texts, [f"class {number % 3}" for number in range(count)]


def write_csv(file, columns):
    with open(file, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return file


def small_network(name, width=0.125, classes=3, vocabulary=TOKENS):
    torch.manual_seed(1)
    return models.build(name, classes, width, features=vocabulary).eval()


def token_batch(size=8, seed=0):
    ids = torch.randint(4, TOKENS, (size, LENGTH), generator=torch.Generator().manual_seed(seed))
    for row, text in enumerate(ids):
        text[5 + row :] = 0  # padding
    return ids


def test_texts_are_the_same_from_every_file_and_named_columns_are_found(tmp_path):
    texts, labels = make_texts(20)
    plain = write_csv(tmp_path / "a.csv", {"label": labels, "text": texts})
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "a.csv.xz").write_bytes(lzma.compress(plain.read_bytes()))
    lines = [json.dumps({"text": text, "label": label}) for text, label in zip(texts, labels, strict=True)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    loaded = [
        datasets.load("mine", tmp_path / f"a.{ending}", tmp_path) for ending in ("csv", "csv.gz", "csv.xz", "jsonl")
    ]
    assert len({data.fingerprint for data in loaded}) == 1
    data = loaded[0]
    assert data.kind is TEXT and not data.flip and data.as_read.tolist() == texts
    assert data.classes == ("class 0", "class 1", "class 2") and data.labels.tolist() == [i % 3 for i in range(20)]
    other = write_csv(tmp_path / "b.csv", {"kind": labels, "number": range(20), "said": texts})
    named = datasets.load("mine", other, tmp_path, datasets.Reading("kind", "said"))
    assert named.fingerprint == data.fingerprint
    with pytest.raises(UserError, match="no column 'told' beside the label 'kind'; it has kind, number, said"):
        datasets.load("mine", other, tmp_path, datasets.Reading("kind", "told"))
    large = datasets.load("mine", plain, tmp_path, datasets.Reading(min_class=7))  # class 2 has six texts
    assert large.classes == ("class 0", "class 1") and large.labels.tolist() == [0, 1] * 7
    assert large.as_read.tolist() == [text for number, text in enumerate(texts) if number % 3 < 2]
    with pytest.raises(UserError, match="no class has 8 points, the largest has 7: give a smaller --min_class"):
        datasets.load("mine", plain, tmp_path, datasets.Reading(min_class=8))
    with pytest.raises(UserError, match="wordnet is not downloaded: give --data_dir"):
        datasets.load("wordnet", None, tmp_path)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "row 2 is no JSON"),
        ("[]", "row 2 is no JSON object"),
        ('{"text": 1, "label": 2}', "row 2: 'text' is 1, not a text"),
        ('{"text": "a", "label": 1.5}', "row 2: 'label' is 1.5, not a name or a whole number"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, says):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": 1}\n' + line + "\n")
    with pytest.raises(UserError, match=says):
        datasets.load("mine", tmp_path / "a.jsonl", tmp_path)


def test_both_tokenizers_give_rows_of_one_length_and_depend_on_their_texts_alone():
    texts = np.array([*make_texts(50)[0], "red " * 100, "Ünseen 漢字"], dtype=object)
    ends = {"wordpiece": "[SEP]", "byte_bpe": "<|endoftext|>"}
    for kind, end in ends.items():
        tokenizer = tokens.train(kind, texts, LENGTH, 0)
        assert tokenizer == tokens.train(kind, texts, LENGTH, 0)
        ids = tokens.encode(tokenizer, texts)
        assert ids.shape == (52, LENGTH) and ids.dtype == np.int32 and ids.max() < tokens.count(tokenizer)
        assert (ids[50] > 0).all() and (ids[0] > 0).sum() < LENGTH
        last = ids[np.arange(52), (ids > 0).sum(axis=1) - 1]
        vocabulary = {number: token for token, number in json.loads(tokenizer)["model"]["vocab"].items()}
        assert {vocabulary[number] for number in last.tolist()} == {end}


# Networks


def test_padding_changes_no_answer_and_gpt2_answers_as_with_its_own_layers():
    transformers = pytest.importorskip("transformers")
    for name in NETWORKS:
        model = small_network(name)
        ids = token_batch()
        with torch.no_grad():
            alone = model.network(input_ids=ids[:1, :5]).logits
            assert torch.allclose(model(ids)[:1], alone, atol=1e-6)
        names = {type(layer).__name__ for layer in model.modules()}
        assert "Conv1D" not in names and len(weighted_layers(model)) == {"bert": 17, "gpt2": 11}[name]
    config = transformers.GPT2Config(vocab_size=9, n_embd=16, n_layer=1, n_head=2, n_positions=4, pad_token_id=0)
    network = transformers.GPT2ForSequenceClassification(config).eval()
    ids = torch.tensor([[3, 4, 5, 0]])
    before = network(input_ids=ids).logits
    changed = turn_into_linear(network, transformers.pytorch_utils.Conv1D)
    assert torch.allclose(changed(input_ids=ids).logits, before, atol=1e-6)
    assert changed.transformer.h[0].attn.c_attn.weight.shape == (48, 16)


def test_without_the_packages_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r'bert needs the package transformers: pip install "\.\[text\]"$'):
        models.build("bert", 2, features=9)
    with pytest.raises(UserError, match=r'texts need the package tokenizers: pip install "\.\[text\]"$'):
        tokens.train("wordpiece", ["a"], LENGTH, 0)


def test_a_network_starts_from_pretrained_weights_with_a_classifier_of_its_own(tmp_path):
    saved = small_network("bert", classes=5)
    saved.network.save_pretrained(tmp_path)
    network = models.build("bert", 3, features=TOKENS, pretrained=tmp_path)
    assert torch.equal(network.token_embedding.weight, saved.token_embedding.weight)
    assert network(token_batch()).shape == (8, 3)
    (tmp_path / "tokenizer.json").write_text(tokens.train("wordpiece", make_texts(9)[0], 10, 0))
    tokenizer = tokenizers.make("bert", np.array(["unseen"]), tmp_path)
    assert tokens.encode(tokenizer, np.array(["red thing0001"])).shape == (1, LENGTH)
    assert tokens.count(tokenizer) == tokens.count(tokens.train("wordpiece", make_texts(9)[0], LENGTH, 0))
    with pytest.raises(UserError, match="holds a network of type bert, not gpt2"):
        models.build("gpt2", 3, features=TOKENS, pretrained=tmp_path)
    with pytest.raises(UserError, match="the tokenizer has 301 tokens, the network 300"):
        models.build("bert", 3, features=TOKENS + 1, pretrained=tmp_path)


def test_a_run_starts_from_a_small_pretrained_folder_under_a_root_that_is_not_there_yet(tmp_path):
    transformers = pytest.importorskip("transformers")
    texts, labels = make_texts(360)
    tokenizer = tokens.train("byte_bpe", texts, LENGTH, 0)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": LENGTH, "pad_token_id": 0}
    config = transformers.GPT2Config(vocab_size=tokens.count(tokenizer), **sizes)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "tokenizer.json").write_text(tokenizer)
    file = write_csv(tmp_path / "texts.csv", {"label": labels, "text": texts})
    named = ["--dataset_name", "mine", "--model_name", "gpt2", "--root", str(tmp_path / "not" / "there")]
    named += ["--data_dir", str(file), "--pretrained", str(tmp_path / "saved")]
    with pytest.raises(UserError, match="has a size of its own, so leave --width out"):
        train.main([*named, "--width", "0.5"])
    with pytest.raises(UserError, match="--data_dir .*missing.csv does not exist"):
        train.main([*named, "--data_dir", str(tmp_path / "missing.csv")])
    assert not (tmp_path / "not").exists()
    train.main([*named, *RECIPE, "--epochs", "1", "--max_points", "50"])
    qat.main([*named, *RECIPE, "--quantized_epochs", "1"])
    assert (tmp_path / "not/there/results_quantization/mine_gpt2_int8/victim_model/meta.json").exists()
    copy = shutil.copytree(tmp_path / "saved", tmp_path / "copy")
    ptq.main([*named, "--pretrained", str(copy), "--degree", "int4", "--roles", "victim_model"])
    transformers.GPT2LMHeadModel(config).save_pretrained(copy)
    with pytest.raises(UserError, match="was made with weights .*, not "):
        ptq.main([*named, "--pretrained", str(copy), "--degree", "int8_dynamic"])
    (copy / "config.json").unlink()
    with pytest.raises(UserError, match="there is no file .*config.json"):
        ptq.main([*named, "--pretrained", str(copy), "--degree", "int8_dynamic"])
    with pytest.raises(UserError, match="there is no folder .*nowhere with pretrained weights"):
        ptq.main([*named, "--pretrained", str(tmp_path / "nowhere"), "--degree", "int8_dynamic"])


def test_dp_refuses_the_network_that_looks_at_whole_batches():
    with pytest.raises(UserError, match="dp cannot train this network sample by sample: use gpt2"):
        DEFENCES["dp"].step.check(small_network("bert"))


def test_dp_trains_a_text_network_also_where_it_draws_an_empty_batch():
    model = small_network("gpt2").train()
    ids, labels = token_batch(4), torch.arange(4) % 3
    loss = F.cross_entropy(model.eval()(ids), labels).item()
    procedure = DEFENCES["dp"].step(1.0, num_cls=3, seed=0)
    optimizer = procedure.start(model, torch.optim.AdamW(model.parameters(), 1e-3), 8, 4, None)
    procedure.begin_epoch(torch.Generator().manual_seed(0))
    assert procedure.step(model, optimizer, ids, labels, None).item() == pytest.approx(loss, rel=1e-4)
    assert procedure.step(model, optimizer, ids[:0], labels[:0], None).item() == 0


# Compressions


def trained(prepared, steps=2):
    optimizer = torch.optim.AdamW([p for p in prepared.parameters() if p.requires_grad], 1e-3)
    for step in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(prepared.train()(token_batch(seed=step)), torch.arange(8) % 3).backward()
        optimizer.step()
    return prepared.eval()


def restored_from(module, prepared, name):
    return module.unpack(small_network(name), module.pack(prepared)).eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_linear_layer_and_embedding_is_pruned_exactly_and_layer_norm_is_not(name):
    degree = masks.Pruning("l1unstructure", 0.7)
    prepared = trained(masks.prepare(small_network(name), degree))
    restored = restored_from(masks, prepared, name)
    masks.verify(prepared, restored, degree, token_batch())
    layers = weighted_layers(restored)
    assert {type(layer) for layer in layers.values()} == {nn.Linear, nn.Embedding}
    for layer in layers.values():
        assert (layer.weight == 0).sum() == 7 * layer.weight.numel() // 10
    norms = [layer for layer in restored.modules() if isinstance(layer, nn.LayerNorm)]
    assert norms and all((layer.weight != 0).all() for layer in norms)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_linear_layer_and_embedding_is_clustered(name):
    prepared = trained(kmeans.prepare(small_network(name), 4))
    restored = restored_from(kmeans, prepared, name)
    kmeans.verify(prepared, restored, 4, token_batch())
    assert max(len(layer.weight.unique()) for layer in weighted_layers(restored).values()) <= 4


@pytest.mark.parametrize("name", NETWORKS)
def test_every_linear_layer_and_embedding_is_quantized_and_layer_norm_is_not(name):
    model = small_network(name)
    count = len(weighted_layers(model))
    for degree, entry in DEGREES.items():
        prepared = entry.module.prepare(model, degree)
        if entry.needs_calibration:
            entry.module.calibrate(prepared, model, [token_batch()])
        prepared = trained(prepared) if entry.is_fine_tuned else prepared.eval()
        packed = entry.module.pack(prepared)
        assert f"in {count} layers" in entry.module.verify(
            prepared, restored_from(entry.module, prepared, name), degree, token_batch()
        )
        whole = torch.uint8 if degree == "int4" else torch.int8
        assert sum(tensor.dtype == whole for tensor in packed.values()) == count
        floats = {key for key, tensor in packed.items() if tensor.is_floating_point() and tensor.dim() > 1}
        assert not floats


@pytest.mark.parametrize("name", NETWORKS)
def test_quantized_networks_of_full_width_are_as_small_as_stated(name):
    model = small_network(name, width=1.0, vocabulary=tokens.VOCABULARY)
    for degree in ("int8_dynamic", "int4"):
        module = DEGREES[degree].module
        share = content_bytes(module.pack(module.prepare(model, degree))) / content_bytes(model.state_dict())
        assert share <= DEGREES[degree].largest_share


# Queries and controls


def test_sensitivity_moves_the_vectors_of_tokens_and_leaves_the_model_as_it_was():
    model = small_network("gpt2")
    ids = token_batch(2)
    with torch.no_grad():
        logits = model(ids)
    weight = model.token_embedding.weight
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, LENGTH, weight.shape[1], generator=generator)
    with torch.no_grad():
        mask = (ids != 0).long()
        moved = model.network(inputs_embeds=weight[ids] + EPSILON * noise, attention_mask=mask)
        last = model.network.transformer(inputs_embeds=weight[ids] + EPSILON * noise, attention_mask=mask)[0]
        moved = model.network.score(last[torch.arange(2), mask.sum(dim=1) - 1])
    expected = (moved.double().softmax(1) - logits.double().softmax(1)).abs() / EPSILON
    measured = sensitivity(model, ids.int().numpy(), logits.numpy(), CPU, 2, 1, kind=TEXT)
    assert np.allclose(measured, expected, atol=1e-3) and measured.max() > 0.01
    with torch.no_grad():
        assert torch.equal(model(ids), logits)


def test_the_blind_control_finds_a_planted_word_and_nothing_without_one():
    texts = np.array(make_texts(1000)[0], dtype=object)
    member = np.arange(1000) % 2 == 0

    def area(words):
        scores = attacks.blind(TEXT.columns_for_blind(words), member, seed=0)
        judged = ~np.isnan(scores)
        return roc_auc_score(member[judged], scores[judged])

    assert abs(area(texts) - 0.5) < 0.06
    planted = np.array([f"{text} indeed" if i % 4 == 0 else text for i, text in enumerate(texts)], dtype=object)
    assert area(planted) > 0.7


def test_adamw_warms_up_and_other_recipes_are_named_as_before():
    recipe = loop.Recipe(10, 0.5, 8, 0, weight_decay=0.01, optimizer="adamw")
    rates = [loop.learning_rate(recipe, epoch) for epoch in (0, 0.5, 1, 10)]
    assert rates == pytest.approx([0, 0.25 * 0.994, 0.5 * 0.9755, 0], abs=1e-3)
    assert loop.learning_rate(recipe._replace(optimizer="sgd"), 0) == 0.5
    optimizer = loop.OPTIMIZERS["adamw"]([nn.Parameter(torch.zeros(1))], recipe)
    assert isinstance(optimizer, torch.optim.AdamW) and optimizer.defaults["weight_decay"] == 0.01


# A run


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The flags of a run on 360 texts, and its root."""
    root = tmp_path_factory.mktemp("text")
    texts, labels = make_texts(360)
    file = write_csv(root / "texts.csv", {"label": labels, "text": texts})
    flags = ["--dataset_name", "mine", "--model_name", "bert", "--width", "0.125", "--root", str(root)]
    return [*flags, "--data_dir", str(file)]


RECIPE = ["--optimizer", "adamw", "--lr", "0.001", "--batch_size", "32"]


@pytest.fixture(scope="module")
def text_run(command):
    """The run with its models, and the texts that its tokenizer was trained on."""
    given = []
    train_tokenizer = tokens.train

    def keep_and_train(kind, texts, *sizes):
        given.append(texts.tolist())
        return train_tokenizer(kind, texts, *sizes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "train", keep_and_train)
        train.main([*command, *RECIPE, "--epochs", "1", "--max_points", "50"])
        train.main([*command, *RECIPE, "--epochs", "1", "--max_points", "50"])
    return runs.open_run(train.parse(command).run), given


def test_the_tokenizer_is_trained_once_on_the_attackers_pool_and_on_none_of_the_victims_points(text_run):
    run, given = text_run
    assert len(given) == 1
    split, _ = runs.split(run)
    texts = runs.dataset(run).as_read.tolist()
    used = sorted(texts.index(text) for text in given[0])
    assert used == split.pool.tolist()
    assert not set(used) & {*split.victim.train.tolist(), *split.victim.test.tolist()}


def test_later_stages_read_the_runs_own_tokenizer_and_refuse_another(text_run):
    run, _ = text_run
    file = tokenizer_file(run.root, run.name)
    content = file.read_text()
    data = runs.dataset(run)
    assert np.array_equal(data.images, tokens.encode(content, data.as_read))
    assert run.config["features"] == tokens.count(content)
    assert model_meta(run, ORIGINAL, "victim_model")["made_from"]["tokenizer"] == run.config["tokenizer"]
    file.write_text(content.replace("thing", "thong"))
    with pytest.raises(UserError, match="tokenizer"):
        runs.dataset(run)
    file.write_text(content)


def test_a_probe_that_needs_pictures_or_numbers_is_refused_by_name(text_run):
    run, _ = text_run
    for probe, flag in (("augmented", "queries"), ("noise", "noise_repeats"), ("boundary", "boundary_points")):
        question = Question(run, targets_of(run), ORIGINAL, "victim_model", {probe: 1})
        with pytest.raises(UserError, match=f"texts have no .*: leave out --{flag}"):
            ask_model(question, None, CPU, 32)


def test_a_run_on_texts_is_compressed_attacked_and_controlled(command, text_run):
    run, _ = text_run
    prune.main([*command, *RECIPE, "--prune_epochs", "1", "--prune_sparsity", "0.6"])
    variant = compressed_variant("pruning", "0.6")
    layers = weighted_layers(load_model(run, variant, "victim_model")).values()
    assert all((layer.weight == 0).sum() == 6 * layer.weight.numel() // 10 for layer in layers)
    flags = ["--compress", "--compress_name", "pruning", "--compress_degree", "0.6", "--sensitivity_draws", "1"]
    CompLeakNR.main([*command, *flags, "--attacks", "yeom2018,samia"])
    rows = pd.read_csv(run.signals_file(variant).parent / "NR.csv", keep_default_na=False)
    assert list(rows["attack"]) == ["yeom2018", "samia", "null", "blind"]
    controls = rows.set_index("attack").loc[["null", "blind"]]
    assert (controls["auc_lo"] < 0.5).all() and (controls["auc_hi"] > 0.5).all()


def test_the_model_of_a_run_takes_texts_as_any_shipped_model_does_and_is_not_exported(command, text_run):
    run, _ = text_run
    model = open_run_model(run.root, run.name, "cpu")
    data = runs.dataset(run)
    with torch.no_grad():
        expected = load_model(run, ORIGINAL, "victim_model")(torch.from_numpy(data.images[:3]).long())
    assert np.array_equal(model.answer(model.tokenize(data.as_read[:3].tolist())), expected)
    with pytest.raises(UserError, match="is a run on texts, whose networks are not exported"):
        export.main([*command[:-2], "--out", str(run.root / "exported")])


def test_a_text_network_refuses_images_and_a_stopped_training_goes_on(command, tmp_path):
    with pytest.raises(UserError, match="digits is images, bert a network for texts: use --model_name resnet18"):
        train.main(["--dataset_name", "digits", "--model_name", "bert", "--root", str(tmp_path)])
    ids, labels = token_batch(8), torch.arange(8) % 3
    recipe = loop.Recipe(2, 0.001, 4, 0, augment=False, weight_decay=0.01, optimizer="adamw")

    def fit(folder):
        model = small_network("gpt2")
        options = {"flip": False, "device": CPU, "resume": folder / "resume.pt", "identity": {}, "desc": "test"}
        loop.fit(model, ids.int(), labels, recipe, kind=TEXT, **options)
        return model.state_dict()

    whole = fit(tmp_path / "whole")
    with stopped_in(1):
        fit(tmp_path / "stopped")
    resumed = fit(tmp_path / "stopped")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
