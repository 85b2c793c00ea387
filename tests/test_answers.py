"""Defences of answers: what each does to posteriors, and that every attack and audit goes on behind them."""

import argparse
import contextlib
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import attacks
import audit
import CompLeakMR
import CompLeakNR
import CompLeakSR
import reproduce
import train
from attacks.common.statistics import posterior
from compleak.queries import signals_file
from compleak.queries.defended import defend, is_unchanged
from compleak.queries.signals_file import Record, attacker_view
from compleak.queries.views import as_stored
from compleak.runs.flags import answers_of_text
from compleak.tasks.collect import by_signals, collect_signals
from compleak.tasks.models import Interview
from compleak.tasks.points import points_of
from compleak.tasks.task import ModelEntry, Task
from core.errors import UserError
from defenses import OwnersKnowledge, memguard
from defenses.memguard import add_noise, chance_of_noise, coins, guard, membership, train_inference
from defenses.outputs import keep_largest, name_label, round_off
from tests.conftest import NETWORK, ROOT, TINY
from tests.planted import planted_signals, write_signals
from tests.shipped import train_network, write_npz, write_onnx

CPU = torch.device("cpu")
PAPERS = {name: getattr(memguard, name) for name in ("C3", "ITERATIONS")}  # before `short_descent`
SLOW = ("rapid", "dsq", "nasr2018", "shokri2017")  # attacks with large forests and many networks
LABEL_ONLY = ("gap", "label_only_augmentation", "label_only_noise", "boundary")


def draw_posteriors(count: int, lead: float, seed: int, classes: int = 6) -> np.ndarray:
    """(n, C) posteriors whose largest entry leads by about so much."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), rng.integers(classes, size=count)] += lead + rng.normal(size=count)
    return posterior(logits)


@pytest.fixture(scope="module", autouse=True)
def short_descent():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memguard, "EPOCHS", 25)
        patch.setattr(memguard, "ITERATIONS", 30)
        patch.setattr(memguard, "C3", (0.1, 1.0))
        yield


@pytest.fixture(scope="module")
def guarded():
    """A defender's network, posteriors of members and others that it did not see, and the same with noise."""
    owner = OwnersKnowledge(draw_posteriors(150, 6, seed=0), draw_posteriors(200, 2, seed=1))
    plain = np.concatenate([draw_posteriors(60, 6, seed=2), draw_posteriors(60, 2, seed=3)])
    network = train_inference(owner)
    return SimpleNamespace(owner=owner, network=network, plain=plain, noisy=add_noise(network, plain))


# Fewer and coarser numbers


def test_the_largest_posteriors_are_told_and_the_others_share_the_rest():
    given = keep_largest(np.array([[0.1, 0.5, 0.2, 0.15, 0.05], [0.2, 0.2, 0.2, 0.2, 0.2]]), 2)
    assert np.allclose(given, [[0.1, 0.5, 0.2, 0.1, 0.1], [0.2, 0.2, 0.2, 0.2, 0.2]])


def test_rounded_posteriors_lose_nothing_but_decimals():
    given = round_off(np.array([[0.98, 0.014, 0.006], [0.34, 0.33, 0.33], [0.06, 0.47, 0.47]]), 1)
    assert np.allclose(given, [[1, 0, 0], [0.3 + 0.1 / 3] * 3, [0.1 / 1.1, 0.5 / 1.1, 0.5 / 1.1]])
    assert np.allclose(round_off(np.full((1, 20), 0.05 - 1e-9), 1), 1 / 20)  # of which no digit is left


@pytest.mark.parametrize("change", [lambda s: keep_largest(s, 3), lambda s: round_off(s, 1), name_label])
def test_the_predicted_class_stays_among_the_most_likely_and_rows_add_up_to_one(change):
    plain = draw_posteriors(500, 1, seed=4)
    given = change(plain)
    assert np.allclose(given.sum(axis=1), 1) and given.min() >= 0
    assert (given[np.arange(500), plain.argmax(axis=1)] == given.max(axis=1)).all()


# MemGuard


def test_memguard_takes_its_network_just_over_to_the_other_side_and_keeps_every_label(guarded):
    assert check_noise(guarded.network, guarded.plain, guarded.noisy) > 0.9


def test_memguard_finds_noise_for_every_point_in_as_many_steps_as_the_paper_takes(guarded, monkeypatch):
    for name, value in PAPERS.items():
        monkeypatch.setattr(memguard, name, value)
    plain = guarded.plain[[*range(20), *range(60, 80)]]
    assert check_noise(guarded.network, plain, add_noise(guarded.network, plain)) == 1


