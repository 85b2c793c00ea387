"""Which points are exposed: an average over the audit set says nothing to the one person who stands out."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from compleak.findings.claims import Scores
from compleak.findings.rows import ALONE, HEADLINE, TOGETHER, attack_rows, headline_rows, name_of, scenario_row

DETAILED = (ALONE, TOGETHER)  # every attack on these targets is listed; of the others the headline
FOUND_AT = 0.01  # the false-positive rate up to which an attack is said to find a point
FALSE_DISCOVERIES = (0.05, 0.1, 0.2)  # the share of wrong accusations that is expected at most, of the lists shown
USUAL_SHARE = 0.1  # of them, the one that counts over seeds
VERSION = "exposure:"  # begins the names of the columns that hold the versions' exposures

PValues = Callable[[pd.Series], np.ndarray | None]  # a row of a headline -> (A,), or None where it has none


def points_table(
    table: pd.DataFrame,
    scores: Scores,
    truth: np.ndarray,
    points: np.ndarray,
    labels: np.ndarray,
    p_values: PValues = lambda row: None,
) -> pd.DataFrame:
    """A row for each audit point, the most exposed first.

    truth, points, labels: (A,) membership, place in the data set and class. A point that no attack could score has NaN,
    stands last and counts as not found. For each listed attack there are
    `score:<name>` and `rank:<name>`; rank 1 is the most likely member. `exposure` is the false-positive rate at which
    MR's headline would first accuse the point, or NR's of the original where there is no MR. `agreement` is the share
    of all headlines that have the point among their first hundredth. `p_value` and `accused_at` are of the same
    headline as `exposure`: the smallest share of expected wrong accusations at which the list names the point; NaN
    where the headline has no p-values. `found_by` is the share of the attacks on DETAILED targets that find the point,
    among those that find any. `exposure:<version>` is as `exposure`, by the headline on that version alone, and
    `first_version` the version that finds the point at the fewest false alarms, "" where none finds it.
    """
    leading = _leading_headline(table)
    columns = {"point": points, "label": labels, "member": truth.astype(int)}
    columns["exposure"] = first_false_positive_rate(scores(leading), truth)
    columns |= _accusation_columns(p_values(leading), len(truth)) | _version_columns(table, scores, truth)
    first_hundredth = []
    found = []
    for row in _listed_rows(table):
        values = scores(row)
        rank = pd.Series(-values).rank(method="min")
        columns |= {f"score:{name_of(row)}": values, f"rank:{name_of(row)}": rank.astype("Int64")}
        if row["headline"]:
            first_hundredth.append(rank.to_numpy() <= max(1, len(values) // 100))
        if (row["scenario"], row["variant"]) in DETAILED:
            found.append(first_false_positive_rate(values, truth) <= FOUND_AT)
    frame = pd.DataFrame(columns)
    frame.insert(4, "agreement", np.mean(first_hundredth, axis=0))
    frame.insert(5, "found_by", _share_of_finders(np.array(found)))
    return frame.sort_values(["exposure", "agreement"], ascending=[True, False], kind="stable")


def _accusation_columns(p_values: np.ndarray | None, count: int) -> dict[str, np.ndarray]:
    if p_values is None:
        return {"p_value": np.full(count, np.nan), "accused_at": np.full(count, np.nan)}
    return {"p_value": p_values, "accused_at": discoveries(p_values)}


def discoveries(p_values: np.ndarray) -> np.ndarray:
    """(A,): for each point the smallest q at which it is on the list of accused (Benjamini & Hochberg 1995).

    If all with a value up to q are accused, the expected share of non-members among them is at most q, times the share
    of non-members among all points. This holds for p-values that are independent, or that are ranks among one set of
    known non-members (Bates et al. 2023, Testing for outliers with conformal p-values). NaN, a point that was not
    judged, stays NaN.
    """
    adjusted = np.full(len(p_values), np.nan)
    judged = np.flatnonzero(np.isfinite(p_values))
    order = judged[np.argsort(p_values[judged], kind="stable")]
    scaled = p_values[order] * len(order) / np.arange(1, len(order) + 1)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1)
    return adjusted


def _version_columns(table: pd.DataFrame, scores: Scores, truth: np.ndarray) -> dict[str, np.ndarray]:
    """The exposure by the headline on each version alone, and which version finds the point first."""
    headlines = headline_rows(table[table["scenario"] == "NR"])
    exposures = {row["variant"]: first_false_positive_rate(scores(row), truth) for _, row in headlines.iterrows()}
    if not exposures:
        return {"first_version": np.full(len(truth), "", dtype=object)}
    names = np.array(list(exposures), dtype=object)
    stacked = np.stack(list(exposures.values()))
    stacked = np.where(np.isnan(stacked), np.inf, stacked)
    first = np.where(stacked.min(axis=0) <= FOUND_AT, names[stacked.argmin(axis=0)], "")
    return {"first_version": first} | {f"{VERSION}{name}": values for name, values in exposures.items()}


def _share_of_finders(found: np.ndarray) -> np.ndarray:
    """(A,): the share of attacks that find a point, among those that find any. found: (attacks, A) bool."""
    finders = found[found.any(axis=1)]
    return finders.mean(axis=0) if len(finders) else np.zeros(found.shape[1])


def _leading_headline(table: pd.DataFrame) -> pd.Series:
    headlines = [scenario_row(table, *target, HEADLINE) for target in DETAILED]
    return [row for row in headlines if row is not None][-1]


def _listed_rows(table: pd.DataFrame) -> Iterator[pd.Series]:
    for _, row in attack_rows(table).iterrows():
        if row["headline"] or (row["scenario"], row["variant"]) in DETAILED:
            yield row


def first_false_positive_rate(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(A,): the share of non-members that score at least as high as the point; a member counts as one more: never 0.

    A point whose score is NaN has NaN, and is counted nowhere.
    """
    is_scored = ~np.isnan(scores)
    others = np.sort(scores[is_scored & ~truth])
    accused = len(others) - np.searchsorted(others, scores, side="left")
    return np.where(is_scored, (accused + truth) / (len(others) + truth), np.nan)


