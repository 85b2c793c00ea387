"""Whether a GPU is full with one model: several trained at once, and the bare step compiled or captured."""

import contextlib
import copy
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap

from benchmarks.loops import bare_loop, network, resident_batch, sgd
from benchmarks.measure import Row, Size, in_turns, row, synchronise
from core import devices

STEPS, ROUNDS = 40, 3  # at most: there are many forms, and they differ by more than a few percent
WARM_UP = 3  # steps before a step is captured
PATIENCE = 180.0  # seconds until processes that do not answer are given up


def at_once(size: Size, device: torch.device) -> list[Row]:
    """Images a second, in total, of several models at once in four forms; on a GPU also of one model's step in five."""
    size, rows = size._replace(steps=min(size.steps, STEPS), rounds=min(size.rounds, ROUNDS)), []
    for count in size.together:
        models = f"{count} model" + "s" * (count > 1)
        with contextlib.ExitStack() as stack:
            forms = {
                f"{models}, one after the other": partial(one_after_the_other, count, size, device),
                f"{models}, a process each": partial(in_processes, count, size, device, stack),
                f"{models}, a thread and a stream each": partial(in_streams, count, size, device, stack),
                f"{models}, stacked": partial(stacked, count, size, device),
                f"{models}, stacked, norms in fp32": partial(stacked, count, size, device, Float32Norm),
            }
            rows += compare(forms, count, size, device)
    return [*rows, *(one_step(size, device) if device.type == "cuda" else [])]


def one_step(size: Size, device: torch.device) -> list[Row]:
    """The bare step as it is, with other kernels, compiled, and as a CUDA graph."""
    forms = {
        "bare step": lambda: bare_loop(network(size), size, device),
        "bare step, fastest kernels": lambda: bare_loop(network(size), size, device, fastest),
        "bare step, compiled": lambda: compiled(size, device, "default"),
        "bare step, compiled with graphs": lambda: compiled(size, device, "reduce-overhead"),
        "bare step, captured whole": lambda: captured(size, device),
    }
    return compare(forms, 1, size, device)


def compare(forms: dict[str, Callable], count: int, size: Size, device: torch.device) -> list[Row]:
    """A row for each form, a function that makes the job; one that cannot run here has no value and says why."""
    jobs, refused = {}, []
    for name, make in forms.items():
        try:
            job = make()
            job()
            jobs[name] = job
        except Exception as error:  # compilers and drivers fail in any way, and the other rows are worth having
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            refused.append(Row(name, float("nan"), "images/s", note=f"cannot run here: {reason[:100]}"))
    images = count * size.steps * size.batch
    seconds = in_turns(jobs, size.rounds, device, f"{count} at once")
    return [*(row(name, images / taken, "images/s") for name, taken in seconds.items()), *refused]


def one_after_the_other(count: int, size: Size, device: torch.device) -> Callable[[], None]:
    loops = [bare_loop(network(size, seed), size, device) for seed in range(count)]
    return lambda: [loop() for loop in loops]


def in_processes(count: int, size: Size, device: torch.device, stack: contextlib.ExitStack) -> Callable[[], None]:
    """Every model in a process of its own; they start a job together, and it ends with the last."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(count + 1, timeout=PATIENCE)
    for seed in range(count):
        process = context.Process(target=_work, args=(seed, size, device, barrier), daemon=True)
        process.start()
        stack.callback(process.join)
        stack.callback(process.terminate)

    def run() -> None:
        barrier.wait()
        barrier.wait()

    return run


def _work(seed: int, size: Size, device: torch.device, barrier) -> None:
    loop = bare_loop(network(size, seed), size, device)
    while True:
        barrier.wait()
        loop()
        synchronise(device)
        barrier.wait()


def in_streams(count: int, size: Size, device: torch.device, stack: contextlib.ExitStack) -> Callable[[], None]:
    """Every model in a thread, its kernels in a CUDA stream of their own."""
    # the choice of kernels belongs to the process: threads that set it would undo each other's
    loops = [bare_loop(network(size, seed), size, device, contextlib.nullcontext) for seed in range(count)]
    streams = [torch.cuda.Stream(device) if device.type == "cuda" else None for _ in loops]
    threads = stack.enter_context(ThreadPoolExecutor(count))

    def one(loop: Callable[[], None], stream) -> None:
        with torch.cuda.stream(stream):
            loop()

    def run() -> None:
        with devices.repeatable():
            list(threads.map(one, loops, streams))
            synchronise(device)

    return run


class Float32Norm(nn.BatchNorm2d):
    """Batch normalisation whose input has its parameters' type: vmap's rule refuses bf16 beside float32 on the CPU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float()).to(x.dtype)


def stacked(count: int, size: Size, device: torch.device, norm: type = nn.BatchNorm2d) -> Callable[[], None]:
    """All models as one: their weights stacked, the step vectorised over them (torch.func), a batch for each."""
    networks = [network(size, seed).to(device, memory_format=torch.channels_last).train() for seed in range(count)]
    parameters, buffers = stack_module_state(networks)
    skeleton = copy.deepcopy(networks[0]).to("meta")
    for module in skeleton.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = norm
    inputs, labels = (torch.stack([part] * count) for part in resident_batch(size, device))
    optimizer = torch.optim.SGD(parameters.values(), 0.01, momentum=0.9, weight_decay=5e-4)

    def loss(parameters, buffers, inputs, labels) -> torch.Tensor:
        with devices.training_autocast(device):
            return F.cross_entropy(functional_call(skeleton, (parameters, buffers), (inputs,)), labels)

    gradients = vmap(grad(loss))

    def run() -> None:
        with devices.repeatable():
            for _ in range(size.steps):
                found = gradients(parameters, buffers, inputs, labels)
                for name, parameter in parameters.items():
                    parameter.grad = found[name]
                optimizer.step()

    return run


def fastest():
    """Whatever kernels cuDNN finds fastest: other numbers from run to run."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True)


def compiled(size: Size, device: torch.device, mode: str) -> Callable[[], None]:
    model = network(size).to(device, memory_format=torch.channels_last)
    return bare_loop(torch.compile(model, mode=mode), size, device)


def captured(size: Size, device: torch.device) -> Callable[[], None]:
    """Forward, backward and step as one CUDA graph, replayed. The learning rate is captured with them."""
    model = network(size).to(device, memory_format=torch.channels_last).train()
    optimizer, (inputs, labels) = sgd(model), resident_batch(size, device)
    graph = torch.cuda.CUDAGraph()
    with devices.repeatable():
        _on_a_side_stream(lambda: _capturable_step(model, optimizer, inputs, labels), device)
        optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            _capturable_step(model, optimizer, inputs, labels)
    return lambda: [graph.replay() for _ in range(size.steps)]


def _capturable_step(model: nn.Module, optimizer: torch.optim.Optimizer, inputs, labels) -> None:
    optimizer.zero_grad(set_to_none=True)
    half = devices.precision(inputs.device.type) == "bf16"
    # without autocast's cache: weights cast before the capture would be replayed unchanged
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=half, cache_enabled=False):
        loss = F.cross_entropy(model(inputs), labels)
    loss.backward()
    optimizer.step()


def _on_a_side_stream(step: Callable[[], None], device: torch.device) -> None:
    """Warm up where a capture will not see it, as CUDA graphs want."""
    side, main = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    side.wait_stream(main)
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            step()
    main.wait_stream(side)
