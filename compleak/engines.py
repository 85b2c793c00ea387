"""One plan of stages, three engines: this process, several processes of this machine, the tasks of a Ray cluster.

A stage is a command line of one of the scripts. The plan says which stages it needs; `run_plan` starts each one when
those are done, tries again what a dying worker or an accident stopped, and carries on with the rest where a stage
fails for good. An engine knows only how to start a stage and how to wait for the next one to end. Stages hand over
nothing but files under --root.
"""

import contextlib
import importlib
import io
import logging
import math
import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from multiprocessing import connection
from typing import NamedTuple

import torch

from core import console
from core.errors import UserError
from core.project import PROJECT

OBJECT_STORE = 100 << 20  # bytes; Ray would take a third of the memory for results that are here a few lines of text
RETRIES = 2  # of a stage whose worker died or that raised what is not the user's mistake


class Stage(NamedTuple):
    """One command line of the audit: a script, as a module with `main(argv)`, and the stages whose files it reads."""

    name: str
    script: str
    argv: tuple[str, ...]
    needs: tuple[str, ...] = ()


class Outcome(NamedTuple):
    """How a stage ended, in words and numbers: exceptions of a library need not survive the way between processes."""

    seconds: float = 0.0
    said: str = ""  # what it printed
    error: str = ""  # in one line; empty where it is done
    trace: str = ""
    retry: bool = False  # another attempt may help


class Engine(NamedTuple):
    """`start` begins a stage and returns its ticket; `wait` takes the open tickets and returns one that ended."""

    start: Callable[[Stage], Hashable]
    wait: Callable[[list], tuple[Hashable, Outcome]]
    places: float = math.inf  # stages under way at once


def call(stage: Stage) -> None:
    """Run a stage in this process; raises what its script raises."""
    importlib.import_module(stage.script).main(stage.argv)


def run_plan(stages: Sequence[Stage], engine: Engine, begun=lambda stage: None, ended=lambda stage, seconds: None):
    """Run all stages of a plan, each after those it needs; `begun` and `ended` are told of each.

    Raises UserError, after everything else has run, where stages failed for good; those that need them are left undone.
    Raises ValueError where the plan is not in an order in which it could be run.
    """
    check_order(stages)
    waiting, running, done, failed, attempts = list(stages), {}, set(), {}, Counter()
    while True:
        for stage in [stage for stage in waiting if done.issuperset(stage.needs)]:
            if len(running) < engine.places:
                waiting.remove(stage)
                begun(stage)
                running[engine.start(stage)] = stage
        if not running:
            break
        ticket, outcome = engine.wait(list(running))
        stage = running.pop(ticket)
        attempts[stage.name] += 1
        show(stage, outcome)
        if not outcome.error:
            done.add(stage.name)
            ended(stage, outcome.seconds)
        elif outcome.retry and attempts[stage.name] <= RETRIES:
            console.say(f"{stage.name}: {outcome.error}; trying again")
            waiting.insert(0, stage)
        else:
            failed[stage.name] = outcome.error
    if failed:
        raise UserError(complaint(failed, waiting, len(stages)))


def check_order(stages: Sequence[Stage]) -> None:
    """ValueError unless names are unique and every stage comes after those it needs."""
    seen = set()
    for stage in stages:
        if stage.name in seen or not seen.issuperset(stage.needs):
            raise ValueError(f"stage {stage.name!r} is there twice or comes before one it needs: {stage.needs}")
        seen.add(stage.name)


def show(stage: Stage, outcome: Outcome) -> None:
    """What a stage printed in another process, and the whole of what stopped it."""
    if outcome.said.strip():
        console.say(outcome.said.rstrip())
    if outcome.trace:
        print(f"{stage.name}:\n{outcome.trace.rstrip()}", file=sys.stderr, flush=True)


def complaint(failed: dict[str, str], undone: Sequence[Stage], total: int) -> str:
    reasons = "; ".join(f"{name} ({error})" for name, error in failed.items())
    left = f", and {len(undone)} that need them are undone" if undone else ""
    return f"{len(failed)} of {total} stages failed{left}: {reasons}; all else is done, start again to go on from here"


@contextlib.contextmanager
def in_process() -> Iterator[Engine]:
    """One stage after the other in this process; what a stage raises ends the plan at once."""

    def wait(tickets: list[Stage]) -> tuple[Stage, Outcome]:
        started = time.monotonic()
        call(tickets[0])
        return tickets[0], Outcome(time.monotonic() - started)

    yield Engine(lambda stage: stage, wait, places=1)


def attempt(stage: Stage, command: Sequence[str]) -> Outcome:
    """Run a stage in a worker of some engine and say how it went, whatever happens.

    command: what the user typed, for the stage to write beside its outputs.
    """
    sys.argv = [str(PROJECT / command[0]), *command[1:]]
    started, said, error, trace = time.monotonic(), io.StringIO(), "", ""
    # Printed in one piece by the driver; and progress bars, which it has one of, find no terminal here.
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            call(stage)
        except UserError as mistake:
            error = " ".join(str(mistake).split())
        except SystemExit:  # argparse's, which has printed why
            error = said.getvalue().strip().rpartition("\n")[2] or "it exited"
        except Exception as problem:
            error, trace = f"{type(problem).__name__}: {problem}".splitlines()[0], traceback.format_exc()
    return Outcome(time.monotonic() - started, said.getvalue(), error, trace, retry=bool(trace))


