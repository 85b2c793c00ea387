"""SELENA: who leaves out whom, what Split-AI answers, and runs whose student learns from it."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import NETWORK, stopped_in

import attacks
import CompLeakNR
import query
import train
from attacks import Signals, dsq
from attacks.selena_adaptive import NETWORKS, OTHER_HALF, SAME_HALF, THRESHOLDS, distance, selena_adaptive
from compleak.audits.attackers import as_known, attacker_of, halves_of
from compleak.audits.attackers_split_ai import with_split_ai
from compleak.pipeline.comparison import joined_stages
from compleak.pipeline.plan import model_stages
from compleak.pipeline.settings import PlanSettings
from compleak.queries import signals_file
from compleak.queries.collect import arrays_of
from compleak.queries.signals_file import Answers
from compleak.queries.targets import targets_of
from compleak.runs import checkpoints
from compleak.runs.roles import VICTIM
from compleak.runs.run import dataset, open_run
from compleak.runs.settings import DefenceSettings, RunSettings
from compleak.runs.variants import ORIGINAL, compressed_variant
from compleak.training import loop
from compleak.training.assignment import assign
from compleak.training.evaluate import predict
from core.errors import UserError
from defenses import selena
from defenses.trainer import Trainer
from pruning import prune

SMALL = ["--max_points", "24", "--epochs", "2", "--label_noise", "0.2", "--no_augment", "--batch_size", "16"]
SELENA = ["--defend", "selena", "--defend_arg", "4"]


@pytest.mark.parametrize(("sub_models", "left_out"), [(2, 1), (25, 10)])
def test_each_member_is_left_out_by_two_fifths_of_the_sub_models_and_all_sub_models_alike(sub_models, left_out):
    non_models = selena.draw_non_models(2000, sub_models, 3)
    assert non_models.shape == (2000, left_out)
    assert all(len(set(row)) == left_out for row in non_models.tolist())
    share = np.bincount(non_models.ravel(), minlength=sub_models) / 2000
    assert np.abs(share - left_out / sub_models).max() < 0.04
    assert np.array_equal(selena.members_of(non_models, 1), [1 not in row for row in non_models])


def test_a_member_is_answered_by_its_own_non_models_and_another_point_by_those_of_a_random_member():
    non_models = selena.draw_non_models(6, 5, 0)
    member_of = np.array([-1, 4, 0, -1, 2])
    answering = selena.draw_answering(non_models, member_of, 0)
    assert np.array_equal(answering[[1, 2, 4]], non_models[[4, 0, 2]])
    assert all(row in non_models.tolist() for row in answering.tolist())


def test_answers_are_the_means_of_a_literal_version(tmp_path):
    rng = np.random.default_rng(0)
    posteriors = rng.dirichlet(np.ones(3), size=(5, 7)).astype(np.float32)  # of each sub-model about each point
    member_of = np.array([2, -1, 0, 1, -1, 3, -1])
    answering = selena.draw_answering(selena.draw_non_models(4, 5, 1), member_of, 1)
    given = [posteriors[number, (answering == number).any(axis=1)] for number in range(5)]
    answers = selena.mean_answers(answering, given)
    for point in range(7):
        total = sum(posteriors[number, point] for number in answering[point])
        np.testing.assert_allclose(answers[point], total / 2, rtol=1e-6)
    points = np.arange(10, 17)
    members = selena.members_in_order(points, member_of)
    assert members.tolist() == [12, 13, 10, 15]
    selena.write(tmp_path / selena.FILE, {}, points=points, answers=answers)
    assert np.array_equal(selena.answers_about(tmp_path, {}, members), answers[[2, 3, 0, 5]])
    with pytest.raises(UserError, match="split_ai.npz lacks points that are asked now: delete .*, and make it again"):
        selena.answers_about(tmp_path, {}, np.array([12, 17]))


def test_split_ai_alone_tells_nobody_who_was_a_member():
    """Every sub-model is certain about what it was trained on and guesses about the rest."""
    rng = np.random.default_rng(0)
    points, members = 4000, 2000
    non_models = selena.draw_non_models(members, 5, 0)
    member_of = np.r_[np.arange(members), np.full(points - members, -1)]
    answering = selena.draw_answering(non_models, member_of, 0)
    sure = rng.uniform(0.3, 0.6, size=(5, points))
    for number in range(5):
        sure[number, :members][selena.members_of(non_models, number)] = 0.99
    given = [sure[number, (answering == number).any(axis=1)][:, None] for number in range(5)]
    answer = selena.mean_answers(answering, given)[:, 0]
    above = np.searchsorted(np.sort(answer[members:]), answer[:members]).mean() / (points - members)
    assert above == pytest.approx(0.5, abs=0.03)
    naive = sure.mean(axis=0)  # all sub-models answer about everything: that gives members away
    assert naive[:members].min() > naive[members:].max()


@pytest.fixture(scope="module")
def trainings():
    """The inputs and labels of each training of the run's victim, by the file in which its state is kept."""
    return []


