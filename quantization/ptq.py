"""Quantize the victim and its shadow models as they are, without fine-tuning (post-training quantization).

    python quantization/ptq.py --dataset_name cifar10 --model_name resnet18 --degree int8_static
    python quantization/ptq.py --dataset_name cifar10 --model_name resnet18 --degree int4

Needs train.py's models. int8_static reads the range of each layer's input from 1,024 of the model's own members (with
--defend dp from its reserve, on which neither the model nor its original is trained). int8_dynamic takes the range that
each sample has at hand. int4 rounds weights alone. Costs one pass over the calibration points a model.
Gives results_quantization/<dataset>_<model>_<degree>/{victim_model,shadow_model_0,...}/.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script, Python looks for packages beside this file: they lie one folder up
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from compleak.runs.flags import add_roles_flag, stage_options, stage_parser
from compleak.runs.settings import QuantizeSettings
from compleak.runs.variants import compressed_variant
from compleak.training.compress import compress_models
from core import arguments
from core.console import run_script
from quantization import degrees


def parse(argv=None) -> QuantizeSettings:
    parser = stage_parser(__doc__)
    group = parser.add_argument_group("quantization")
    group.add_argument("--degree", choices=degrees.POST_TRAINING, default="int8_static", help="(default: %(default)s)")
    group.add_argument(
        "--calibration_points",
        type=arguments.positive_int,
        help="members of a model that int8_static reads input ranges from, at most "
        f"(default: {QuantizeSettings.calibration_points})",
    )
    add_roles_flag(group)
    args = parser.parse_args(argv)
    if args.calibration_points and not degrees.DEGREES[args.degree].needs_calibration:
        parser.error(f"--calibration_points is for int8_static, not for {args.degree}: leave it out")
    return QuantizeSettings(
        **stage_options(args),
        variant=compressed_variant("quantization", args.degree),
        roles=None if args.roles is None else tuple(args.roles),
        calibration_points=args.calibration_points or QuantizeSettings.calibration_points,
    )


def main(argv=None) -> None:
    compress_models(parse(argv))


if __name__ == "__main__":
    run_script(main)
