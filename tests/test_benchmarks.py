"""The benchmark: its table, the signals that attacks are timed on, and the GPU session."""

import json
import os
import subprocess
import sys
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT

from attacks.common.statistics import cross_entropy
from benchmarks import attack_stage, bench, gpu_check, measure, paper, peers, synthetic
from benchmarks import sensitivity as needed_draws
from compleak.audits import metrics
from compleak.queries import signals_file
from compleak.queries.sensitivity import sensitivity
from compleak.queries.subject import Subject
from compleak.training.evaluate import predict
from data.inputs import FEATURES

CPU = torch.device("cpu")
SESSION = ROOT / "benchmarks" / "gpu_session.sh"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The table of the whole benchmark, run on the CPU at tiny sizes, and the table's file."""
    folder = tmp_path_factory.mktemp("benchmarks")
    bench.main(["--quick", "--device", "cpu", "--out", str(folder)])
    (file,) = folder.glob("*.csv")
    return bench.read(file), file


def test_every_section_is_measured_with_finite_numbers_and_budgets(table):
    rows, file = table
    assert file.name.endswith("-threads-quick.csv")
    assert set(rows["section"]) == set(bench.SECTIONS) - {"gpu"}
    assert np.isfinite(rows["value"]).all() and (rows["value"] > 0).sum() > 25
    budgets = rows.set_index("what")["budget"].dropna()
    assert budgets["overhead of the loop"] == 5 and budgets["QAT step"] == 1.5 and budgets["NR: rmia"] == 1
    assert set(rows.loc[rows["budget"].notna(), "met"]) <= {"yes", "no"}
    assert (rows.loc[rows["budget"].notna(), "met"] == "yes").equals(
        (rows["value"] <= rows["budget"])[rows["budget"].notna()]
    )


def test_the_markdown_page_names_the_machine_the_versions_and_every_row(table):
    rows, file = table
    text = file.with_suffix(".md").read_text()
    assert text.startswith("# Benchmarks: ") and f"torch {torch.__version__.split('+')[0]}" in text
    assert all(f"| {what} |" in text for what in rows["what"]) and text.count("\n|") == len(rows) + 2


def test_measuring_a_section_again_replaces_only_its_rows_and_resume_skips_it(table, capsys):
    rows, file = table
    flags = ["--quick", "--device", "cpu", "--out", str(file.parent), "--only", "disk"]
    again = bench.main(flags)
    assert again["what"].tolist() == rows["what"].tolist()
    bench.main([*flags, "--resume"])
    assert "disk on cpu: measured before" in capsys.readouterr().out


def test_a_table_of_something_else_is_refused(tmp_path):
    file = tmp_path / f"{bench.slug(CPU, True)}.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(bench.UserError, match="is not a table of this benchmark"):
        bench.main(["--quick", "--device", "cpu", "--out", str(tmp_path), "--only", "disk"])


def test_when_a_section_fails_the_others_are_still_measured(tmp_path, monkeypatch):
    def run_out_of_memory(size, device):
        raise RuntimeError("out of memory")

    monkeypatch.setitem(bench.SECTIONS, "kmeans", run_out_of_memory)
    with pytest.raises(bench.UserError, match="kmeans on cpu failed: out of memory"):
        bench.main(["--quick", "--device", "cpu", "--out", str(tmp_path), "--only", "kmeans", "disk"])
    assert len(list(tmp_path.glob("*.csv"))) == 1


def test_a_section_gives_the_same_rows_in_its_own_process():
    apart = bench.run_section("disk", measure.QUICK_SIZE, CPU, apart=True)
    here = bench.run_section("disk", measure.QUICK_SIZE, CPU, apart=False)
    assert [(row.what, row.value) for row in apart[:-1]] == [(row.what, row.value) for row in here[:-1]]


def test_every_form_of_training_two_models_at_once_has_a_row(tmp_path):
    rows = bench.main(["--quick", "--device", "cpu", "--out", str(tmp_path), "--only", "gpu"])
    ran = rows[~rows["note"].str.startswith("cannot run here")]
    assert np.isfinite(ran["value"]).all()
    for form in ("one after the other", "a process each", "a thread and a stream each", "stacked, norms in fp32"):
        assert f"2 models, {form}" in ran["what"].tolist()


def test_jobs_take_turns_and_the_first_round_is_not_counted():
    order = []
    seconds = measure.time_in_turns({name: lambda name=name: order.append(name) for name in "ab"}, 3, CPU, "test")
    assert "".join(order) == "baabbaab"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


def test_a_row_is_the_median_with_its_extremes_and_says_whether_the_budget_is_met():
    row = measure.median_row("step", [1.0, 5.0, 2.0], "s", budget=2)
    assert (row.value, row.low, row.high, row.met) == (2, 1, 5, "yes")
    assert row._replace(value=2.1).met == "no" and row._replace(budget=None).met == ""
    assert measure.median_row("step", [float("nan")], "s", budget=2).met == "no"


