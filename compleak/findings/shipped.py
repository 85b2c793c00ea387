"""The numbers of an audit of models that somebody ships: levels, what versions add, who is exposed.

The original is `models[0]`. A target is a scenario with a variant, which is a model's name, or `all` in MR.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from compleak.audits import intervals, metrics
from compleak.audits.attackers import KNOWN_HALF
from compleak.findings import controls, levels, privbox, roc
from compleak.findings.claims import Scores
from compleak.findings.exposure import first_false_positive_rate
from compleak.findings.rows import TOGETHER, headline_rows, rows_of_target
from compleak.findings.tails import tail_of

LEAST_OF_CLASS = 20  # members and others that a class must have to be measured,
LEAST_OF_FIT = 5  # and that each fit must have judged of it
ALONE_BY_CHANCE = 6  # members that score above all others: from so many on it is evidence (see `found_alone`)
RECORDS = 100  # the most exposed members that are listed


class FileFacts(NamedTuple):
    path: str
    sha256: str
    bytes: int


class ModelFacts(NamedTuple):
    """What is known of one shipped model beside its attacks. Accuracy and loss are on the audited points."""

    name: str
    description: str  # format, network, what it takes
    files: tuple[FileFacts, ...]
    bytes: int
    member_accuracy: float
    nonmember_accuracy: float
    member_loss: float
    nonmember_loss: float
    answers: str  # such as `logits` or `probabilities, turned into logits`
    company: str  # whether answers depend on what else is in the batch, in a sentence
    runs_code: bool  # to open it runs Python code of whoever shipped it

    @property
    def gap(self) -> float:
        """How much more often the model is right on members."""
        return self.member_accuracy - self.nonmember_accuracy


class DataFacts(NamedTuple):
    """The members or the non-members."""

    source: str
    fingerprint: str
    count: int  # points there are
    used: int  # points that were audited
    kind: str  # image, features, tokens
    distinct: int | None = None  # audited points of distinct content; None: not counted, as if all were distinct

    @property
    def people(self) -> int:
        """How many points a level may rest on: copies are no further people."""
        return self.used if self.distinct is None else min(self.used, self.distinct)


class AuditFacts(NamedTuple):
    """All that a report says and that the attacks did not measure."""

    name: str
    command: str
    models: tuple[ModelFacts, ...]  # the first is the original
    members: DataFacts
    nonmembers: DataFacts
    classes: tuple[str, ...]
    release: dict[str, str]  # as the user declares it (access, audience, purpose); {}: not declared
    attacker: str  # KNOWN_HALF or `shadows`
    attacker_has: tuple[str, ...]  # sentences
    questions_per_point: int
    not_run: tuple[tuple[str, str], ...]  # (attack, why)
    notes: tuple[str, ...]  # warnings, such as copies of members among the non-members
    provenance: dict  # `core.provenance`
    seed: int
    seconds: float
    redact: bool  # names and indices of records are left out
    asked: bool = False  # this audit asked the models; False where answers or signals were given

    @property
    def halves(self) -> int:
        """Into how many parts the audit set falls that have intervals of their own."""
        return 2 if self.attacker == KNOWN_HALF else 1

    @property
    def distinct(self) -> tuple[int, int] | None:
        """How many members and others a level may rest on; None where nobody counted copies."""
        if self.members.distinct is None and self.nonmembers.distinct is None:
            return None
        return self.members.people, self.nonmembers.people


class AuditFindings(NamedTuple):
    """All numbers of a report; fractions. A frame may be empty and then has its columns all the same."""

    overall: levels.Verdict  # on the worst target, or on a class that surely is more exposed than all targets
    verdicts: tuple[levels.Verdict, ...]  # of each target, in the order of `targets_of`
    attacks: pd.DataFrame  # every row of the table, controls too
    headlines: pd.DataFrame  # the attack that speaks for each target, with `advantage`, `level` and `privbox`
    added: pd.DataFrame  # ADDED_COLUMNS: what a further version adds to AUC
    controls: controls.ControlTest | None
    failed_controls: tuple[str, ...]  # of `rows.CONTROLS`, those that find something
    exposed_by: str  # name of the headline behind `classes` and `records`; "" where there is none
    classes: pd.DataFrame  # CLASS_COLUMNS, the most exposed first; `level` is what is proven of a class, or ""
    records: pd.DataFrame  # RECORD_COLUMNS, the most exposed members first
    # Members that score above every non-member. Without a leak and with equal numbers, the chance of k or more is about
    # 1 / 2^k: the k points of largest score are all members. Such are 1 in the mean, and 6 or more in one audit of 64.
    found_alone: int
    tails: pd.DataFrame  # TAIL_COLUMNS: what the losses alone say of each model
    curves: pd.DataFrame  # for `reports.figures.roc`


ADDED_COLUMNS = ["variant", "scenario", "baseline", "difference", "low", "high"]
CLASS_COLUMNS = ["label", "name", "n_member", "n_nonmember", "auc", "auc_lo", "auc_hi"]
CLASS_COLUMNS += [metrics.WIDER_TPR + end for end in metrics.INTERVAL_ENDS]
CLASS_COLUMNS += ["auc_proven", metrics.WIDER_TPR + "_proven", "level"]  # see `_proven_of_classes`
TAIL_COLUMNS = ["variant", *("tnr" + end for end in metrics.INTERVAL_ENDS)]
RECORD_COLUMNS = ["place", "name", "label", "class", "exposure"]
TEXTS = ("scenario", "variant", "attack", "classifier", "artifact_row", "needs", "chosen")  # columns of a table


def audit_findings(
    facts: AuditFacts,
    table: pd.DataFrame,
    scores: Scores,
    truth: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    scored_by: np.ndarray | None = None,
) -> AuditFindings:
    """Work everything out; nothing is written.

    table: all rows of NR (variant: a model's name), SR (variant: the compressed model's name) and MR (variant `all`),
    controls too, with a unique index. truth, labels: (A,) bool membership and class of the audited points; names: what
    each of them is called. scored_by: (A,) the fit that judged each point (`half` among the scores of a table), without
    which ValueError for an attacker who knows half of the points.
    """
    if facts.attacker == KNOWN_HALF and scored_by is None:
        raise ValueError("the fit behind each score of this attacker is needed for its intervals")
    table = with_numbers(table)
    failed = controls.failed_controls(table)
    verdicts = _verdicts(facts, table, failed)
    headlines = _headlines(table, verdicts)
    leading = _leading(headlines)
    control_rows = controls.control_rows(table)
    judged = _Judged(scores, truth, scored_by, facts.seed)
    classes = _classes(leading, judged, labels, facts)
    return AuditFindings(
        overall=_overall(verdicts, leading, classes, failed, facts),
        verdicts=verdicts,
        attacks=table,
        headlines=headlines,
        added=_added(facts, headlines, judged),
        controls=controls.check_controls(control_rows) if len(control_rows) else None,
        failed_controls=tuple(failed["attack"].unique()),
        exposed_by=_exposed_by(leading, facts),
        classes=classes,
        records=_records(leading, judged, labels, names, facts),
        found_alone=_found_alone(leading, judged),
        tails=_tails(facts, table, judged),
        curves=_curves(headlines, table, judged),
    )


def with_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """The table with numbers, NaN and texts, whether it was just made or read from a file, which has empty cells."""
    columns = {}
    for name, column in table.items():
        if name in TEXTS:
            columns[name] = column.fillna("").astype(str)
        else:
            columns[name] = column.astype(bool) if name == "headline" else pd.to_numeric(column)
    return pd.DataFrame(columns)


# Targets


def targets_of(facts: AuditFacts) -> list[tuple[str, str]]:
    """What can be attacked: each model alone, each compressed one with the original, and all together."""
    original, *compressed = (model.name for model in facts.models)
    targets = [("NR", name) for name in (original, *compressed)] + [("SR", name) for name in compressed]
    return targets + [TOGETHER] * bool(compressed)


def in_words(scenario: str, variant: str, facts: AuditFacts, show: Callable[[str], str] = str) -> str:
    """What the attacker of a target holds. show: gives a model's name as it is to be shown."""
    if scenario == "NR":
        return f"{show(variant)} alone"
    if scenario == "SR":
        return f"{show(facts.models[0].name)} and {show(variant)}"
    return f"all {len(facts.models)} models"


