"""Tiny runs that several tests share: digits, the narrowest network, sixty members, one epoch."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
JPEG = ROOT.parent / "shared" / "data" / "cifar10-jpeg.tar.xz"
NETWORK = ["--dataset_name", "digits", "--width", "0.125"]
TINY = ["--max_points", "60", "--epochs", "1", "--label_noise", "0.2", "--no_augment"]
ATTACK = ["--sensitivity_draws", "1"]
KEPT = ("pruning_0.9", "quantization_int8", "clustering_4")  # one variant of each technique, for whole audits


def script(*command, **options) -> subprocess.CompletedProcess:
    """A script run as users run it: another process, in the project's folder."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True, env=env, **options
    )


@contextlib.contextmanager
def stopped_in(epoch: int):
    """What trains inside is cut off when this epoch begins, its state saved after each one before."""
    from compleak import training

    class Stopped(Exception):
        pass

    whole = training._epoch

    def stops(*args):
        if args[6] == epoch:
            raise Stopped
        return whole(*args)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(training, "SAVE_EVERY", 1)
        patch.setattr(training, "_epoch", stops)
        yield


@pytest.fixture(scope="session", autouse=True)
def small_forests():
    """Fewer trees in this process, so that dozens of tables take a minute; scripts as subprocesses have them all."""
    from attacks import arrays

    kept, arrays.TREES = arrays.TREES, 40
    yield
    arrays.TREES = kept


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory) -> Path:
    """A root folder in which the tiny run is trained and compressed in all eight ways."""
    import reproduce
    from compleak import engines

    root = tmp_path_factory.mktemp("tiny")
    flags = {"train": TINY, "pruning": ["--prune_epochs", "1"], "quantization": ["--quantized_epochs", "1"]}
    args = reproduce.parse([*NETWORK, "--root", str(root), "--preset", "paper", "--run_name", "tiny"])
    for stage in reproduce.plan(args):
        kind = stage.name.split()[1].split("_")[0] if stage.name.startswith("compress") else stage.script
        if kind in ("train", "pruning", "quantization", "clustering"):
            engines.call(stage._replace(argv=(*stage.argv, *flags.get(kind, ["--epochs", "1"]))))
    return root


@pytest.fixture(scope="session")
def tiny_run(tiny_root):
    import train
    from compleak import runs

    return runs.open_run(train.parse([*NETWORK, "--root", str(tiny_root), "--run_name", "tiny"]))


@pytest.fixture(scope="session")
def cifar_jpeg() -> Path:
    if not JPEG.exists():
        pytest.skip(f"real images are not here: {JPEG}")
    return JPEG


@pytest.fixture(scope="module")
def small_audit():
    """The audit of three variants with tiny settings, in place of the smoke preset's of eight."""
    preset = {
        "network": "",
        "train": " ".join(TINY),
        "pruning": "--prune_epochs 6",  # the state of a training is written after five
        "quantization": "--quantized_epochs 1",
        "clustering": "--epochs 1",
        "attack": " ".join(ATTACK),
    }
    import reproduce
    from compleak import summary

    plan = reproduce.plan

    def fewer(args):
        return [kept(stage) for stage in plan(args) if is_kept(stage)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(reproduce.PRESETS, "smoke", preset)
        patch.setattr(reproduce, "plan", fewer)
        patch.setattr(summary, "VARIANTS", ("original", *KEPT))
        yield patch


def is_kept(stage):
    return stage.name.split()[0] not in ("compress", "NR", "SR") or stage.name.split()[1] in ("original", *KEPT)


def kept(stage):
    """A stage that reads several variants, with those that are left."""
    if stage.script not in ("CompLeakMR", "query"):
        return stage
    needs = tuple(name for name in stage.needs if name.split()[0] == "train" or name.split()[1] in KEPT)
    return stage._replace(argv=(*stage.argv, "--variants", *KEPT), needs=needs)
