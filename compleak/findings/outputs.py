"""What the stages of a run have left in its folders, read back as frames and arrays: all that findings start from."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from attacks import Signals
from compleak.audits.usable import with_references
from compleak.findings.rows import ALL, TOGETHER, key_of
from compleak.queries import signals_file
from compleak.runs import checkpoints, places
from compleak.runs.roles import VICTIM
from compleak.runs.run import Run, finished_variants
from compleak.runs.settings import AS_THEY_ARE, AnswersSettings
from compleak.runs.variants import ORIGINAL, Variant, parse_variant
from compleak.training.assignment import assign
from core.files import read_json

MODEL_FACTS = ("train_accuracy", "test_accuracy", "bytes", "seconds")


def variants_of(run: Run) -> list[str]:
    """The variants whose models are all finished: the original first, then the paper's order, then others.

    A run that was given more shadow models may have old variants without them. These cannot be compared with the rest.
    """
    return [str(variant) for variant in finished_variants(run) if _is_complete(run, variant)]


def _is_complete(run: Run, variant: Variant) -> bool:
    return all(checkpoints.is_finished(run.role_dir(variant, role)) for role in run.roles)


def attacked_variants(run: Run) -> list[str]:
    """The variants that have a table of attacks, whichever commands made them."""
    return [
        variant
        for variant in variants_of(run)
        if any(table_file(run, scenario, variant).exists() for scenario in ("NR", "SR"))
    ]


def attack_table(run: Run, variants: Sequence[str], answers: AnswersSettings = AS_THEY_ARE) -> pd.DataFrame:
    """The NR and SR tables of these variants and, where they are several, the MR table, one below the other.

    Columns are as in PROTOCOL, section 7. Tables that are not there are left out. A run has one MR table, of the models
    that the last MR stage attacked: name exactly those variants, so that MR, NR and SR are about the same models.
    answers: the defence of answers that stood before the models; none by default.
    """
    files = [table_file(run, scenario, variant, answers) for scenario in ("NR", "SR") for variant in variants]
    if len(variants) > 1:
        files.append(table_file(run, *TOGETHER, answers))
    return pd.concat([read_table(file) for file in files if file.exists()], ignore_index=True)


def read_table(file: Path) -> pd.DataFrame:
    """A table of attacks or of models as it was written: an empty cell stays an empty string."""
    return pd.read_csv(file, keep_default_na=False)


def table_file(run: Run, scenario: str, variant: str, answers: AnswersSettings = AS_THEY_ARE) -> Path:
    """Where an attack stage wrote its table; MR's is in the original's folder, whichever models it attacked."""
    place = ORIGINAL if scenario == "MR" else parse_variant(variant)
    return places.table_file(run.root, run.name + answers.folder_suffix, scenario, place)


def model_table(run: Run, variants: Sequence[str]) -> pd.DataFrame:
    """Accuracy, size in bytes, seconds of training and stated property of every model, a row each."""
    rows = []
    for variant in variants:
        for role in run.roles:
            meta = model_meta(run, variant, role)
            facts = {key: meta[key] for key in MODEL_FACTS}
            rows.append({"variant": variant, "role": role, **facts, "property": meta.get("property", "")})
    return pd.DataFrame(rows)


def victim_models(models: pd.DataFrame) -> pd.DataFrame:
    """The rows of a `model_table` that describe the victim, not the shadow models."""
    return models[models["role"] == VICTIM]


def model_meta(run: Run, variant: str, role: str) -> dict:
    """What `meta.json` says of one model."""
    return checkpoints.load_meta(run.role_dir(parse_variant(variant), role))


def original_meta(run: Run) -> dict:
    """What `meta.json` says of the victim's original."""
    return model_meta(run, str(ORIGINAL), VICTIM)


def scores_of(run: Run, row: pd.Series) -> np.ndarray:
    """(A,) float64: the scores behind a row of `attack_table`, over the victim's audit points; NaN where left out.

    The table must be of the models' answers as they are, without a defence of answers.
    """
    file = table_file(run, row["scenario"], row["variant"]).with_name(f"{row['scenario']}_scores.npz")
    prefix = f"{row['variant']}/" if row["scenario"] == "MR" and row["variant"] != ALL else ""
    with np.load(file, allow_pickle=False) as scores:
        return scores[prefix + key_of(row)]


def p_values_of(run: Run, row: pd.Series) -> np.ndarray | None:
    """(A,): the p-values of the headline on the row's target, of the same table; None where that has none."""
    file = table_file(run, row["scenario"], row["variant"]).with_name(f"{row['scenario']}_p_values.npz")
    with np.load(file, allow_pickle=False) as p_values:
        return p_values.get(row["variant"])


def membership(run: Run) -> np.ndarray:
    """(A,) bool: which of the victim's audit points are members, the truth behind every table of the run."""
    return signals_file.load(run.signals_file(ORIGINAL)).truth


def audit_points(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """(A,) index into the data set and (A,) class of the victim's audit points."""
    file = run.signals_file(ORIGINAL)
    record = signals_file.load(file)
    audited = record.audit[0]
    return signals_file.points(file)[audited], record.labels[audited]


def records_of(run: Run, variants: Sequence[str]) -> list[signals_file.Record]:
    """The signals of these variants as recorded, with the membership of the victim, too."""
    return [signals_file.load(run.signals_file(parse_variant(variant))) for variant in variants]


def attacker_views(run: Run, variants: Sequence[str]) -> tuple[dict[str, Signals], np.ndarray]:
    """What an attacker knows of each variant, and (B,) bool which of the victim's audit points in it are members.

    As in the tables, points without a reference model are left out, unless too few would remain: B <= A.
    """
    records = with_references(dict(zip(variants, records_of(run, variants), strict=True)))
    views = {name: signals_file.attacker_view(record) for name, record in records.items()}
    return views, next(iter(records.values())).truth


def trained_members(run: Run) -> int:
    """On how many members the victim's original is trained: fewer than it has where a defence reserves some."""
    return len(assign(run, ORIGINAL, VICTIM).members)


def minutes(run: Run) -> float:
    """The minutes of all stages added up, also of those that ran at the same time."""
    return sum(read_json(run.dir / "seconds.json").values()) / 60