def target_in_words(row: pd.Series, facts: AuditFacts) -> str:
    return in_words(row["scenario"], row["variant"], facts)


def _verdicts(facts: AuditFacts, table: pd.DataFrame, failed: pd.DataFrame) -> tuple[levels.Verdict, ...]:
    """Of each target in its order; a pair's is no better than its models', and that of all no better than any."""
    verdicts = []
    for scenario, variant in _targets_measured(facts, table):
        rows = rows_of_target(table, scenario, variant)
        verdict = levels.judge(scenario, variant, rows, facts.halves, facts.distinct)
        verdict = levels.with_failed_controls(verdict, _failed_for(scenario, variant, failed))
        contained = [other for other in verdicts if _contains(scenario, variant, other, facts)]
        verdicts.append(levels.with_contained(verdict, contained, lambda *part: in_words(*part, facts)))
    return tuple(verdicts)


def _contains(scenario: str, variant: str, other: levels.Verdict, facts: AuditFacts) -> bool:
    """Whether whoever holds a target holds what another verdict is about. Pairs and all models come last."""
    if scenario == "SR":
        return other.scenario == "NR" and other.variant in (facts.models[0].name, variant)
    return scenario == "MR"


def _targets_measured(facts: AuditFacts, table: pd.DataFrame) -> list[tuple[str, str]]:
    targets = targets_of(facts)
    if not rows_of_target(table, *TOGETHER).empty and TOGETHER not in targets:
        targets.append(TOGETHER)  # of the original and one compressed model
    return targets


