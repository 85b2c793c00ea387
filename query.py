"""Ask models about every point of the audit: the answers are all that attacks ever see.

    python query.py --dataset_name cifar10 --model_name resnet18 --roles shadow_model_3 --drop_weights

The attack scripts ask by themselves what has not been asked. This stage asks model by model, as soon as one has been
trained and compressed, so that with many shadow models their weights need not be kept: --drop_weights leaves of each
shadow model what meta.json says. 64 shadow models of ResNet-18 and their compressions are then 2 GB rather than 10.
Gives answers.npz beside each checkpoint, which the first attack on a variant joins in signals.npz.
"""

from compleak.audits.flags import add_probe_flags, asked_probes
from compleak.queries.collect import query_models
from compleak.runs.flags import add_roles_flag, stage_options, stage_parser
from compleak.runs.settings import QuerySettings
from compleak.runs.variants import PAPER_GRID, parse_compressed
from core.console import run_script


def parse(argv=None) -> QuerySettings:
    parser = stage_parser(__doc__)
    group = parser.add_argument_group("what to ask")
    add_roles_flag(group)
    group.add_argument(
        "--variants",
        nargs="*",
        metavar="VARIANT",
        help="for example pruning_0.6 clustering_4, with the original (default: the paper's eight)",
    )
    add_probe_flags(group)
    group.add_argument(
        "--drop_weights", action="store_true", help="delete shadow models' weights once they have answered"
    )
    group.add_argument(
        "--split_ai",
        action="store_true",
        help="with --defend selena: ask all originals, and write what Split-AI answers in their place, to audit it",
    )
    args = parser.parse_args(argv)
    for flag in ("roles", "variants", "drop_weights"):
        if args.split_ai and getattr(args, flag) != parser.get_default(flag):
            parser.error(f"--split_ai asks the originals of all models and leaves their weights: leave out --{flag}")
    return QuerySettings(
        **stage_options(args),
        roles=None if args.roles is None else tuple(args.roles),
        variants=PAPER_GRID if args.variants is None else parse_compressed(args.variants),
        asked=asked_probes(args),
        drop_weights="shadows" if args.drop_weights else "none",
        split_ai=args.split_ai,
    )


def main(argv=None) -> None:
    query_models(parse(argv))


if __name__ == "__main__":
    run_script(main)
