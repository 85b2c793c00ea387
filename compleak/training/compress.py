"""The compression stage, the same for all techniques: prepare, fine-tune or calibrate, pack, assert, save."""

import functools
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from compleak.runs import checkpoints
from compleak.runs.roles import selected_roles
from compleak.runs.run import Run, dataset, open_run
from compleak.runs.settings import CompressSettings, QuantizeSettings
from compleak.runs.variants import ORIGINAL
from compleak.training.assignment import Assignment, assign, points_fingerprint
from compleak.training.evaluate import predict
from compleak.training.finished import fill_network, finished_folder, model_meta
from compleak.training.loop import Diverged, advice_to_lower_rate, check_finite
from compleak.training.make import Product, Source, describe_privacy, make_model, rate_flag, recipe_of
from core import devices
from core.threads import threads_for_stage, use_threads

LEAST_FEATURES = 8  # of a table; with fewer, and in narrow networks, scales and biases weigh more
CALIBRATION_STREAM = 40_000  # of a model's seed: draws the points that input ranges are read from
CHECKED_IMAGES = 64  # inputs on which the saved model must give exactly the trained one's outputs


def compress_models(settings: CompressSettings | QuantizeSettings) -> Run:
    """Compress the victim and every shadow model of a run, or those of the settings' roles, in the same way."""
    device = devices.choose(settings.device)
    use_threads(threads_for_stage(settings.threads))
    run = open_run(settings.run)
    for role in selected_roles(run.roles, settings.roles):
        assignment = assign(run, settings.variant, role)
        recipe = recipe_of(settings, assignment) if settings.variant.is_fine_tuned else None
        source = compressed_source(assignment, settings, device)
        make_model(assignment, recipe, source, device=device, batch_size=settings.batch_size)
    return run


def compressed_source(
    assignment: Assignment, settings: CompressSettings | QuantizeSettings, device: torch.device
) -> Source:
    """A compressed model starts from its original as the technique prepares it; what the technique packs is saved."""
    run, variant, role = assignment.run, assignment.variant, assignment.role
    original = model_meta(run, ORIGINAL, role)
    made_from = {"original": original["sha256"], "technique": variant.technique, "degree": variant.degree}
    calibration = None
    if variant.needs_calibration:
        calibration = calibration_points(assignment, original, settings.calibration_points)
        made_from["calibration_points"] = settings.calibration_points
        made_from["calibration"] = points_fingerprint(calibration, calibration[:0])

    @functools.cache
    def original_tensors() -> dict[str, torch.Tensor]:
        return checkpoints.load(finished_folder(run, ORIGINAL, role)).tensors

    def start() -> nn.Module:
        network = fill_network(run, ORIGINAL, original_tensors())
        prepared = variant.module.prepare(network, variant.parsed_degree)
        if calibration is not None:
            batches = inputs_at(run, calibration, settings.batch_size, device)
            variant.module.calibrate(prepared.to(device), network.to(device), batches)
        return prepared

    def finish(prepared: nn.Module) -> Product:
        prepared.eval()
        if variant.is_fine_tuned:
            refuse_diverged(assignment, prepared, device)
        tensors = variant.module.pack(prepared)
        check_quantized_size(assignment, tensors, original_tensors())
        restored = fill_network(run, variant, tensors).to(device, memory_format=torch.channels_last)
        property_text = verify(assignment, prepared, restored, device)
        facts = {"property": property_text, "test_accuracy_before": original["test_accuracy"]}
        return Product(tensors, restored, {**facts, **inherited_privacy(assignment, original)})

    def describe(meta: dict) -> str:
        return describe_compression(meta, original)

    earlier_privacy = original.get("privacy", {}).get("history")
    return Source(made_from, assignment.new_procedure, earlier_privacy, start, finish, describe, original["made_from"])