def _failed_for(scenario: str, variant: str, failed: pd.DataFrame) -> list[str]:
    """The failed controls on which a target rests: `null` is one target's, and the others look at the data of all."""
    rests = (failed["attack"] != "null") | ((failed["scenario"] == scenario) & (failed["variant"] == variant))
    return list(failed.loc[rests, "attack"].unique())


def _headlines(table: pd.DataFrame, verdicts: Sequence[levels.Verdict]) -> pd.DataFrame:
    """The headline of each target, in the order of the verdicts; targets without one have no row."""
    rows = []
    for verdict in verdicts:
        for _, row in headline_rows(rows_of_target(table, verdict.scenario, verdict.variant)).iterrows():
            advantage = {"advantage" + end: 2 * row["acc" + end] - 1 for end in metrics.INTERVAL_ENDS}
            verdict_of_row = {"level": verdict.level, "privbox": privbox.level(row["acc"])}
            rows.append({**row, **advantage, **verdict_of_row})
    return pd.DataFrame(rows, columns=None if rows else [*table.columns, "advantage", "level", "privbox"])


def _leading(headlines: pd.DataFrame) -> pd.Series | None:
    """The headline of largest AUC, turned round where it lies below one half."""
    return headlines.loc[_auc(headlines).idxmax()] if len(headlines) else None


def _auc(headlines: pd.DataFrame) -> pd.Series:
    """The AUC of each headline, of 1 - AUC where the attack is turned round."""
    inverted = headlines["auc_hi"] < 0.5
    return headlines["auc"].where(~inverted, 1 - headlines["auc"])


# What versions add


