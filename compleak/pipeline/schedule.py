"""Run the stages of a plan, each after those it needs, on any engine.

`run_plan` starts each stage when what it needs is done, tries again what a dying worker or an accident stopped, and
carries on with the rest where a stage fails for good. An engine knows only how to start a stage and how to wait for the
next one to end. Stages hand over nothing but files under --root.
"""

import math
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

from compleak.pipeline.plan import Stage
from core.console import say
from core.errors import UserError

RETRIES = 2  # of a stage whose worker died, or that raised what is not the user's mistake


class Outcome(NamedTuple):
    """How a stage ended, in words and numbers: exceptions of a library may not survive the way between processes."""

    seconds: float = 0.0
    printed: str = ""
    error: str = ""  # in one line; empty where the stage is done
    traceback: str = ""
    retry: bool = False  # another attempt may help


class Engine(NamedTuple):
    """`start` begins a stage and returns its ticket; `wait` takes the open tickets and returns one that ended."""

    start: Callable[[Stage], Hashable]
    wait: Callable[[list], tuple[Hashable, Outcome]]
    places: float = math.inf  # how many stages run at once


def run_plan(
    stages: Sequence[Stage],
    engine: Engine,
    on_start: Callable[[Stage], object] = lambda stage: None,
    on_done: Callable[[Stage, float], object] = lambda stage, seconds: None,
) -> None:
    """Run all stages of a plan, each after those it needs; `on_start` and `on_done` are told of each.

    Raises UserError, after everything else has run, where stages failed for good; those that need them are left undone.
    Raises ValueError where the plan is not in an order in which it could be run.
    """
    check_order(stages)
    waiting = list(stages)
    running: dict[Hashable, Stage] = {}
    done, failed, attempts = set(), {}, Counter()
    while True:
        for stage in [stage for stage in waiting if done.issuperset(stage.needs)]:
            if len(running) < engine.places:
                waiting.remove(stage)
                on_start(stage)
                running[engine.start(stage)] = stage
        if not running:
            break
        ticket, outcome = engine.wait(list(running))
        stage = running.pop(ticket)
        attempts[stage.key] += 1
        show_outcome(stage, outcome)
        if not outcome.error:
            done.add(stage.key)
            on_done(stage, outcome.seconds)
        elif outcome.retry and attempts[stage.key] <= RETRIES:
            say(f"{stage}: {outcome.error}; trying again")
            waiting.insert(0, stage)
        else:
            failed[str(stage)] = outcome.error
    if failed:
        raise UserError(complaint(failed, waiting, len(stages)))


def check_order(stages: Sequence[Stage]) -> None:
    """ValueError unless keys are unique and every stage comes after those it needs."""
    seen = set()
    for stage in stages:
        if stage.key in seen or not seen.issuperset(stage.needs):
            needs = ", ".join(map(str, stage.needs))
            raise ValueError(f"stage {str(stage)!r} is there twice or comes before one it needs: {needs}")
        seen.add(stage.key)


def show_outcome(stage: Stage, outcome: Outcome) -> None:
    """Print what a stage printed in another process, and the whole of what stopped it."""
    if outcome.printed.strip():
        say(outcome.printed.rstrip())
    if outcome.traceback:
        print(f"{stage}:\n{outcome.traceback.rstrip()}", file=sys.stderr, flush=True)


def complaint(failed: dict[str, str], undone: Sequence[Stage], total: int) -> str:
    reasons = "; ".join(f"{name} ({error})" for name, error in failed.items())
    left = f", and {len(undone)} that need them are undone" if undone else ""
    return f"{len(failed)} of {total} stages failed{left}: {reasons}; all else is done, start again to go on from here"
