"""Write finished models of a run as ONNX files, as they would be shipped.

    python export.py --dataset_name cifar10 --model_name resnet18 --out exported
    python export.py --dataset_name cifar10 --model_name resnet18 --out exported --audit \\
        --variants original quantization_int8

Needs train.py's models and those of the compressions. Float, pruned and clustered models become plain float networks;
int8 and int8_static have QuantizeLinear and DequantizeLinear around every layer; int8_dynamic takes batches of one;
int4 holds four-bit weights. Input `input`, output `logits`, opset 21. onnxruntime runs each file before it is reported.
With --audit the models of all roles are written, with the points of the run's audit and a task for audit.py.
Gives OUT/<role>/<variant>.onnx and OUT/export.json; with --audit OUT/task.yaml and what it names.
"""

from pathlib import Path

from compleak.queries.export import export_models
from compleak.runs.flags import stage_options, stage_parser
from compleak.runs.roles import VICTIM
from compleak.runs.settings import ExportSettings
from compleak.runs.variants import parse_variant
from core.console import run_script


def parse(argv=None) -> ExportSettings:
    parser = stage_parser(__doc__)
    group = parser.add_argument_group("what to export")
    group.add_argument("--out", type=Path, required=True, help="folder for the files")
    group.add_argument(
        "--variants",
        nargs="+",
        metavar="VARIANT",
        help="for example original pruning_0.6 quantization_int8 (default: the original and all that are finished)",
    )
    group.add_argument("--roles", nargs="+", metavar="ROLE", help=f"the models of these roles (default: {VICTIM})")
    group.add_argument(
        "--audit", action="store_true", help="write the models of all roles, and points and task for audit.py"
    )
    args = parser.parse_args(argv)
    if args.audit and args.roles:
        parser.error("--audit exports the models of all roles: leave out --roles")
    return ExportSettings(
        **stage_options(args),
        out=args.out,
        roles=tuple(args.roles or (VICTIM,)),
        variants=None if args.variants is None else tuple(map(parse_variant, args.variants)),
        audit=args.audit,
    )


def main(argv=None) -> None:
    export_models(parse(argv))


if __name__ == "__main__":
    run_script(main)