class _Judged:
    """Measures of rows on the points that they judged; intervals allow for several fits (`metrics.auc_interval`).

    An attack that errs (`levels.is_inverted`) has its scores turned round, as an attacker would.
    """

    def __init__(self, scores: Scores, truth: np.ndarray, scored_by: np.ndarray | None, seed: int) -> None:
        self.scores_as_given, self.truth, self.seed = scores, truth, seed
        self.scored_by = scored_by

    def scores(self, row: pd.Series) -> np.ndarray:
        """(A,) the scores behind a row of the table, NaN on points that it left out."""
        scores = self.scores_as_given(row)
        return -scores if levels.is_inverted(row) else scores

    def difference(self, row: pd.Series, baseline: pd.Series) -> tuple[float, float, float]:
        """(difference of AUC, low, high) on the points that both judged."""
        options = {"seed": self.seed, "scored_by": self.scored_by}
        return metrics.paired_difference(self.scores(row), self.scores(baseline), self.truth, **options)

    def auc(self, scores: np.ndarray, chosen: np.ndarray) -> tuple[float, float, float]:
        """(AUC, low, high) on the chosen points, (A,) bool."""
        scores, truth = scores[chosen], self.truth[chosen]
        interval = metrics.auc_interval(scores, truth, seed=self.seed, scored_by=self._fits(chosen))
        return metrics.auc(scores, truth), *interval

    def tpr(self, scores: np.ndarray, chosen: np.ndarray) -> tuple[float, float, float]:
        """The same of the TPR at 1 % false alarms."""
        scores, truth = scores[chosen], self.truth[chosen]
        value = metrics.tpr_at_fpr(scores, truth, metrics.WIDER_FPR)
        return value, *metrics.tpr_interval(scores, truth, metrics.WIDER_FPR)

    def proven_auc(self, scores: np.ndarray, chosen: np.ndarray, tail: float) -> float:
        """The lower end of the AUC on the chosen points, either way round; it errs with the chance `tail`."""
        parts = [chosen] if self.scored_by is None else [chosen & (self.scored_by == fit) for fit in self._each_fit()]
        ends = [intervals.auc_interval_of_any_size(self._placements(scores, part), tail) for part in parts]
        return levels.auc_evidence(*np.mean(ends, axis=0))[0]

    def proven_tpr(self, scores: np.ndarray, chosen: np.ndarray, tail: float) -> float:
        """The same of the TPR at 1 % false alarms."""
        kinds = (scores[chosen & self.truth], scores[chosen & ~self.truth])
        return intervals.tpr_interval(*kinds, metrics.WIDER_FPR, tail)[0]

    def _placements(self, scores: np.ndarray, chosen: np.ndarray) -> intervals.Placements:
        return intervals.placements(scores[chosen & self.truth], scores[chosen & ~self.truth])

    def _each_fit(self) -> np.ndarray:
        return np.unique(self.scored_by)

    def least_of_a_fit(self, chosen: np.ndarray) -> int:
        """How many of the chosen members, or of the chosen others, the fit judged that judged fewest."""
        fits = np.zeros(len(self.truth)) if self.scored_by is None else self.scored_by
        kinds = (self.truth, ~self.truth)
        return min(int((chosen & kind & (fits == fit)).sum()) for fit in np.unique(fits) for kind in kinds)

    def _fits(self, chosen: np.ndarray) -> np.ndarray | None:
        return None if self.scored_by is None else self.scored_by[chosen]


def _added(facts: AuditFacts, headlines: pd.DataFrame, judged: _Judged) -> pd.DataFrame:
    """SR minus NR of the original, and MR minus the best SR: differences of the headlines' AUC, paired.

    An AUC that surely lies below one half enters as 1 - AUC.
    """
    rows = []
    original = _row_of(headlines, "NR", facts.models[0].name)
    pairs = [row for _, row in headlines[headlines["scenario"] == "SR"].iterrows()]
    if original is not None:
        rows += [(pair, original) for pair in pairs]
    together = _row_of(headlines, *TOGETHER)
    if together is not None and len(pairs) > 1:
        rows.append((together, _leading(pd.DataFrame(pairs))))
    lines = []
    for row, baseline in rows:
        against = target_in_words(baseline, facts)
        lines.append([row["variant"], row["scenario"], against, *judged.difference(row, baseline)])
    return pd.DataFrame(lines, columns=ADDED_COLUMNS)


