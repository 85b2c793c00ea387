"""Levels: which end of which interval counts, what small samples can say, and that nothing reads LOW by default."""

import numpy as np
import pandas as pd
import pytest

from compleak.audits import intervals, metrics
from compleak.findings import levels, privbox
from compleak.findings.levels import AT_LEAST_MIDDLE, HIGH, LOW, MIDDLE, NOT_MEASURED, TOO_FEW

QUIET = {"auc": (0.5, 0.48, 0.52), metrics.WIDER_TPR: (0.01, 0.0, 0.02), metrics.TPR: (0.001, 0.0, 0.01)}


def row(attack="rmia", headline=False, points=5000, **measures):
    """A row of an attack table; measures: (value, low, high) of auc, tpr_1 (at 1 %) and tpr (at 0.1 % false alarms)."""
    names = {"auc": "auc", "tpr_1": metrics.WIDER_TPR, "tpr": metrics.TPR}
    values = QUIET | {names[name]: ends for name, ends in measures.items()}
    line = {"scenario": "NR", "variant": "model", "attack": attack, "classifier": "", "headline": headline}
    return line | metrics.interval_columns(values) | {"n_member": points, "n_nonmember": points}


def judge(*rows, halves=1):
    return levels.judge("NR", "model", pd.DataFrame(rows), halves)


# The rule


def test_the_upper_end_of_the_attack_chosen_beforehand_decides():
    assert judge(row(headline=True)).level == LOW
    assert judge(row(headline=True, auc=(0.58, 0.55, 0.601))).level == MIDDLE
    assert judge(row(headline=True, auc=(0.58, 0.55, 0.5999))).level == LOW
    assert judge(row(headline=True, auc=(0.70, 0.65, 0.75))).level == HIGH


def test_the_worst_of_the_three_measures_counts_and_is_named_in_the_reason():
    verdict = judge(row(headline=True, tpr_1=(0.1, 0.04, 0.15), tpr=(0.05, 0.0, 0.12)))
    assert (verdict.level, verdict.measure, verdict.attack) == (HIGH, metrics.TPR, "rmia")
    assert verdict.reason == (
        "rmia, the attack chosen beforehand, has TPR at 0.1 % false alarms 5 [0, 12] %: "
        "the upper end reaches HIGH (10 % or more)."
    )
    assert not verdict.proven


def test_another_attack_counts_with_its_lower_end_alone():
    lucky = row("base", auc=(0.70, 0.59, 0.80))
    assert judge(row(headline=True), lucky).level == LOW
    verdict = judge(row(headline=True), row("base", auc=(0.80, 0.76, 0.84)))
    assert (verdict.level, verdict.attack, verdict.proven) == (HIGH, "base", True)


def test_where_several_attacks_prove_a_level_the_one_chosen_beforehand_is_named():
    leak = {"auc": (0.9, 0.88, 0.92)}
    assert judge(row("base", **leak), row("rmia", headline=True, **leak)).attack == "rmia"


def test_without_an_attack_chosen_beforehand_all_attacks_count_with_their_upper_ends():
    assert judge(row("gap"), row("base", auc=(0.70, 0.59, 0.76))).level == HIGH
    verdict = judge(row("gap"), row("base"))
    assert verdict.level == LOW and verdict.reason.startswith("By every attack AUC at most 52 %")


def test_an_auc_below_one_half_counts_inverted():
    verdict = judge(row(headline=True, auc=(0.26, 0.24, 0.281)))
    assert (verdict.level, verdict.measure) == (HIGH, "auc")
    assert "has AUC 26 [24, 28.1] %, which is 74 [71.9, 76] % inverted: the upper end reaches HIGH" in verdict.reason
    other = judge(row(headline=True), row("base", auc=(0.26, 0.24, 0.281)))
    assert (other.level, other.attack, other.proven) == (MIDDLE, "base", True)
    assert judge(row(headline=True, auc=(0.45, 0.405, 0.495))).reason.startswith(
        "By rmia, the attack chosen beforehand, AUC at most 59.5 % (inverted; limit 60 %)"
    )


def test_controls_have_no_part_in_the_level():
    assert judge(row(headline=True), row("null", auc=(0.9, 0.88, 0.92))).level == LOW


def test_no_level_is_read_from_a_number_that_was_not_measured():
    assert levels.judge("SR", "model", pd.DataFrame([row()]).iloc[:0]).level == NOT_MEASURED
    assert judge(row(headline=True, tpr_1=(np.nan, np.nan, np.nan))).level == NOT_MEASURED
    without = pd.DataFrame([row(headline=True)]).drop(columns=[metrics.WIDER_TPR + end for end in ("", "_lo", "_hi")])
    assert levels.judge("NR", "model", without).level == NOT_MEASURED
    assert judge(row(headline=True, tpr=(np.nan, np.nan, np.nan), auc=(0.9, 0.88, 0.92))).level == HIGH


