"""Does one model use all of a GPU? Several models are trained at once, and the bare step is compiled or captured."""

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
from benchmarks.measure import Row, Size, count_of, median_row, synchronise, time_in_turns
from core import devices

MOST_STEPS = 40  # few steps and rounds are enough: the forms are many, and they differ by more than a few percent
MOST_ROUNDS = 3
WARM_UP_STEPS = 3  # steps before a step is captured
PATIENCE = 180.0  # seconds to wait for a process that does not answer


def measure_models_at_once(size: Size, device: torch.device) -> list[Row]:
    """Images a second of several models together, trained in five forms; on a GPU also of one model's step in five."""
    size = size._replace(steps=min(size.steps, MOST_STEPS), rounds=min(size.rounds, MOST_ROUNDS))
    rows = []
    for count in size.models_at_once:
        rows += compare_forms_of_training(count, size, device)
    if device.type == "cuda":
        rows += compare_forms_of_a_step(size, device)
    return rows


def compare_forms_of_training(count: int, size: Size, device: torch.device) -> list[Row]:
    models = count_of(count, "model")
    with contextlib.ExitStack() as stack:
        forms = {
            f"{models}, one after the other": partial(one_after_the_other, count, size, device),
            f"{models}, a process each": partial(in_processes, count, size, device, stack),
            f"{models}, a thread and a stream each": partial(in_streams, count, size, device, stack),
            f"{models}, stacked": partial(stacked, count, size, device),
            f"{models}, stacked, norms in fp32": partial(stacked, count, size, device, Float32Norm),
        }
        return compare(forms, count, size, device)


def compare_forms_of_a_step(size: Size, device: torch.device) -> list[Row]:
    """The bare step unchanged, with other kernels, compiled, and as a CUDA graph."""
    forms = {
        "bare step": lambda: bare_loop(network(size), size, device),
        "bare step, fastest kernels": lambda: bare_loop(network(size), size, device, fastest_kernels),
        "bare step, compiled": lambda: compiled(size, device, "default"),
        "bare step, compiled with graphs": lambda: compiled(size, device, "reduce-overhead"),
        "bare step, captured whole": lambda: captured(size, device),
    }
    return compare(forms, 1, size, device)


def compare(forms: dict[str, Callable], count: int, size: Size, device: torch.device) -> list[Row]:
    """A row for each form, a function that makes a job. The row of a form that cannot run here has no value."""
    jobs = {}
    refused = []
    for name, make_job in forms.items():
        try:
            job = make_job()
            job()
            jobs[name] = job
        except Exception as error:  # compilers and drivers raise all kinds of errors, and the other rows must survive
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            refused.append(Row(name, float("nan"), "images/s", note=f"cannot run here: {reason[:100]}"))
    images = count * size.steps * size.batch
    seconds = time_in_turns(jobs, size.rounds, device, f"{count} at once")
    return [*(median_row(name, images / taken, "images/s") for name, taken in seconds.items()), *refused]


def one_after_the_other(count: int, size: Size, device: torch.device) -> Callable[[], None]:
    loops = [bare_loop(network(size, seed), size, device) for seed in range(count)]
    return lambda: [loop() for loop in loops]


def in_processes(count: int, size: Size, device: torch.device, stack: contextlib.ExitStack) -> Callable[[], None]:
    """Every model in its own process. The processes start together, and the job ends when the last one is done."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(count + 1, timeout=PATIENCE)
    for seed in range(count):
        process = context.Process(target=_train_at_each_call, args=(seed, size, device, barrier), daemon=True)
        process.start()
        stack.callback(process.join)
        stack.callback(process.terminate)

    def run() -> None:
        barrier.wait()
        barrier.wait()

    return run


def _train_at_each_call(seed: int, size: Size, device: torch.device, barrier) -> None:
    """Wait for the start of a job, run the bare loop, and report the end, again and again."""
    loop = bare_loop(network(size, seed), size, device)
    while True:
        barrier.wait()
        loop()
        synchronise(device)
        barrier.wait()


def in_streams(count: int, size: Size, device: torch.device, stack: contextlib.ExitStack) -> Callable[[], None]:
    """Every model in its own thread and CUDA stream."""
    # the whole process has one choice of kernels, so threads that set it would undo each other's choice
    loops = [bare_loop(network(size, seed), size, device, contextlib.nullcontext) for seed in range(count)]
    streams = [torch.cuda.Stream(device) if device.type == "cuda" else None for _ in loops]
    threads = stack.enter_context(ThreadPoolExecutor(count))

    def run_in_stream(loop: Callable[[], None], stream) -> None:
        with torch.cuda.stream(stream):
            loop()

    def run() -> None:
        with devices.repeatable():
            list(threads.map(run_in_stream, loops, streams))
            synchronise(device)

    return run


class Float32Norm(nn.BatchNorm2d):
    """Batch normalisation in float32, as its parameters are: on the CPU vmap refuses bf16 inputs beside them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float()).to(x.dtype)


