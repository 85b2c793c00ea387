"""One plan, several engines: order, retries and losses of the scheduler; processes and a Ray cluster for real."""

import contextlib
import json
import sys
from importlib.util import find_spec

import pandas as pd
import pytest
import torch
from conftest import NETWORK, TINY
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

import reproduce
import train
from compleak import checkpoints, engines
from compleak.engines import RETRIES, Engine, Outcome, Stage
from core import console
from core.errors import UserError
from pruning import prune

NEEDS_RAY = pytest.mark.skipif(find_spec("ray") is None, reason='Ray is not installed: pip install ".[ray]"')


def engine_of(ends, pick, places=2):
    """An engine that starts nothing: `ends(name, attempt)` is a stage's outcome, `pick(n)` which of n ends next."""
    started = []

    def wait(tickets):
        assert len(tickets) <= places
        stage = tickets[pick(len(tickets))]
        return stage, ends(stage.name, started.count(stage.name))

    return Engine(lambda stage: started.append(stage.name) or stage, wait, places), started


def plan_of(needs):
    return [Stage(name, "nowhere", (), tuple(wanted)) for name, wanted in needs.items()]


@st.composite
def worlds(draw):
    """A plan, the stages of it that fail for good, how many run at once, and in what order they end."""
    names = [f"s{i}" for i in range(draw(st.integers(1, 8)))]
    needs = {name: draw(st.sets(st.sampled_from(names[:i]))) if i else set() for i, name in enumerate(names)}
    return (
        needs,
        draw(st.sets(st.sampled_from(names))),
        draw(st.integers(1, 3)),
        draw(st.randoms(use_true_random=False)),
    )


@given(worlds())
def test_stages_run_after_what_they_need_and_a_failure_costs_only_those_that_need_it(world):
    needs, broken, places, random = world
    lost = set()
    for name, wanted in needs.items():  # in order: what needs something lost is lost
        lost |= {name} if wanted & (broken | lost) else set()
    done, expected = [], needs.keys() - lost - broken
    engine, started = engine_of(lambda name, _: Outcome(error="x" if name in broken else ""), random.randrange, places)

    def begun(stage):
        assert set(stage.needs) <= set(done)

    def ended(stage, seconds):
        done.append(stage.name)

    if broken - lost:
        with pytest.raises(UserError, match=f"^{len(broken - lost)} of {len(needs)} stages failed"):
            engines.run_plan(plan_of(needs), engine, begun, ended)
    else:
        engines.run_plan(plan_of(needs), engine, begun, ended)
    assert set(done) == expected and len(done) == len(expected) and not lost & set(started)


def test_accidents_are_tried_again_a_few_times_and_mistakes_never(capsys):
    plan = plan_of({"mends": (), "breaks": (), "mistaken": (), "after": ("mends",), "never": ("breaks",)})
    accident = Outcome(error="a bad day", trace="Traceback: all of it", retry=True)

    def ends(name, attempt):
        if name == "mistaken":
            return Outcome(error="no such file")
        return accident if name == "breaks" or (name == "mends" and attempt <= RETRIES) else Outcome()

    engine, started = engine_of(ends, lambda n: 0)
    with pytest.raises(UserError) as stopped:
        engines.run_plan(plan, engine)
    assert [started.count(stage.name) for stage in plan] == [1 + RETRIES, 1 + RETRIES, 1, 1, 0]
    assert "2 of 5 stages failed, and 1 that need them" in str(stopped.value)
    assert "breaks (a bad day)" in str(stopped.value) and "mistaken (no such file)" in str(stopped.value)
    assert capsys.readouterr().err.count("Traceback: all of it") == 1 + 2 * RETRIES


@pytest.mark.parametrize("needs", [{"a": ("b",), "b": ()}, {"a": ("a",)}, {"a": ("nowhere",)}])
def test_a_plan_that_cannot_be_run_in_its_order_is_an_error_of_ours(needs):
    with pytest.raises(ValueError, match="stage 'a'"):
        engines.run_plan(plan_of(needs), engine_of(None, None)[0])


@pytest.mark.parametrize("shadows", [1, 3])
def test_the_plan_makes_models_apart_and_attacks_what_is_made(shadows):
    plan = reproduce.plan(reproduce.parse(["--shadow_num", str(shadows)]))
    engines.check_order(plan)
    needs = {stage.name: set(stage.needs) for stage in plan}
    roles = ["victim_model", *(f"shadow_model_{i}" for i in range(shadows))]
    assert all(needs[f"train {role}"] == {"data"} for role in roles)
    assert all(needs[f"compress quantization_int8 {role}"] == {f"train {role}"} for role in roles)
    made = {f"compress pruning_0.6 {role}" for role in roles}
    assert needs["NR pruning_0.6"] == made | {"NR original"} and needs["SR pruning_0.6"] == {"NR pruning_0.6"}
    assert len(needs["MR"]) == 8 and all(name.startswith("SR ") for name in needs["MR"])


def test_roles_made_apart_are_the_models_made_together(tiny_root, tmp_path):
    flags = [*NETWORK, "--run_name", "tiny", "--root", str(tmp_path), "--roles"]
    train.main([*TINY, *flags])
    assert (tmp_path / "results/tiny/run.json").exists() and not list(tmp_path.rglob("model.pt"))
    for role in ("shadow_model_0", "victim_model"):
        train.main([*TINY, *flags, role])
        prune.main(["--prune_epochs", "1", "--prune_sparsity", "0.9", *flags, role])
        for folder in ("results/tiny", "results_pruning/tiny_0.9"):
            apart, together = (checkpoints.load(root / folder / role) for root in (tmp_path, tiny_root))
            assert all(torch.equal(apart.tensors[key], together.tensors[key]) for key in together.tensors)
        assert len(list(tmp_path.rglob("model.pt"))) == (2 if role == "shadow_model_0" else 4)


