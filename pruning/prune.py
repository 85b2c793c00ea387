"""Prune the victim and its shadows by weight magnitude, then fine-tune what is left.

    python pruning/prune.py --dataset_name cifar10 --model_name resnet18 --num_cls 10 \\
        --lr 0.001 --prune_epochs 30 --prune_sparsity 0.6

Needs train.py's models. In every convolution and linear layer exactly floor(sparsity x weights) weights are zero.
Gives results_pruning/<dataset>_<model>_<sparsity>/{victim_model,shadow_model_0,...}/.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script, Python looks for packages beside this file: they lie one folder up
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from compleak import cli
from compleak.compression import compress


def main(argv=None) -> None:
    parser = cli.parser(__doc__)
    cli.training_flags(parser, "--prune_epochs", epochs=30, lr=0.001)
    parser.add_argument(
        "--prune_sparsity",
        default="0.7",
        help="share of each layer's weights to remove, in (0, 1) (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    compress(args, "pruning", args.prune_sparsity)


if __name__ == "__main__":
    cli.run(main)
