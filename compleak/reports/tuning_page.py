"""The page on a defence's own learning rates and batch size, as they were chosen on the attacker's pool."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from compleak.findings.tuning import COMPARED, tuning_table
from compleak.reports import cells
from compleak.reports.folder import write_report
from compleak.reports.page import Block, Bullets, Code, Heading, Table, Text, to_markdown
from compleak.runs.run import Run
from compleak.runs.settings import CompressSettings
from compleak.runs.variants import Variant
from core.arguments import spelled
from core.errors import UserError

TRIED = {"learning rate": "lr", "batch size": "batch_size", "fine-tuning learning rate": "finetuning_lr"}  # -> column


def write_tuning_page(
    runs: Sequence[Run], versions: Sequence[Sequence[Variant]], folder: Path, command: str, settings: dict[str, str]
) -> str:
    """Write tuning.csv and the page into `folder`; returns the page.

    versions: the models of each run, the original first. The other parameters are those of the other pages. UserError
    where no candidate can be chosen, once the page is written.
    """
    table = tuning_table(runs, versions)
    page = to_markdown(page_of_tuning(table, runs[0].config, command, settings))
    write_report(folder, {"tuning": table}, {}, page)
    if not table["chosen"].any():
        raise UserError(
            f"of every candidate at least one model diverged (see {folder / 'summary.md'}): name lower learning rates, "
            "as NAME:ARG:LR:BATCH, or lower ones of fine-tuning where only compressed models diverged"
        )
    return page


def page_of_tuning(table: pd.DataFrame, config: dict, command: str, settings: dict[str, str]) -> list[Block]:
    data = f"data: {config['dataset_name']} (fingerprint {config['data']}); width {config['width']:g}"
    chosen = table[table["chosen"]]
    return [
        Heading("A defence's own learning rates and batch size", level=1),
        Code(command),
        Bullets([f"{data}; seed {config['seed']}", f"stages: {cells.list_settings(settings)}"]),
        Text(
            """The first shadow model was trained with each candidate on its members in the attacker's pool. What counts
            is `pool accuracy`, on points of the pool that it was not trained on. The victim's points, and what any
            attack says, have no part in the choice, which was made once. It costs the members of a victim of the same
            seed no privacy; another seed draws another split, whose victim has points in this pool."""
        ),
        *_compressed_note(table),
        *_epsilon_note(table),
        Table(candidate_table(table)),
        *_diverged_note(table),
        *_end_notes(table),
        Text(
            "What was chosen, first as a flag of `reproduce.py`, then as flags of `train.py`:"
            if len(chosen)
            else "No candidate could be chosen."
        ),
        *(Code(f"--defences {spelled}") for spelled in map(_for_comparison, chosen.to_dict("records"))),
        *(Code(flags) for flags in map(_for_stages, chosen.to_dict("records"))),
    ]


def _compressed_note(table: pd.DataFrame) -> list[Block]:
    """What counts where a learning rate of fine-tuning was tried."""
    if not _compressed(table):
        return []
    return [
        Text(
            f"""Each candidate's model was also compressed. `pool accuracy` is the mean accuracy of the original and its
            compressed versions, whose columns follow. `fine-tuning lr` is the rate of a stage whose --lr is the
            usual {CompressSettings.lr:g}; another --lr is multiplied by `fine-tuning lr` / {CompressSettings.lr:g}.
            Accuracy on members and epsilon are the original's; compressed versions spend more epsilon."""
        )
    ]


def _compressed(table: pd.DataFrame) -> list[str]:
    """The columns of the original and its compressed versions, where a learning rate of fine-tuning was tried."""
    columns = list(table)
    return columns[columns.index("pool_accuracy") + 1 : columns.index("train_accuracy")]


def _epsilon_note(table: pd.DataFrame) -> list[Block]:
    """A warning where the choice by accuracy may have bought accuracy with privacy."""
    if table["epsilon"].nunique() < 2:
        return []
    return [
        Text(
            """At one noise multiplier a larger batch spends more epsilon. The choice looks at accuracy alone: read
            both columns, and hold a candidate only against others of about its epsilon."""
        )
    ]


def _diverged_note(table: pd.DataFrame) -> list[Block]:
    """What `diverged` in the table means, where it is there."""
    if not table["pool_accuracy"].isna().any():
        return []
    return [
        Text(
            """`diverged`: the loss, the weights or the answers of the training were no longer finite, so there is no
            model, and the candidate cannot be chosen."""
        )
    ]


def _end_notes(table: pd.DataFrame) -> list[Block]:
    """A sentence on each choice beyond which nothing was tried."""
    notes = []
    for key, candidates in table.groupby(COMPARED, sort=False):
        chosen = candidates[candidates["chosen"]]
        ends = [
            _end_in_words(what, candidates[column], value)
            for what, column in TRIED.items()
            if column in table
            for value in chosen[column].dropna()
        ]
        if any(ends):
            name, what = cells.defence_name(*key[:2]), " and ".join(filter(None, ends))
            end = f"What was chosen for {name} lies at the end of what was tried: {what}."
            notes.append(Text(f"{end} Values beyond it may do better."))
    return notes


def _end_in_words(what: str, tried: pd.Series, value: float) -> str:
    """`learning rate 3 is the largest`, or "" where larger and smaller values were tried, or this one alone."""
    if value not in (tried.min(), tried.max()) or tried.nunique() == 1:
        return ""
    return f"{what} {value:g} is the {'largest' if value == tried.max() else 'smallest'}"


def candidate_table(table: pd.DataFrame) -> pd.DataFrame:
    """The candidates as people read them, the best of each defence first. table: of `findings.tuning`."""
    rows = table.sort_values("pool_accuracy", ascending=False, kind="stable")
    compressed = _compressed(table)
    shown = {
        "defence": [cells.defence_name(*pair) for pair in zip(rows["defence"], rows["argument"], strict=True)],
        "network": rows["network"],
        "lr": [f"{rate:g}" for rate in rows["lr"]],
        "batch size": rows["batch_size"],
    }
    if compressed:
        shown["fine-tuning lr"] = [f"{rate:g}" for rate in rows["finetuning_lr"]]
    shown["pool accuracy"] = [_percent_or(share, "diverged") for share in rows["pool_accuracy"]]
    shown |= {name: [_percent_or(share, "diverged") for share in rows[name]] for name in compressed}
    shown["accuracy on members"] = [_percent_or(share, "") for share in rows["train_accuracy"]]
    shown["epsilon"] = ["" if pd.isna(spent) else f"{spent:.1f}" for spent in rows["epsilon"]]
    shown["chosen"] = ["*" if chosen else "" for chosen in rows["chosen"]]
    return pd.DataFrame(shown)


def _percent_or(share: float, other: str) -> str:
    return other if pd.isna(share) else cells.percent(share)


def _for_comparison(row: dict) -> str:
    numbers = [spelled(row["argument"]), spelled(row["lr"]), str(row["batch_size"]), *_finetuning_lr(row)]
    return ":".join([row["defence"], *numbers])


def _for_stages(row: dict) -> str:
    flags = f"--defend {row['defence']} --defend_arg {spelled(row['argument'])}"
    flags += f" --defend_lr {spelled(row['lr'])} --defend_batch_size {row['batch_size']}"
    return " ".join([flags, *(f"--defend_finetuning_lr {rate}" for rate in _finetuning_lr(row))])


def _finetuning_lr(row: dict) -> list[str]:
    """The candidate's learning rate of fine-tuning as it is typed, where it has one."""
    rate = row.get("finetuning_lr")
    return [] if rate is None or pd.isna(rate) else [spelled(rate)]