def test_a_failed_control_leaves_high_and_takes_every_better_level_away():
    verdict = judge(row(headline=True))
    assert levels.with_failed_controls(verdict, []) == verdict
    for level in (LOW, MIDDLE, AT_LEAST_MIDDLE, TOO_FEW):
        failed = levels.with_failed_controls(verdict._replace(level=level, proven=True), ["blind"])
        assert failed.level == NOT_MEASURED and not failed.proven
        assert "the control blind failed" in failed.reason and verdict.reason in failed.reason
        assert levels.exceeds(failed.level, MIDDLE)
    high = levels.with_failed_controls(verdict._replace(level=HIGH), ["blind", "null"])
    assert high.level == HIGH
    assert high.reason.startswith("HIGH, but the controls blind and null failed: the data may differ by themselves.")


@pytest.mark.parametrize(
    ("failed", "says"),
    [
        (["null"], "No level, because the control null failed. If it had passed, this would read LOW: "),
        (["null", "blind"], "No level, because the controls null and blind failed. If they had passed, this would"),
        (["null", "blind", "references"], "because the controls null, blind and references failed. If they had"),
    ],
)
def test_failed_controls_are_named_in_a_sentence(failed, says):
    assert says in levels.with_failed_controls(judge(row(headline=True)), failed).reason


def test_each_half_with_an_attack_of_its_own_choice_is_put_in_words():
    verdict = judge(row("chosen", headline=True) | {"chosen": "rmia | joint"})
    assert verdict.reason.startswith("By rmia in one half, joint in the other, the attack chosen beforehand,")


# Small samples


def test_a_small_sample_says_too_few_points_or_what_the_lower_end_proves():
    wide = (0.5, 0.38, 0.62)
    assert judge(row(headline=True, points=50, auc=wide)).level == TOO_FEW
    assert judge(row(headline=True, points=50)).level == TOO_FEW  # however well it looks
    middle = judge(row(headline=True, points=50, auc=(0.75, 0.62, 0.86)))
    assert middle.level == AT_LEAST_MIDDLE and middle.proven
    assert judge(row(headline=True, points=50, auc=(0.95, 0.87, 0.99))).level == HIGH


def test_the_size_that_counts_is_that_of_the_attack_whose_upper_ends_count():
    assert judge(row(headline=True), row("base", points=50)).level == LOW
    assert judge(row(headline=True, points=50), row("base")).level == TOO_FEW


def test_the_reason_says_how_many_points_it_takes():
    verdict = judge(row(headline=True, points=50))
    assert "With 50 members and 50 others" in verdict.reason
    assert f"at least {levels.smallest_size()} of each" in verdict.reason
    assert levels.can_read_low(levels.smallest_size(), levels.smallest_size())
    assert judge(row(headline=True, points=levels.smallest_size())).level == LOW


def test_the_fewer_of_members_and_others_limit_what_can_be_said():
    assert not levels.can_read_low(10_000, 100) and not levels.can_read_low(100, 10_000)
    assert levels.smallest_size(halves=2) > levels.smallest_size()
    assert not levels.can_read_low(1, 1, halves=2)


def test_copies_do_not_make_a_sample_larger():
    table = pd.DataFrame([row(headline=True)])
    verdict = levels.judge("NR", "model", table, distinct=(300, 5000))
    assert verdict.level == TOO_FEW
    assert "With 300 members and 5000 others of distinct content, even" in verdict.reason
    assert levels.judge("NR", "model", table, distinct=(5000, 9000)).level == LOW
    few = pd.DataFrame([row(headline=True, points=50)])
    assert "With 50 members and 50 others, even" in levels.judge("NR", "model", few, distinct=(300, 300)).reason


def test_no_bound_lies_above_100_percent():
    for points in (1, 3, 10):
        assert max(levels.null_ends(points, points).values()) <= 1
    assert "may show AUC up to 100 %" in judge(row(headline=True, points=2)).reason


def test_null_ends_bound_the_intervals_of_a_model_that_leaks_nothing():
    rng = np.random.default_rng(0)
    ends = np.array([list(upper_ends(rng.normal(size=400), rng.normal(size=400)).values()) for _ in range(400)])
    bounds = np.array(list(levels.null_ends(400, 400).values()))
    assert (ends < bounds).all(axis=1).mean() > 0.97
    np.testing.assert_allclose(bounds, ends.mean(axis=0) + levels.MARGIN * ends.std(axis=0), rtol=0.1)


# Planted worlds


