"""From measurements with intervals to LOW, MIDDLE or HIGH, by a rule that every report states as well.

**Three measures, two limits each** (`LIMITS`). The limits on the TPR are chosen by what an accusation would be worth
where one point in a hundred is a member. At 0.1 % false alarms and below the limit of LOW, 3 %, fewer than a quarter of
the accused are members; from the limit of HIGH on, 10 %, half of them are.

**The attack that was chosen beforehand** (the headline) counts with the upper end of each interval, because LOW is a
promise. **Every other attack** counts with the lower end: with what it surely reaches. Among many attacks one does well
by chance, and the lower end keeps such luck from raising a level; a headline that was badly chosen still does not hide
a leak that another attack proves. The worst of all these is the level.

**An AUC below one half counts the other way round** (`auc_evidence`): whoever learns that an attack errs turns its
answers round, and an AUC of 26 % becomes one of 74 %.

**A small sample** has wide intervals, and LOW cannot be read from them even if nothing leaks. `null_ends` says how far
up the intervals of a model that leaks nothing reach on a sample of this size. Unless they stay below the limit of LOW
in all three measures, the upper ends decide nothing: the verdict is what lower ends prove, or TOO_FEW. All three
measures must be bounded because otherwise a smaller sample would get a better level.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import betaincinv
from scipy.stats import betabinom, binom, norm

from compleak.audits import metrics
from compleak.audits.intervals import TAIL
from compleak.audits.table import CHOSEN
from compleak.findings.rows import attack_rows, headline_rows, key_of

LOW, MIDDLE, HIGH = "LOW", "MIDDLE", "HIGH"
AT_LEAST_MIDDLE = "at least MIDDLE"
TOO_FEW = "too few points to tell"
NOT_MEASURED = "not measured"
FROM_BEST_TO_WORST = (LOW, MIDDLE, NOT_MEASURED, TOO_FEW, AT_LEAST_MIDDLE, HIGH)

MARGIN = 3  # standard deviations: several targets and measures must all stay below their limits
SIZES = (*range(100, 2000, 50), *range(2000, 10001, 500))  # that `smallest_size` tries
CHOSEN_BEFOREHAND = ", the attack chosen beforehand,"


class Limit(NamedTuple):
    """Below `low` a measure reads LOW, below `middle` MIDDLE, from there on HIGH. Fractions."""

    measure: str  # column of an attack table
    title: str
    low: float
    middle: float

    def level_of(self, value: float) -> str:
        if value < self.low:
            return LOW
        return MIDDLE if value < self.middle else HIGH

    def reached(self, level: str) -> float:
        """The limit that a value of MIDDLE or HIGH has reached."""
        return self.middle if level == HIGH else self.low


LIMITS = (
    Limit("auc", "AUC", 0.60, 0.75),
    Limit(metrics.WIDER_TPR, "TPR at 1 % false alarms", 0.06, 0.20),
    Limit(metrics.TPR, "TPR at 0.1 % false alarms", 0.03, 0.10),
)


class Verdict(NamedTuple):
    """The level of one target, and why."""

    scenario: str
    variant: str
    level: str  # of FROM_BEST_TO_WORST
    attack: str  # the key of the attack that decides, maybe on a part of the target; "" where none does
    measure: str  # the column that decides; "" where nothing was measured
    proven: bool  # a lower end decides: the level is not only not ruled out
    reason: str  # one or two sentences without markup


class Sizes(NamedTuple):
    """How large a sample is."""

    members: int
    others: int
    remark: str = ""  # what these numbers count, where they are no numbers of points

    def at_most(self, members: int, others: int) -> "Sizes":
        """The smaller numbers, of distinct points where these are fewer."""
        if members >= self.members and others >= self.others:
            return self
        return Sizes(min(self.members, members), min(self.others, others), " of distinct content")


class Evidence(NamedTuple):
    """One end of one interval of one attack."""

    level: str
    row: pd.Series
    limit: Limit
    upper: bool


def auc_evidence(low: float, high: float) -> tuple[float, float]:
    """(low, high) of the AUC of whoever turns the attack round where that does better: max(AUC, 1 - AUC)."""
    return max(low, 1 - high), max(high, 1 - low)


def is_inverted(row: pd.Series) -> bool:
    """Whether the whole interval of a row's AUC lies below one half: an attacker would turn its scores round."""
    return bool(row["auc_hi"] < 0.5)