def test_the_time_of_the_paper_preset_is_computed_from_the_measured_rows():
    values = {"train.py's loop": 1000, "pruned step": 1, "QAT step": 2, "clustered step": 1, "logits (ask)": 10_000}
    values |= {"sensitivity, 10 draws": 1000, attack_stage.STAGE: 100}
    rows = [measure.Row(what, value, "") for what, value in values.items()]
    seconds = {row.what: row.value for row in paper.estimate_preset(rows, CPU)}
    assert seconds["paper preset: training and compression"] == 2 * 20_000 * (100 + 30 * 9) / 1000
    assert seconds["paper preset: signals"] == 9 * 2 * (50_000 / 10_000 + 20_000 / 1000)
    assert seconds["paper preset in all"] == sum(seconds.values()) / 2
    assert paper.estimate_preset(rows[1:], CPU) == []


def losses(world, row):
    """A model's losses on its audit set."""
    return cross_entropy(world.logits[row, world.audit[row]], world.labels[world.audit[row]])


@pytest.mark.parametrize(("leak", "auc"), [(synthetic.LEAK, 0.8), (0.0, 0.5)])
def test_synthetic_signals_leak_as_much_as_stated(leak, auc):
    world = synthetic.make_world(2000, leak=leak)
    for row in (0, 1):
        member = world.member[row, world.audit[row]]
        assert member.sum() == 2000 and len(member) == 4000
        assert metrics.auc(-losses(world, row), member) == pytest.approx(auc, abs=0.025)


def test_synthetic_signals_share_difficulty_between_models_and_answers_between_variants(tmp_path):
    files = synthetic.write(tmp_path, ["original", "compressed"], 500)
    original, compressed = (signals_file.load(file) for file in files)
    signals_file.same_points([original, compressed], ["original", "compressed"])
    assert original.logits.shape == (2, 2500, 10) and original.probes["sensitivity"].shape == (2, 2500, 10)
    outsiders = ~original.member.any(axis=0)
    loss = cross_entropy(original.logits, original.labels)
    assert np.corrcoef(loss[:, outsiders])[0, 1] > 0.7
    other = cross_entropy(compressed.logits, compressed.labels)
    assert np.corrcoef(loss[0], other[0])[0, 1] > 0.8 and not np.array_equal(loss, other)
    assert not (original.member[0] & original.audit[1]).any()


def run_session(*arguments, **settings):
    env = {**os.environ, "OMP_NUM_THREADS": "1", **{key: str(value) for key, value in settings.items()}}
    return subprocess.run([SESSION, *map(str, arguments)], env=env, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ([], {}, "the folder for the results is missing"),
        (["--preset"], {}, "the folder for the results is missing"),
        (["OUT"], {"LIMIT": "long"}, "LIMIT is long"),
        (["OUT"], {"PYTHON": "nosuchpython"}, "PYTHON is nosuchpython"),
        (["/dev/null/out"], {}, "/dev/null/out cannot be made"),
    ],
)
def test_a_gpu_session_that_is_called_wrongly_says_so_in_one_line(arguments, settings, message, tmp_path):
    arguments = [str(tmp_path) if argument == "OUT" else argument for argument in arguments]
    done = run_session(*arguments, ROOT=tmp_path / "root", **settings)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("further", "kept"), [([], "signals"), (["--defences", "ppb:4"], "all"), (["--early_stopping"], "all")]
)
def test_a_gpu_session_keeps_weights_only_where_runs_share_them(further, kept, tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/usr/bin/env bash\n[[ $1 != -c ]] || exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    done = run_session(tmp_path / "out", "--preset", "smoke", *further, ROOT=tmp_path / "root", PYTHON=python, LIMIT=60)
    flags = done.stdout.splitlines()[0].split()
    assert ("--keep" in flags) == (kept == "signals") and "--no_attacks" in flags, done.stderr


FAKE_PYTHON = """#!/usr/bin/env bash
# stands in for Python: `models` takes too long in its first call, `check` fails, and the answers appear at once
case "$*" in
*gpu_check.py*) exit 1 ;;
*reproduce.py*)
    mkdir -p $ROOT/results/run/victim_model
    echo "{}" >$ROOT/results/run/run.json
    for degree in 0.{1..6}; do
        folder=$ROOT/results_pruning/run_$degree/victim_model
        mkdir -p $folder && echo '{"format": 1}' >$folder/meta.json
        [[ -e $folder/answers.npz ]] || head -c 9000000 /dev/urandom >$folder/answers.npz
    done
    [[ -e $ROOT/second ]] && exit 0
    touch $ROOT/second && exec sleep 60 ;;
esac
"""


def test_a_gpu_session_that_is_cut_off_continues_in_the_next_call_and_copies_each_answer_once(tmp_path):
    root, out, python = tmp_path / "root", tmp_path / "out", tmp_path / "python"
    root.mkdir()
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    settings = {"ROOT": root, "PYTHON": python}
    first = run_session(out, **settings, LIMIT=6)  # a piece is started only if half of it is left
    assert first.returncode == 1 and "check: FAILED with exit code 1" in first.stdout
    assert "models: cut off after" in first.stdout and "bench: waits for the next call" in first.stdout
    assert "2 answers wait for the next call" in first.stdout
    copied = answers_in(out)
    second = run_session(out, **settings, LIMIT=60)
    assert second.returncode == 1 and "check: FAILED before" in second.stdout
    assert "models: done in" in second.stdout and "bench: done in" in second.stdout
    copied += answers_in(out)
    assert copied == [f"results_pruning/run_0.{degree}/victim_model/answers.npz" for degree in range(1, 7)]
    with tarfile.open(out / "models.tar.gz") as archive:
        files = {member.name: member for member in archive if member.isfile()}
        assert "results/run/run.json" in files and len(files) == 7
        meta = json.load(archive.extractfile(files["results_pruning/run_0.1/victim_model/meta.json"]))
        assert meta == {"format": 1, "dropped": True}


def answers_in(out):
    """The names of the files in the archives of answers."""
    names = []
    for file in sorted(out.glob("answers_*.tar")):
        with tarfile.open(file) as archive:
            names += archive.getnames()
    return names


def test_the_checks_of_a_gpu_hold_on_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "IMAGES", 130)  # two steps
    checks = list(gpu_check.checks(0.125, CPU, tmp_path))
    assert len(checks) == 22 and all(holds for holds, _ in checks), checks