def typed_command() -> list[str]:
    """This process's command line, its script as seen from the project, which may lie elsewhere on another machine."""
    return [os.path.relpath(sys.argv[0], PROJECT), *sys.argv[1:]]


def thread_limits(threads: int) -> dict[str, str]:
    """For a worker's environment: processes that together have more threads than cores wait for each other."""
    return {"OMP_NUM_THREADS": str(threads)}


@contextlib.contextmanager
def processes(jobs: int) -> Iterator[Engine]:
    """`jobs` worker processes that share this machine's cores, or its GPU. One that dies is replaced."""
    kept = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the workers would go on without us
    command, limits = typed_command(), thread_limits(max(1, torch.get_num_threads() // jobs))
    idle, busy = [_worker(limits) for _ in range(jobs)], {}

    def start(stage: Stage) -> connection.Connection:
        process, pipe = idle.pop()
        busy[pipe] = process
        with contextlib.suppress(BrokenPipeError):  # it died idle: `wait` finds out
            pipe.send((stage, command))
        return pipe

    def wait(tickets: list[connection.Connection]) -> tuple[connection.Connection, Outcome]:
        pipe = connection.wait(tickets)[0]
        process = busy.pop(pipe)
        try:
            outcome = pipe.recv()
            idle.append((process, pipe))
        except (EOFError, ConnectionError):
            process.join()
            outcome = Outcome(error=f"its worker process died (exit code {process.exitcode})", retry=True)
            idle.append(_worker(limits))
        return pipe, outcome

    try:
        yield Engine(start, wait, places=jobs)
    finally:
        for process in [*busy.values(), *(process for process, _ in idle)]:
            process.terminate()
            process.join()
        signal.signal(signal.SIGTERM, kept)


def _worker(limits: dict[str, str]) -> tuple[multiprocessing.Process, connection.Connection]:
    """A new process that runs the stages sent to it, and our end of a pipe to it."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads and CUDA in no usable state
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    kept = {key: os.environ.get(key) for key in limits}
    os.environ.update(limits)  # libraries read them once, when they are loaded
    try:
        process.start()
    finally:
        for key, value in kept.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})
    theirs.close()  # so that its death closes the pipe
    return process, ours


def _serve(pipe: connection.Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's, who ends its workers
    with contextlib.suppress(EOFError, ConnectionError):  # the driver is gone
        while True:
            pipe.send(attempt(*pipe.recv()))


@contextlib.contextmanager
def on_ray(address: str | None, cpus: int, gpus: float) -> Iterator[Engine]:
    """Tasks on the Ray cluster at `address`, or on one started here for the time being.

    cpus, gpus: what a task takes of its node; gpus counts only where the cluster has any. Raises UserError where Ray is
    not installed, there is no cluster to talk to, or this machine alone has no room for a task.
    """
    ray, command = _connected_ray(address, cpus), typed_command()
    gpus = gpus if ray.cluster_resources().get("GPU") else 0
    # Death and accident are tried again in one place, `run_plan`, not there and in Ray.
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(attempt)

    def wait(tickets: list) -> tuple[Hashable, Outcome]:
        ticket = ray.wait(tickets)[0][0]
        try:
            return ticket, ray.get(ticket)
        except ray.exceptions.RayError as error:
            reason = f"its Ray task was lost: {type(error).__name__}"
            return ticket, Outcome(error=reason, trace=str(error), retry=True)

    try:
        if not any(has_room(node, cpus, gpus) for node in ray.nodes()):
            if address is None:
                raise UserError(f"this machine has no room for a stage that takes --cpus_per_task {cpus}")
            console.say(f"no machine of the cluster has {cpus} cores and {gpus:g} GPUs: stages wait for one to join it")
        yield Engine(lambda stage: task.options(name=stage.name).remote(stage, command), wait)
    finally:
        ray.shutdown()


def _connected_ray(address: str | None, cpus: int):
    """The module, connected, with workers that find the project and keep to their share of the cores."""
    try:
        import ray
    except ImportError as error:
        raise UserError('--engine ray needs Ray: pip install ".[ray]"') from error
    search = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    settings = {"runtime_env": {"env_vars": {"PYTHONPATH": search, **thread_limits(cpus)}}}
    if address is None:
        settings |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
    try:
        _knock(address)
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **settings)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"no Ray cluster at {address or 'this machine'}: {str(error).splitlines()[0]}") from error
    return ray


def has_room(node: dict, cpus: int, gpus: float) -> bool:
    """Whether a stage fits on a machine of a Ray cluster."""
    resources = node["Resources"]
    return node["Alive"] and resources.get("CPU", 0) >= cpus and resources.get("GPU", 0) >= gpus


def _knock(address: str | None) -> None:
    """OSError where nobody answers at host:port, at once: Ray itself would try for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=10).close()