@pytest.fixture(scope="module")
def run(tmp_path_factory, trainings):
    """A run of which one sub-model was made apart and the training was stopped in a later one, then went on."""
    root = tmp_path_factory.mktemp("selena")
    flags = [*NETWORK, "--root", str(root), *SELENA]
    fit = loop.fit

    def note_and_fit(model, inputs, labels, *args, resume, **options):
        if resume.parent.name == VICTIM:
            trainings.append((resume.stem, inputs.numpy(), labels.numpy()))
        return fit(model, inputs, labels, *args, resume=resume, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compleak.training.make.fit", note_and_fit)
        train.main([*flags, *SMALL, "--roles", VICTIM, "--part", "2"])
        with stopped_in(1):
            train.main([*flags, *SMALL])
        train.main([*flags, *SMALL])
    return open_run(train.parse(flags).run)


def stored(run):
    folder = run.role_dir(ORIGINAL, VICTIM)
    return selena.read(folder / selena.FILE, checkpoints.load_meta(folder)["made_from"])


def test_no_sub_model_was_trained_on_a_member_that_lists_it_and_the_student_learnt_from_the_others(run, trainings):
    split_ai = stored(run)
    names = [name for name, _, _ in trainings]
    assert names == ["resume_3", "resume_1", "resume_1", "resume_2", "resume_4", "resume"]  # one part, a stop, the rest
    data, members = dataset(run), assign(run, ORIGINAL, VICTIM).members
    for number, (_, inputs, labels) in enumerate([trainings[place] for place in (2, 3, 0, 4)]):
        seen = members[[number not in lists for lists in split_ai["non_models"]]]
        assert np.array_equal(inputs, data.images[seen]) and np.array_equal(labels, data.labels[seen])
    targets = split_ai["answers"][np.searchsorted(split_ai["points"], members)]
    assert np.array_equal(trainings[-1][1], data.images[members]) and np.array_equal(trainings[-1][2], targets)


def test_the_student_sees_augmented_images_and_learns_the_answers_about_the_plain_ones(tmp_path, monkeypatch):
    """Each sub-model is kept as it was trained, and asked about the plain images once more."""
    fit, trained = loop.fit, []

    def note_and_fit(model, inputs, targets, *args, **options):
        seen = []
        hook = model.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
        loss = fit(model, inputs, targets, *args, **options)
        hook.remove()
        trained.append((model, torch.cat(seen), targets.numpy()))
        return loss

    monkeypatch.setattr("compleak.training.make.fit", note_and_fit)
    flags = [*NETWORK, "--root", str(tmp_path), *SELENA]
    train.main([*flags, "--max_points", "24", "--epochs", "1", "--batch_size", "16", "--roles", VICTIM])
    run = open_run(train.parse(flags).run)
    data, members = dataset(run), assign(run, ORIGINAL, VICTIM).members
    plain = data.kind.to_input(torch.from_numpy(data.images[members]))
    *sub_models, (_, seen, targets) = trained
    is_plain = [any(torch.equal(image, other) for other in plain) for image in seen]
    assert len(is_plain) == 24 and sum(is_plain) < 4  # one crop in 81 is the image itself
    posteriors = [predict(model.eval(), plain).softmax(dim=1).numpy() for model, _, _ in sub_models]
    for place, lists in enumerate(stored(run)["non_models"]):
        answer = sum(posteriors[number][place] for number in lists) / len(lists)
        np.testing.assert_allclose(targets[place], answer, rtol=1e-4)


def test_the_file_says_who_was_trained_on_what_and_the_weights_of_sub_models_are_gone(run):
    split_ai = stored(run)
    assert split_ai["non_models"].shape == (24, 2) and split_ai["trained_on"].shape == (4, 24)
    for member, lists in enumerate(split_ai["non_models"]):
        assert np.array_equal(np.flatnonzero(~split_ai["trained_on"][:, member]), np.sort(lists))
    np.testing.assert_allclose(split_ai["answers"].sum(axis=1), 1, rtol=1e-5)
    assert {file.name for file in run.role_dir(ORIGINAL, VICTIM).iterdir()} == {"model.pt", "meta.json", selena.FILE}
    shadow = run.role_dir(ORIGINAL, "shadow_model_0")
    assert not (shadow / selena.FILE).exists()  # the attacker knows of no defence


def test_a_compressed_version_learns_from_the_stored_answers_alone(run, monkeypatch):
    learnt = []
    monkeypatch.setattr("compleak.training.make.fit", lambda *args, **options: learnt.append(args) or 0.0)
    variant = compressed_variant("pruning", "0.8")
    flags = [*NETWORK, "--root", str(run.root), *SELENA, "--roles", VICTIM]
    prune.main([*flags, "--prune_epochs", "1", "--prune_sparsity", variant.degree])
    split_ai, members = stored(run), assign(run, ORIGINAL, VICTIM).members
    (_, inputs, targets, *_), *others = learnt
    assert not others and len(members) == 24
    np.testing.assert_array_equal(inputs.numpy(), dataset(run).images[members])
    np.testing.assert_array_equal(targets.numpy(), split_ai["answers"][np.searchsorted(split_ai["points"], members)])


def test_targets_go_by_points_and_not_by_the_order_in_which_the_members_stood_before(tmp_path):
    """The members stood in the order 4, 2, 9 when Split-AI was made, and stand in the order 9, 4, 2 now."""
    points, answers = np.array([2, 3, 4, 9]), np.array([[0.2], [0.3], [0.4], [0.9]], dtype=np.float32)
    selena.write(tmp_path / selena.FILE, {}, points=points, answers=answers, member_of=np.array([1, -1, 0, 2]))
    learnt = []
    trainer = Trainer(
        train=lambda model, pair: learnt.append(pair) or {},
        forget=None,
        foreign_states=None,
        new_network=None,
        ask=None,
        points=points,
        member_of=np.array([2, -1, 1, 0]),
        folder=tmp_path,
        identity={},
        is_original=False,
    )
    selena.distil(trainer, None, (torch.tensor([9, 4, 2]), torch.zeros(3)), None, argument=4, seed=0)
    np.testing.assert_array_equal(learnt[0][1].numpy()[:, 0], answers[[3, 2, 0], 0])


def test_undefended_fine_tuning_copies_the_original_with_its_answers_and_learns_true_labels(run, monkeypatch):
    learnt = []
    monkeypatch.setattr("compleak.training.make.fit", lambda *args, **options: learnt.append(args) or 0.0)
    flags = [*NETWORK, "--root", str(run.root), *SELENA, "--undefended_finetuning"]
    train.main([*flags, *SMALL, "--roles", VICTIM])
    copied = open_run(train.parse(flags).run)
    original = run.role_dir(ORIGINAL, VICTIM) / selena.FILE
    assert not learnt and (copied.role_dir(ORIGINAL, VICTIM) / selena.FILE).read_bytes() == original.read_bytes()
    prune.main([*flags, "--prune_epochs", "1", "--prune_sparsity", "0.8", "--roles", VICTIM])
    members = assign(copied, ORIGINAL, VICTIM).members
    np.testing.assert_array_equal(learnt[0][2].numpy(), dataset(copied).labels[members])


def test_split_ai_can_be_audited_and_another_defence_is_refused(run, tmp_path):
    flags = [*NETWORK, "--root", str(run.root), *SELENA]
    query.main([*flags, "--split_ai", "--sensitivity_draws", "1"])
    audited = signals_file.load(run.dir / "split_ai_signals.npz")
    student = signals_file.load(run.signals_file(ORIGINAL))
    split_ai = stored(run)
    places = np.searchsorted(split_ai["points"], signals_file.points(run.signals_file(ORIGINAL)))
    np.testing.assert_allclose(np.exp(audited.logits[0]), split_ai["answers"][places], rtol=1e-5)
    assert np.array_equal(audited.logits[1], student.logits[1]) and np.array_equal(audited.member, student.member)
    CompLeakNR.main(
        ["--signals", str(run.dir / "split_ai_signals.npz"), "--attacks", "yeom2018", "--out", str(tmp_path)]
    )
    assert (tmp_path / "NR.csv").exists()
    for defence in ([], ["--defend", "label_smoothing"]):
        other = [*NETWORK, "--root", str(tmp_path), *defence]
        train.main([*other, *SMALL, "--roles", VICTIM])
        with pytest.raises(UserError, match="--split_ai is for runs of --defend selena, and digits_.* is none"):
            query.main([*other, "--split_ai"])


def test_where_split_ais_answers_are_missing_no_model_is_asked(tmp_path):
    flags = [*NETWORK, "--root", str(tmp_path), *SELENA]
    train.main([*flags, *SMALL, "--epochs", "1"])
    run = open_run(train.parse([*flags, *SMALL]).run)
    (run.role_dir(ORIGINAL, VICTIM) / selena.FILE).unlink()
    with pytest.raises(UserError, match="split_ai.npz is missing or damaged"):
        query.main([*flags, "--split_ai"])
    assert not run.signals_file(ORIGINAL).exists()


@pytest.mark.parametrize("ignored", [["--roles", VICTIM], ["--variants", "pruning_0.6"], ["--drop_weights"]])
def test_what_the_audit_of_split_ai_would_ignore_is_refused(ignored, capsys):
    with pytest.raises(SystemExit):
        query.parse([*NETWORK, *SELENA, "--split_ai", *ignored])
    assert f"leave out {ignored[0]}" in capsys.readouterr().err


def test_the_distances_of_the_adaptive_attack_are_those_of_a_literal_version():
    p, q = np.random.default_rng(0).dirichlet(np.ones(3), size=(2, 4))
    for point in range(4):
        entropy = -sum(q[point, c] * np.log(p[point, c]) for c in range(3))
        squares = sum((p[point, c] - q[point, c]) ** 2 for c in range(3))
        assert distance("cross_entropy", p, q)[point] == pytest.approx(entropy)
        assert distance("squared_difference", p, q)[point] == pytest.approx(squares)


@pytest.mark.parametrize("classifier", NETWORKS)
def test_the_networks_of_the_adaptive_attack_see_the_features_of_a_literal_version(classifier, monkeypatch):
    """Points 0 to 2 are known, so their first answer counts, in row 1; points 3 to 5 are judged, by their second."""
    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.ones(3), size=6)
    split_ai = rng.dirichlet(np.ones(3), size=(2, 6, 2))
    labels = np.array([0, 1, 2, 2, 1, 0])
    is_known = np.arange(6) < 3
    member = np.where(is_known, [1, 0, 1, 0, 0, 0], -1)
    audit = np.stack([~is_known, is_known])
    hidden = np.stack([np.full(6, -1), member]).astype(np.int8)
    logits = np.log(np.stack([p, p])).astype(np.float32)
    target = Signals(logits, labels, hidden, audit, {"split_ai": split_ai})
    given = []
    monkeypatch.setattr(dsq, "train_and_decide", lambda *args, **options: given.extend(args[2:]))
    selena_adaptive(target, classifier=classifier, seed=0, recipe="paper")

    def features(point, q):
        of_answers = [*p[point], *q] if classifier == "network_on_both" else [p[point, c] - q[c] for c in range(3)]
        return [*of_answers, *(float(labels[point] == c) for c in range(3))]

    fitted_on, member_of_known, applied_to = given
    np.testing.assert_allclose(fitted_on, [features(point, split_ai[1, point, 0]) for point in range(3)], atol=1e-6)
    np.testing.assert_allclose(applied_to, [features(point, split_ai[0, point, 1]) for point in (3, 4, 5)], atol=1e-6)
    assert member_of_known.tolist() == [1, 0, 1]


