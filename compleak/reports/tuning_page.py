"""The page on a defence's own learning rate and batch size, as they were chosen on the attacker's pool."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from compleak.findings.tuning import COMPARED, tuning_table
from compleak.reports import cells
from compleak.reports.folder import write_report
from compleak.reports.page import Block, Bullets, Code, Heading, Table, Text, to_markdown
from compleak.runs.run import Run
from core.arguments import spelled


def write_tuning_page(runs: Sequence[Run], folder: Path, command: str, settings: dict[str, str]) -> str:
    """Write tuning.csv and the page into `folder`; returns the page. The parameters are those of the other pages."""
    table = tuning_table(runs)
    page = to_markdown(page_of_tuning(table, runs[0].config, command, settings))
    write_report(folder, {"tuning": table}, {}, page)
    return page


def page_of_tuning(table: pd.DataFrame, config: dict, command: str, settings: dict[str, str]) -> list[Block]:
    data = f"data: {config['dataset_name']} (fingerprint {config['data']}); width {config['width']:g}"
    chosen = table[table["chosen"]]
    return [
        Heading("A defence's own learning rate and batch size", level=1),
        Code(command),
        Bullets([f"{data}; seed {config['seed']}", f"stages: {cells.list_settings(settings)}"]),
        Text(
            """The first shadow model was trained with each candidate on its members in the attacker's pool. What counts
            is `pool accuracy`, on points of the pool that it was not trained on. The victim's points, and what any
            attack says, have no part in the choice, which was made once. It costs the members of a victim of the same
            seed no privacy; another seed draws another split, whose victim has points in this pool."""
        ),
        *_epsilon_note(table),
        Table(candidate_table(table)),
        *_diverged_note(table),
        *_end_notes(table),
        Text("What was chosen, first as a flag of `reproduce.py`, then as flags of `train.py`:"),
        *(Code(f"--defences {spelled}") for spelled in map(_for_comparison, chosen.to_dict("records"))),
        *(Code(flags) for flags in map(_for_stages, chosen.to_dict("records"))),
    ]


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
    return [Text("`diverged`: the loss or the weights of the training were no longer finite, so there is no model.")]


def _end_notes(table: pd.DataFrame) -> list[Block]:
    """A sentence on each choice beyond which nothing was tried."""
    notes = []
    for key, candidates in table.groupby(COMPARED, sort=False):
        chosen = candidates[candidates["chosen"]]
        ends = [
            _end_in_words(what, candidates[column], value)
            for what, column in (("learning rate", "lr"), ("batch size", "batch_size"))
            for value in chosen[column]
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
    return pd.DataFrame(
        {
            "defence": [cells.defence_name(*pair) for pair in zip(rows["defence"], rows["argument"], strict=True)],
            "network": rows["network"],
            "lr": [f"{rate:g}" for rate in rows["lr"]],
            "batch size": rows["batch_size"],
            "pool accuracy": [_percent_or(share, "diverged") for share in rows["pool_accuracy"]],
            "accuracy on members": [_percent_or(share, "") for share in rows["train_accuracy"]],
            "epsilon": ["" if pd.isna(spent) else f"{spent:.1f}" for spent in rows["epsilon"]],
            "chosen": ["*" if chosen else "" for chosen in rows["chosen"]],
        }
    )


def _percent_or(share: float, other: str) -> str:
    return other if pd.isna(share) else cells.percent(share)


def _for_comparison(row: dict) -> str:
    return f"{row['defence']}:{spelled(row['argument'])}:{spelled(row['lr'])}:{row['batch_size']}"


def _for_stages(row: dict) -> str:
    flags = f"--defend {row['defence']} --defend_arg {spelled(row['argument'])}"
    return f"{flags} --defend_lr {spelled(row['lr'])} --defend_batch_size {row['batch_size']}"
