"""What models are asked, in which order, and what their answers become."""

import numpy as np
import torch

from compleak.audits import metrics
from compleak.audits.controls import null_control
from compleak.queries import answers, collect, signals_file
from compleak.queries.targets import query_calls, targets_of
from compleak.runs.run import dataset, split
from compleak.runs.variants import Variant
from compleak.training.evaluate import ask
from compleak.training.finished import load_model
from data import splits

MACHINE = {"device": torch.device("cpu"), "batch_size": 32}
LIGHTLY_PRUNED = Variant("pruning", "0.7")


def test_members_and_half_of_the_non_members_are_asked_in_one_call():
    points = splits.make_split(60, 1, seed=7)
    audit = splits.make_audit(points, seed=7)
    first, second = query_calls(points, audit)
    half = len(audit.victim.test) // 2
    assert set(first) == set(audit.victim.train) | set(audit.victim.test[:half])
    assert set(second) == set(audit.victim.test[half:]) | set(points.pool)


def test_no_point_is_asked_about_twice_where_shadow_models_are_trained_on_the_victims_points():
    points = splits.make_split(60, 3, seed=7, layout="online")
    audit = splits.make_audit(points, seed=7)
    first, second = query_calls(points, audit)
    assert not np.intersect1d(first, second).size
    assert set(first) | set(second) == set(points.pool) | set(np.concatenate(audit.victim))


def test_signals_are_what_the_models_answer_to_the_images(tiny_run):
    variant = Variant("pruning", "0.6")
    file = collect.collect(tiny_run, variant, {"sensitivity": 1}, **MACHINE)
    record = signals_file.load(file)
    points = signals_file.points(file)
    whole, audit = split(tiny_run)
    data = dataset(tiny_run)
    assert np.array_equal(record.labels, data.labels[points])
    for row, role in enumerate(tiny_run.roles):
        again = ask(load_model(tiny_run, variant, role), data.images[points], MACHINE["device"], 7)
        np.testing.assert_allclose(record.logits[row], again, atol=1e-4)
        assert set(points[record.member[row]]) == set(whole.pairs[row].train) & set(points)
        assert set(points[record.audit[row]]) == set(np.concatenate(audit.pairs[row]))
    sensitivity = record.probes["sensitivity"]
    assert np.isfinite(sensitivity[record.audit]).all() and np.isnan(sensitivity[~record.audit]).all()
    before = file.stat().st_mtime_ns
    assert collect.collect(tiny_run, variant, {"sensitivity": 1}, **MACHINE).stat().st_mtime_ns == before


def test_without_a_flag_the_number_of_draws_is_that_of_the_existing_answers(tiny_run, monkeypatch):
    file = collect.collect(tiny_run, LIGHTLY_PRUNED, {"sensitivity": 1}, **MACHINE)
    monkeypatch.setattr(answers, "ask_model", None)  # nobody is asked again
    assert collect.collect(tiny_run, LIGHTLY_PRUNED, {}, **MACHINE) == file
    assert answers.probe_amounts(tiny_run, LIGHTLY_PRUNED, {"sensitivity": 3})["sensitivity"] == 3
    monkeypatch.undo()
    file.unlink()  # what a model answered ahead of the others counts as well
    answers.ask_ahead(tiny_run, LIGHTLY_PRUNED, tiny_run.roles[1], {"sensitivity": 1}, **MACHINE)
    assert answers.probe_amounts(tiny_run, LIGHTLY_PRUNED, {})["sensitivity"] == 1
    collect.collect(tiny_run, LIGHTLY_PRUNED, {}, **MACHINE)


def test_a_model_that_was_asked_ahead_is_not_asked_again(tiny_run, monkeypatch):
    variant = Variant("pruning", "0.8")
    role = tiny_run.roles[0]
    answers.ask_ahead(tiny_run, variant, role, {"sensitivity": 1}, **MACHINE)
    monkeypatch.setattr(answers, "load_model", None)
    answers.ask_ahead(tiny_run, variant, role, {"sensitivity": 1}, **MACHINE)


def test_what_answers_follow_from_is_worked_out_once_for_all_models_of_a_variant(tiny_run, monkeypatch):
    variant = Variant("pruning", "0.6")
    file = collect.collect(tiny_run, variant, {"sensitivity": 1}, **MACHINE)
    targets = targets_of(tiny_run)
    calls = []
    source = answers.Question.source
    monkeypatch.setattr(answers.Question, "source", lambda question: calls.append(question.role) or source(question))
    question = answers.Question(tiny_run, targets, variant, tiny_run.roles[-1], {"sensitivity": 1})
    assert answers.known_answers(question, file) is not None
    assert calls == [question.role] and len(tiny_run.roles) > 1


def test_without_draws_there_is_no_sensitivity_in_the_file(tiny_run):
    file = collect.collect(tiny_run, Variant("clustering", "8"), {"sensitivity": 0}, **MACHINE)
    assert "sensitivity" not in np.load(file).files and signals_file.load(file).probes == {}


def test_the_null_control_finds_a_transform_that_only_members_get():
    rng = np.random.default_rng(0)
    truth = np.arange(4000) < 2000
    honest = rng.normal(size=4000) + truth  # a leak, but one path for all points
    in_call = np.arange(4000) < 3000
    scores, _, half = null_control(honest, honest > 0, truth, in_call)
    assert abs(metrics.auc(scores, half) - 0.5) < 0.04
    betrayed = honest + 2 * in_call  # the members' call, with half of the non-members, is augmented
    scores, _, half = null_control(betrayed, betrayed > 0, truth, in_call)
    assert metrics.auc(scores, half) > 0.8


def test_the_null_control_halves_points_of_one_call_by_their_order():
    scores = np.arange(6.0)
    truth = np.array([True, False, True, False, False, False])
    for in_call in (truth, np.ones(6, dtype=bool)):
        others, _, half = null_control(scores, scores > 0, truth, in_call)
        assert others.tolist() == [1, 3, 4, 5] and half.tolist() == [True, True, False, False]