@pytest.mark.parametrize("nearer", [True, False])
def test_the_adaptive_attack_learns_from_known_points_whether_members_answer_nearer(nearer):
    """Row 1 holds the known points, which its first answer is about; row 0 the judged ones, with the second."""
    rng = np.random.default_rng(1)
    member = np.arange(400) % 2 == 0
    p, far = rng.dirichlet(np.ones(4), size=(2, 400))
    q = np.where((member == nearer)[:, None], 0.9 * p + 0.1 * far, far)
    known = np.arange(400) < 200
    split_ai = np.full((2, 400, 2, 4), np.nan)
    split_ai[:, known, 0], split_ai[:, ~known, 1] = q[known], q[~known]
    hidden = np.stack([np.full(400, -1), np.where(known, member, -1)]).astype(np.int8)
    logits = np.log(np.stack([p, p])).astype(np.float32)
    labels = np.zeros(400, dtype=np.int64)
    target = Signals(logits, labels, hidden, np.stack([~known, known]), {"split_ai": split_ai})
    for classifier in THRESHOLDS:
        result = selena_adaptive(target, classifier=classifier, seed=0)
        assert (result.decision == member[~known]).mean() > 0.75, classifier


def test_an_attacker_who_knows_half_trains_on_known_members_alone(run, tmp_path, monkeypatch):
    probes = []

    def note_probe(*args):
        records, refused = with_split_ai(*args)
        probes.extend(record.probes["split_ai"] for record in records.values())
        return records, refused

    monkeypatch.setattr("compleak.audits.attack_stage.with_split_ai", note_probe)
    monkeypatch.setattr(dsq, "LEAST_STEPS", 1)
    flags = [*NETWORK, "--root", str(run.root), *SELENA, "--original", "--attacks", "selena_adaptive"]
    CompLeakNR.main([*flags, "--sensitivity_draws", "1", "--attacker", "known_half", "--out", str(tmp_path)])
    rows = (tmp_path / "NR.csv").read_text()
    assert all(f",selena_adaptive,{classifier}," in rows for classifier in (*THRESHOLDS, *NETWORKS))
    members = set(assign(run, ORIGINAL, VICTIM).members)
    half = np.load(tmp_path / "NR_scores.npz")["half"]
    signals = run.signals_file(ORIGINAL)
    audited = signals_file.load(signals).audit[0]
    points = signals_file.points(signals)[audited]
    (probe,) = probes
    assert np.isnan(probe[1:]).all() and np.isnan(probe[0, ~audited]).all()
    for name, number in (("half_1", 0), ("half_2", 1)):
        with np.load(run.dir / f"attacker_split_ai_seed7_{name}" / selena.FILE) as split_ai:
            known = set(split_ai["points"][split_ai["member_of"] >= 0])
            answers = dict(zip(split_ai["points"], split_ai["answers"], strict=True))
        is_judged = half == np.unique(half)[number]
        assert len(known) == 12 and known < members and not known & set(points[is_judged])
        for point, both, judged in zip(points, probe[0, audited], is_judged, strict=True):
            np.testing.assert_array_equal(both[OTHER_HALF if judged else SAME_HALF], answers[point])


