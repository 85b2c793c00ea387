"""Cluster the weights of the victim and its shadow models to 2^bit shared values a layer, then fine-tune those values.

    python clustering/clustering.py --dataset_name cifar10 --model_name resnet18 --num_cls 10 \\
        --lr 0.00001 --epochs 30 --bit 2

Needs train.py's models. --bit 2, 3, 4 gives 4, 8, 16 clusters, as in the paper, and 1 to 8 are possible; each layer is
saved as codes and a codebook.
Gives results_clustering/<dataset>_<model>_<clusters>/{victim_model,shadow_model_0,...}/.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script, Python looks for packages beside this file: they lie one folder up
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from clustering import kmeans
from compleak.runs.flags import add_training_flags, model_options, stage_parser
from compleak.runs.settings import CLUSTERING_LR, CompressSettings
from compleak.runs.variants import compressed_variant
from compleak.training.compress import compress_models
from core.console import run_script


def parse(argv=None) -> CompressSettings:
    parser = stage_parser(__doc__)
    add_training_flags(parser, "--epochs", epochs=CompressSettings.epochs, lr=CLUSTERING_LR)
    parser.add_argument(
        "--bit",
        type=int,
        choices=range(1, len(kmeans.CLUSTERS) + 1),
        default=4,
        metavar="BIT",
        help="2^BIT clusters a layer (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    clusters = str(kmeans.CLUSTERS[args.bit - 1])
    return CompressSettings(**model_options(args), variant=compressed_variant("clustering", clusters))


def main(argv=None) -> None:
    compress_models(parse(argv))


if __name__ == "__main__":
    run_script(main)
