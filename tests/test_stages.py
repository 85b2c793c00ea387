"""The stages as users run them, tiny: folders, checks, tables and controls."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from importlib import import_module

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ATTACK, NETWORK, ROOT, TINY, script

import attacks
import CompLeakMR
import CompLeakNR
import CompLeakSR
import query
import reproduce
import train
from compleak.audits import metrics
from compleak.audits.controls import blind_control
from compleak.queries import signals_file
from compleak.queries.collect import collect
from compleak.runs import checkpoints
from compleak.runs.places import role_dir
from compleak.runs.run import finished_variants, open_run
from compleak.runs.variants import (
    ORIGINAL,
    PAPER_GRID,
    TECHNIQUES,
    Variant,
    compressed_variant,
    parse_variant,
)
from core import devices
from core.console import run_script
from core.errors import UserError
from pruning import prune
from pruning.masks import Pruning

MACHINE = {"device": torch.device("cpu"), "batch_size": 128}
OURS = ("joint", "calibrated", "neural", "combined")
COLUMNS = [
    *("scenario", "variant", "attack", "classifier", "artifact_row"),
    *("acc", "acc_lo", "acc_hi", "auc", "auc_lo", "auc_hi"),
    *("tpr_at_fpr_0.001", "tpr_at_fpr_0.001_lo", "tpr_at_fpr_0.001_hi", "n_member", "n_nonmember", "seed", "seconds"),
]


def flags(tiny_root, *more):
    return [*NETWORK, "--root", str(tiny_root), "--run_name", "tiny", *map(str, more)]


def attack_flags(tiny_root, *more):
    return [*flags(tiny_root), *ATTACK, *map(str, more)]


def pruned(degree="0.6"):
    return ["--compress", "--compress_name", "pruning", "--compress_degree", degree]


def test_training_and_compression_fill_the_authors_folders(tiny_root, tiny_run):
    for role in ("victim_model", "shadow_model_0"):
        for folder in ("results/tiny", *(f"results_{v.technique}/tiny_{v.degree}" for v in PAPER_GRID)):
            meta = checkpoints.load(tiny_root / folder / role).meta
            assert {"test_accuracy", "train_accuracy", "command", "commit", "versions", "machine"} <= meta.keys()
            assert (folder == "results/tiny") or meta["property"]
            assert not (tiny_root / folder / role / "resume.pt").exists()


def test_compressed_models_are_smaller_on_disk(tiny_run):
    folders = {str(variant): tiny_run.role_dir(variant, "victim_model") for variant in finished_variants(tiny_run)}
    models = {variant: checkpoints.load_meta(folder)["bytes"] for variant, folder in folders.items()}
    assert models["pruning_0.9"] < models["pruning_0.6"] < models["original"]
    assert models["clustering_4"] < models["clustering_16"] < models["quantization_int8"] < 0.5 * models["original"]


def test_a_finished_stage_is_not_run_again(tiny_root, capsys):
    train.main(flags(tiny_root, *TINY))
    assert capsys.readouterr().out.count("done before") == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--lr", "0.3"], "lr"),
        (["--epochs", "2"], "epochs"),
        (["--seed", "8"], "seed"),
        (["--max_points", "50"], "max_points"),
    ],
)
def test_a_stage_refuses_a_model_made_with_other_settings(tiny_root, change, says):
    with pytest.raises(UserError, match=f"made with {says} .*--run_name"):
        train.main(flags(tiny_root, *TINY, *change))


def test_a_compressed_model_of_another_original_is_refused(tiny_root, tiny_run):
    file = role_dir(tiny_root, "tiny", Variant("pruning", "0.6"), "victim_model") / "meta.json"
    original_text = file.read_text()
    meta = json.loads(original_text)
    meta["made_from"]["original"] = "0" * 64
    file.write_text(json.dumps(meta))
    try:
        with pytest.raises(UserError, match="made with original 0000"):
            CompLeakNR.main(attack_flags(tiny_root, *pruned()))
    finally:
        file.write_text(original_text)


@pytest.mark.parametrize(("variant", "key"), [("original", "lr"), ("pruning_0.6", "epochs")])
def test_a_shadow_made_by_another_recipe_than_the_victim_is_refused(tiny_root, tiny_run, variant, key):
    file = role_dir(tiny_root, "tiny", parse_variant(variant), "shadow_model_0") / "meta.json"
    original_text = file.read_text()
    meta = json.loads(original_text)
    meta["made_from"][key] = 5
    file.write_text(json.dumps(meta))
    try:
        with pytest.raises(UserError, match=f"{variant}: shadow_model_0 was made with {key} 5, victim_model with "):
            CompLeakNR.main(attack_flags(tiny_root, *pruned()))
    finally:
        file.write_text(original_text)


def test_a_model_of_another_recipe_than_the_runs_others_is_refused_before_it_is_trained(tmp_path, monkeypatch):
    named = [*NETWORK, "--root", str(tmp_path)]
    pruning = [*named, "--prune_sparsity", "0.6", "--no_augment", "--prune_epochs"]
    train.main([*named, *TINY])
    prune.main([*pruning, "1", "--roles", "shadow_model_0"])
    monkeypatch.setattr("compleak.training.make.fit", None)  # a training that is begun fails
    shutil.rmtree(tmp_path / "results/digits_resnet18_w0.125/shadow_model_0")
    with pytest.raises(UserError, match="original: victim_model was made with epochs 1, not 2: use the same settings"):
        train.main([*named, *TINY, "--epochs", "2", "--roles", "shadow_model_0"])
    with pytest.raises(UserError, match="pruning_0.6: shadow_model_0 was made with epochs 1, not 3"):
        prune.main([*pruning, "3", "--roles", "victim_model"])


def test_a_command_that_is_refused_for_its_recipe_leaves_the_run_as_it_was(tiny_root, tiny_run):
    stated = tiny_run.file.read_bytes()
    with pytest.raises(UserError, match="made with lr"):
        train.main(flags(tiny_root, *TINY, "--shadow_num", "4", "--lr", "0.01"))
    with pytest.raises(UserError, match="made with lr"):
        train.main(flags(tiny_root, *TINY, "--shadow_num", "4", "--lr", "0.01", "--roles", "shadow_model_3"))
    assert tiny_run.file.read_bytes() == stated


def test_other_data_under_the_same_name_is_refused(tiny_root, tmp_path):
    from test_data import image_files, write_tar

    write_tar(tmp_path / "other.tar", image_files())
    with pytest.raises(UserError, match="made with data"):
        CompLeakNR.main(
            attack_flags(tiny_root, "--original", "--data_dir", tmp_path / "other.tar", "--sensitivity_draws", 2)
        )


def test_nr_gives_the_protocols_table_scores_and_controls(tiny_root, tmp_path, capsys):
    table = CompLeakNR.main(attack_flags(tiny_root, "--original", "--out", tmp_path))
    assert "CompLeakNR_SAMIA" in capsys.readouterr().out
    written = pd.read_csv(tmp_path / "NR.csv", keep_default_na=False)
    assert written.columns[: len(COLUMNS)].tolist() == COLUMNS
    rows = (written["attack"] + "/" + written["classifier"]).str.rstrip("/").tolist()
    assert rows == [
        *("shokri2017/logistic_regression", "shokri2017/random_forest"),
        *("nasr2018/logistic_regression", "nasr2018/random_forest"),
        *("yeom2018", "entropy", "song2021", "samia", "rmia", "gap", "base", "watson2022"),
        "lira/global_variance",
        *("info_rmia", "pmia_class", "rapid", *OURS, "null", "blind"),
    ]
    scores = np.load(tmp_path / "NR_scores.npz")
    assert sorted(scores.files) == sorted(rows)
    truth = signals_file.load(tiny_root / "results/tiny/signals.npz").truth
    assert truth.sum() == 60
    for name in rows:
        asked = np.isfinite(scores[name])
        assert scores[name].dtype == np.float64 and scores[name].shape == truth.shape
        if name != "null":
            assert asked.sum() == (60 if name == "blind" else 120)  # blind is fitted on the other half
            assert metrics.auc(scores[name][asked], truth[asked]) == pytest.approx(table["auc"][rows.index(name)])
    assert np.isnan(scores["null"][truth]).all() and np.isfinite(scores["null"][~truth]).all()


def test_scores_do_not_depend_on_the_victims_membership(tiny_root, tiny_run, tmp_path, capsys):
    file = collect(tiny_run, ORIGINAL, {"sensitivity": 1}, **MACHINE)
    arrays = dict(np.load(file))
    audited = np.flatnonzero(arrays["audit"][0])
    arrays["member"][0, audited] = np.random.default_rng(1).permutation(arrays["member"][0, audited])
    for name in ("right", "shuffled"):
        (tmp_path / name).mkdir()
    np.savez(tmp_path / "shuffled.npz", **arrays)
    CompLeakNR.main(["--signals", str(file), "--out", str(tmp_path / "right"), *ATTACK])
    said = "not used, because --signals names models that have answered already: --sensitivity_draws"
    assert said in capsys.readouterr().out
    CompLeakNR.main(["--signals", str(tmp_path / "shuffled.npz"), "--out", str(tmp_path / "shuffled"), *ATTACK])
    right, shuffled = (np.load(tmp_path / name / "NR_scores.npz") for name in ("right", "shuffled"))
    for key in set(right.files) - {"null"}:
        assert np.array_equal(right[key], shuffled[key]), key


def test_sr_says_that_it_starts_and_reports_its_rows(tiny_root, tmp_path, capsys):
    table = CompLeakSR.main(attack_flags(tiny_root, "--original", *pruned(), "--out", tmp_path))
    assert "Start Membership Inference Attacks" in capsys.readouterr().out
    assert table["attack"].tolist() == [*("SR1", "SR1", "SR2", "SR2", "model_updates", *OURS, "null", "blind")]
    assert (tmp_path / "SR_scores.npz").exists() and set(table["variant"]) == {"pruning_0.6"}


def test_defended_answers_of_a_run_lie_in_folders_that_name_the_defence(tiny_root, tiny_run):
    variants = finished_variants(tiny_run)
    options = ["--original", *pruned(), "--attacks", "model_updates", "--answers", "label", "--adaptive"]
    table = CompLeakSR.main(attack_flags(tiny_root, *options))
    assert set(table["attack"]) == {"model_updates", "null", "blind"}
    folder = tiny_root / "results_pruning" / "tiny_label_adaptive_0.6"
    assert {file.name for file in folder.iterdir()} >= {"signals.npz", "SR.csv", "SR_scores.npz"}
    posteriors = np.exp(signals_file.load(folder / "signals.npz").logits)
    assert set(np.round(posteriors, 6).ravel()) == {0.0, 1.0} and finished_variants(tiny_run) == variants


def test_mr_uses_the_results_of_sr_and_computes_them_if_sr_has_not_run(tmp_path, monkeypatch):
    assert script("examples/write_signals.py", "--out", tmp_path).returncode == 0
    pair = ["--signals", str(tmp_path / "original.npz"), str(tmp_path / "compressed.npz")]
    alone = CompLeakMR.main(pair)
    sr_results = tmp_path / "compressed_sr.npz"  # beside the signals, where both scripts look
    sr_results.unlink()
    CompLeakSR.main(pair)

    def refuse(*_, **__):
        raise AssertionError("made again")

    monkeypatch.setattr(attacks, "membership", refuse)
    after_sr = CompLeakMR.main([*pair, "--again"])
    pd.testing.assert_frame_equal(alone.drop(columns="seconds"), after_sr.drop(columns="seconds"))
    sr_results.write_bytes(b"half a file")
    with pytest.raises(AssertionError, match="made again"):
        CompLeakMR.main([*pair, "--again"])
    CompLeakSR.main([*pair, "--again"])
    with pytest.raises(AssertionError, match="made again"):
        CompLeakMR.main([*pair, "--seed", "8"])


@pytest.mark.parametrize("more", [[], ["--skip_done"]])
def test_a_table_is_made_again_only_if_something_changed_or_the_user_asks_for_it(tiny_root, tmp_path, capsys, more):
    options = attack_flags(tiny_root, "--original", *pruned(), "--out", tmp_path, *more)
    first = CompLeakSR.main(options)
    again = CompLeakSR.main(options)
    assert "SR: done before" in capsys.readouterr().out
    assert np.allclose(first["auc"], again["auc"])
    for change in (["--again"], ["--seed", "9"], ["--attacks", "SR2"]):
        CompLeakSR.main([*options, *change])
        assert "done before" not in capsys.readouterr().out


def test_two_models_whose_signals_lie_in_one_folder_have_a_table_each(tmp_path):
    assert script("examples/write_signals.py", "--out", tmp_path).returncode == 0
    for name in ("original", "compressed"):
        CompLeakNR.main(["--signals", str(tmp_path / f"{name}.npz"), "--attacks", "yeom2018,gap"])
    tables = [pd.read_csv(tmp_path / name / "NR.csv", keep_default_na=False) for name in ("original", "compressed")]
    assert [set(table["variant"]) for table in tables] == [{"original"}, {"compressed"}]
    pair = [str(tmp_path / "original.npz"), str(tmp_path / "compressed.npz")]
    CompLeakSR.main(["--signals", *pair, "--attacks", "model_updates"])
    CompLeakMR.main(["--signals", *pair, "--attacks", "joint"])
    assert {file.name for file in (tmp_path / "original+compressed").glob("*.csv")} == {"SR.csv", "MR.csv"}


def test_the_same_file_given_twice_is_refused(tmp_path):
    with pytest.raises(UserError, match="names .*a.npz twice"):
        CompLeakSR.main(["--signals", str(tmp_path / "a.npz"), str(tmp_path / "x" / ".." / "a.npz")])


def test_a_place_for_the_table_that_is_a_file_is_refused_before_any_work(tiny_root, tmp_path, capsys):
    (tmp_path / "file").touch()
    for place in ("file", "file/below"):
        with pytest.raises(UserError, match="file is a file, not a folder"):
            CompLeakNR.main(attack_flags(tiny_root, "--original", "--out", tmp_path / place))
    with pytest.raises(UserError, match="file is a file, not a folder"):
        CompLeakNR.main(["--signals", str(tmp_path / "file")])  # without a suffix, its table's folder has its name
    assert "Start Membership Inference Attacks" not in capsys.readouterr().out


@pytest.mark.slow
def test_signals_files_alone_are_enough_and_what_is_missing_is_named(tmp_path):
    done = script("examples/write_signals.py", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    for command in (["CompLeakNR.py", "--signals", tmp_path / "original.npz"],):
        done = script(*command)
        assert done.returncode == 0, done.stderr
        assert "left out samia: these signals hold no sensitivity" in done.stdout and "rmia" in done.stdout
    pair = [str(tmp_path / "original.npz"), str(tmp_path / "compressed.npz")]
    controls = ("null", "references")
    assert set(CompLeakSR.main(["--signals", *pair])["attack"]) == {"SR1", "SR2", "model_updates", *OURS, *controls}
    assert set(CompLeakMR.main(["--signals", *pair])["attack"]) == {"MR", *OURS, *controls}
    alone = CompLeakMR.main(["--signals", pair[1], "--without_original"])
    assert set(alone["attack"]) == {"MR", *OURS, *controls}
    nr = pd.read_csv(tmp_path / "original/NR.csv", keep_default_na=False)
    assert nr.loc[nr["attack"] == "calibrated", "auc_lo"].item() > 0.55  # a fifth of its labels had to be memorised


def test_signals_of_two_runs_are_not_mixed(tiny_root, tiny_run, tmp_path):
    assert script("examples/write_signals.py", "--out", tmp_path).returncode == 0
    ours = collect(tiny_run, ORIGINAL, {"sensitivity": 1}, **MACHINE)
    with pytest.raises(UserError, match="differ in .*: they are not signals of one run"):
        CompLeakSR.main(["--signals", str(ours), str(tmp_path / "original.npz")])


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("train.py --dataset_name nosuch", "unknown data set 'nosuch': choose from digits, cifar10"),
        ("train.py --dataset_name digits --model_name nosuch", "unknown model 'nosuch'"),
        ("train.py --dataset_name digits --num_cls 7", "--num_cls is 7, digits has 10 classes"),
        ("train.py --dataset_name digits --epochs 0", "0 is not 1 or more"),
        ("train.py --dataset_name x --data_dir /nosuch", "/nosuch does not exist"),
        ("train.py --dataset_name digits --device nosuch", "cannot be used here"),
        ("train.py --dataset_name digits --device meta", "--device meta cannot be used here"),
        ("train.py --dataset_name digits --run_name ../../../x", "'../../../x' is not a plain name"),
        ("train.py --dataset_name ../x --data_dir .", "'../x' is not a plain name"),
        ("CompLeakNR.py --original --dataset_name digits --run_name ..", "'..' is not a plain name"),
        ("pruning/prune.py --dataset_name digits --prune_sparsity 1.0", "1.0 is not between 0 and 1"),
        ("pruning/prune.py --dataset_name digits --prune_sparsity 0.12345678", "'0.12345678' is no degree of pruning"),
        ("pruning/prune.py --dataset_name digits --prune_sparsity x", "--prune_sparsity: 'x' is no number (see"),
        ("train.py --dataset_name digits --epochs 1.5", "--epochs: '1.5' is no whole number (see"),
        ("quantization/qat.py --dataset_name digits --degree int4", "expected int8"),
        ("quantization/qat.py --dataset_name digits --degree int7", "--degree int7 is none, expected int8 (see"),
        (
            "quantization/ptq.py --degree int4 --calibration_points 5",
            "--calibration_points is for int8_static, not for",
        ),
        ("clustering/clustering.py --dataset_name digits --bit 9", "invalid choice: 9"),
        ("pruning/prune.py --dataset_name digits --run_name none", "first python train.py --dataset_name digits"),
        ("CompLeakNR.py", "say what to attack"),
        ("CompLeakNR.py --original --compress", "say what to attack"),
        ("CompLeakNR.py --compress --dataset_name digits", "needs --compress_name and --compress_degree"),
        ("CompLeakSR.py --original", "say which pair"),
        ("CompLeakNR.py --signals a.npz --compress_name pruning", "leave out --compress_name"),
        ("CompLeakNR.py --signals a.npz --pruner_name slim", "leave out --compress_name"),
        ("CompLeakSR.py --signals a.npz b.npz --compress_degree 0.6", "leave out --original"),
        ("CompLeakMR.py --signals a.npz b.npz --variants pruning_0.6", "leave out --variants"),
        ("CompLeakMR.py --signals a.npz", "needs the original's file and at least one compressed model's"),
        ("CompLeakNR.py --original --boundary_points 3", "--boundary_points 3 is too few to judge an attack: 4 at"),
        ("CompLeakNR.py --signals /nosuch.npz", "/nosuch.npz does not exist"),
        ("CompLeakMR.py --variants nonsense --dataset_name digits", "nonsense"),
    ],
)
def test_bad_arguments_get_one_line(command, says, tmp_path, capsys, monkeypatch):
    name, *arguments = command.split()
    monkeypatch.setattr(sys, "argv", [name, *arguments, "--root", str(tmp_path)])

    with pytest.raises(SystemExit) as stopped:
        run_script(lambda _: main_of(name)(None))
    out, err = capsys.readouterr()
    assert stopped.value.code == 2 and says in err and len(err.strip().splitlines()) == 1, err
    assert not list(tmp_path.rglob("*.*"))


class OutOfMemoryError(RuntimeError):
    """As torch calls its error for a GPU."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 3 TiB"),
        OutOfMemoryError("CUDA out of memory.\nTried to allocate 3 TiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 3 bytes"),
    ],
)
def test_a_full_memory_ends_in_one_line(error, capsys):
    def fail(_):
        raise error

    with pytest.raises(SystemExit) as stopped:
        run_script(fail)
    err = capsys.readouterr().err
    assert stopped.value.code == 2 and err.count("\n") == 1
    assert "the memory is full" in err and "smaller --batch_size" in err


