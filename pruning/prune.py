"""Prune the victim and its shadow models, then fine-tune what is left.

    python pruning/prune.py --dataset_name cifar10 --model_name resnet18 --num_cls 10 \\
        --lr 0.001 --prune_epochs 30 --prune_sparsity 0.6
    python pruning/prune.py --dataset_name cifar10 --model_name resnet18 --pruner_name l1structure \\
        --prune_sparsity 0.5 --shrink

Needs train.py's models. --pruner_name chooses what is set to zero; --prune_sparsity is the share of it. l1unstructure
takes weights of each layer, l1structure and l2structure filters of each convolution, slim batch-norm channels of the
whole network.
Gives results_pruning/<run>_<sparsity>/{victim_model,shadow_model_0,...}/, and <run>_<pruner>_<sparsity>/ of other
pruners than l1unstructure. --shrink adds shrunk.pt2, the smaller dense network with the same outputs (torch.export),
and shrunk.json, what it costs.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script, Python looks for packages beside this file: they lie one folder up
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import time
from dataclasses import dataclass

import torch

from compleak.runs import checkpoints
from compleak.runs.flags import add_pruner_flag, add_training_flags, model_options, pruning_variant, stage_parser
from compleak.runs.roles import selected_roles
from compleak.runs.run import Run, dataset, network, open_run
from compleak.runs.settings import CompressSettings
from compleak.runs.variants import Variant
from compleak.training.assignment import assign
from compleak.training.compress import CHECKED_IMAGES, compress_models
from compleak.training.finished import load_model, model_meta
from core import arguments, devices
from core.console import run_script, say
from core.files import read_json, sha256, write_json
from core.provenance import provenance
from models.tools import cost
from pruning import shrink

SHRUNK, SHRUNK_META = "shrunk.pt2", "shrunk.json"


@dataclass(frozen=True, kw_only=True)
class PruneSettings(CompressSettings):
    shrink: bool = False


def parse(argv=None) -> PruneSettings:
    parser = stage_parser(__doc__)
    add_training_flags(parser, "--prune_epochs", epochs=CompressSettings.epochs, lr=CompressSettings.lr)
    add_pruner_flag(parser)
    parser.add_argument(
        "--prune_sparsity",
        type=arguments.proper_share,
        default=0.7,
        help="share of the weights, filters or channels to set to zero, between 0 and 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--shrink",
        action="store_true",
        help=f"write the smaller dense network to {SHRUNK} (not of l1unstructure, nor of resnet18_gn)",
    )
    args = parser.parse_args(argv)
    variant = pruning_variant(args.pruner_name, str(args.prune_sparsity))
    return PruneSettings(**model_options(args), variant=variant, shrink=args.shrink)


def main(argv=None) -> None:
    settings = parse(argv)
    if settings.shrink:
        pruner = settings.variant.parsed_degree.pruner
        shrink.refuse_what_cannot_shrink(pruner, network(open_run(settings.run)))
    run = compress_models(settings)
    if settings.shrink:
        for role in selected_roles(run.roles, settings.roles):
            shrink_role(run, settings.variant, role)


def shrink_role(run: Run, variant: Variant, role: str) -> None:
    """Write the dense form of a pruned model beside it, or say that it is there."""
    folder = run.role_dir(variant, role)
    file, facts_file = folder / SHRUNK, folder / SHRUNK_META
    made_from = {"model": model_meta(run, variant, role)["sha256"]}
    if is_shrunk(file, facts_file, made_from):
        say(f"{variant} {role}: shrunk before, {file}")
        return

    started = time.monotonic()
    pruned = load_model(run, variant, role)
    members = assign(run, variant, role).members[:CHECKED_IMAGES]
    data = dataset(run)
    images = data.kind.to_input(torch.from_numpy(data.images[members]))
    with devices.exact():
        dense = shrink.shrink(pruned, images)
        shrink.export(dense, images, file)
    before, after = (cost(model, images, zeros=True) for model in (pruned, dense))
    stated = (
        f"shrunk: parameters {before.parameters:,} -> {after.parameters:,}, multiply-adds {before.multiply_adds:,} -> "
        f"{after.multiply_adds:,}; outputs equal those of the pruned model on {len(images)} images"
    )
    size = file.stat().st_size
    facts = {"made_from": made_from, "sha256": sha256(file), "bytes": size, "property": stated, **after._asdict()}
    seconds = round(time.monotonic() - started, 1)
    write_json(facts_file, {**facts, "seconds": seconds, **provenance(torch.device("cpu"))})
    say(f"{variant} {role}: {stated}; {checkpoints.megabytes(size)}; {file}")


def is_shrunk(file: Path, facts_file: Path, made_from: dict) -> bool:
    """Whether the dense form of this very model is there, whole."""
    if not (file.exists() and facts_file.exists()):
        return False
    facts = read_json(facts_file)
    return facts.get("made_from") == made_from and facts.get("sha256") == sha256(file)


if __name__ == "__main__":
    run_script(main)