def calibration_points(assignment: Assignment, original: dict, count: int) -> np.ndarray:
    """(n,) points that input ranges are read from: at most `count` of the model's members, drawn by its seed.

    Where the original has a privacy guarantee they are drawn from its reserve: a range that is read from members
    without noise would break the guarantee. original: its meta.json.
    """
    points = assignment.reserve if "privacy" in original else assignment.members
    return np.random.default_rng([assignment.seed, CALIBRATION_STREAM]).permutation(points)[:count]


def inputs_at(run: Run, points: np.ndarray, batch_size: int, device: torch.device) -> Iterator[torch.Tensor]:
    """Network inputs (B, ...) of points of the data set, batch after batch, without augmentation."""
    data = dataset(run)
    for start in range(0, len(points), batch_size):
        yield data.kind.to_input(torch.from_numpy(data.images[points[start : start + batch_size]]).to(device))


def inherited_privacy(assignment: Assignment, original: dict) -> dict:
    """Which privacy guarantee a compressed model keeps from an original trained with DP-SGD.

    Without fine-tuning the model is computed from the original alone, and keeps all of its guarantee. Fine-tuning
    without noise leaves none. What fine-tuning with noise spends, the training itself says.
    """
    if "privacy" not in original:
        return {}
    if not assignment.variant.is_fine_tuned:
        return {"privacy": original["privacy"]}
    return {} if assignment.defence else {"privacy": {**original["privacy"], "epsilon": None, "history": None}}


def refuse_diverged(assignment: Assignment, prepared: nn.Module, device: torch.device) -> None:
    """Raise Diverged where fine-tuning has left weights or answers that are not finite."""
    resume, flag = checkpoints.resume_file(assignment.folder), rate_flag(assignment)
    check_finite(prepared.state_dict(), assignment.title, resume, flag)
    if not predict(prepared, checked_inputs(assignment, device)).isfinite().all():
        advice = advice_to_lower_rate(resume, flag)
        raise Diverged(f"{assignment.title}: the answers are no longer finite after training: {advice}")


def checked_inputs(assignment: Assignment, device: torch.device) -> torch.Tensor:
    """Network inputs (n, ...): some of the model's own members."""
    data = dataset(assignment.run)
    points = data.images[assignment.members[:CHECKED_IMAGES]]
    return data.kind.to_input(torch.from_numpy(points).to(device))


def verify(assignment: Assignment, prepared: nn.Module, restored: nn.Module, device: torch.device) -> str:
    """Assert what the technique states of its models, on some of the model's own members; returns it in words."""
    inputs = checked_inputs(assignment, device)
    with devices.exact():
        return assignment.variant.module.verify(prepared, restored, assignment.variant.parsed_degree, inputs)


def check_quantized_size(
    assignment: Assignment, tensors: dict[str, torch.Tensor], original_tensors: dict[str, torch.Tensor]
) -> None:
    """Assert that a quantized model has at most the share of its original's bytes that its degree states.

    Networks in which scales and biases weigh more are not checked: those narrower than full width, those for tables of
    few columns, and pretrained ones, which have a size of their own and may be small.
    """
    run, variant = assignment.run, assignment.variant
    features = run.config["features"] or LEAST_FEATURES
    is_small = run.config["width"] < 1 or features < LEAST_FEATURES or run.config["pretrained"]
    if variant.largest_share is None or is_small:
        return
    share = content_bytes(tensors) / content_bytes(original_tensors)
    assert share <= variant.largest_share, f"the {variant} model holds {share:.3f} of the float model's bytes"


def content_bytes(tensors: dict[str, torch.Tensor]) -> int:
    """Bytes of all values."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def describe_compression(meta: dict, original: dict) -> str:
    """A compressed model's meta.json in words, beside its original's."""
    before, after = original["bytes"], meta["bytes"]
    accuracy = f"test accuracy {original['test_accuracy']:.2%} -> {meta['test_accuracy']:.2%}"
    size = f"{checkpoints.megabytes(before)} -> {checkpoints.megabytes(after)} ({after / before:.2f}x)"
    return f"{meta['property']}; {accuracy}{describe_privacy(meta)}; {size}"