def test_the_attacker_of_selena_knows_half_of_the_members_that_are_not_audited_too(tmp_path, monkeypatch):
    """Neither Split-AI is trained here: the members that it would be trained on are noted."""
    known = []

    def note_members(training):
        folder = training.assignment.folder
        known.append(set(training.assignment.members))
        folder.mkdir()
        about_all = {"points": np.arange(1797), "answers": np.full((1797, 10), 0.1)}
        selena.write(folder / selena.FILE, training.trainer.identity, **about_all)

    monkeypatch.setattr("compleak.audits.attackers_split_ai.train_split_ai", note_members)
    flags = [*NETWORK, "--root", str(tmp_path)]
    train.main([*flags, "--epochs", "1", "--batch_size", "512", "--no_augment", "--roles", VICTIM])
    run = open_run(train.parse(flags).run)
    targets, file = targets_of(run), tmp_path / "signals.npz"
    answers = Answers(np.zeros((len(targets.points), 10), dtype=np.float32), {})
    signals_file.write(file, arrays_of(targets, dataset(run).labels, [answers, answers]), {})
    records = {file: signals_file.load(file)}
    attacker = attacker_of("known_half", records)
    chosen = [attack for attack in attacks.KNOWN["NR"] if attack.name == "selena_adaptive"]
    with_split_ai(as_known(attacker, records), run, attacker, chosen, 7, torch.device("cpu"))

    members, audited = set(targets.split.victim.train), set(targets.audit.victim.train)
    assert (len(members), len(audited)) == (599, 299)
    assert not known[0] & known[1] and known[0] | known[1] == members
    assert {len(each & audited) for each in known} == {149, 150}
    assert {len(each - audited) for each in known} == {150}
    audited_points = targets.points[targets.audited(0)]
    for half, each in zip(halves_of(attacker, records[file], 7), known, strict=True):
        assert each & audited == set(audited_points[half.known]) & members
    assert attacker.needs(chosen[0]) == "half of the members; posteriors; a Split-AI trained on half of all members"


