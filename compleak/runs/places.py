"""Where everything lies: the one home of every path. The folders are those of the authors' artifact."""

from pathlib import Path

from compleak.runs.variants import ORIGINAL, Variant


def downloads(root: Path) -> Path:
    """Where data sets are downloaded to and looked for."""
    return root / "data" / "datasets"


def index_files(root: Path, split_name: str) -> tuple[Path, Path]:
    """The file of the split and the file of the audit sets drawn from it."""
    return root / "data" / f"{split_name}_data_index.pkl", root / "data" / f"{split_name}_data_index_inference.pkl"


def run_dir(root: Path, run: str) -> Path:
    return root / "results" / run


def variant_dir(root: Path, run: str, variant: Variant) -> Path:
    """`results/<run>/` for the original, `results_<technique>/<run>_<degree>/` for a compressed variant."""
    if variant == ORIGINAL:
        return run_dir(root, run)
    return root / f"results_{variant.technique}" / f"{run}_{variant.degree}"


def tokenizer_file(root: Path, run: str) -> Path:
    """The tokenizer of a run on texts."""
    return run_dir(root, run) / "tokenizer.json"


def role_dir(root: Path, run: str, variant: Variant, role: str) -> Path:
    """The folder of one model's checkpoint."""
    return variant_dir(root, run, variant) / role


def signals_file(root: Path, run: str, variant: Variant) -> Path:
    return variant_dir(root, run, variant) / "signals.npz"


def table_file(root: Path, run: str, scenario: str, variant: Variant) -> Path:
    """The table of an attack: beside the signals of the attacked variant; MR's, of several, beside the original's."""
    return variant_dir(root, run, ORIGINAL if scenario == "MR" else variant) / f"{scenario}.csv"