def test_another_error_of_torch_is_not_taken_for_a_full_memory():
    def fail(_):
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        run_script(fail)


def test_a_gpu_that_was_not_asked_for_and_is_full_is_called_the_gpu(monkeypatch):
    def fill(*_, **__):
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 3 TiB")

    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices.torch, "ones", fill)
    with pytest.raises(
        UserError, match=r"^the GPU cannot be used here \(CUDA out of memory\): free it, or give --device"
    ):
        devices.choose(None)


def test_missing_models_are_named_with_the_command_that_makes_them(tiny_root):
    with pytest.raises(UserError, match=r"first python pruning/prune.py --prune_sparsity 0.65 .*--run_name tiny"):
        CompLeakNR.main(attack_flags(tiny_root, *pruned("0.65")))
    with pytest.raises(UserError, match="first python clustering/clustering.py --bit 5 "):
        CompLeakNR.main(attack_flags(tiny_root, "--compress", "--compress_name", "clustering", "--compress_degree", 32))


def test_a_command_in_a_message_can_be_pasted_although_a_folder_has_a_space_in_its_name(tmp_path):
    root = tmp_path / "my runs"
    with pytest.raises(UserError) as stopped:
        CompLeakNR.main([*NETWORK, "--root", str(root), "--run_name", "my run", "--original"])
    command = str(stopped.value).split("first ")[1]
    run = train.parse(shlex.split(command)[2:]).run
    assert run.root == root and run.run_name == "my run"


