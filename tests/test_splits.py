"""Who was trained on what: disjointness, balance, and index files that cannot harm."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import NETWORK
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import train
from compleak.runs import places
from compleak.runs.create import create_run
from compleak.runs.run import split as split_of
from core.errors import UserError
from data import index_files, splits


@given(n=st.integers(30, 400), shadows=st.integers(1, 4), seed=st.integers(0, 9), limit=st.none() | st.integers(2, 40))
def test_victim_and_pool_are_disjoint_and_every_model_has_its_own_members(n, shadows, seed, limit):
    split = splits.make_split(n, shadows, seed, limit)
    splits.check_split(split, n, "made")
    assert not set(np.concatenate(split.victim)) & set(split.pool)
    for pair in split.pairs:
        assert not set(pair.train) & set(pair.test)
        assert limit is None or max(map(len, pair)) <= limit


def test_the_split_has_the_protocols_shares():
    split = splits.make_split(60_000, 2, seed=7)
    assert [len(index) for index in split.victim] == [20_000, 10_000]
    assert all([len(index) for index in pair] == [20_000, 10_000] for pair in split.shadows)
    assert len(split.pool) == 30_000
    audit = splits.make_audit(split, seed=7)
    assert all([len(index) for index in pair] == [10_000, 10_000] for pair in audit.pairs)


def test_more_shadows_leave_the_earlier_ones_as_they_were():
    few = splits.make_split(300, 1, seed=7)
    many = splits.make_split(300, 3, seed=7)
    assert all(
        np.array_equal(a, b) for p, q in zip(few.pairs, many.pairs, strict=False) for a, b in zip(p, q, strict=True)
    )


@given(seed=st.integers(0, 50))
def test_audit_sets_are_balanced_parts_of_the_split(seed):
    split = splits.make_split(120, 2, seed)
    audit = splits.make_audit(split, seed)
    splits.check_audit(audit, split, "made")
    for part, whole in zip(audit.pairs, split.pairs, strict=True):
        assert len(part.train) == len(part.test)
        assert set(part.train) <= set(whole.train) and set(part.test) <= set(whole.test)


def test_an_index_file_of_the_authors_can_be_used(tmp_path):
    file = tmp_path / "index.pkl"
    file.write_bytes(pickle.dumps([[0, 1, 2], [3, 4], [([5, 6], [7, 8])]]))
    split, audit = splits.load_or_make(file, tmp_path / "audit.pkl", 20, shadow_num=1, seed=7, max_points=None)
    assert split.victim.train.tolist() == [0, 1, 2] and split.shadows[0].test.tolist() == [7, 8]
    index_files.write_index(tmp_path / "audit.pkl", audit.pairs)
    victim_train, victim_test, shadows = pickle.loads((tmp_path / "audit.pkl").read_bytes())
    assert len(victim_train) == len(victim_test) == 2 and len(shadows) == 1


def test_an_overlap_of_victim_and_pool_is_refused(tmp_path):
    file = tmp_path / "index.pkl"
    file.write_bytes(pickle.dumps([[0, 1], [2, 3], [([4, 0], [5, 6])]]))
    with pytest.raises(UserError, match="overlap"):
        splits.load_or_make(file, tmp_path / "audit.pkl", 12, shadow_num=1, seed=7, max_points=None)


@given(n=st.integers(12, 80), shadows=st.integers(1, 3), limit=st.none() | st.integers(2, 9))
def test_every_audit_set_has_two_members_and_two_others_at_least(n, shadows, limit):
    audit = splits.make_audit(splits.make_split(n, shadows, 7, limit), 7)
    assert min(len(index) for pair in audit.pairs for index in pair) >= splits.LEAST


@pytest.mark.parametrize(
    ("n", "limit", "says"),
    [
        (6, None, "6 points are too few to split: at least 12 are needed"),
        (11, None, "11 points are too few"),
        (11, 1, "11 points are too few"),
        (100, 1, "--max_points 1 is too small: every model needs 2 members"),
    ],
)
def test_too_few_points_for_an_audit_are_refused_when_they_are_split(n, limit, says):
    with pytest.raises(UserError, match=says):
        splits.make_split(n, 1, 7, limit)


@pytest.mark.parametrize(
    ("split", "audit", "says"),
    [
        ([[0, 1], [2], [([4, 5], [6, 7])]], None, "model 0 has 2 members and 1 non-members, .* at least 2 of each"),
        ([[0, 1], [2, 3], [([4], [6, 7])]], None, "model 1 has 1 members"),
        ([[0, 1], [2, 3], [([4, 5], [6, 7])]], [[0], [2], [([4], [6])]], "audit set of model 0 has 1 members"),
        ([[0, 1, 8], [2, 3], [([4, 5], [6, 7])]], [[0, 1, 8], [2, 3], [([4], [6])]], "has 3 members and 2 non"),
    ],
)
def test_index_files_of_too_few_points_are_refused(tmp_path, split, audit, says):
    files = tmp_path / "index.pkl", tmp_path / "audit.pkl"
    for file, content in zip(files, (split, audit), strict=True):
        if content:
            file.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=says):
        splits.load_or_make(*files, 12, shadow_num=1, seed=7, max_points=None)


def test_a_run_of_too_few_images_ends_before_anything_is_trained(tmp_path):
    for i in range(6):
        folder = tmp_path / "images" / "train" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (32, 32), 20 * i).save(folder / f"{i}.png")
    flags = ["--dataset_name", "mine", "--data_dir", str(tmp_path / "images"), "--root", str(tmp_path / "root")]
    with pytest.raises(UserError, match="6 points are too few to split"):
        train.main(flags)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(("limit", "shadows"), [(None, 1), (None, 2), (20, 1)])
def test_a_split_of_other_data_of_the_same_name_is_refused(tmp_path, limit, shadows):
    file = tmp_path / "index.pkl"
    index_files.write_index(file, splits.make_split(200, 1, seed=7, max_points=limit).pairs)
    with pytest.raises(
        UserError, match="index.pkl is no split of this data set's 600 points.*: .*give the data another"
    ):
        splits.load_or_make(file, tmp_path / "audit.pkl", 600, shadow_num=shadows, seed=7, max_points=limit)


class Harmful:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize(
    "content",
    [
        Harmful(),
        [[Harmful()], [1], []],
        [np.array([Harmful()]), [1], []],
        [[0.5], [1], []],
        [[True], [1], []],
        [[np.True_], [1], []],
        [np.array([0.5]), [1], []],
        [np.array([[1]]), [1], []],
        [np.array(["1"]), [1], []],
        [np.array([1])],
        [[1], [2], [3], [4], []],
        [[1], [2], [([3], [4], [5])]],
        [[1], [2], [3], [([4], [5])]],
        ["ab", [1], []],
        {"a": 1},
        np.arange(3),
        torch.arange(3),
    ],
)
@pytest.mark.parametrize("protocol", [2, 5])
def test_an_index_file_of_anything_but_integers_is_refused_and_runs_no_code(tmp_path, capsys, content, protocol):
    file = tmp_path / "index.pkl"
    file.write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(UserError, match=r"index.pkl is not a split index .*save it as a pickle of \[victim_train"):
        index_files.read_index(file)
    assert "executed" not in capsys.readouterr().out


AUTHORS = [[0, 1, 2], [3, 300, 4], [([5, 6], [7, 8]), ([7, 8], [5, 6])]]


def converted(convert):
    train, test, shadows = AUTHORS
    return [convert(train), convert(test), [tuple(map(convert, shadow)) for shadow in shadows]]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "convert",
    [
        np.array,
        lambda index: np.array(index, dtype=">i4"),
        lambda index: np.array(index, dtype=np.uint16),
        lambda index: np.repeat(index, 2)[::2],  # not contiguous
        lambda index: [np.int64(i) for i in index],
        lambda index: [np.uint16(i) for i in index],
        tuple,
    ],
)
@pytest.mark.parametrize("numpy_name", [b"numpy._core", b"numpy.core"])
def test_numpy_integers_in_an_index_file_are_read_like_ints(tmp_path, convert, protocol, numpy_name):
    for name, content in (("ints", AUTHORS), ("other", converted(convert))):
        (tmp_path / name).write_bytes(pickle.dumps(content, protocol))
    if protocol < 4:  # later protocols write the length before each name
        (tmp_path / "other").write_bytes((tmp_path / "other").read_bytes().replace(b"numpy._core", numpy_name))
    ints, other = (index_files.read_index(tmp_path / name) for name in ("ints", "other"))
    assert all(np.array_equal(a, b) for p, q in zip(ints, other, strict=True) for a, b in zip(p, q, strict=True))
    assert all(index.dtype == np.int64 for pair in other for index in pair)


def test_an_index_file_of_mia_prune_is_read_without_its_validation_points(tmp_path, capsys):
    file = tmp_path / "index.pkl"
    file.write_bytes(pickle.dumps([[0, 1, 2], [9, 10], [3, 4], [[[5, 6], [11], [7, 8]]]]))
    split, _ = splits.load_or_make(file, tmp_path / "audit.pkl", 20, shadow_num=1, seed=7, max_points=None)
    assert [[index.tolist() for index in pair] for pair in split.pairs] == [[[0, 1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert "its validation points are left out" in capsys.readouterr().out


@pytest.mark.parametrize("content", [converted(np.array), [[0, 1], [9], [3, 4], [[[5, 6], [11], [7, 8]]]]])
def test_a_users_index_file_is_never_overwritten(tmp_path, content):
    file = tmp_path / "index.pkl"
    file.write_bytes(pickle.dumps(content))
    before = file.read_bytes()
    index_files.write_index(file, index_files.read_index(file))
    assert file.read_bytes() == before


def test_a_truncated_index_file_is_named(tmp_path):
    file = tmp_path / "index.pkl"
    index_files.write_index(file, splits.make_split(60, 1, seed=7).pairs)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match="index.pkl is not a split index"):
        index_files.read_index(file)


def test_a_split_is_read_once_in_a_process_and_again_when_its_file_changes(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(splits, "check_split", lambda split, *_: read.append(split))
    run = create_run(train.parse([*NETWORK, "--root", str(tmp_path), "--shadow_num", "2"]))
    more, _ = split_of(run)
    fewer, _ = split_of(replace(run, config={**run.config, "shadow_num": 1}))
    assert len(more.pairs) == 3 and len(fewer.pairs) == 2
    before = len(read)
    known = split_of(run)[0].victim.train
    assert split_of(run)[0].victim.train is known and len(read) == before + 1
    file, _ = places.index_files(tmp_path, run.config["split"])
    index_files.write_index(file, [pair._replace(train=pair.train[::-1]) for pair in read[-1].pairs])
    assert split_of(run)[0].victim.train.tolist() == known.tolist()[::-1]


def test_the_layout_of_selena_has_the_sizes_of_its_paper_and_shadow_models_on_the_reference_points():
    for n, members, references in ((197_324, 19_732, 29_599), (67_330, 10_000, 20_199), (1000, 100, 150)):
        split = splits.make_split(n, 2, 5, layout="selena")
        assert [len(index) for index in split.victim] == [members, n - members - references]
        assert len(split.pool) == references and not np.intersect1d(split.pool, np.concatenate(split.victim)).size
        assert all(abs(len(pair.train) - len(pair.test)) <= 1 for pair in split.shadows)
    limited = splits.make_split(1000, 1, 5, 40, layout="selena")
    assert [len(index) for index in limited.victim] == [40, 40] and len(limited.pool) == 80


def test_the_shadow_models_of_the_online_layout_are_drawn_from_all_points_each_with_the_same_chance():
    split = splits.make_split(1200, 30, 5, layout="online")
    assert np.array_equal(split.victim.train, splits.make_split(1200, 1, 5).victim.train)
    assert all([len(pair.train), len(pair.test)] == [400, 200] for pair in split.shadows)
    assert len(split.pool) == 1200
    trained = np.array([np.isin(np.arange(1200), pair.train) for pair in split.shadows])
    of_victim, of_attacker = trained[:, split.victim.train], trained[:, split_complement(split)]
    assert abs(of_victim.mean() - 1 / 3) < 0.02 and abs(of_attacker.mean() - 1 / 3) < 0.02
    assert np.array_equal(splits.make_split(1200, 2, 5, layout="online").shadows[1].train, split.shadows[1].train)
    splits.check_split(split, 1200, "made", "online")
    with pytest.raises(UserError, match="overlap"):
        splits.check_split(split, 1200, "made")


def split_complement(split):
    """The points that the victim has nothing to do with."""
    return np.setdiff1d(split.pool, np.concatenate(split.victim))


def test_an_online_split_of_fewer_points_is_not_taken_for_one_of_this_data(tmp_path):
    files = tmp_path / "index.pkl", tmp_path / "audit.pkl"
    options = {"shadow_num": 4, "seed": 5, "max_points": None, "layout": "online"}
    split, _ = splits.load_or_make(*files, 1000, **options)
    index_files.write_index(files[0], split.pairs)
    assert splits.load_or_make(*files, 1000, **options)[0].victim.train.tolist() == split.victim.train.tolist()
    with pytest.raises(UserError, match="is no split of this data set's 1200 points"):
        splits.load_or_make(*files, 1200, **options)
