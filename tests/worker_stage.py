"""Stages for the tests of engines. A worker runs them, and their settings say what happens in the worker."""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from attacks import neural
from attacks.common import classifiers
from compleak.pipeline.plan import Stage
from compleak.runs.settings import RunSettings, StageSettings
from compleak.training import loop
from core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Happening(StageSettings):
    """`way` is how the stage ends; `folder` is where it notes its attempts."""

    run: RunSettings = RunSettings()
    way: str
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Wrapped(StageSettings):
    """A real stage, run with forests and networks as small as those of the tests' own process."""

    run: RunSettings = RunSettings()
    stage: Stage
    folder: Path  # gets a file named after the node of the Ray cluster on which the stage ran
    dies: bool = False  # whether the worker is killed during the first attempt


def run_real_stage(settings: Wrapped) -> None:
    classifiers.TREES = 40
    neural.LEAST_STEPS = 30
    if settings.dies:
        die_when_a_state_is_saved(settings.folder / "died")
    if "ray" in sys.modules:
        node = sys.modules["ray"].get_runtime_context().get_node_id()
        (settings.folder / f"node-{node}").touch()
    settings.stage.action(settings.stage.settings)


def die_when_a_state_is_saved(died: Path) -> None:
    """Kill this worker when it first saves the state of a training, unless that has happened before."""
    save_resume = loop.save_resume

    def save_and_die(*state):
        save_resume(*state)
        if not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    loop.save_resume = save_and_die


def happen(settings: Happening) -> None:
    """Write down the attempt, then succeed or fail as the settings say."""
    log = settings.folder / settings.way
    attempts = log.read_text().count("\n") if log.exists() else 0
    with log.open("a") as file:
        file.write("attempt\n")
    print(f"{settings.way} speaks")
    if settings.way == "accident":
        raise RuntimeError("a GPU fell off\nand more")
    if settings.way == "mistake":
        raise UserError("no such thing: say another")
    if settings.way == "exit":
        sys.exit(2)
    if settings.way == "die_once" and not attempts:
        os.kill(os.getpid(), signal.SIGKILL)
