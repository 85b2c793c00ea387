"""Quantize the victim and its shadow models to int8 by quantization-aware training.

    python quantization/qat.py --dataset_name cifar10 --model_name resnet18 --num_cls 10 \\
        --lr 0.001 --quantized_epochs 30 --degree int8

Needs train.py's models. The saved int8 model gives exactly the outputs of the fake-quantized model it came from.
Gives results_quantization/<dataset>_<model>_int8/{victim_model,shadow_model_0,...}/.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script, Python looks for packages beside this file: they lie one folder up
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from compleak.runs.flags import add_training_flags, model_options, stage_parser
from compleak.runs.settings import CompressSettings
from compleak.runs.variants import compressed_variant
from compleak.training.compress import compress_models
from core.console import run_script
from quantization import degrees, int8


def parse(argv=None) -> CompressSettings:
    parser = stage_parser(__doc__)
    add_training_flags(parser, "--quantized_epochs", epochs=CompressSettings.epochs, lr=CompressSettings.lr)
    parser.add_argument("--degree", default=int8.DEGREE, help="int8 is the only one (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.degree in degrees.POST_TRAINING:
        parser.error(f"--degree {args.degree} needs no training, expected int8: use quantization/ptq.py")
    if args.degree != int8.DEGREE:
        parser.error(f"--degree {args.degree} is none, expected int8")
    return CompressSettings(**model_options(args), variant=compressed_variant("quantization", args.degree))


def main(argv=None) -> None:
    compress_models(parse(argv))


if __name__ == "__main__":
    run_script(main)
