"""Asking anybody's model: answers become logits, company and order give nothing away, nothing is asked twice."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from compleak.queries import asking
from compleak.queries.asking import Asked, ask, find_company
from compleak.queries.logits import as_table, scale_of, to_logits
from core.errors import UserError


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


LOGITS = np.random.default_rng(0).normal(scale=3, size=(50, 4))


@pytest.mark.parametrize(
    ("answers", "name"),
    [
        (LOGITS, "logits"),
        (softmax(LOGITS), "probabilities, turned into logits"),
        (100 * softmax(LOGITS), "percentages, turned into logits"),
        (np.log(softmax(LOGITS)), "log-probabilities"),
        (-np.log(softmax(LOGITS)), "losses of each class, turned into logits"),
    ],
)
def test_every_scale_of_answers_is_recognised_and_gives_the_same_probabilities(answers, name):
    scale = scale_of(answers)
    assert scale.name == name
    np.testing.assert_allclose(softmax(to_logits(answers, scale).astype(float)), softmax(LOGITS), atol=1e-6)


def test_counts_are_shares_of_their_sum():
    votes = np.array([[3, 5, 0], [1, 1, 6], [8, 0, 0]])
    scale = scale_of(as_table(votes, "m"))
    assert scale.name == "counts out of 8, turned into logits"
    np.testing.assert_allclose(softmax(to_logits(as_table(votes, "m"), scale).astype(float)), votes / 8, atol=1e-6)


def test_probabilities_of_zero_give_finite_logits():
    answers = np.array([[0.0, 1.0], [0.4, 0.6]])
    logits = to_logits(answers, scale_of(answers))
    assert np.isfinite(logits).all()
    assert logits[0, 0] < -60


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_one_probability_a_point_becomes_two_classes(shape):
    p = np.linspace(0.1, 0.9, 5)
    table = as_table(p.reshape(shape), "m")
    np.testing.assert_allclose(softmax(to_logits(table, scale_of(table)).astype(float))[:, 1], p, atol=1e-6)


def test_one_value_before_a_sigmoid_becomes_two_classes():
    z = np.array([-3.0, 0.5, 4.0])
    table = as_table(z, "m")
    np.testing.assert_allclose(softmax(to_logits(table, scale_of(table)).astype(float))[:, 1], 1 / (1 + np.exp(-z)))


def test_probabilities_of_each_class_by_itself_become_their_log_odds():
    p = 1 / (1 + np.exp(-LOGITS))
    scale = scale_of(p)
    assert scale.name.startswith("a probability of each class by itself")
    np.testing.assert_allclose(to_logits(p, scale), LOGITS, rtol=1e-5)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (np.array(["cat", "dog"]), "numbers are needed"),
        (np.array([[0.1, np.nan]]), "not finite, first for point 0"),
        (np.array([3, 1, 2]), "perhaps the predicted class"),
        (np.zeros((2, 3, 4)), "name the output with one value a class"),
    ],
)
def test_answers_that_are_none_of_a_classifier_are_refused_in_one_line(answers, message):
    with pytest.raises(UserError, match=message):
        as_table(answers, "m")


# Company

POINTS = np.random.default_rng(1).normal(size=(400, 6)).astype(np.float32)
WEIGHTS = np.random.default_rng(2).normal(size=(6, 3)).astype(np.float32)


def exact(inputs):
    return inputs @ WEIGHTS


def scaled_by_batch(inputs):
    """As dynamic int8 does it: the grid of the inputs depends on the largest value in the batch."""
    step = np.abs(inputs).max() / 15
    return np.round(inputs / step) * step @ WEIGHTS


def asked(answer, points=POINTS, **options):
    return Asked("m", answer, lambda positions: points[positions], len(points), **options)


def test_a_model_whose_answers_depend_on_the_batch_is_asked_point_by_point():
    company = find_company(asked(scaled_by_batch), 100)
    assert company.batch_size == 1
    assert "depend on what else is in the batch" in company.in_words


def test_a_model_of_fixed_batch_that_depends_on_it_is_asked_in_mixed_batches():
    company = find_company(asked(scaled_by_batch, fixed_batch=50), 50)
    assert company.batch_size == 50
    assert "fixed, mixed batches" in company.in_words


def test_a_model_whose_answers_do_not_depend_on_the_batch_is_asked_in_batches():
    company = find_company(asked(exact), 100)
    assert company.batch_size == 100
    assert "do not depend" in company.in_words


def test_a_single_output_before_a_sigmoid_is_read_alike_alone_and_in_a_batch():
    """Some of its values lie between 0 and 1, as probabilities do."""
    subject = asked(lambda inputs: exact(inputs)[:, :1] / 4)
    assert ((subject.table(np.arange(32)) > 0) & (subject.table(np.arange(32)) < 1)).any()
    assert "do not depend" in find_company(subject, 100).in_words


def test_random_answers_are_reported():
    rng = np.random.default_rng(0)
    company = find_company(asked(lambda inputs: exact(inputs) + rng.normal(size=(len(inputs), 3))), 100)
    assert "answers are random" in company.in_words


def test_batches_of_members_alone_give_them_away_where_nothing_leaks_and_the_audits_way_does_not(tmp_path):
    """Members and others are drawn alike, but one member is large: its batch has a coarse grid, which blurs answers."""
    rng = np.random.default_rng(3)
    points = rng.normal(size=(400, 6)).astype(np.float32)
    member = np.arange(400) < 200
    points[0] *= 40
    apart = np.concatenate([scaled_by_batch(points[member]), scaled_by_batch(points[~member])])
    order = rng.permutation(400)
    subject = Asked("m", scaled_by_batch, lambda positions: points[order[positions]], 400)
    company = find_company(subject, 100)
    mixed = np.empty_like(apart)
    mixed[order] = ask(subject, company.batch_size, tmp_path / "a.npz", {})

    def auc(answers):
        blur = np.abs(answers - exact(points)).max(axis=1)
        return roc_auc_score(member, blur)

    assert auc(apart) > 0.9
    assert abs(auc(mixed) - 0.5) < 0.06


# Asking once


def test_a_stopped_interview_goes_on_and_asks_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(asking, "KEEP_EVERY", 0.0)
    seen = []

    def counting(inputs):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(inputs))
        return exact(inputs)

    file = tmp_path / "answers.npz"
    with pytest.raises(KeyboardInterrupt):
        ask(asked(counting), 100, file, {"model": "a"})
    later = []

    def rest(inputs):
        later.append(len(inputs))
        return exact(inputs)

    answers = ask(asked(rest), 100, file, {"model": "a"})
    assert seen == [100, 100] and later == [100, 100]
    np.testing.assert_allclose(answers, exact(POINTS), rtol=1e-6)
    ask(asked(rest), 100, file, {"model": "a"})
    assert later == [100, 100]


def test_answers_of_another_model_are_not_taken(tmp_path):
    file = tmp_path / "answers.npz"
    ask(asked(exact), 100, file, {"model": "a"})
    other = ask(asked(lambda inputs: 2 * exact(inputs)), 100, file, {"model": "b"})
    np.testing.assert_allclose(other, 2 * exact(POINTS), rtol=1e-6)


def test_a_pilot_asks_only_the_first_points(tmp_path):
    file = tmp_path / "answers.npz"
    assert len(ask(asked(exact), 100, file, {}, first=150)) == 150
    assert len(ask(asked(exact), 100, file, {})) == 400
