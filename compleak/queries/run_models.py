"""A variant of one of this project's runs as a model like any other: `run:cifar10_resnet18/pruning_0.9`."""

from pathlib import Path

import numpy as np
import torch

from compleak.runs.checkpoints import META, WEIGHTS
from compleak.runs.places import tokenizer_file
from compleak.runs.roles import VICTIM
from compleak.runs.run import Run, open_run, tokenizer_of
from compleak.runs.settings import RunSettings
from compleak.runs.variants import ORIGINAL, Variant, parse_variant
from compleak.training.evaluate import predict
from compleak.training.finished import load_model
from core import devices
from core.errors import UserError
from data.pictures import SIDE
from models.foreign import ForeignModel
from models.text import LENGTH

OF_IMAGES = {"compleak_mean": "0.5", "compleak_std": "0.25", "compleak_layout": "NCHW"}  # of `data.inputs.IMAGES`


def open_run_variant(root: Path, name: str) -> tuple[Run, Variant]:
    """The run and the variant of `<run>/<variant>`; `<run>` alone means its original."""
    run, _, variant = name.partition("/")
    return open_run(RunSettings(run_name=run, root=root)), parse_variant(variant) if variant else ORIGINAL


def open_run_model(root: Path, name: str, device_name: str | None) -> ForeignModel:
    """The victim's model of `<run>/<variant>`. UserError where it is not finished."""
    run, variant = open_run_variant(root, name)
    device = devices.choose(device_name)
    model = load_model(run, variant, VICTIM).to(device).eval()
    shows_images = run.kind.showable
    takes_text = run.kind.encode is not None
    side = run.config["image_size"] or SIDE
    shape = (3, side, side) if shows_images else (LENGTH if takes_text else run.config["features"],)
    folder = run.role_dir(variant, VICTIM)

    def answer(inputs: np.ndarray) -> np.ndarray:
        return predict(model, torch.from_numpy(inputs).to(device)).cpu().numpy()

    def forward(inputs: torch.Tensor) -> torch.Tensor:
        return model(inputs.to(device)).cpu()

    def tokenize(texts: list[str]) -> np.ndarray:
        return run.kind.to_input(torch.from_numpy(run.kind.encode(tokenizer_of(run), np.array(texts)))).numpy()

    return ForeignModel(
        description=f"{run.config['model_name']}, {variant} of the run {run.name}",
        files=(folder / WEIGHTS, folder / META, *([tokenizer_file(run.root, run.name)] if takes_text else [])),
        answer=answer,
        input_shape=shape,
        input_dtype="int64" if takes_text else "float32",
        fixed_batch=None,
        class_names=None,
        preprocessing=OF_IMAGES if shows_images else None,
        tokenize=tokenize if takes_text else None,
        runs_code=False,
        forward=forward,
        weights=(folder / WEIGHTS,),
    )


def check_names(names: list[str]) -> None:
    """UserError unless all names are variants of one run."""
    runs = {name.partition("/")[0] for name in names}
    if len(runs) > 1:
        raise UserError(f"models of {len(runs)} runs ({', '.join(sorted(runs))}) cannot be audited together")
