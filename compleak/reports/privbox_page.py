"""The report of a PrivBox task file: models, data sets, attacks and a summary, as PrivBox prints them, and more.

PrivBox's own level stands beside the one that the same rule gives on balanced accuracy. What PrivBox recommends is
listed in words of our own, each recommendation once, with what there is of it in this project.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from compleak.findings.privbox import FPR, WORST_FIRST, Attack, PrivBoxFindings, is_unbalanced, level
from compleak.reports.cells import interval, percent
from compleak.reports.page import Block, Bullets, Heading, Table, Text, escaped, printable, to_markdown
from core.console import say
from core.files import write_json, write_text

Show = Callable[[str], str]  # how a user's name stands in a text

FORMAT = 1
PAGE = "privbox.md"
NUMBERS = "privbox.json"

HOW = {
    "BASELINE": "calls a point a member if the model predicts its class rightly (`gap`)",
    "ML-LEAK": "learns from a shadow model how the largest outputs of members differ from those of others",
    "LABEL-ONLY": "learns from a shadow model how often members are still recognised when the picture is turned",
}
NEEDS = {
    "BASELINE": "the predicted class and the label of each point",
    "ML-LEAK": "the {topk} largest outputs for each point, and a shadow model trained on {shadow}",
    "LABEL-ONLY": "the predicted class and the label of each picture, turned by -{r} to {r} degrees, and a shadow "
    "model trained on {shadow}",
}
SHARED_DATA = (
    "{attack}: the shadow model's data sets are the target's own ({names}). Who knows which of these points are "
    "members need not attack. The classifier has also learned from the very points that it is judged on, under another "
    "truth, so its numbers can be too low as well as too high and mean little: give the shadow model points of its own"
)
PRIVACY = (
    "Differential privacy: train with clipped gradients and noise, so that no single point decides much. It is the "
    "only one of these with a guarantee (`train.py --defend dp`)."
)
DISTILLATION = (
    "Distillation: release a student that learned from the outputs of the model on other points, not from the members "
    "themselves."
)
REGULARISATION = (
    "Regularisation: stop earlier, augment the data, or use weight decay, dropout or label smoothing, so that members "
    "and other points are treated alike (`train.py --defend ppb` and `adv` penalise the difference itself)."
)
MASKING = (
    "Masking of outputs: answer with fewer classes, rounded numbers or the class alone. It does nothing against "
    "BASELINE and LABEL-ONLY, which see the class alone."
)
RECOMMENDED = {
    "BASELINE": (PRIVACY, DISTILLATION, REGULARISATION),
    "ML-LEAK": (PRIVACY, DISTILLATION, REGULARISATION, MASKING),
    "LABEL-ONLY": (PRIVACY, DISTILLATION, REGULARISATION),
}
ALL_LOW = (
    "No attack reaches an accuracy of 0.55, which PrivBox's rule calls LOW. This is evidence that the model resists "
    "these attacks with these points, and no more."
)


def write_privbox(out: Path, findings: PrivBoxFindings) -> None:
    """Write the page and its numbers into the folder."""
    write_json(out / NUMBERS, to_json(findings))
    write_text(out / PAGE, to_markdown(privbox_blocks(findings)))


def print_privbox(findings: PrivBoxFindings) -> None:
    """Print the report as PrivBox prints it."""
    for line in privbox_lines(findings):
        say(line)


def to_json(findings: PrivBoxFindings) -> dict:
    """All numbers; a precision that is not defined is null."""
    content = dataclasses.asdict(findings)
    for entry, attack in zip(content["attacks"], findings.attacks, strict=True):
        entry["numbers"] = {key: None if math.isnan(value) else value for key, value in attack.numbers.items()}
        entry["warnings"] = warn_of_shared_data(attack.name, attack.shared_data)
        entry["level"] = attack.level
        entry["balanced_level"] = attack.balanced_level
    return {"format": FORMAT, **content}


def privbox_lines(findings: PrivBoxFindings) -> list[str]:
    lines = ["Membership inference, by PrivBox's task file", "Models:"]
    for model in findings.models:
        accuracies = f"accuracy on members {model.member_accuracy:.4f}, on others {model.other_accuracy:.4f}"
        lines.append(f"  - {printable(model.name)} ({model.role}, members {printable(model.members)}): {accuracies}")
    lines.append("Data sets:")
    for dataset in findings.datasets:
        kind = "members" if dataset.is_member else "others"
        lines.append(f"  - {printable(dataset.name)}: {dataset.points} points, {kind} of {printable(dataset.of)}")
    lines.append("Attacks:")
    for attack in findings.attacks:
        lines.append(f"  - {attack.name} on {printable(attack.target)}: {HOW[attack.name]}")
        shown = [f"{key} {attack.numbers[key]:.4f}" for key in ("accuracy", "auc", "precision", "recall")]
        lines.append(f"    {', '.join(shown)}; balanced accuracy {attack.numbers['balanced_accuracy']:.4f}")
        lines.extend(f"    warning: {line}" for line in warn_of_shared_data(attack.name, attack.shared_data))
    lines.append("Summary:")
    lines.extend(f"  - {line}" for line in summarise(findings, printable))
    return lines


def privbox_blocks(findings: PrivBoxFindings) -> list[Block]:
    """The page. Numbers in percent, with 95 % intervals."""
    return [
        Heading("Membership inference, by PrivBox's task file", 1),
        Text(f"{escaped(findings.task_file)}, seed {findings.seed}. Numbers are in percent, with 95 % intervals."),
        Heading("Models"),
        Table(model_table(findings)),
        Heading("Data sets"),
        Table(dataset_table(findings)),
        Heading("Attacks"),
        Bullets([describe_attack(attack) for attack in findings.attacks]),
        Text("What PrivBox reports, over all points, however many more members than others there are:"),
        Table(attack_table(findings, ("accuracy", "precision", "recall"))),
        Text("What does not depend on how many more members than others there are:"),
        Table(attack_table(findings, ("balanced_accuracy", "auc", f"tpr_at_fpr_{FPR}"))),
        Heading("Summary"),
        Bullets(summarise(findings, escaped)),
        Heading("Files"),
        Table(file_table(findings)),
    ]


def model_table(findings: PrivBoxFindings) -> pd.DataFrame:
    rows = [
        {
            "model": escaped(model.name),
            "role": model.role,
            "its members": escaped(model.members),
            "accuracy on members": percent(model.member_accuracy),
            "on others": percent(model.other_accuracy),
            "gap": percent(model.member_accuracy - model.other_accuracy),
            "folder": shorten(model.folder),
        }
        for model in findings.models
    ]
    return pd.DataFrame(rows)


def shorten(folder: str, file: str = "") -> str:
    """A folder or a file in it, from the working directory where it lies there."""
    path = Path(folder) / file
    return escaped(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def dataset_table(findings: PrivBoxFindings) -> pd.DataFrame:
    rows = [
        {
            "data set": escaped(dataset.name),
            "points": dataset.points,
            "they are": f"{'members' if dataset.is_member else 'others'} of {escaped(dataset.of)}",
            "folder": shorten(dataset.folder),
            "SHA-256 of the points": f"`{dataset.fingerprint}`",
        }
        for dataset in findings.datasets
    ]
    return pd.DataFrame(rows)


TITLES = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "balanced_accuracy": "balanced accuracy",
    "auc": "AUC",
    f"tpr_at_fpr_{FPR}": f"TPR at {100 * FPR:g} % FPR",
}


def attack_table(findings: PrivBoxFindings, keys: Sequence[str]) -> pd.DataFrame:
    rows = [
        {
            "attack": attack.name,
            "target": escaped(attack.target),
            **{TITLES[key]: cell(attack, key) for key in keys},
            "level by PrivBox's rule": attack.level if "accuracy" in keys else attack.balanced_level,
        }
        for attack in findings.attacks
    ]
    return pd.DataFrame(rows)


def cell(attack: Attack, key: str) -> str:
    value, low, high = (attack.numbers[key + end] for end in ("", "_lo", "_hi"))
    return "undefined: it accuses nobody" if math.isnan(value) else interval(value, low, high)


def describe_attack(attack: Attack) -> str:
    """One bullet: what the attack does, needs, asks and was set to, and what speaks against its numbers."""
    needs = NEEDS[attack.name].format(shadow=escaped(attack.shadow_data), **attack.settings)
    often = "once" if attack.questions == 1 else f"{attack.questions} times"
    settings = ", ".join(f"{key} {value}" for key, value in attack.settings.items())
    sentences = [
        f"{attack.name} on {escaped(attack.target)} {HOW[attack.name]}",
        f"It needs {needs}",
        f"Each point is asked about {often}",
        *([f"Settings: `{settings}`"] if settings else []),
    ]
    warnings = warn_of_shared_data(attack.name, attack.shared_data, escaped)
    return ". ".join([*sentences, *(f"*Warning*: {line}" for line in warnings)]) + "."


def warn_of_shared_data(attack: str, names: Sequence[str], show: Show = printable) -> list[str]:
    """A line where the shadow model has data sets of the target."""
    return [SHARED_DATA.format(attack=attack, names=", ".join(map(show, names)))] if names else []


def summarise(findings: PrivBoxFindings, show: Show = printable) -> list[str]:
    """The attacks that PrivBox's rule warns of, the worst first; what the balance does to it; what to do about it."""
    risky = [attack for attack in findings.attacks if {attack.level, attack.balanced_level} != {"LOW"}]
    risky.sort(key=lambda attack: WORST_FIRST.index(attack.level))
    lines = [
        f"{attack.name} on {show(attack.target)}: {attack.level} by its accuracy of "
        f"{percent(attack.numbers['accuracy'])} %, {attack.balanced_level} by its balanced accuracy of "
        f"{percent(attack.numbers['balanced_accuracy'])} %"
        for attack in risky
    ]
    recommended = dict.fromkeys(text for attack in risky for text in RECOMMENDED[attack.name])
    return [*(lines or [ALL_LOW]), *explain_balance(findings), *recommended]


def explain_balance(findings: PrivBoxFindings) -> list[str]:
    """A line for each size of data sets on which accuracy alone is misleading."""
    unbalanced = {
        (attack.numbers["n_member"], attack.numbers["n_nonmember"]): attack.guess
        for attack in findings.attacks
        if is_unbalanced(attack)
    }
    return [
        f"Accuracy alone is misleading here: of {members} members and {others} others, a guess that calls every point "
        f"a {'member' if members > others else 'non-member'} is right for {percent(guess)} %, which PrivBox calls "
        f"{level(guess)}. Go by balanced accuracy."
        for (members, others), guess in unbalanced.items()
    ]


def file_table(findings: PrivBoxFindings) -> pd.DataFrame:
    rows = [
        {"file": shorten(model.folder, name), "SHA-256": f"`{digest}`"}
        for model in findings.models
        for name, digest in model.sha256.items()
    ]
    return pd.DataFrame(rows).drop_duplicates()
