"""An engine whose stages are tasks of a Ray cluster."""

import contextlib
import logging
import os
import socket
from collections.abc import Hashable, Iterator

from compleak.pipeline.plan import Stage
from compleak.pipeline.schedule import Engine, Outcome
from compleak.pipeline.workers import attempt, thread_limits, typed_command, with_threads
from core.console import say
from core.errors import UserError
from core.project import PROJECT

OBJECT_STORE = 100 << 20  # bytes; Ray would take a third of the memory for results that are here a few lines of text


@contextlib.contextmanager
def on_ray(address: str | None, cpus: int, gpus: float) -> Iterator[Engine]:
    """Tasks on the Ray cluster at `address`, or on one started here for the time being.

    cpus, gpus: what a task takes of its node; gpus counts only where the cluster has any. Raises UserError where Ray is
    not installed, there is no cluster to talk to, or this machine alone has no room for a task.
    """
    ray, command = connected_ray(address, cpus), typed_command()
    gpus = gpus if ray.cluster_resources().get("GPU") else 0
    # Death and accident are tried again in one place, `run_plan`, not there and in Ray.
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(attempt)

    def start(stage: Stage) -> Hashable:
        return task.options(name=str(stage)).remote(with_threads(stage, cpus), command)

    def wait(tickets: list) -> tuple[Hashable, Outcome]:
        ticket = ray.wait(tickets)[0][0]
        try:
            return ticket, ray.get(ticket)
        except ray.exceptions.RayError as error:
            reason = f"its Ray task was lost: {type(error).__name__}"
            return ticket, Outcome(error=reason, traceback=str(error), retry=True)

    try:
        if not any(has_room(node, cpus, gpus) for node in ray.nodes()):
            if address is None:
                raise UserError(f"this machine has no room for a stage that takes --cpus_per_task {cpus}")
            say(f"no machine of the cluster has {cpus} cores and {gpus:g} GPUs: stages wait for one to join it")
        yield Engine(start, wait)
    finally:
        ray.shutdown()


def connected_ray(address: str | None, cpus: int):
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
        check_address(address)
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **settings)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"no Ray cluster at {address or 'this machine'}: {str(error).splitlines()[0]}") from error
    return ray


def has_room(node: dict, cpus: int, gpus: float) -> bool:
    """Whether a stage fits on a machine of a Ray cluster."""
    resources = node["Resources"]
    return node["Alive"] and resources.get("CPU", 0) >= cpus and resources.get("GPU", 0) >= gpus


def check_address(address: str | None) -> None:
    """OSError where nobody answers at host:port, at once: Ray itself would try for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=10).close()
