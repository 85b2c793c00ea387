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
THREE_VARIANTS = ("pruning_0.9", "quantization_int8", "clustering_4")  # one of each technique, for whole audits


def script(*command, **options) -> subprocess.CompletedProcess:
    """Run a script as users do: in a process of its own, in the project's folder."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True, env=env, **options
    )


@contextlib.contextmanager
def stopped_in(epoch: int):
    """Stop the training inside this block when the epoch begins; its state is saved after every earlier epoch."""
    from compleak.training import loop

    class Stopped(Exception):
        pass

    train_epoch = loop.train_epoch

    def stop_or_train(*args):
        if args[6] == epoch:
            raise Stopped
        return train_epoch(*args)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(loop, "SAVE_EVERY", 1)
        patch.setattr(loop, "train_epoch", stop_or_train)
        yield


@pytest.fixture(scope="session", autouse=True)
def small_forests_and_networks():
    """Grow fewer trees and train `neural` for fewer steps in this process, so that tests are quick.

    Scripts in other processes do all of it.
    """
    from attacks import neural
    from attacks.common import classifiers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifiers, "TREES", 40)
        patch.setattr(neural, "LEAST_STEPS", 30)
        yield


@pytest.fixture(scope="session", autouse=True)
def short_densenet():
    """Give DenseNet a tenth of its dense layers in this process, so that tests are quick; its parts stay the same."""
    from models import densenet

    usual = densenet.BLOCKS
    densenet.BLOCKS = (1, 2, 2, 1)
    yield
    densenet.BLOCKS = usual


@pytest.fixture(scope="session", autouse=True)
def tiny_preset():
    """Add `--preset tiny` to the presets that users have."""
    from compleak.pipeline.presets import PRESETS, Preset

    PRESETS["tiny"] = Preset(
        train={"max_points": 60, "epochs": 1, "label_noise": 0.2, "augment": False},
        pruning={"epochs": 1},
        quantization={"epochs": 1},
        clustering={"epochs": 1},
        attack={"asked": {"sensitivity": 1}},
    )
    yield
    del PRESETS["tiny"]


@pytest.fixture(scope="session")
def tiny_root(tiny_preset, tmp_path_factory) -> Path:
    """A root folder in which the tiny run is trained and compressed in all eight ways."""
    import reproduce
    from compleak.pipeline.comparison import joined_stages, plans_of

    root = tmp_path_factory.mktemp("tiny")
    settings = reproduce.parse([*NETWORK, "--root", str(root), "--preset", "tiny", "--run_name", "tiny"])
    for stage in joined_stages(plans_of(settings)):
        if stage.key.kind in ("data", "train", "compress"):
            stage.action(stage.settings)
    return root


@pytest.fixture(scope="session")
def tiny_run(tiny_root):
    import train
    from compleak.runs.run import open_run

    return open_run(train.parse([*NETWORK, "--root", str(tiny_root), "--run_name", "tiny"]).run)


@pytest.fixture(scope="session")
def cifar_jpeg() -> Path:
    if not JPEG.exists():
        pytest.skip(f"real images are not here: {JPEG}")
    return JPEG
