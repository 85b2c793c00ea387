"""Prune the victim and its shadows, then fine-tune what is left.

    python pruning/prune.py --dataset_name cifar10 --model_name resnet18 --num_cls 10 \\
        --lr 0.001 --prune_epochs 30 --prune_sparsity 0.6
    python pruning/prune.py --dataset_name cifar10 --model_name resnet18 --pruner_name l1structure \\
        --prune_sparsity 0.5 --shrink

Needs train.py's models. --pruner_name says what exactly that share of is zero afterwards: of each layer's weights
(l1unstructure), of each convolution's filters (l1structure, l2structure), of all batch-norm channels (slim).
Gives results_pruning/<run>_<sparsity>/{victim_model,shadow_model_0,...}/, and <run>_<pruner>_<sparsity>/ of other
pruners than l1unstructure. --shrink adds shrunk.pt2, the smaller dense network with the same outputs (torch.export),
and shrunk.json, what it costs.
"""

import sys
import time
from pathlib import Path

if __name__ == "__main__":  # run as a script, Python looks for packages beside this file: they lie one folder up
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from compleak import checkpoints, cli, paths, runs
from compleak.compression import CHECKED_IMAGES, compress, load_model, model_meta
from compleak.techniques import parse_degree, pruner_flag, pruning_degree
from core import arguments, console, devices
from core.files import read_json, sha256, write_json
from core.provenance import provenance
from data.inputs import to_input
from models.tools import cost
from pruning import shrink

SHRUNK, SHRUNK_META = "shrunk.pt2", "shrunk.json"


def parse(argv=None):
    parser = cli.parser(__doc__)
    cli.training_flags(parser, "--prune_epochs", epochs=30, lr=0.001)
    pruner_flag(parser)
    parser.add_argument(
        "--prune_sparsity",
        type=arguments.proper_share,
        default=0.7,
        help="share of what is pruned to remove, in (0, 1) (default: %(default)s)",
    )
    parser.add_argument(
        "--shrink",
        action="store_true",
        help=f"write the smaller dense network to {SHRUNK} (not of l1unstructure, nor of resnet18_gn)",
    )
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse(argv)
    name, degree = parse_degree("pruning", pruning_degree(args.pruner_name, str(args.prune_sparsity)))
    if args.shrink:
        shrink.refuse_what_cannot_shrink(degree.pruner, runs.network(runs.open_run(args)))
    compress(args, "pruning", name)
    if args.shrink:
        run = runs.open_run(args)
        for row, role in runs.chosen(run, args.roles):
            shrink_role(run, paths.variant_name("pruning", name), row, role)


def shrink_role(run: runs.Run, variant: str, row: int, role: str) -> None:
    """Write the dense form of a pruned model beside it, or say that it is there."""
    folder = paths.role_dir(run.root, run.name, variant, role)
    file, facts_file = folder / SHRUNK, folder / SHRUNK_META
    made_from = {"model": model_meta(run, variant, role)["sha256"]}
    if file.exists() and facts_file.exists():
        facts = read_json(facts_file)
        if facts.get("made_from") == made_from and facts.get("sha256") == sha256(file):
            console.say(f"{variant} {role}: shrunk before, {file}")
            return

    started = time.monotonic()
    pruned = load_model(run, variant, role)
    data, pairs = runs.dataset(run), runs.split(run)[0].pairs
    images = to_input(torch.from_numpy(data.images[pairs[row].train[:CHECKED_IMAGES]]))
    with devices.exact():
        dense = shrink.shrink(pruned, images)
        shrink.export(dense, images, file)
    before, after = (cost(model, images, zeros=True) for model in (pruned, dense))
    held = (
        f"shrunk: parameters {before.parameters:,} -> {after.parameters:,}, multiply-adds {before.multiply_adds:,} -> "
        f"{after.multiply_adds:,}; outputs equal those of the pruned model on {len(images)} images"
    )
    size = file.stat().st_size
    facts = {"made_from": made_from, "sha256": sha256(file), "bytes": size, "property": held, **after._asdict()}
    seconds = round(time.monotonic() - started, 1)
    write_json(facts_file, {**facts, "seconds": seconds, **provenance(torch.device("cpu"))})
    console.say(f"{variant} {role}: {held}; {checkpoints.megabytes(size)}; {file}")


if __name__ == "__main__":
    console.run_script(main)