def agreement(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """How far runs agree on who is exposed, a row for each pair of runs.

    tables: a `points_table` by the name of its run. Spearman's rank correlation of exposure over the points that are
    members in both runs, where there are more than 3, with a 95 % interval by Fisher's transformation (Bonett & Wright
    2000).
    """
    rows = []
    for (name, one), (other_name, other) in itertools.combinations(tables.items(), 2):
        members = [frame.loc[frame["member"] == 1, ["point", "exposure"]] for frame in (one, other)]
        both = pd.merge(*members, on="point").dropna()
        correlation = _correlation(both) if len(both) > 3 else {}
        rows.append({"run": name, "other": other_name, "members of both": len(both), **correlation})
    return pd.DataFrame(rows)


def _correlation(both: pd.DataFrame) -> dict[str, float]:
    r = both["exposure_x"].corr(both["exposure_y"], method="spearman")
    spread = 1.96 * np.sqrt((1 + r**2 / 2) / (len(both) - 3))
    low, high = np.tanh(np.arctanh(np.clip(r, -0.999999, 0.999999)) + np.array([-spread, spread]))
    return {"correlation": r, "correlation_lo": low, "correlation_hi": high}


# Who is accused, and by what


def accused_table(points: pd.DataFrame) -> pd.DataFrame:
    """A row for each share q of FALSE_DISCOVERIES: how many members and others the list of accused holds.

    points: `points_table`. `wrong` is the share of non-members on the list, 0 where it is empty. No row where the
    headline has no p-values.
    """
    if points["accused_at"].isna().all():
        return pd.DataFrame(columns=["q", "members", "others", "wrong"])
    lines = []
    for q in FALSE_DISCOVERIES:
        accused = points.loc[points["accused_at"] <= q, "member"]
        others = int((accused == 0).sum())
        lines.append(
            {"q": q, "members": len(accused) - others, "others": others, "wrong": others / max(1, len(accused))}
        )
    return pd.DataFrame(lines)


def found_table(points: pd.DataFrame) -> pd.DataFrame:
    """How many members and others are found at FOUND_AT by every attack, by more than half, by any: three rows."""
    kinds = {
        "every attack": points["found_by"] == 1,
        "more than half of the attacks": points["found_by"] > 0.5,
        "any attack": points["found_by"] > 0,
    }
    lines = []
    for name, found in kinds.items():
        members = int((found & (points["member"] == 1)).sum())
        lines.append({"found by": name, "members": members, "others": int(found.sum()) - members})
    return pd.DataFrame(lines)


def versions_table(points: pd.DataFrame) -> pd.DataFrame:
    """For each version how many members its headline finds at FOUND_AT, finds first of all versions, finds alone.

    points: `points_table`. "First" is at the fewest false alarms; of equal ones the version that is listed first.
    """
    members = points[points["member"] == 1]
    names = [column.removeprefix(VERSION) for column in points.columns if column.startswith(VERSION)]
    found = members[[VERSION + name for name in names]].to_numpy() <= FOUND_AT
    alone = found & (found.sum(axis=1, keepdims=True) == 1)
    first = [int((members["first_version"] == name).sum()) for name in names]
    return pd.DataFrame({"version": names, "found": found.sum(axis=0), "first": first, "alone": alone.sum(axis=0)})


# Over seeds


def records_over_seeds(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A row for each point that was audited as a member, or wrongly accused, in some run; the most often found first.

    tables: a `points_table` by the name of its run. `member_in`, `found_in`, `accused_in`: in how many runs it is an
    audited member, one that is found at FOUND_AT, one that is accused at USUAL_SHARE. `other_in`, `wrongly_accused_in`:
    the same as a non-member.
    """
    parts = []
    for frame in tables.values():
        member, accused = frame["member"] == 1, frame["accused_at"] <= USUAL_SHARE
        counts = {"member_in": member, "found_in": member & (frame["exposure"] <= FOUND_AT)}
        counts |= {"accused_in": member & accused, "other_in": ~member, "wrongly_accused_in": ~member & accused}
        parts.append(frame[["point", "label"]].assign(**{name: mask.astype(int) for name, mask in counts.items()}))
    records = pd.concat(parts).groupby("point", as_index=False).agg({"label": "first"} | dict.fromkeys(counts, "sum"))
    records = records[(records["member_in"] > 0) | (records["wrongly_accused_in"] > 0)]
    by = ["found_in", "accused_in", "member_in", "point"]
    return records.sort_values(by, ascending=[False, False, True, True], kind="stable")


def found_again(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """How often members of several runs are found: a row for each number of runs and each number of findings.

    `points` counts them; `by_chance` is how many there would be if who is found in one run said nothing about another:
    each run finds its own share of those members. Points that are members in a single run are not counted.
    """
    names = list(tables)
    member = _by_point(tables, lambda frame: frame["member"] == 1)
    found = _by_point(tables, lambda frame: (frame["member"] == 1) & (frame["exposure"] <= FOUND_AT))
    several = member.sum(axis=1) > 1
    member, found = member[several], found[several]
    rates = {name: found.loc[member[name], name].mean() for name in names}
    times, runs = found.sum(axis=1), member.sum(axis=1)
    expected = {count: np.zeros(count + 1) for count in sorted(runs.unique())}
    for pattern, own in member.groupby(names):
        chosen = [name for name, is_member in zip(names, pattern, strict=True) if is_member]
        expected[len(chosen)] += len(own) * _chances([rates[name] for name in chosen])
    lines = []
    for count, by_chance in expected.items():
        for number, chance in enumerate(by_chance):
            points = int(((runs == count) & (times == number)).sum())
            lines.append({"member_in": count, "found_in": number, "points": points, "by_chance": chance})
    return pd.DataFrame(lines, columns=["member_in", "found_in", "points", "by_chance"])


def _by_point(tables: Mapping[str, pd.DataFrame], select: Callable[[pd.DataFrame], pd.Series]) -> pd.DataFrame:
    """A row for each point of any run, a bool column for each run; False where a run did not audit the point."""
    columns = {name: pd.Series(select(frame).to_numpy(), frame["point"]) for name, frame in tables.items()}
    return pd.DataFrame(columns).fillna(False).astype(bool)


def _chances(rates: Sequence[float]) -> np.ndarray:
    """The chances of 0, 1, ... k events of k independent ones with these rates."""
    chances = np.ones(1)
    for rate in rates:
        chances = np.convolve(chances, [1 - rate, rate])
    return chances
