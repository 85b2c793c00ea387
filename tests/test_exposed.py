"""Who is exposed: lists of accused with a guarantee, by which attack and version, and how often over seeds."""

import numpy as np
import pandas as pd
import pytest
from planted import planted_signals, write_signals

import attacks
import CompLeakNR
from attacks import audit_rows
from attacks.common.statistics import cross_entropy
from attacks.tail import tail
from compleak.audits.accused import conformal_p_values, p_values_of
from compleak.audits.attackers import KNOWN_HALF, SHADOWS, Attacker, halves_of, parts_of
from compleak.findings import exposure
from compleak.findings.exposure import discoveries
from compleak.findings.tails import tail_table
from compleak.queries.signals_file import Record

WORLDS = 200
LIRA = next(attack for attack in attacks.NR if attack.key == "lira/global_variance")


# p-values and the list


def test_a_p_value_is_the_rank_among_known_non_members():
    others = np.array([1.0, 2.0, 2.0, 5.0])
    np.testing.assert_allclose(conformal_p_values(np.array([6.0, 5.0, 2.0, 0.0]), others), [1 / 5, 2 / 5, 4 / 5, 1])


def naive_list(p_values, q):
    """Benjamini and Hochberg's list: all up to the last place k, in ascending order, with p <= q k / n."""
    order = np.sort(p_values)
    places = [k for k in range(1, len(order) + 1) if order[k - 1] <= q * k / len(order)]
    return p_values <= order[places[-1] - 1] if places else np.zeros(len(p_values), dtype=bool)


def test_the_list_is_that_of_benjamini_and_hochberg():
    rng = np.random.default_rng(0)
    for _ in range(50):
        p_values = np.round(rng.random(40) ** 3, 2)
        for q in (0.05, 0.1, 0.3):
            np.testing.assert_array_equal(discoveries(p_values) <= q, naive_list(p_values, q))


def test_points_that_were_not_judged_are_not_accused_and_do_not_count():
    p_values = np.array([0.001, np.nan, 0.5, 0.004])
    np.testing.assert_allclose(discoveries(p_values), [0.003, np.nan, 0.5, 0.006])


def record_of(signals, truth) -> Record:
    member = signals.member.copy()
    member[0, signals.audit[0]] = truth
    return Record(signals.logits, signals.labels, member.astype(bool), signals.audit, {})


def accused_in_world(attacker: str, leak: float, seed: int, q: float):
    """How many are accused in a planted world by LiRA, and how many of them are no members."""
    world = planted_signals(4, 500, leak=leak, seed=seed)
    record = record_of(world.variants[0], world.truth)
    if attacker == KNOWN_HALF:
        record = record._replace(audit=record.audit & (np.arange(4) == 0)[:, None])
    who = Attacker(attacker, 3 * (attacker == SHADOWS), 3 * (attacker == KNOWN_HALF))
    parts = parts_of(who, halves_of(who, record, seed), [record])
    results = [LIRA.run(part.views, seed=seed) for part in parts]
    accused = discoveries(p_values_of(parts, results)) <= q
    return accused.sum(), (accused & ~world.truth).sum()


@pytest.mark.parametrize("attacker", [SHADOWS, KNOWN_HALF])
def test_the_share_of_non_members_on_the_list_stays_below_what_was_promised(attacker):
    counts = np.array([accused_in_world(attacker, 3.0, seed, q=0.2) for seed in range(WORLDS)])
    wrong = counts[:, 1] / np.maximum(counts[:, 0], 1)
    assert wrong.mean() < 0.2
    assert wrong.mean() > 0.05  # half of the points are members, so up to 0.1 is to be expected
    assert counts[:, 0].mean() > 40  # of 100 members


@pytest.mark.parametrize("attacker", [SHADOWS, KNOWN_HALF])
def test_where_nothing_leaks_the_list_is_nearly_always_empty(attacker):
    accused = np.array([accused_in_world(attacker, 0.0, seed, q=0.1)[0] for seed in range(WORLDS)])
    assert (accused > 0).mean() < 0.1 + 2 * np.sqrt(0.1 * 0.9 / WORLDS)


def test_p_values_lie_beside_the_table_for_a_headline_that_did_not_see_its_known_points(tmp_path):
    world = planted_signals(2, 300, leak=3.0, seed=1)
    file = tmp_path / "model.npz"
    write_signals(file, world.variants[0], world.truth)
    table = CompLeakNR.main(["--signals", str(file), "--attacks", "lira,gap", "--out", str(tmp_path / "eligible")])
    with np.load(tmp_path / "eligible/NR_p_values.npz") as kept:
        p_values = kept["model"]
    assert table.set_index("attack").loc["lira", "headline"]
    signals = world.variants[0]
    result = LIRA.run([signals], seed=0)
    shadow, _ = audit_rows(signals)
    others = result.shadow_scores[signals.member[shadow] == 0]
    np.testing.assert_allclose(p_values, [(1 + (others >= score).sum()) / 61 for score in result.scores])
    CompLeakNR.main(["--signals", str(file), "--attacks", "nn_top3", "--out", str(tmp_path / "fitted")])
    with np.load(tmp_path / "fitted/NR_p_values.npz") as kept:
        assert not kept.files


# By which attack and which version


def attack_table():
    """NR on three versions and MR; `weak` on the original finds nobody."""
    lines = [("NR", variant, "joint", True) for variant in ("original", "pruning_0.9", "clustering_4")]
    lines += [("NR", "original", "rmia", False), ("NR", "original", "weak", False), ("MR", "all", "joint", True)]
    table = pd.DataFrame(lines, columns=["scenario", "variant", "attack", "headline"])
    return table.assign(classifier="", auc=0.8, n_member=200)