def test_roles_that_the_run_has_not_are_named(tiny_root):
    with pytest.raises(UserError, match="--roles shadow_model_7: this run has victim_model shadow_model_0$"):
        prune.main([*NETWORK, "--run_name", "tiny", "--root", str(tiny_root), "--roles", "shadow_model_7"])


def worker_plan(folder):
    """Stages of tests/worker_stage.py that end in all the ways there are."""
    ways = {"works": (), "die_once": (), "accident": (), "mistake": (), "exit": (), "follows": ("works", "die_once")}
    plan = [Stage(way, "tests.worker_stage", (way, str(folder), way), needs) for way, needs in ways.items()]
    return [*plan, Stage("lost", "tests.worker_stage", ("lost", str(folder), "lost"), ("follows", "accident"))]


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with a core each on this machine."""
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80 << 20}
    made = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    made.add_node(**small)
    yield made
    made.shutdown()


@pytest.fixture(params=["processes", pytest.param("ray", marks=NEEDS_RAY)])
def engine(request):
    if request.param == "processes":
        return engines.processes(2)
    return engines.on_ray(request.getfixturevalue("cluster").address, 1, 1.0)


def test_workers_die_and_stages_fail_without_losing_the_others(engine, tmp_path, capsys):
    with pytest.raises(UserError) as stopped, engine as entered:
        engines.run_plan(worker_plan(tmp_path), entered)
    attempts = {file.name: file.read_text().count("\n") for file in tmp_path.iterdir()}
    tried = 1 + RETRIES
    assert attempts == {"works": 1, "die_once": 2, "accident": tried, "mistake": 1, "exit": 1, "follows": 1}
    said = str(stopped.value)
    assert "3 of 7 stages failed, and 1 that need them are undone" in said and "\n" not in said
    assert "accident (RuntimeError: a GPU fell off)" in said and "mistake (no such thing: say another)" in said
    assert "exit (exit speaks)" in said
    out, err = capsys.readouterr()
    assert "follows speaks" in out and err.count("raise RuntimeError") == tried and "UserError" not in err


def audit(root, *flags):
    reproduce.main([*NETWORK, "--run_name", "small", "--root", str(root), *map(str, flags)])
    return pd.read_csv(root / "results/small/summary.csv", keep_default_na=False).drop(columns="seconds")


@pytest.fixture(scope="module")
def local_table(small_audit, tmp_path_factory):
    """The table of the run in this process, on one thread as in the workers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield audit(tmp_path_factory.mktemp("local"))
    torch.set_num_threads(threads)


def through_workers(patch, folder, dying=None):
    """Let stages run through tests/worker_stage.py; in the stage named `dying`, once, its worker is killed."""
    chosen = reproduce.engine

    def small(stage):
        what = "run_and_die_once" if stage.name == dying else "run"
        return stage._replace(script="tests.worker_stage", argv=(what, str(folder), stage.script, *stage.argv))

    @contextlib.contextmanager
    def engine(args):
        with chosen(args) as entered:
            yield entered._replace(start=lambda stage: entered.start(small(stage)))

    patch.setattr(reproduce, "engine", engine)


@NEEDS_RAY
def test_two_ray_nodes_of_which_a_worker_is_killed_give_the_local_runs_table(
    cluster, local_table, tmp_path, monkeypatch, capsys
):
    through_workers(monkeypatch, tmp_path, dying="compress pruning_0.9 victim_model")
    table = audit(tmp_path, "--engine", "ray", "--ray_address", cluster.address)
    assert (tmp_path / "died").exists() and len(list(tmp_path.glob("node-*"))) == 2
    assert "compress pruning_0.9 victim_model: its Ray task was lost" in capsys.readouterr().out
    pd.testing.assert_frame_equal(table, local_table, check_exact=True)
    seconds = json.loads((tmp_path / "results/small/seconds.json").read_text())
    assert len(seconds) == 17 and {"data", "train shadow_model_0", "NR original", "MR"} <= seconds.keys()


def test_two_jobs_give_the_local_runs_table(local_table, tmp_path, monkeypatch):
    through_workers(monkeypatch, tmp_path)
    pd.testing.assert_frame_equal(audit(tmp_path, "--jobs", 2), local_table, check_exact=True)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        pytest.param(
            ["--engine", "ray", "--ray_address", "127.0.0.1:1"], "no Ray cluster at 127.0.0.1:1", marks=NEEDS_RAY
        ),
        (["--gpus_per_task", "0.5"], "--gpus_per_task needs --engine ray"),
        (["--engine", "ray", "--jobs", "2"], "--jobs is for one machine"),
        (["--gpus_per_task", "2"], "2 is not from 0 to 1"),
        (["--jobs", "2", "--dataset_name", "nosuch"], "data (unknown data set 'nosuch'"),
    ],
)
def test_bad_engines_get_one_line(flags, says, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *flags, "--root", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        console.run_script(reproduce.main)
    err = capsys.readouterr().err
    assert stopped.value.code == 2 and says in err and len(err.strip().splitlines()) == 1, err


def test_a_task_has_room_on_a_living_machine_with_its_cores_and_gpus():
    node = {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}}
    assert engines.has_room(node, 4, 0.5) and engines.has_room({**node, "Resources": {"CPU": 1.0}}, 1, 0)
    assert not engines.has_room(node, 5, 0) and not engines.has_room({**node, "Alive": False}, 1, 0)
    assert not engines.has_room({**node, "Resources": {"CPU": 9.0}}, 1, 0.5)


def test_without_ray_the_command_that_installs_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r'pip install "\.\[ray\]"'):
        reproduce.main(["--engine", "ray", "--root", str(tmp_path)])