def check_noise(network, plain, noisy) -> float:
    """Check what phase 1 promises of the posteriors with noise; returns their share. The first half are members.

    The network takes the other side, but only just, so that members and others are nearly, but not exactly, as likely
    for it: which of them lie above the other ones is what the next test is about.
    """
    before, after = (membership(network, answers) - 0.5 for answers in (plain, noisy))
    has_noise = (noisy != plain).any(axis=1)
    assert (noisy.argmax(axis=1) == plain.argmax(axis=1)).all()
    assert (before * after <= 0)[has_noise].all() and np.abs(after[has_noise]).max() < 0.1
    members, others = np.array_split(after, 2)
    assert abs(members.mean() - others.mean()) < 0.1 < np.subtract(*(half.mean() for half in np.array_split(before, 2)))
    return has_noise.mean()


def test_memguard_lowers_what_its_network_achieves_and_a_large_budget_reverses_its_ranking(guarded):
    answers = [guarded.plain, *(guard(guarded.plain, budget, guarded.owner) for budget in (0.1, 0.5, 2))]
    is_member = np.arange(120) < 60
    scores = [membership(guarded.network, given) for given in answers]
    aucs = [roc_auc_score(is_member, each) for each in scores]
    accuracies = [((each > 0.5) == is_member).mean() for each in scores]
    for values in (aucs, accuracies):
        assert values[0] > 0.85 and values == sorted(values, reverse=True)
        assert values[-1] < 0.3  # worse than a guess, so whoever turns the network's word round is right


@pytest.mark.parametrize("budget", [0.1, 0.5])
def test_memguard_keeps_the_expected_distortion_within_its_budget(guarded, budget):
    distortion = np.abs(guarded.noisy - guarded.plain).sum(axis=1)
    chance = chance_of_noise(guarded.network, guarded.plain, guarded.noisy, budget)
    assert (chance * distortion <= budget + 1e-12).all() and chance.max() == 1
    used = chance[chance > 0] * distortion[chance > 0]
    assert np.isclose(used, np.minimum(budget, distortion[chance > 0])).all()
    back = chance_of_noise(guarded.network, guarded.noisy, guarded.plain, budget)  # noise that decides
    assert (back[chance > 0] == 0).all()


def test_memguard_answers_the_same_question_always_alike(guarded):
    whole = guard(guarded.plain, 0.3, guarded.owner)
    order = np.random.default_rng(0).permutation(len(whole))[:50]
    assert np.allclose(guard(guarded.plain[order], 0.3, guarded.owner), whole[order], atol=1e-9)
    assert 0 < (whole == guarded.plain).all(axis=1).mean() < 1
    drawn = coins(draw_posteriors(2000, 1, seed=5))
    assert abs(drawn.mean() - 0.5) < 0.03 and abs(drawn.std() - 12**-0.5) < 0.02


def memguard_point_by_point(network, budget, posterior, coin):
    """Section 4 of the paper for one posterior (C,), as it is written there."""
    start = torch.as_tensor(posterior)
    label = int(start.argmax())
    best, sign = start, float(network(start[None]))
    for c3 in memguard.C3:
        noise = torch.zeros_like(start)
        for _ in range(memguard.ITERATIONS):
            noise.requires_grad_()
            scores = start.log() + noise
            others = torch.cat([scores[:label], scores[label + 1 :]])
            loss = memguard.C1 * network(scores.softmax(0)[None])[0].abs()
            loss = loss + memguard.C2 * torch.relu(others.max() - scores[label])
            loss = loss + c3 * (scores.softmax(0) - start).abs().sum()
            (gradient,) = torch.autograd.grad(loss, noise)
            noise = noise.detach() - memguard.STEP * gradient / gradient.norm()
            answer = (start.log() + noise).softmax(0)
            if int(answer.argmax()) == label and float(network(answer[None])) * sign <= 0:
                best = answer
                break
        else:
            break
    distortion = float((best - start).abs().sum())
    before, after = (abs(float(network(answer[None]).sigmoid()) - 0.5) for answer in (start, best))
    chance = 0.0 if before <= after else min(budget / distortion, 1.0)
    return best.numpy() if coin < chance else posterior


