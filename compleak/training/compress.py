"""The compression stage, the same for all techniques: prepare, fine-tune, pack, assert, save."""

import functools

import torch
from torch import nn

from compleak.runs import checkpoints
from compleak.runs.roles import selected_roles
from compleak.runs.run import Run, dataset, open_run
from compleak.runs.settings import CompressSettings
from compleak.runs.variants import ORIGINAL
from compleak.training.assignment import Assignment, assign
from compleak.training.finished import fill_network, finished_folder, model_meta
from compleak.training.make import Product, Source, describe_privacy, make_model, recipe_of
from core import devices
from core.threads import threads_for_stage, use_threads

LARGEST_INT8_SHARE = 0.27  # of the float model's bytes (PROTOCOL §3); checked at full width and with LEAST_FEATURES
LEAST_FEATURES = 8  # of a table; with fewer, and in narrow networks, scales and biases weigh more
CHECKED_IMAGES = 64  # inputs on which the saved model must give exactly the trained one's outputs


def compress_models(settings: CompressSettings) -> Run:
    """Compress the victim and every shadow model of a run, or those of the settings' roles, in the same way."""
    device = devices.choose(settings.device)
    use_threads(threads_for_stage(settings.threads))
    run = open_run(settings.run)
    for role in selected_roles(run.roles, settings.roles):
        assignment = assign(run, settings.variant, role)
        recipe = recipe_of(settings, assignment)
        source = compressed_source(assignment, device)
        make_model(assignment, recipe, source, device=device, batch_size=settings.batch_size)
    return run


def compressed_source(assignment: Assignment, device: torch.device) -> Source:
    """A compressed model starts from its original as the technique prepares it; what the technique packs is saved."""
    run, variant, role = assignment.run, assignment.variant, assignment.role
    original = model_meta(run, ORIGINAL, role)
    made_from = {"original": original["sha256"], "technique": variant.technique, "degree": variant.degree}

    @functools.cache
    def original_tensors() -> dict[str, torch.Tensor]:
        return checkpoints.load(finished_folder(run, ORIGINAL, role)).tensors

    def start() -> nn.Module:
        return variant.module.prepare(fill_network(run, ORIGINAL, original_tensors()), variant.parsed_degree)

    def finish(prepared: nn.Module) -> Product:
        prepared.eval()
        tensors = variant.module.pack(prepared)
        check_int8_size(assignment, tensors, original_tensors())
        restored = fill_network(run, variant, tensors).to(device, memory_format=torch.channels_last)
        stated = verify(assignment, prepared, restored, device)
        return Product(tensors, restored, {"property": stated, "test_accuracy_before": original["test_accuracy"]})

    def describe(meta: dict) -> str:
        return describe_compression(meta, original)

    earlier_privacy = original.get("privacy", {}).get("history")
    return Source(made_from, assignment.new_procedure, earlier_privacy, start, finish, describe)


def verify(assignment: Assignment, prepared: nn.Module, restored: nn.Module, device: torch.device) -> str:
    """Assert what the technique states of its models, on some of the model's own members; returns it in words."""
    data = dataset(assignment.run)
    points = data.images[assignment.members[:CHECKED_IMAGES]]
    inputs = data.kind.to_input(torch.from_numpy(points).to(device))
    with devices.exact():
        return assignment.variant.module.verify(prepared, restored, assignment.variant.parsed_degree, inputs)


def check_int8_size(
    assignment: Assignment, tensors: dict[str, torch.Tensor], original_tensors: dict[str, torch.Tensor]
) -> None:
    """Assert that an int8 model of full width is as small as PROTOCOL §3 says."""
    run = assignment.run
    features = run.config["features"] or LEAST_FEATURES
    if assignment.variant.technique != "quantization" or run.config["width"] < 1 or features < LEAST_FEATURES:
        return
    share = content_bytes(tensors) / content_bytes(original_tensors)
    assert share <= LARGEST_INT8_SHARE, f"the int8 model holds {share:.3f} of the float model's bytes"


def content_bytes(tensors: dict[str, torch.Tensor]) -> int:
    """Bytes of all values."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def describe_compression(meta: dict, original: dict) -> str:
    """A compressed model's meta.json in words, beside its original's."""
    before, after = original["bytes"], meta["bytes"]
    accuracy = f"test accuracy {original['test_accuracy']:.2%} -> {meta['test_accuracy']:.2%}"
    size = f"{checkpoints.megabytes(before)} -> {checkpoints.megabytes(after)} ({after / before:.2f}x)"
    return f"{meta['property']}; {accuracy}{describe_privacy(meta)}; {size}"