@pytest.mark.parametrize(
    ("more", "points", "reason"),
    [
        (["--defend", "weight_decay", "--defend_lr", "3"], "24", r"this recipe \(lr 3\) is for --defend weight_decay"),
        (
            [],
            "12",
            "the attacker's Split-AI, which is trained with the settings of the victim's train.py, cannot be trained: "
            "SELENA's sub-model [0-9]+ gets . of 6 members",
        ),
    ],
)
def test_where_the_attackers_split_ai_cannot_be_had_its_rows_alone_are_left_out(tmp_path, more, points, reason, capsys):
    flags = [*NETWORK, "--root", str(tmp_path), *more]
    train.main([*flags, *SMALL, "--epochs", "1", "--max_points", points])
    attack = ["--original", "--attacker", "known_half", "--attacks", "gap,yeom2018,selena_adaptive"]
    CompLeakNR.main([*flags, *attack, "--sensitivity_draws", "1", "--out", str(tmp_path)])
    keys = [f"selena_adaptive/{classifier}" for classifier in (*THRESHOLDS, *NETWORKS)]
    assert re.search(f"left out {', '.join(keys)}: .*{reason}", capsys.readouterr().out)
    left_out = json.loads((tmp_path / "NR.json").read_text())["left_out"]
    assert list(left_out) == keys and all(re.search(reason, given) for given in left_out.values())
    assert "yeom2018" in (tmp_path / "NR.csv").read_text()