def test_memguard_on_all_points_at_once_is_memguard_point_by_point(guarded):
    few = np.r_[0:5, 60:65]
    given = guard(guarded.plain, 0.3, guarded.owner)[few]
    plain = guarded.plain[few]
    literal = [memguard_point_by_point(guarded.network, 0.3, *pair) for pair in zip(plain, coins(plain), strict=True)]
    assert np.allclose(given, literal, atol=1e-6) and not np.allclose(given, plain, atol=1e-3)


# Signals


@pytest.fixture(scope="module")
def world():
    return planted_signals(3, 80, 5, variants=2, seed=0)


def record_of(signals, truth) -> Record:
    member = signals.member.copy()
    member[0, signals.audit[0]] = truth
    views = np.stack([signals.logits, signals.logits[..., ::-1]], axis=2)  # the first is the point as it is
    probes = {**signals.probes, "augmented": as_stored(views)}
    return Record(signals.logits, signals.labels, member.astype(bool), signals.audit, probes, None, signals.columns)


@pytest.mark.filterwarnings("ignore")
def test_attacks_go_on_with_labels_alone_and_those_of_labels_do_not_change(world):
    records = [record_of(signals, world.truth) for signals in world.variants]
    plain = attacker_view(records[0])
    views = [attacker_view(defend(record, replace(answers_of_text("label"), adaptive=True), CPU)) for record in records]
    results = {}
    for row in attacks.KNOWN["NR"]:
        with contextlib.suppress(attacks.Unusable):
            if row.name not in SLOW and not attacks.missing(row, views[:1]):
                results[row.key] = row.run(views[:1], seed=1, earlier=results)
    (pair,) = [row for row in attacks.KNOWN["SR"] if row.key == "SR2/random_forest"]
    for result in (*results.values(), pair.run(views, seed=1)):
        assert np.isfinite(result.scores).all() and np.isfinite(result.shadow_scores).all()
    assert {"rmia", "base", "lira/per_point_variance", "joint", "calibrated"} <= results.keys()
    unchanged = [row for row in attacks.KNOWN["NR"] if row.name in LABEL_ONLY]
    assert {row.name for row in unchanged} == set(LABEL_ONLY)
    for row in unchanged:
        assert np.array_equal(results[row.key].scores, row.run([plain], seed=1, earlier={}).scores), row.key


@pytest.mark.parametrize("text", ["round:0", "round:1", "topk:1", "memguard:0.5"])
def test_labels_survive_ties_and_shadow_models_are_defended_for_an_adaptive_attacker_alone(world, text):
    record = record_of(world.variants[0], world.truth)
    answers = answers_of_text(text)
    for given, last in ((defend(record, answers, CPU), 1), (defend(record, replace(answers, adaptive=True), CPU), 3)):
        assert (given.logits.argmax(axis=-1) == record.logits.argmax(axis=-1)).all()
        differs = np.abs(posterior(given.logits) - posterior(record.logits)).max(axis=(1, 2)) > 1e-3
        assert differs.tolist() == [row < last for row in range(3)]
        views = np.abs(posterior(given.probes["augmented"]) - posterior(record.probes["augmented"])).max(axis=(1, 2, 3))
        assert ((views > 1e-3) == differs).all() and "sensitivity" not in given.probes
        assert (given.probes["augmented"].argmax(axis=-1) == record.probes["augmented"].argmax(axis=-1)).all()
        plain_view, same_answer = given.probes["augmented"][:last, :, 0], as_stored(given.logits[:last])
        assert (np.abs(plain_view - same_answer) <= np.spacing(np.abs(same_answer))).all()  # but for a lead


@pytest.mark.parametrize("text", ["label", "topk:3", "round:2", "memguard:1"])
def test_a_defence_changes_posteriors_but_none_of_answers_that_are_labels_already(world, text):
    record = record_of(world.variants[0], world.truth)._replace(probes={})
    of_labels = record._replace(logits=defend(record, replace(answers_of_text("label"), adaptive=True), CPU).logits)
    answers = answers_of_text(text)
    assert not is_unchanged(record, defend(record, answers, CPU))
    assert is_unchanged(of_labels, defend(of_labels, answers, CPU))