def upper_ends(members, others):
    """The upper ends of the three intervals of one attack."""
    auc_end = intervals.auc_interval_of_any_size(intervals.placements(members, others))[1]
    tpr_ends = [intervals.tpr_interval(members, others, fpr)[1] for fpr in (metrics.WIDER_FPR, metrics.FPR)]
    return dict(zip(("auc", metrics.WIDER_TPR, metrics.TPR), (auc_end, *tpr_ends), strict=True))


def attack_row(rng, points, leak, attack, halves, headline):
    """A row with true intervals: scores of `leak` standard deviations more for members, judged by so many fits."""
    members, others = rng.normal(leak, size=points), rng.normal(size=points)
    parts = zip(np.split(members, halves), np.split(others, halves), strict=True)
    aucs = [intervals.auc_interval_of_any_size(intervals.placements(*part)) for part in parts]
    measures = {"auc": (np.nan, *np.mean(aucs, axis=0))}
    for name, fpr in (("tpr_1", metrics.WIDER_FPR), ("tpr", metrics.FPR)):
        measures[name] = (np.nan, *intervals.tpr_interval(members, others, fpr))
    return row(attack, headline, points, **measures)


def share_of_level(level, worlds, points, leak, halves, attacks=10):
    """In how many worlds a target with ten attacks, of which any one was chosen beforehand, gets this level."""
    rng = np.random.default_rng(1)
    names = [f"attack_{number}" for number in range(attacks)]
    verdicts = []
    for world in range(worlds):
        rows = [attack_row(rng, points, leak, name, halves, name == names[world % attacks]) for name in names]
        verdicts.append(judge(*rows, halves=halves).level)
    return np.mean([verdict == level for verdict in verdicts])


@pytest.mark.parametrize("halves", [1, 2])
def test_a_model_that_saw_none_of_1500_and_1500_points_reads_low(halves):
    assert share_of_level(LOW, 100, 1500, 0.0, halves) >= 0.97


def test_50_and_50_points_without_a_leak_say_too_few_and_a_strong_leak_says_high():
    assert share_of_level(TOO_FEW, 40, 50, 0.0, 1) == 1
    assert share_of_level(HIGH, 40, 50, 2.5, 1) >= 0.95


def test_a_middling_leak_reads_middle_and_a_strong_one_high_on_1500_and_1500_points():
    assert share_of_level(MIDDLE, 20, 1500, 0.45, 1) >= 0.9
    assert share_of_level(HIGH, 20, 1500, 1.2, 1) == 1


# Levels together


def test_the_worst_target_gives_the_level_of_the_audit():
    order = [LOW, MIDDLE, NOT_MEASURED, TOO_FEW, AT_LEAST_MIDDLE, HIGH]
    verdicts = [judge(row(headline=True))._replace(level=level) for level in order]
    for worst in range(1, len(order) + 1):
        assert levels.worst_of(verdicts[:worst]).level == order[worst - 1]
        assert levels.worst_of(verdicts[:worst][::-1]).level == order[worst - 1]


def test_whoever_holds_more_gets_no_better_level():
    in_words = lambda scenario, variant: f"{scenario} of {variant}"  # noqa: E731
    pair = judge(row(headline=True))._replace(scenario="SR", level=MIDDLE, reason="The pair leaks.")
    alone = pair._replace(scenario="NR", variant="original", level=HIGH, reason="It leaks.", proven=True)
    raised = levels.with_contained(pair, [alone._replace(level=LOW), alone], in_words)
    assert (raised.scenario, raised.variant, raised.level, raised.proven) == ("SR", "model", HIGH, True)
    assert raised.reason == (
        "Whoever holds SR of model can attack NR of original, which reads HIGH: It leaks. "
        "The attacks on SR of model together read MIDDLE only."
    )
    for contained in ([], [alone._replace(level=MIDDLE)], [alone._replace(level=LOW)]):
        assert levels.with_contained(pair, contained, in_words) == pair


def test_what_is_no_evidence_exceeds_every_limit():
    assert not levels.exceeds(LOW, LOW) and not levels.exceeds(MIDDLE, MIDDLE) and not levels.exceeds(LOW, MIDDLE)
    assert levels.exceeds(MIDDLE, LOW)
    for level in (HIGH, AT_LEAST_MIDDLE, TOO_FEW, NOT_MEASURED):
        assert levels.exceeds(level, LOW) and levels.exceeds(level, MIDDLE)
    with pytest.raises(ValueError, match="LOW or MIDDLE, not HIGH"):
        levels.exceeds(LOW, HIGH)


def test_privbox_looks_at_the_accuracy_alone():
    assert [privbox.level(accuracy) for accuracy in (0.5, 0.5499, 0.55, 0.7999, 0.8, 1.0)] == [
        *(LOW, LOW, MIDDLE, MIDDLE, HIGH, HIGH)
    ]