def stacked(count: int, size: Size, device: torch.device, norm: type = nn.BatchNorm2d) -> Callable[[], None]:
    """All models as one: their weights are stacked, and torch.func vectorises the step over models and batches."""
    networks = [network(size, seed).to(device, memory_format=torch.channels_last).train() for seed in range(count)]
    parameters, buffers = stack_module_state(networks)
    skeleton = skeleton_of(networks[0], norm)
    inputs, labels = (torch.stack([part] * count) for part in resident_batch(size, device))
    optimizer = torch.optim.SGD(parameters.values(), 0.01, momentum=0.9, weight_decay=5e-4)

    def loss(parameters, buffers, inputs, labels) -> torch.Tensor:
        with devices.training_autocast(device):
            return F.cross_entropy(functional_call(skeleton, (parameters, buffers), (inputs,)), labels)

    gradients = vmap(grad(loss))

    def run() -> None:
        with devices.repeatable():
            for _ in range(size.steps):
                step_gradients = gradients(parameters, buffers, inputs, labels)
                for name, parameter in parameters.items():
                    parameter.grad = step_gradients[name]
                optimizer.step()

    return run


def skeleton_of(model: nn.Module, norm: type) -> nn.Module:
    """The model without weights, with `norm` in place of batch normalisation."""
    skeleton = copy.deepcopy(model).to("meta")
    for module in skeleton.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = norm
    return skeleton


def fastest_kernels():
    """Let cuDNN take the kernels that it finds fastest; results then differ from run to run."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True)


def compiled(size: Size, device: torch.device, mode: str) -> Callable[[], None]:
    model = network(size).to(device, memory_format=torch.channels_last)
    return bare_loop(torch.compile(model, mode=mode), size, device)


def captured(size: Size, device: torch.device) -> Callable[[], None]:
    """Forward, backward and step as one CUDA graph that is replayed; the learning rate is part of the graph."""
    model = network(size).to(device, memory_format=torch.channels_last).train()
    optimizer = sgd(model)
    inputs, labels = resident_batch(size, device)
    graph = torch.cuda.CUDAGraph()
    with devices.repeatable():
        _warm_up_on_a_side_stream(lambda: _capturable_step(model, optimizer, inputs, labels), device)
        optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            _capturable_step(model, optimizer, inputs, labels)
    return lambda: [graph.replay() for _ in range(size.steps)]


def _capturable_step(model: nn.Module, optimizer: torch.optim.Optimizer, inputs, labels) -> None:
    optimizer.zero_grad(set_to_none=True)
    half = devices.precision(inputs.device.type) == "bf16"
    # autocast must not cache: a weight cast before the capture would never change when the graph is replayed
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=half, cache_enabled=False):
        loss = F.cross_entropy(model(inputs), labels)
    loss.backward()
    optimizer.step()


def _warm_up_on_a_side_stream(step: Callable[[], None], device: torch.device) -> None:
    """Run a few steps on another stream: a CUDA graph must not capture the warm-up."""
    side = torch.cuda.Stream(device)
    main = torch.cuda.current_stream(device)
    side.wait_stream(main)
    with torch.cuda.stream(side):
        for _ in range(WARM_UP_STEPS):
            step()
    main.wait_stream(side)