def test_what_is_in_the_way_of_the_second_half_is_refused_before_the_first_is_trained(tmp_path, monkeypatch):
    flags = [*NETWORK, "--root", str(tmp_path)]
    train.main([*flags, *SMALL, "--epochs", "1"])
    run = open_run(train.parse([*flags, *SMALL]).run)
    foreign = run.dir / "attacker_split_ai_seed7_half_2" / selena.FILE
    foreign.parent.mkdir()
    selena.write(foreign, {"epochs": 2}, answers=np.zeros(3))
    monkeypatch.setattr("compleak.training.make.fit", None)
    attack = ["--original", "--attacker", "known_half", "--attacks", "gap,selena_adaptive"]
    with pytest.raises(UserError, match="half_2/split_ai.npz was made with other settings .*: delete this one file"):
        CompLeakNR.main([*flags, *attack, "--sensitivity_draws", "1"])


def test_what_cannot_be_had_is_refused_before_anything_is_written(tmp_path):
    flags = [*NETWORK, "--root", str(tmp_path), *SMALL]
    for more, message in (
        (["--defend", "selena", "--defend_arg", "2.5"], "is the number of sub-models"),
        (["--defend", "selena", "--defend_arg", "25"], "more than a model's 24 members: give --defend_arg 24"),
        (["--defend", "selena", "--defend_arg", "1e6"], "is at most 1000"),
        ([*SELENA, "--part", "4"], "have the numbers 0 to 3"),
        ([*SELENA, "--undefended_original"], "does not go with --defend selena"),
        (["--defend", "ppb", "--part", "0"], "--part is for --defend selena"),
    ):
        with pytest.raises(UserError, match=message):
            train.main([*flags, *more])
    assert not list(tmp_path.rglob("*.*"))