def points_of(p_values=None):
    """200 members, 200 others. Members 0 to 9 are found by all, 10 to 19 on the pruned model alone."""
    truth = np.arange(400) < 200
    base = np.where(truth, 0.0, 0.5) + np.linspace(0, 0.001, 400)
    exposed, pruned_alone = np.arange(400) < 10, (np.arange(400) >= 10) & (np.arange(400) < 20)
    scores = {
        ("NR", "original", "joint"): base + 9 * exposed,
        ("NR", "original", "rmia"): base + 9 * exposed,
        ("NR", "original", "weak"): np.zeros(400),
        ("NR", "pruning_0.9", "joint"): base + 9 * pruned_alone + 5 * exposed,
        ("NR", "clustering_4", "joint"): base,
        ("MR", "all", "joint"): base + 9 * (exposed | pruned_alone),
    }
    points = exposure.points_table(
        attack_table(),
        lambda row: scores[row["scenario"], row["variant"], row["attack"]],
        truth,
        np.arange(400),
        np.zeros(400, dtype=int),
        lambda row: p_values,
    )
    return points.set_index("point", drop=False).sort_index()


def test_found_by_is_the_share_of_the_attacks_that_find_anybody():
    points = points_of()
    assert (points["found_by"][:10] == 1).all()  # `weak` does not count
    np.testing.assert_allclose(points["found_by"][10:20], 1 / 3)  # MR's alone
    assert (points["found_by"][20:200] == 0).all()
    table = exposure.found_table(points).set_index("found by")
    assert table["members"].tolist() == [10, 10, 20]


def test_versions_are_counted_by_whom_they_find_find_first_and_find_alone():
    points = points_of()
    assert (points["first_version"][:10] == "original").all()  # both find them before all others: the earlier counts
    assert (points["first_version"][10:20] == "pruning_0.9").all()
    assert (points["first_version"][20:200] == "").all()
    table = exposure.versions_table(points).set_index("version")
    assert table.loc["original"].tolist() == [10, 10, 0]
    assert table.loc["pruning_0.9"].tolist() == [20, 10, 10]
    assert table.loc["clustering_4"].tolist() == [0, 0, 0]


def test_the_list_of_accused_counts_members_and_others():
    p_values = np.full(400, 0.9)
    p_values[:30] = 0.001
    p_values[[200, 201]] = 0.001
    table = exposure.accused_table(points_of(p_values)).set_index("q")
    assert table.loc[0.05, ["members", "others", "wrong"]].tolist() == [30, 2, 2 / 32]
    assert exposure.accused_table(points_of()).empty


# Over seeds


def seed_tables(shared: bool):
    """Three runs of 300 points, of which each has 200 members and finds a tenth: the same ones, or drawn anew."""
    tables = {}
    for seed in range(3):
        rng = np.random.default_rng(seed)
        member = rng.permutation(300) < 200
        found = np.arange(300) % 10 == 0 if shared else rng.random(300) < 0.1
        table = pd.DataFrame({"point": np.arange(300), "label": 1, "member": member.astype(int)})
        table["exposure"] = np.where(found & member, 0.005, 0.5)
        table["accused_at"] = np.where(found, 0.05, 1.0)
        tables[f"seed {seed}"] = table
    return tables


def test_records_over_seeds_count_runs_as_a_member_and_as_another():
    tables = seed_tables(shared=True)
    records = exposure.records_over_seeds(tables).set_index("point")
    members = np.sum([table["member"] for table in tables.values()], axis=0)
    for point in (0, 10, 11):
        row = records.loc[point]
        expected = members[point] * (point % 10 == 0)
        assert [row["member_in"], row["other_in"]] == [members[point], 3 - members[point]]
        assert [row["found_in"], row["accused_in"]] == [expected, expected]
        assert row["wrongly_accused_in"] == (3 - members[point]) * (point % 10 == 0)
    assert records["found_in"].is_monotonic_decreasing


def test_records_over_seeds_hold_wrongly_accused_points_that_are_members_of_no_run():
    tables = seed_tables(shared=True)
    never = [table.assign(member=0) for table in tables.values()]
    records = exposure.records_over_seeds(dict(zip(tables, never, strict=True)))
    assert (records["point"] % 10 == 0).all() and (records["wrongly_accused_in"] == 3).all() and len(records)


@pytest.mark.parametrize("shared", [True, False])
def test_found_again_compares_with_runs_that_find_independently(shared):
    again = exposure.found_again(seed_tables(shared)).set_index(["member_in", "found_in"])
    for count in (2, 3):
        assert again.loc[count, "points"].sum() == pytest.approx(again.loc[count, "by_chance"].sum())
    three = again.loc[(3, 3)]
    assert (three["points"] > 20 * three["by_chance"]) == shared


# Without any shadow model


def test_the_tail_of_a_model_is_that_of_its_audited_points_alone():
    world = planted_signals(2, 2000, leak=3.0, seed=3)
    record = record_of(world.variants[0], world.truth)
    line = tail_table(["original"], [record]).iloc[0]
    losses = cross_entropy(record.logits, record.labels)[0]
    members, others = (losses[record.audit[0] & (record.member[0] == kind)] for kind in (True, False))
    assert line["tnr"] == tail(members, others) > 0.02
    assert line["tnr_lo"] <= line["tnr"] <= line["tnr_hi"]


def test_the_tail_foretells_a_leak_and_says_nothing_where_there_is_none():
    found = {}
    for leak in (0.0, 1.5, 3.0):
        world = planted_signals(2, 5000, leak=leak, seed=3)
        found[leak] = tail_table(["original"], [record_of(world.variants[0], world.truth)])["tnr"][0]
    assert found[0.0] < 0.01 < found[1.5] < found[3.0]