def main_of(name):
    return import_module(name.removesuffix(".py").replace("/", ".")).main


def killed_when(command, file):
    """Start a script, kill it as soon as it has written `file`; False where it ended before."""
    env = {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
    while process.poll() is None and not file.exists():
        time.sleep(0.02)
    running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return running


@pytest.mark.slow
def test_killed_stages_are_completed_by_the_same_commands_with_the_same_numbers(tmp_path):
    killed = tmp_path / "killed"
    undisturbed = tmp_path / "undisturbed"
    train = ["train.py", *NETWORK, "--max_points", 60, "--epochs", 15, "--run_name", "r", "--root"]
    prune = ["pruning/prune.py", "--prune_epochs", 15, "--prune_sparsity", 0.8, "--run_name", "r", "--root"]
    victim = "results/r/victim_model"
    shadow = "results/r/shadow_model_0"
    pruned = "results_pruning/r_0.8/victim_model"
    for command, folders in ((train, (victim, shadow)), (prune, (pruned,))):
        for folder in folders:
            assert killed_when([*command, killed], killed / folder / "resume.pt")
        for root in (killed, undisturbed):
            main_of(command[0])([*map(str, command[1:]), str(root)])
        for folder in folders:
            one, other = (checkpoints.load(root / folder) for root in (killed, undisturbed))
            assert one.meta["loss"] == other.meta["loss"]
            assert all(torch.equal(one.tensors[key], other.tensors[key]) for key in other.tensors)
    assert not list(killed.rglob("*.tmp*")) and not list(killed.rglob("resume.pt"))


def test_reproduce_ends_in_tables_figures_and_verdicts_and_agrees_with_the_notebook(tiny_root, capsys):
    command = [*NETWORK, "--root", str(tiny_root), "--run_name", "tiny", "--preset", "tiny"]
    reproduce.main(command)
    out = capsys.readouterr().out
    assert out.count("done before") >= 18  # the tiny run's models
    folder = tiny_root / "results/tiny"
    files = {file.name for file in folder.iterdir()}
    assert {"summary.csv", "summary.md", "models.csv", "claims.csv", "roc.png", "degrees.png", "cost.png"} <= files
    assert {"family.csv", "family.png", "greedy.csv", "points.csv", "exposed.png"} <= files
    points = pd.read_csv(folder / "points.csv")
    assert points["exposure"].is_monotonic_increasing and points["point"].is_unique
    steps = pd.read_csv(folder / "greedy.csv")
    assert set(steps["added"]) >= set(map(str, (ORIGINAL, *PAPER_GRID)))  # another test may have pruned differently
    table = pd.read_csv(folder / "summary.csv", keep_default_na=False)
    assert table["variant"][table["scenario"] == "NR"].nunique() == len(steps)
    assert table["variant"][table["scenario"] == "SR"].nunique() >= 8
    assert set(table["variant"][table["scenario"] == "MR"]) == {"all", "pruning", "quantization", "clustering"}
    assert {"null", "blind"} <= set(table["attack"])
    claims = pd.read_csv(folder / "claims.csv")
    assert set(claims["claim"]) == {"C1", "C2", "C3"}
    assert set(claims["form"]) == {"published", "without references", "headline"}

    reproduce.main(command)
    assert capsys.readouterr().out.count("done before") == 18 + 9 + 8 + 1

    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / "CompLeakMR.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if cell.source.startswith("arguments ="))
    cell.source = f"arguments = {attack_flags(tiny_root)!r}"
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(re.search(r"^\s*(def|class) ", source, re.M) for source in code)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT)}}).execute()
    shown = notebook.cells[-1].outputs[0]["data"]["text/html"]
    for value in table.loc[(table["scenario"] == "MR") & (table["attack"] == "MR"), "auc"]:
        assert f"{100 * value:.1f} [" in shown
    outputs = [output for cell in notebook.cells[:-1] for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("stage", [CompLeakMR, query])
def test_a_model_named_twice_counts_once(stage):
    assert stage.parse(["--variants", "pruning_0.6", "pruning_0.60"]).variants == (Variant("pruning", "0.6"),)


@pytest.mark.parametrize(
    ("technique", "text", "name", "degree"),
    [
        ("pruning", "0.60", "0.6", Pruning("l1unstructure", 0.6)),
        ("pruning", "slim_0.60", "slim_0.6", Pruning("slim", 0.6)),
        ("clustering", "16", "16", 16),
        ("quantization", "int8", "int8", "int8"),
    ],
)
def test_degrees_are_read_as_the_techniques_take_them(technique, text, name, degree):
    variant = compressed_variant(technique, text)
    assert variant == Variant(technique, name) and variant.parsed_degree == degree
    assert parse_variant(str(variant)) == variant


@pytest.mark.parametrize(
    ("technique", "text"), [("pruning", "0"), ("pruning", "1"), ("pruning", "x"), ("clustering", "5")]
)
def test_other_degrees_are_refused(technique, text):
    with pytest.raises(UserError, match=TECHNIQUES[technique].EXPECTED_DEGREE):
        compressed_variant(technique, text)


def test_the_blind_control_is_a_property_of_the_images_and_the_split(tiny_root, tiny_run):
    view = signals_file.load(collect(tiny_run, ORIGINAL, {"sensitivity": 1}, **MACHINE))
    file = tiny_run.signals_file(ORIGINAL)
    first = blind_control(tiny_run, file, view, 7, "code")
    again = blind_control(tiny_run, file, view._replace(logits=view.logits * 0), 7, "code")
    assert np.array_equal(first, again, equal_nan=True)


def test_pretrained_weights_are_refused_by_every_stage_of_a_run_on_images(tiny_root):
    with pytest.raises(UserError, match="--pretrained is for bert and gpt2, not for resnet18: leave it out"):
        open_run(train.parse([*flags(tiny_root), "--pretrained", "x"]).run)


def test_a_run_remembers_its_settings_and_refuses_another_network(tiny_root):
    with pytest.raises(UserError, match="made with width 0.125, not 0.25"):
        open_run(train.parse([*flags(tiny_root), "--width", "0.25"]).run)