def judge(
    scenario: str, variant: str, table: pd.DataFrame, halves: int = 1, distinct: tuple[int, int] | None = None
) -> Verdict:
    """The verdict on one target.

    table: the target's rows, with the columns of LIMITS and their _lo and _hi. halves: how many fits judge a part of
    the audit set each: 2 for an attacker who knows half of it, otherwise 1. distinct: how many
    members and others have distinct content. Copies of a point are no further people, so the sample is no larger than
    that; None: as large as it has points.
    """
    rows = attack_rows(table)
    lower_ends = list(_lower_ends(rows))
    if not lower_ends:
        return Verdict(scenario, variant, NOT_MEASURED, "", "", False, "No attack measured anything on it.")
    proven = _worst(lower_ends)
    speakers = headline_rows(rows)
    if speakers.empty:
        speakers = rows
    sizes = Sizes(int(speakers["n_member"].min()), int(speakers["n_nonmember"].min()))
    if distinct is not None:
        sizes = sizes.at_most(*distinct)
    if not can_read_low(sizes.members, sizes.others, halves):
        return _judge_small_sample(proven, sizes, halves)
    upper_ends = list(_upper_ends(speakers))
    worst = _worst([*lower_ends, *upper_ends])
    if worst.level != HIGH and len(upper_ends) < len(LIMITS) * len(speakers):
        return _verdict(NOT_MEASURED, worst, "One of the measures that the rule needs has no value.")
    if worst.level == LOW:
        return _verdict(LOW, upper_ends[0], _reason_of_low(speakers))
    return _verdict(worst.level, worst, _reason(worst))


def _judge_small_sample(proven: Evidence, sizes: Sizes, halves: int) -> Verdict:
    """HIGH or `at least MIDDLE` where the lower end of an interval proves it; otherwise nothing can be said."""
    if proven.level == HIGH:
        return _verdict(HIGH, proven, _reason(proven))
    if proven.level == MIDDLE:
        reason = f"{_reason(proven)} {_too_few(sizes, halves)} So HIGH is not ruled out."
        return _verdict(AT_LEAST_MIDDLE, proven, reason)
    return _verdict(TOO_FEW, proven, _too_few(sizes, halves))


def level_of_class(auc: float, tpr: float) -> str:
    """The level that the lower ends of a class's AUC and TPR at 1 % false alarms prove, or ""."""
    reached = {limit.level_of(end) for limit, end in zip(LIMITS, (auc, tpr), strict=False)}
    if HIGH in reached:
        return HIGH
    return AT_LEAST_MIDDLE if MIDDLE in reached else ""


def judge_class(headline: pd.Series, target: str, line: pd.Series, count: int) -> Verdict:
    """The verdict on one class, of which a level is proven, by a headline's row.

    target: what the attacker holds, in words. line: the class's row of `shipped.AuditFindings.classes`. count: how many
    classes were measured.
    """
    ends = {limit: line[limit.measure + "_proven"] for limit in LIMITS if limit.measure + "_proven" in line}
    limit = max(ends, key=lambda limit: FROM_BEST_TO_WORST.index(limit.level_of(ends[limit])))
    level = limit.level_of(ends[limit])
    value, low, high = (line[limit.measure + suffix] for suffix in metrics.INTERVAL_ENDS)
    inverted = ", inverted," if _turned_round(line, limit) else ""
    reason = (
        f"On class {line['name']} alone, {attack_in_words(headline)} on {target} has {limit.title} "
        f"{_interval(value, low, high)}{inverted}: even the lower end that allows for {count} classes, "
        f"{_percent(ends[limit])} %, reaches {level} ({_percent(limit.reached(level))} % or more)."
    )
    names = (headline["scenario"], headline["variant"], line["level"], key_of(headline))
    return Verdict(*names, limit.measure, True, reason)


def with_failed_controls(verdict: Verdict, failed: Sequence[str]) -> Verdict:
    """The verdict where these controls failed: HIGH stays and says so, anything better is no longer measured.

    A failed control shows a difference between members and others that no model made. It may feign a leak, and it may
    as well hide one. HIGH stays because it must not become harmless without a proof.
    """
    if not failed or verdict.level == NOT_MEASURED:
        return verdict
    if verdict.level == HIGH:
        reason = f"HIGH, but {name_failed(failed)}: the data may differ by themselves. {verdict.reason}"
        return verdict._replace(reason=reason)
    they = "it" if len(failed) == 1 else "they"
    would_read = f"If {they} had passed, this would read {verdict.level}: {verdict.reason}"
    reason = f"No level, because {name_failed(failed)}. {would_read}"
    return verdict._replace(level=NOT_MEASURED, proven=False, reason=reason)


