"""Engines of this machine: stages one after the other in this process, or in several worker processes at once."""

import contextlib
import io
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing import connection

from compleak.pipeline.plan import Stage
from compleak.pipeline.schedule import Engine, Outcome
from core.errors import UserError
from core.project import PROJECT
from core.threads import available_cores, threads_in_environment


@contextlib.contextmanager
def in_process() -> Iterator[Engine]:
    """One stage after the other in this process; what a stage raises ends the plan at once."""

    def wait(tickets: list[Stage]) -> tuple[Stage, Outcome]:
        started = time.monotonic()
        (stage,) = tickets
        stage.action(stage.settings)
        return stage, Outcome(time.monotonic() - started)

    yield Engine(lambda stage: stage, wait, places=1)


def attempt(stage: Stage, command: Sequence[str]) -> Outcome:
    """Run a stage in a worker of some engine and say how it went, whatever happens.

    command: what the user typed, for the stage to write beside its outputs.
    """
    sys.argv = [str(PROJECT / command[0]), *command[1:]]
    started = time.monotonic()
    printed, error, trace = io.StringIO(), "", ""
    # The driver prints it in one piece; and progress bars, of which the driver has one, find no terminal here.
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            stage.action(stage.settings)
        except UserError as mistake:
            error = " ".join(str(mistake).split())
        except SystemExit:
            error = printed.getvalue().strip().rpartition("\n")[2] or "it exited"
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}".splitlines()[0]
            trace = traceback.format_exc()
    return Outcome(time.monotonic() - started, printed.getvalue(), error, trace, retry=bool(trace))


def typed_command() -> list[str]:
    """This process's command line, its script as seen from the project, which may lie elsewhere on another machine."""
    return [os.path.relpath(sys.argv[0], PROJECT), *sys.argv[1:]]


def thread_limits(threads: int) -> dict[str, str]:
    """For a worker's environment: processes that together have more threads than cores wait for each other."""
    return {"OMP_NUM_THREADS": str(threads)}


def with_threads(stage: Stage, threads: int) -> Stage:
    """The stage with a fixed number of threads, unless its settings have one: workers are not each other's load."""
    wanted = stage.settings.threads or threads
    return replace(stage, settings=replace(stage.settings, threads=wanted))


def threads_for_each(jobs: int) -> int:
    """An even share of what this command may use: of OMP_NUM_THREADS where that is set, else of the cores."""
    return max(1, (threads_in_environment() or available_cores()) // jobs)


@contextlib.contextmanager
def processes(jobs: int) -> Iterator[Engine]:
    """`jobs` worker processes that share this machine's cores, or its GPU. One that dies is replaced."""
    earlier_handler = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the workers would outlive this
    command, threads = typed_command(), threads_for_each(jobs)
    idle = [start_worker(threads) for _ in range(jobs)]
    busy: dict[connection.Connection, multiprocessing.Process] = {}

    def start(stage: Stage) -> connection.Connection:
        process, pipe = idle.pop()
        busy[pipe] = process
        with contextlib.suppress(BrokenPipeError):  # it died idle: `wait` finds out
            pipe.send((with_threads(stage, threads), command))
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
            idle.append(start_worker(threads))
        return pipe, outcome

    try:
        yield Engine(start, wait, places=jobs)
    finally:
        for process in busy.values():
            process.terminate()
        for _, pipe in idle:
            pipe.close()  # an idle worker then ends by itself, and leaves no semaphore behind
        for process in [*busy.values(), *(process for process, _ in idle)]:
            process.join()
        signal.signal(signal.SIGTERM, earlier_handler)


def start_worker(threads: int) -> tuple[multiprocessing.Process, connection.Connection]:
    """A new process that runs the stages sent to it, and our end of a pipe to it."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads and CUDA in no usable state
    ours, theirs = context.Pipe()
    process = context.Process(target=serve_stages, args=(theirs,), daemon=True)
    with environment(thread_limits(threads)):  # libraries read it once, when they are loaded
        process.start()
    theirs.close()  # so that the worker's death closes the pipe
    return process, ours


@contextlib.contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """These environment variables inside, the earlier ones afterwards."""
    earlier = {key: os.environ.get(key) for key in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for key, value in earlier.items():
            if value is None:
                os.environ.pop(key)
            else:
                os.environ[key] = value


def serve_stages(pipe: connection.Connection) -> None:
    """A worker's life: run what comes through the pipe until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver receives Ctrl-C, and ends its workers
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            pipe.send(attempt(*pipe.recv()))