def _row_of(headlines: pd.DataFrame, scenario: str, variant: str) -> pd.Series | None:
    rows = rows_of_target(headlines, scenario, variant)
    return rows.iloc[0] if len(rows) else None


# Who is exposed


def _exposed_by(leading: pd.Series | None, facts: AuditFacts) -> str:
    if leading is None:
        return ""
    inverted = " inverted" if levels.is_inverted(leading) else ""
    return f"{levels.attack_in_words(leading)}{inverted} on {target_in_words(leading, facts)}"


def _classes(leading: pd.Series | None, judged: _Judged, labels: np.ndarray, facts: AuditFacts) -> pd.DataFrame:
    """The leading headline on each class alone that has enough points."""
    lines = []
    scores = None if leading is None else judged.scores(leading)
    for label in np.unique(labels) if leading is not None else ():
        chosen = (labels == label) & np.isfinite(scores)
        count, others = int(judged.truth[chosen].sum()), int((~judged.truth[chosen]).sum())
        if min(count, others) >= LEAST_OF_CLASS and judged.least_of_a_fit(chosen) >= LEAST_OF_FIT:
            measured = judged.auc(scores, chosen) + judged.tpr(scores, chosen)
            lines.append([int(label), _class_name(label, facts), count, others, *measured])
    frame = pd.DataFrame(lines, columns=CLASS_COLUMNS[:-3])
    frame[CLASS_COLUMNS[-3:]] = _proven_of_classes(frame["label"], judged, scores, labels)
    return frame.sort_values("auc", ascending=False, kind="stable", ignore_index=True)


def _proven_of_classes(measured: Sequence[int], judged: _Judged, scores: np.ndarray | None, labels: np.ndarray) -> list:
    """For each class the lower ends of AUC and TPR, and the level that they prove, or "".

    Among many classes one does well by chance. Each end therefore errs with the chance of an interval's end divided by
    the number of classes (Bonferroni).
    """
    lines = []
    for label in measured:
        chosen = (labels == label) & np.isfinite(scores)
        tail = intervals.TAIL / len(measured)
        ends = judged.proven_auc(scores, chosen, tail), judged.proven_tpr(scores, chosen, tail)
        lines.append([*ends, levels.level_of_class(*ends)])
    return lines or np.empty((0, 3))


def exposed_classes(classes: pd.DataFrame) -> pd.DataFrame:
    """The classes of `AuditFindings.classes` of which a level is proven."""
    return classes[classes["level"] != ""]


def _overall(
    verdicts: Sequence[levels.Verdict],
    leading: pd.Series | None,
    classes: pd.DataFrame,
    failed: pd.DataFrame,
    facts: AuditFacts,
) -> levels.Verdict:
    """The worst verdict on a target, or that on the most exposed class where this is worse.

    A class that reaches MIDDLE adds nothing where the whole reads MIDDLE.
    """
    worst = levels.worst_of(verdicts)
    exposed = exposed_classes(classes)
    if exposed.empty:
        return worst
    high = exposed[exposed["level"] == levels.HIGH]
    first = (high if len(high) else exposed).iloc[0]
    verdict = levels.judge_class(leading, target_in_words(leading, facts), first, len(classes))
    if (worst.level, verdict.level) == (levels.MIDDLE, levels.AT_LEAST_MIDDLE):
        return worst
    names = _failed_for(verdict.scenario, verdict.variant, failed)
    return levels.worst_of([worst, levels.with_failed_controls(verdict, names)])


def _class_name(label: int, facts: AuditFacts) -> str:
    return facts.classes[label] if label < len(facts.classes) else str(label)