def name_failed(failed: Sequence[str]) -> str:
    """`the control null failed`, or of several `the controls null, blind and references failed`."""
    if len(failed) == 1:
        return f"the control {failed[0]} failed"
    return f"the controls {', '.join(failed[:-1])} and {failed[-1]} failed"


def with_contained(verdict: Verdict, contained: Sequence[Verdict], in_words: Callable[[str, str], str]) -> Verdict:
    """The verdict, raised to the worst on what the attacker holds as well: whoever holds more cannot find less.

    contained: on each model, or pair of models, that is part of the target. in_words(scenario, variant): what it is.
    """
    if not contained:
        return verdict
    worst = worst_of([verdict, *contained])
    if worst is verdict:
        return verdict
    part = in_words(worst.scenario, worst.variant)
    whole = in_words(verdict.scenario, verdict.variant)
    reason = (
        f"Whoever holds {whole} can attack {part}, which reads {worst.level}: {worst.reason} "
        f"The attacks on {whole} together read {verdict.level} only."
    )
    return worst._replace(scenario=verdict.scenario, variant=verdict.variant, reason=reason)


def worst_of(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on all targets together: that on the worst of them, the first of equals."""
    return max(verdicts, key=lambda verdict: FROM_BEST_TO_WORST.index(verdict.level))


def exceeds(level: str, limit: str) -> bool:
    """Whether a level is worse than the limit, LOW or MIDDLE.

    TOO_FEW and NOT_MEASURED are worse than either, because they are no evidence. ValueError for another limit.
    """
    if limit not in (LOW, MIDDLE):
        raise ValueError(f"the limit is {LOW} or {MIDDLE}, not {limit}")
    return FROM_BEST_TO_WORST.index(level) > FROM_BEST_TO_WORST.index(limit)


def can_read_low(n_member: int, n_other: int, halves: int = 1) -> bool:
    """Whether a model that leaks nothing reads LOW on a sample of this size."""
    ends = null_ends(n_member, n_other, halves)
    return all(ends[limit.measure] < limit.low for limit in LIMITS)


def smallest_size(halves: int = 1) -> int:
    """How many members, with as many others, LOW takes at least; to the next 50."""
    return next(size for size in SIZES if can_read_low(size, size, halves))


@functools.lru_cache(maxsize=64)
def null_ends(n_member: int, n_other: int, halves: int = 1) -> dict[str, float]:
    """How far up the intervals of a model that leaks nothing reach, by measure: mean and MARGIN deviations, at most 1.

    The end of an AUC counts both ways (`auc_evidence`), so either tail beyond MARGIN deviations is one too many.
    With two fits (see `metrics.evaluate`) the interval of an AUC is as wide as that of one half, and that of a TPR is
    over all points. Both fits may err by the same amount, so either end varies as much as with half of the points.
    """
    if min(n_member, n_other) < halves:
        return {limit.measure: 1.0 for limit in LIMITS}
    moments = {
        "auc": _moments_of_auc_end(n_member // halves, n_other // halves),
        metrics.WIDER_TPR: _moments_of_tpr_end(n_member, n_other, metrics.WIDER_FPR, halves),
        metrics.TPR: _moments_of_tpr_end(n_member, n_other, metrics.FPR, halves),
    }
    return {measure: min(1.0, mean + MARGIN * deviation) for measure, (mean, deviation) in moments.items()}


def _moments_of_auc_end(members: int, others: int) -> tuple[float, float]:
    """Mean and standard deviation of the upper end of an AUC's interval where nothing leaks (Mann & Whitney 1947)."""
    deviation = np.sqrt((members + others + 1) / (12 * members * others))
    return float(0.5 + norm.isf(TAIL) * deviation), float(deviation)


def _moments_of_tpr_end(members: int, others: int, fpr: float, halves: int) -> tuple[float, float]:
    """The same of the upper end of `intervals.tpr_interval`; the deviation is that of one half.

    That end is worked out from how many members lie above the k-th highest of the others. Where nothing leaks this
    number is beta-binomial, whatever the scores, because the share of the population above the k-th highest of n is
    Beta(k, n - k + 1).
    """
    place = int(binom.isf(TAIL / 2, others, fpr)) + 1
    if place > others:
        return 1.0, 0.0
    above = betabinom(members, place, others - place + 1)
    hits = np.arange(min(members, int(above.ppf(1 - 1e-9)) + 1))
    tail = TAIL - binom.sf(place - 1, others, fpr)
    ends = betaincinv(hits + 1, members - hits, 1 - tail)
    chances = above.pmf(hits)
    mean = chances @ ends
    return float(mean), float(np.sqrt(halves * (chances @ (ends - mean) ** 2)))


def _upper_ends(rows: pd.DataFrame) -> Iterator[Evidence]:
    return _ends(rows, upper=True)


def _lower_ends(rows: pd.DataFrame) -> Iterator[Evidence]:
    """The headline first, so that it is named where several attacks prove the same level."""
    return _ends(rows.sort_values("headline", ascending=False, kind="stable"), upper=False)


def _ends(rows: pd.DataFrame, upper: bool) -> Iterator[Evidence]:
    """The ends that have a value."""
    for _, row in rows.iterrows():
        for limit in LIMITS:
            value = _end(row, limit, upper)
            if not np.isnan(value):
                yield Evidence(limit.level_of(value), row, limit, upper)


def _end(row: pd.Series, limit: Limit, upper: bool) -> float:
    """One end of a row's interval, NaN where there is none; an AUC's is that of `auc_evidence`."""
    ends = tuple(row.get(limit.measure + suffix, np.nan) for suffix in ("_lo", "_hi"))
    if limit.measure == "auc":
        ends = auc_evidence(*ends)
    return ends[upper]


def _worst(evidence: Iterable[Evidence]) -> Evidence:
    return max(evidence, key=lambda end: FROM_BEST_TO_WORST.index(end.level))


def _verdict(level: str, decides: Evidence, reason: str) -> Verdict:
    row = decides.row
    proven = not decides.upper and level in (AT_LEAST_MIDDLE, MIDDLE, HIGH)
    return Verdict(row["scenario"], row["variant"], level, key_of(row), decides.limit.measure, proven, reason)


def _reason(evidence: Evidence) -> str:
    """`rmia, the attack chosen beforehand, has AUC 62.1 [61, 63.2] %: the lower end reaches MIDDLE (60 % or more).`"""
    row, limit = evidence.row, evidence.limit
    end = "the upper end" if evidence.upper else "even the lower end"
    chosen = CHOSEN_BEFOREHAND if row["headline"] else ""
    value, low, high = (row[limit.measure + suffix] for suffix in metrics.INTERVAL_ENDS)
    numbers = _interval(value, low, high)
    if _turned_round(row, limit):
        numbers += f", which is {_interval(1 - value, 1 - high, 1 - low)} inverted"
    return (
        f"{attack_in_words(row)}{chosen} has {limit.title} {numbers}: "
        f"{end} reaches {evidence.level} ({_percent(limit.reached(evidence.level))} % or more)."
    )


def _turned_round(row: pd.Series, limit: Limit) -> bool:
    """Whether it is the attack with its scores turned round that has the ends which count."""
    return limit.measure == "auc" and row["auc_lo"] + row["auc_hi"] < 1


def _interval(value: float, low: float, high: float) -> str:
    return f"{_percent(value)} [{_percent(low)}, {_percent(high)}] %"


def _reason_of_low(rows: pd.DataFrame) -> str:
    """All measures with the largest upper end of these rows."""
    ends = [_largest_end(rows, limit) for limit in LIMITS]
    chosen = rows["headline"].any()
    name = attack_in_words(rows.iloc[0]) + CHOSEN_BEFOREHAND if chosen else "every attack"
    return f"By {name} {', '.join(ends)}. No other attack surely reaches a limit."


def _largest_end(rows: pd.DataFrame, limit: Limit) -> str:
    """`AUC at most 52 % (limit 60 %)`, or `(inverted; limit 60 %)` where an attack turned round reaches so far."""
    ends = [_end(row, limit, upper=True) for _, row in rows.iterrows()]
    largest = int(np.argmax(ends))
    inverted = "inverted; " if _turned_round(rows.iloc[largest], limit) else ""
    return f"{limit.title} at most {_percent(ends[largest])} % ({inverted}limit {_percent(limit.low)} %)"


def _too_few(sizes: Sizes, halves: int) -> str:
    ends = null_ends(sizes.members, sizes.others, halves)
    limit = next(limit for limit in LIMITS if ends[limit.measure] >= limit.low)
    return (
        f"With {sizes.members} members and {sizes.others} others{sizes.remark}, even a model that leaks nothing may "
        f"show {limit.title} up to {_percent(ends[limit.measure])} %, and LOW needs less than {_percent(limit.low)} %. "
        f"It takes at least {smallest_size(halves):,} of each."
    )


def attack_in_words(row: pd.Series) -> str:
    """`rmia`; `rmia in one half, joint in the other` where each half has its own choice."""
    if row["attack"] != CHOSEN:
        return key_of(row)
    return f"{row[CHOSEN].replace(' | ', ' in one half, ')} in the other"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}".removesuffix(".0")