def test_a_check_that_fails_is_named_and_gives_exit_code_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "checks", lambda *_: iter([(True, "this"), (False, "that")]))
    with pytest.raises(SystemExit) as stopped:
        gpu_check.main(["--device", "cpu"])
    assert stopped.value.code == 1 and "FAILED: that" in capsys.readouterr().out


def test_other_peoples_scores_stand_beside_ours_and_the_same_formula_has_the_same_ranks(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "TUNED", ("yeom2018", "base"))
    (file,) = synthetic.write(tmp_path, ["original"], 40, False)
    peers.main(["export", str(file), "--out", str(tmp_path / "arrays.npz")])
    arrays = dict(np.load(tmp_path / "arrays.npz"))
    target, reference = arrays["p"]
    z, reference_z = arrays["population_p"]
    ratios = [target / (0.65 * reference + 0.35), z / (0.65 * reference_z + 0.35)]
    shares = [np.mean(ratio >= ratios[1]) for ratio in ratios[0]]
    scores = {"rmia/by_hand": shares, "loss/by_hand": np.log(target), "mine/guess": np.arange(len(target))}
    np.savez(tmp_path / "scores.npz", **scores)
    table = peers.main(["compare", str(file), "--scores", str(tmp_path / "scores.npz")]).set_index(["attack", "whose"])
    for formula in ("rmia", "loss"):
        assert table.loc[(formula, "by_hand"), "rank correlation"] == "1.000000"
        assert table.loc[(formula, "by_hand"), "AUC"] == table.loc[(formula, "CompLeak"), "AUC"]
    assert table.loc[("mine", "guess"), "rank correlation"] == "" and "base" in table.index
    np.savez(tmp_path / "scores.npz", rmia=np.zeros(3))
    with pytest.raises(bench.UserError, match="rmia has shape .3,.; a finite score for each of 80 points is due"):
        peers.main(["compare", str(file), "--scores", str(tmp_path / "scores.npz")])


def test_the_sensitivity_after_each_draw_is_what_as_many_draws_give(tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = torch.nn.Linear(5, 3)
    points = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    logits = predict(network, torch.from_numpy(points)).numpy()
    about = (points, logits, np.zeros(20, int), np.zeros(20, bool), FEATURES, points, False, CPU, 8, lambda count: None)
    after, seconds = needed_draws.ask(Subject(network, *about), [1, 3])
    for draws, values in zip((1, 3), after, strict=True):
        np.testing.assert_array_equal(values, sensitivity(network, points, logits, CPU, 8, draws, kind=FEATURES))
    assert 0 < seconds[0] < seconds[1]

    record = signals_file.load(synthetic.write(tmp_path, ["original"], 60)[0])
    record = needed_draws.thinned(record, 80)
    assert record.audit.sum(axis=1).tolist() == [80, 80] and record.truth.sum() == 40
    in_samias_place = lambda view, **_: SimpleNamespace(scores=view.probes["sensitivity"][0, view.audit[0], 0])  # noqa: E731
    monkeypatch.setattr(needed_draws, "samia", in_samias_place)
    asked = {draws: needed_draws.Asked(draws * record.probes["sensitivity"], draws) for draws in (1, 3)}
    table = needed_draws.table_of(record, asked, "fast", 0)
    assert table["draws"].tolist() == [3, 1] and table["seconds to ask"].tolist() == ["3.0", "1.0"]