def test_a_file_of_another_training_is_refused(tmp_path):
    selena.write(tmp_path / "a.npz", {"epochs": 1}, answers=np.zeros(3))
    with pytest.raises(UserError, match="made with other settings"):
        selena.read(tmp_path / "a.npz", {"epochs": 2})
    with pytest.raises(UserError, match="missing or damaged"):
        selena.read(tmp_path / "b.npz", {"epochs": 2})


def test_a_file_of_another_recipe_is_refused_by_name_before_anything_is_trained(tmp_path, monkeypatch):
    flags = [*NETWORK, "--root", str(tmp_path), *SELENA, *SMALL, "--roles", VICTIM]
    train.main([*flags, "--part", "3"])
    left = tmp_path / "results" / "digits_resnet18_w0.125_selena_4" / VICTIM / "split_ai_3.npz"
    monkeypatch.setattr("compleak.training.make.fit", None)
    for more in (["--part", "3"], []):
        with pytest.raises(UserError, match="split_ai_3.npz was made with other settings .*: delete this one file"):
            train.main([*flags, "--epochs", "1", *more])
    shutil.copy(left, left.with_name("split_ai_1.npz"))
    for more in (["--part", "3"], []):
        with pytest.raises(UserError, match="split_ai_1.npz split_ai_3.npz were made with .*: delete these files"):
            train.main([*flags, "--epochs", "1", *more])
    left.with_name("split_ai_1.npz").unlink()
    left.rename(left.with_name(selena.FILE))
    for more in (["--part", "0"], []):
        with pytest.raises(UserError, match="split_ai.npz was made with other settings .*: delete this one file"):
            train.main([*flags, "--epochs", "1", *more])


def test_one_refusal_names_all_that_another_training_left_before_anything_is_trained(tmp_path, monkeypatch):
    flags = [*NETWORK, "--root", str(tmp_path), *SELENA, *SMALL, "--roles", VICTIM]
    train.main([*flags, "--part", "3"])
    with stopped_in(1):
        train.main([*flags, "--part", "2"])
    folder = tmp_path / "results" / "digits_resnet18_w0.125_selena_4" / VICTIM
    shutil.copy(folder / "resume_3.pt", folder / "resume.pt")  # as if the student's training had been stopped
    monkeypatch.setattr("compleak.training.make.fit", None)
    for more in (["--part", "2"], []):
        with pytest.raises(UserError, match="split_ai_3.npz resume.pt resume_3.pt were made with .*: delete these"):
            train.main([*flags, "--epochs", "1", *more])


