"""Quantize the victim and its shadows to int8 with quantization-aware training.

    python quantization/qat.py --dataset_name cifar10 --model_name resnet18 --num_cls 10 \\
        --lr 0.001 --quantized_epochs 30 --degree int8

Needs train.py's models. The saved int8 model gives exactly the outputs of the fake-quantized model it came from.
Gives results_quantization/<dataset>_<model>_int8/{victim_model,shadow_model_0,...}/.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script, Python looks for packages beside this file: they lie one folder up
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from compleak import cli
from compleak.compression import compress
from core import console


def parse(argv=None):
    parser = cli.parser(__doc__)
    cli.training_flags(parser, "--quantized_epochs", epochs=30, lr=0.001)
    parser.add_argument("--degree", default="int8", help="int8 is the only one (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse(argv)
    compress(args, "quantization", args.degree)


if __name__ == "__main__":
    console.run_script(main)
