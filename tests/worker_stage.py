"""A stage for the tests of engines, run by their workers: what the first argument says happens, in the worker."""

import os
import signal
import sys
from importlib import import_module
from pathlib import Path

from attacks import arrays
from compleak import training
from core.errors import UserError


def main(argv) -> None:
    what, place, *rest = argv
    {"run": run, "run_and_die_once": run_and_die_once}.get(what, happen)(what, Path(place), rest)


def run(what: str, place: Path, command: list[str]) -> None:
    """A real stage, with forests as small as those of the tests' own process; `place` learns on which node."""
    script, *argv = command
    arrays.TREES = 40
    if "ray" in sys.modules:
        (place / f"node-{sys.modules['ray'].get_runtime_context().get_node_id()}").touch()
    import_module(script).main(argv)


def run_and_die_once(what: str, place: Path, command: list[str]) -> None:
    """The same, but on the first attempt the worker is killed in mid-stage: when the training's state is written."""
    save, died = training.save_resume, place / "died"

    def save_and_die(*state):
        save(*state)
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)

    if not died.exists():
        training.save_resume = save_and_die
    run(what, place, command)


def happen(what: str, place: Path, names: list[str]) -> None:
    """Note the attempt, then end well or in one of the ways in which stages end badly."""
    log = place / names[0]
    attempts = log.read_text().count("\n") if log.exists() else 0
    with log.open("a") as file:
        file.write("attempt\n")
    print(f"{names[0]} speaks")
    if what == "accident":
        raise RuntimeError("a GPU fell off\nand more")
    if what == "mistake":
        raise UserError("no such thing: say another")
    if what == "exit":
        sys.exit(2)
    if what == "die_once" and not attempts:
        os.kill(os.getpid(), signal.SIGKILL)