def test_a_state_that_a_kill_left_behind_a_finished_sub_model_is_deleted(tmp_path):
    flags = [*NETWORK, "--root", str(tmp_path), *SELENA, *SMALL, "--roles", VICTIM]
    with stopped_in(1):
        train.main([*flags, "--part", "2"])
    left = tmp_path / "results" / "digits_resnet18_w0.125_selena_4" / VICTIM / "resume_3.pt"
    state = left.read_bytes()
    train.main([*flags, "--part", "2"])
    left.write_bytes(state)
    train.main([*flags, "--part", "2"])
    assert left.with_name("split_ai_2.npz").exists() and not left.exists()


def test_of_two_processes_that_make_one_split_ai_the_later_takes_what_the_earlier_made(tmp_path, monkeypatch):
    """While one trains its last sub-model, the other joins all answers and deletes their files."""
    flags = [*NETWORK, "--root", str(tmp_path), *SELENA, *SMALL, "--roles", VICTIM]
    make_sub_model = selena.make_sub_model

    def make_while_another_makes_all(trainer, members, number, **options):
        make_sub_model(trainer, members, number, **options)
        if number == 3:
            last = selena.sub_model_files(trainer.folder, 4)[3]
            content = last.read_bytes()
            monkeypatch.setattr(selena, "make_sub_model", make_sub_model)
            selena.make_split_ai(trainer, members, **options)
            last.write_bytes(content)

    monkeypatch.setattr(selena, "make_sub_model", make_while_another_makes_all)
    train.main(flags)
    folder = tmp_path / "results" / "digits_resnet18_w0.125_selena_4" / VICTIM
    assert {file.name for file in folder.iterdir()} == {"model.pt", "meta.json", selena.FILE}


def test_a_sub_model_whose_weights_are_no_longer_finite_is_refused(tmp_path, monkeypatch):
    def ruin(model, *args, **options):
        torch.nn.init.constant_(next(model.parameters()), torch.inf)
        return 1.0

    monkeypatch.setattr("compleak.training.make.fit", ruin)
    with pytest.raises(UserError, match="sub-model 2, training 3: .* is no longer finite after training: lower --lr"):
        train.main([*NETWORK, "--root", str(tmp_path), *SELENA, *SMALL, "--roles", VICTIM, "--part", "2"])
    assert not list(tmp_path.rglob("*.npz"))


def test_a_model_that_is_not_defended_has_no_parts_and_says_so(tmp_path, capsys):
    flags = [*NETWORK, "--root", str(tmp_path), *SELENA, *SMALL]
    train.main([*flags, "--part", "0", "--roles", "shadow_model_0"])
    assert "not defended without --adaptive, so there is no part to make" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.npz"))


def test_a_plan_trains_sub_models_of_defended_roles_side_by_side(tmp_path):
    plan = PlanSettings(run=RunSettings(dataset_name="digits", root=tmp_path, defence=DefenceSettings("selena", 5.0)))
    victim = list(model_stages(plan, VICTIM))
    parts = [stage for stage in victim if stage.key.kind == "part"]
    assert [stage.settings.part for stage in parts] == [0, 1, 2, 3, 4]
    assert len({stage.needs for stage in parts}) == 1  # none waits for another
    student = victim[len(parts)]
    assert set(student.needs) > {stage.key for stage in parts} and str(parts[3].key) == "part victim_model 3"
    assert not [stage for stage in model_stages(plan, "shadow_model_0") if stage.key.kind == "part"]
    adaptive = plan.with_run(defence=DefenceSettings("selena", 5.0, adaptive=True))
    part = next(
        stage for stage in joined_stages([plan, adaptive]) if stage.key == parts[0].key._replace(run=adaptive.name)
    )
    assert student.key in part.needs  # it copies the whole model and trains nothing


def test_a_sub_model_that_would_leave_out_nobody_is_refused_before_any_is_trained():
    non_models = np.array([[0], [1], [2], [0]])  # of four sub-models: nobody leaves out number 3
    selena.check_draw(non_models, 3)
    with pytest.raises(UserError, match="sub-model 3 gets 4 of 4 members"):
        selena.check_draw(non_models, 4)
    with pytest.raises(UserError, match="sub-model 0 gets 1 of 4 members"):
        selena.check_draw(np.array([[0], [0], [0], [1]]), 2)
