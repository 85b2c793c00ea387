"""Where everything lies: the one home of every path (the folders are those of the authors' artifact)."""

from pathlib import Path

ORIGINAL = "original"
VICTIM = "victim_model"


def variant_name(technique: str, degree: str) -> str:
    """`pruning_0.6`, `quantization_int8`, `clustering_4`: the name a compressed model goes by."""
    return f"{technique}_{degree}"


def defence_suffix(defend: str, argument: float | None, adaptive: bool, undefended_original: bool) -> str:
    """What a defence adds to the name of a run: `_ppb_4`, `_ppb_4_adaptive`, `_ppb_4_undefended_original`."""
    if not defend:
        return ""
    adaptive_, undefended = "_adaptive" * adaptive, "_undefended_original" * undefended_original
    return f"_{defend}_{argument:g}{undefended}{adaptive_}"


def downloads(root: Path) -> Path:
    return root / "data" / "datasets"


def index_files(root: Path, split_name: str) -> tuple[Path, Path]:
    """The split and the audit sets drawn from it."""
    return root / "data" / f"{split_name}_data_index.pkl", root / "data" / f"{split_name}_data_index_inference.pkl"


def run_dir(root: Path, run: str) -> Path:
    return root / "results" / run


def variant_dir(root: Path, run: str, variant: str) -> Path:
    """`results/<run>/` for the original, `results_<technique>/<run>_<degree>/` for a compressed variant."""
    if variant == ORIGINAL:
        return run_dir(root, run)
    technique, degree = variant.split("_", 1)
    return root / f"results_{technique}" / f"{run}_{degree}"


def role_dir(root: Path, run: str, variant: str, role: str) -> Path:
    return variant_dir(root, run, variant) / role


def roles(shadow_num: int) -> list[str]:
    """The models of a run, victim first."""
    return [VICTIM, *(f"shadow_model_{i}" for i in range(shadow_num))]