def test_memguard_refuses_signals_without_unaudited_non_members(world):
    record = record_of(world.variants[0], world.truth)
    record = record._replace(audit=record.audit | ~record.member)
    with pytest.raises(UserError, match="of model 0 there are 16 and 0"):
        defend(record, answers_of_text("memguard"), CPU)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("top3", "no defence of answers 'top3'"),
        ("topk", "topk needs a number, how many posteriors are told"),
        ("topk:0", "0 is not 1 or more"),
        ("round:x", "'x' is no whole number"),
        ("round:400", "round:400 hides nothing: give 15 or less"),
        ("label:3", "label takes no number"),
        ("label:", "label takes no number"),
        ("none:3", "none takes no number: leave out :3"),
        ("memguard:", "no number follows memguard:"),
    ],
)
def test_a_defence_of_answers_that_means_nothing_is_named(text, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        answers_of_text(text)


# Scripts


@pytest.mark.parametrize(("count", "classes"), [(25, 26), (26, 26), (9, 10), (1, 2)])
def test_topk_that_leaves_no_two_classes_is_refused_with_the_largest_useful_number(count, classes):
    advice = f"give {classes - 2} or less" if classes > 2 else "choose another"
    with pytest.raises(UserError, match=f"topk:{count} hides nothing of {classes} classes, .*: {advice}"):
        keep_largest(np.full((1, classes), 1 / classes), count)
    if classes > 2:
        keep_largest(np.full((1, classes), 1 / classes), classes - 2)


def test_topk_that_hides_nothing_is_refused_before_models_are_trained_or_asked(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="topk:9 hides nothing of 10 classes"):
        reproduce.main([*NETWORK, "--root", str(tmp_path), "--defences", "topk:9"])
    assert not list(tmp_path.rglob("*.json"))
    run = [*NETWORK, "--root", str(tmp_path)]
    train.main([*run, *TINY, "--roles"])
    monkeypatch.setattr("compleak.audits.target.collect", None)
    for main, model in (
        (CompLeakNR.main, ["--original"]),
        (CompLeakSR.main, ["--compress", "--compress_name", "pruning", "--compress_degree", "0.6"]),
        (CompLeakMR.main, []),
    ):
        with pytest.raises(UserError, match="topk:9 hides nothing of 10 classes"):
            main([*run, *model, "--answers", "topk:9"])


def test_an_audit_refuses_topk_that_hides_nothing_after_the_first_answers(tmp_path, monkeypatch):
    inputs, labels = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 3
    model = write_onnx(train_network(inputs, labels, epochs=3), tmp_path / "model.onnx")
    sides = [str(write_npz(tmp_path / f"{n}.npz", inputs[n::2], labels[n::2])) for n in (0, 1)]
    monkeypatch.setattr(Interview, "answers", None)
    data = ["--members", sides[0], "--nonmembers", sides[1]]
    with pytest.raises(UserError, match="topk:2 hides nothing of 3 classes"):
        audit.main([str(model), *data, "--answers", "topk:2", "--root", str(tmp_path)])


@pytest.mark.parametrize("more", [[], ["--answers", "none"]])
def test_an_adaptive_attacker_without_a_defence_is_told_of_both_kinds(more):
    with pytest.raises(UserError, match=r"^--adaptive needs a defence: give --defend ppb.* or --answers memguard"):
        CompLeakNR.parse(["--original", "--adaptive", *more])


def test_tables_of_different_answers_lie_in_different_folders(world, tmp_path, capsys):
    files = [tmp_path / "original.npz", tmp_path / "int8.npz"]
    for file, signals in zip(files, world.variants, strict=True):
        write_signals(file, signals, world.truth)
    nr = ["--signals", str(files[0]), "--attacks", "yeom2018"]
    tables = [CompLeakNR.main([*nr, *more]) for more in ([], ["--answers", "round:0"])]
    CompLeakNR.main([*nr, "--answers", "round:0", "--adaptive"])
    assert "answers of all models defended by round:0" in capsys.readouterr().out
    CompLeakSR.main(["--signals", *map(str, files), "--attacks", "model_updates", "--answers", "label"])
    folders = {file.parent.name for file in tmp_path.glob("*/*.csv")}
    assert folders == {"original", "original_round_0", "original_round_0_adaptive", "original+int8_label"}
    aucs = [table.set_index("attack").loc["yeom2018", "auc"] for table in tables]
    assert aucs[0] != aucs[1] and tables[1]["variant"].unique().tolist() == ["original"]
    CompLeakNR.main([*nr, "--answers", "round:0"])
    assert "done before" in capsys.readouterr().out


def test_an_audit_states_its_defence_and_keeps_some_non_members_for_it(tmp_path):
    rng = np.random.default_rng(0)
    labels, member = rng.integers(5, size=80), np.arange(80) < 40
    logits = rng.normal(size=(80, 5))
    logits[np.arange(80), labels] += 2 + 2 * member
    np.savez(tmp_path / "model.npz", answers=posterior(logits), labels=labels, member=member)
    file = tmp_path / "task.yaml"
    file.write_text(json.dumps({"models": ["model.npz"], "answers": "memguard:0.5", "attacks": {"NR": ["yeom2018"]}}))
    (finished,) = audit.main([str(file), "--root", str(tmp_path), "--threads", "1"])
    folder = tmp_path / "results" / "audits" / "task_memguard_0.5"
    report = (folder / "report.md").read_text()
    assert "defended by memguard:0.5" in report and "changed no audited answer" not in report
    assert finished.facts.members.used == 30
    plain, given = (signals_file.load(folder / "signals" / f"{name}.npz") for name in ("model", "model_memguard_0.5"))
    assert not np.allclose(plain.logits, given.logits) and (~plain.audit & ~plain.member).sum() == 10


def test_an_adaptive_attacker_without_a_further_model_is_refused_before_the_work(tmp_path, monkeypatch):
    (world,) = planted_signals(1, 80, 5, variants=1, seed=0).variants
    member = np.arange(80) < 40
    signals, answers = tmp_path / "signals.npz", tmp_path / "answers.npz"
    np.savez(signals, logits=world.logits, labels=world.labels, member=member[None], audit=np.ones((1, 80), dtype=bool))
    np.savez(answers, answers=posterior(world.logits[0]), labels=world.labels, member=member)
    defence = ["--answers", "label", "--adaptive"]
    with pytest.raises(UserError, match="--adaptive is about the answers of shadow models and references"):
        CompLeakNR.main(["--signals", str(signals), *defence])
    monkeypatch.setattr("compleak.tasks.collect.WAYS", {"a signals file": by_signals})  # nothing else begins
    for file in (signals, answers, tmp_path / "model.onnx"):
        with pytest.raises(UserError, match="--adaptive is about the answers of shadow models and references"):
            audit.main([str(file), *defence, "--root", str(tmp_path)])
    assert not list(tmp_path.rglob("*.csv"))


def test_noise_that_the_defence_drops_is_not_asked_for(tmp_path):
    file = tmp_path / "task.yaml"
    content = {"models": ["model.onnx"], "members": "a.npz", "nonmembers": "b.npz", "answers": "label"}
    file.write_text(json.dumps(content | {"sensitivity_draws": 10}))
    for command in ([str(file)], ["model.onnx", "--answers", "round:2", "--sensitivity_draws", "10"]):
        with pytest.raises(UserError, match=r"leaves out sensitivity, .*: leave out sensitivity_draws"):
            audit.main([*command, "--root", str(tmp_path)])


def test_an_audit_of_labels_says_that_its_defence_changes_no_answer(tmp_path, capsys):
    rng = np.random.default_rng(0)
    labels, member = rng.integers(5, size=80), np.arange(80) < 40
    predicted = np.where(rng.random(80) < 0.6 + 0.3 * member, labels, rng.integers(5, size=80))
    np.savez(tmp_path / "model.npz", answers=np.eye(5)[predicted], labels=labels, member=member)
    (task,) = audit.parse([str(tmp_path / "model.npz"), "--answers", "label", "--root", str(tmp_path)])
    note = collect_signals(task).notes[-1]
    says = "label changed no audited answer of the model"
    assert says in capsys.readouterr().out and says in note


def test_attacks_of_privbox_which_ask_the_model_itself_do_not_go_with_a_defence_of_answers():
    with pytest.raises(UserError, match="leave out --answers"):
        audit.parse([str(ROOT / "examples/privbox/tasks/mem_inf.yaml"), "--answers", "label"])


def test_an_audit_asks_about_the_non_members_that_the_defence_trains_on(tmp_path):
    inputs = np.random.default_rng(0).normal(size=(40, 3))
    files = [write_npz(tmp_path / f"{n}.npz", inputs[n::2], np.arange(20) % 2) for n in (0, 1)]
    task = Task((ModelEntry("model", "model.onnx"),), "model", "", *files, answers=answers_of_text("memguard"))
    points = points_of(task)
    assert points.audit.sum() == 30 and len(points.labels) == 35
    assert not points.member[0, ~points.audit[0]].any()