def _records(
    leading: pd.Series | None, judged: _Judged, labels: np.ndarray, names: Sequence[str], facts: AuditFacts
) -> pd.DataFrame:
    """The members whom the leading headline accuses first; exposure: the false-positive rate at which it does.

    Empty where the user wants records left out.
    """
    if leading is None or facts.redact:
        return pd.DataFrame(columns=RECORD_COLUMNS)
    scores = judged.scores(leading)
    exposure = first_false_positive_rate(scores, judged.truth)
    order = np.lexsort([-scores, exposure])
    first = order[judged.truth[order] & ~np.isnan(scores[order])][:RECORDS]
    lines = []
    for place in first.tolist():
        label = int(labels[place])
        lines.append([place, str(names[place]), label, _class_name(label, facts), float(exposure[place])])
    return pd.DataFrame(lines, columns=RECORD_COLUMNS)


def _found_alone(leading: pd.Series | None, judged: _Judged) -> int:
    if leading is None:
        return 0
    scores = judged.scores(leading)
    highest = np.nanmax(scores[~judged.truth])
    return int((scores[judged.truth] > highest).sum())


# Curves


def _tails(facts: AuditFacts, table: pd.DataFrame, judged: _Judged) -> pd.DataFrame:
    """`tails.tail_of` each model's losses, which are minus the scores of `yeom2018`; no row where that did not run."""
    lines = []
    for model in facts.models:
        rows = rows_of_target(table, "NR", model.name)
        for _, row in rows[rows["attack"] == "yeom2018"].iterrows():
            losses = -judged.scores_as_given(row)
            asked = np.isfinite(losses)
            lines.append({"variant": model.name, **tail_of(losses[asked], judged.truth[asked])})
    return pd.DataFrame(lines, columns=TAIL_COLUMNS)


def _curves(headlines: pd.DataFrame, table: pd.DataFrame, judged: _Judged) -> pd.DataFrame:
    """The headline of largest AUC of each scenario, and the null control of the last."""
    curves = []
    for _, own in headlines.groupby("scenario", sort=False):
        row = _leading(own)
        curves.append(roc.curve_of(row, "headline", judged.scores(row), judged.truth))
    if (table["attack"] == "null").any():
        row = roc.null_row(table)
        curves.append(roc.null_curve(row, judged.scores_as_given(row), judged.truth))
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=roc.COLUMNS)


# The whole as data

SCHEMA = "compleak-audit/1"


def as_data(facts: AuditFacts, findings: AuditFindings) -> dict:
    """Everything as JSON takes it, in the form of `reports/audit.schema.json`. What has no value is None."""
    content = {
        "schema": SCHEMA,
        "overall": findings.overall._asdict(),
        "facts": {**facts._asdict(), "models": [_model(model) for model in facts.models]},
        "rule": {
            "limits": {limit.measure: {"low": limit.low, "middle": limit.middle} for limit in levels.LIMITS},
            "smallest_size": levels.smallest_size(facts.halves),
        },
        "targets": [verdict._asdict() for verdict in findings.verdicts],
        "headlines": _lines(findings.headlines),
        "added": _lines(findings.added),
        "controls": findings.controls._asdict() if findings.controls else None,
        "failed_controls": findings.failed_controls,
        "exposed_by": findings.exposed_by,
        "classes": _lines(findings.classes),
        "records": None if facts.redact else _lines(findings.records),
        "found_alone": findings.found_alone,
        "tails": _lines(findings.tails),
        "attacks": _lines(findings.attacks),
    }
    content["facts"]["members"] = facts.members._asdict()
    content["facts"]["nonmembers"] = facts.nonmembers._asdict()
    return _plain(content)


def _model(model: ModelFacts) -> dict:
    return {**model._asdict(), "files": [file._asdict() for file in model.files]}


def _lines(frame: pd.DataFrame) -> list[dict]:
    return frame.to_dict("records")


def _plain(value):
    """The same with nothing but what JSON has: no NaN, no infinity, no numpy."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
