"""One plan, several engines: order, retries and losses of the scheduler; workers and a Ray cluster for real."""

import contextlib
import json
import multiprocessing
import sys
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import NETWORK, THREE_VARIANTS, TINY
from hypothesis import given
from hypothesis import strategies as st

import reproduce
import train
from compleak.pipeline.comparison import joined_stages, plans_of, stages_of, together_name
from compleak.pipeline.plan import Stage, StageKey, stages_of_audit
from compleak.pipeline.presets import PRESETS, Preset
from compleak.pipeline.ray_cluster import has_room, on_ray
from compleak.pipeline.schedule import RETRIES, Engine, Outcome, check_order, run_plan
from compleak.pipeline.workers import processes
from compleak.reports.page import to_markdown
from compleak.reports.tuning_page import page_of_tuning
from compleak.runs import checkpoints
from compleak.runs.settings import CompressSettings, RunSettings, StageSettings, TrainSettings
from compleak.runs.variants import parse_variant
from core import arguments
from core.console import run_script
from core.errors import UserError
from pruning import prune
from tests.worker_stage import Happening, Wrapped, happen, run_real_stage

NEEDS_RAY = pytest.mark.skipif(find_spec("ray") is None, reason='Ray is not installed: pip install ".[ray]"')


def engine_of(ends, pick, places=2):
    """An engine that starts nothing: `ends(name, attempt)` is a stage's outcome, `pick(n)` which of n ends next."""
    started = []

    def start(stage):
        started.append(stage.key.kind)
        return stage

    def wait(tickets):
        assert len(tickets) <= places
        stage = tickets[pick(len(tickets))]
        return stage, ends(stage.key.kind, started.count(stage.key.kind))

    return Engine(start, wait, places), started


def plan_from(needs):
    """A plan of stages that do nothing, from the names that each name needs."""
    settings = StageSettings(run=RunSettings())
    return [
        Stage(StageKey("", name), print, settings, tuple(StageKey("", other) for other in wanted))
        for name, wanted in needs.items()
    ]


@st.composite
def worlds(draw):
    """A plan, the stages of it that fail for good, how many run at once, and in what order they end."""
    names = [f"s{i}" for i in range(draw(st.integers(1, 8)))]
    needs = {name: draw(st.sets(st.sampled_from(names[:i]))) if i else set() for i, name in enumerate(names)}
    broken = draw(st.sets(st.sampled_from(names)))
    return needs, broken, draw(st.integers(1, 3)), draw(st.randoms(use_true_random=False))


@given(worlds())
def test_stages_run_after_what_they_need_and_a_failure_costs_only_those_that_need_it(world):
    needs, broken, places, random = world
    lost = set()
    for name, wanted in needs.items():  # in order: what needs something lost is lost
        lost |= {name} if wanted & (broken | lost) else set()
    done = []
    expected = needs.keys() - lost - broken
    engine, started = engine_of(lambda name, _: Outcome(error="x" if name in broken else ""), random.randrange, places)

    def on_start(stage):
        assert {key.kind for key in stage.needs} <= set(done)

    def on_done(stage, seconds):
        done.append(stage.key.kind)

    if broken - lost:
        with pytest.raises(UserError, match=f"^{len(broken - lost)} of {len(needs)} stages failed"):
            run_plan(plan_from(needs), engine, on_start, on_done)
    else:
        run_plan(plan_from(needs), engine, on_start, on_done)
    assert set(done) == expected and len(done) == len(expected) and not lost & set(started)


def test_stages_are_retried_after_accidents_but_not_after_user_errors(capsys):
    plan = plan_from({"mends": (), "breaks": (), "mistaken": (), "after": ("mends",), "never": ("breaks",)})
    accident = Outcome(error="a bad day", traceback="Traceback: all of it", retry=True)

    def ends(name, attempt):
        if name == "mistaken":
            return Outcome(error="no such file")
        return accident if name == "breaks" or (name == "mends" and attempt <= RETRIES) else Outcome()

    engine, started = engine_of(ends, lambda n: 0)
    with pytest.raises(UserError) as stopped:
        run_plan(plan, engine)
    assert [started.count(stage.key.kind) for stage in plan] == [1 + RETRIES, 1 + RETRIES, 1, 1, 0]
    assert "2 of 5 stages failed, and 1 that need them" in str(stopped.value)
    assert "breaks (a bad day)" in str(stopped.value) and "mistaken (no such file)" in str(stopped.value)
    assert capsys.readouterr().err.count("Traceback: all of it") == 1 + 2 * RETRIES


@pytest.mark.parametrize("needs", [{"a": ("b",), "b": ()}, {"a": ("a",)}, {"a": ("nowhere",)}])
def test_a_plan_that_cannot_be_run_in_its_order_is_an_internal_error(needs):
    with pytest.raises(ValueError, match="stage 'a'"):
        run_plan(plan_from(needs), engine_of(None, None)[0])


def needs_by_name(stages):
    return {str(stage.key): {str(key) for key in stage.needs} for stage in stages}


@pytest.mark.parametrize("shadows", [1, 3])
def test_the_plan_makes_each_model_in_a_stage_of_its_own_before_it_is_attacked(shadows):
    plan = stages_of_audit(reproduce.parse(["--shadow_num", str(shadows)]).plan)
    check_order(plan)
    needs = needs_by_name(plan)
    roles = ["victim_model", *(f"shadow_model_{i}" for i in range(shadows))]
    assert all(needs[f"train {role}"] == {"data"} for role in roles)
    assert all(needs[f"compress quantization_int8 {role}"] == {f"train {role}"} for role in roles)
    compressions = {f"compress pruning_0.6 {role}" for role in roles}
    assert needs["NR pruning_0.6"] == compressions | {"NR original"} and needs["SR pruning_0.6"] == {"NR pruning_0.6"}
    assert len(needs["MR"]) == 8 and all(name.startswith("SR ") for name in needs["MR"])


@pytest.mark.parametrize("preset", ["smoke", "quick", "compact", "half", "paper"])
def test_every_preset_gives_a_whole_plan(preset):
    plan = stages_of_audit(reproduce.parse(["--preset", preset]).plan)
    model = ["train", *["compress"] * 8]
    assert [stage.key.kind for stage in plan] == ["data", *model * 2, *["NR"] * 9, *["SR"] * 8, "MR"]
    check_order(stages_of_audit(reproduce.parse(["--preset", preset, "--keep", "signals"]).plan))


def test_the_paper_preset_is_nothing_but_the_stages_defaults():
    assert PRESETS["paper"] == Preset() and not any(PRESETS["paper"].in_words().values())
    stages = {str(stage.key): stage.settings for stage in stages_of_audit(reproduce.parse(["--preset", "paper"]).plan)}
    run = stages["data"].run
    assert stages["data"] == TrainSettings(run=run, roles=())
    roles = ("victim_model",)
    for variant, lr in (("pruning_0.6", 0.001), ("quantization_int8", 0.001), ("clustering_4", 0.00001)):
        expected = CompressSettings(run=run, roles=roles, variant=parse_variant(variant), lr=lr, epochs=30)
        assert stages[f"compress {variant} victim_model"] == expected


def test_typed_flags_override_the_preset():
    stages = stages_of_audit(reproduce.parse(["--batch_size", "7", "--width", "0.5", "--seed", "3"]).plan)
    assert {stage.settings.batch_size for stage in stages} == {7}
    assert {stage.settings.run.width for stage in stages} == {0.5} and stages[0].settings.seed == 3


def test_the_epochs_of_fine_tuning_can_be_typed_and_are_said_as_they_were():
    plan = reproduce.parse(["--finetuning_epochs", "7"]).plan
    epochs = {"train": set(), "compress": set()}
    for stage in stages_of_audit(plan):
        if stage.key.kind in epochs:
            epochs[stage.key.kind].add(stage.settings.epochs)
    assert epochs == {"train": {PRESETS["smoke"].train["epochs"]}, "compress": {7}}
    words = reproduce.settings_in_words(plan)
    assert words["pruning"] == "--prune_epochs 7 --no_augment" and words["clustering"] == "--epochs 7 --no_augment"


def test_what_models_are_asked_is_said_as_it_was_typed_and_not_as_the_preset_has_it():
    plan = reproduce.parse(["--preset", "broad", "--sensitivity_draws", "0", "--noise_repeats", "10"]).plan
    assert reproduce.settings_in_words(plan)["attack"] == "--sensitivity_draws 0 --noise_repeats 10"


def test_a_typed_batch_size_stands_in_place_of_the_presets_own():
    words = reproduce.settings_in_words(reproduce.parse(["--preset", "quick", "--batch_size", "256"]).plan)
    assert words["network"] == "--batch_size 256" and not any("64" in flags for flags in words.values())


def test_a_preset_in_words_is_the_flags_that_a_user_would_type():
    words = PRESETS["smoke"].in_words()
    assert words["network"] == "--width 0.25 --batch_size 32"
    assert words["train"] == "--epochs 30 --no_augment --label_noise 0.2"
    assert words["pruning"] == "--prune_epochs 3 --no_augment" and words["attack"] == ""


def test_the_plan_holds_only_the_chosen_variants():
    plan = stages_of_audit(reproduce.parse(["--variants", "pruning_slim_0.60", "clustering_32"]).plan)
    compressed = {str(stage.key.variant) for stage in plan if stage.key.kind == "compress"}
    assert compressed == {"pruning_slim_0.6", "clustering_32"}


def test_runs_of_different_widths_and_pages_over_several_runs_have_folders_of_their_own():
    def folder(*flags):
        return reproduce.parse(flags).plan.name

    assert folder() == "digits_resnet18_smoke" and folder("--preset", "paper", "--width", "1") == "digits_resnet18"
    assert folder("--width", "1") == "digits_resnet18_w1_smoke" and folder("--width", "2") == "digits_resnet18_w2_smoke"
    seeds = reproduce.parse(["--seeds", "1", "2", "--defend", "ppb"])
    assert together_name(seeds, "_seeds") == "digits_resnet18_smoke_seeds_ppb_4"
    assert together_name(reproduce.parse(["--defences"]), "_defences") == "digits_resnet18_smoke_defences"


@pytest.mark.parametrize(
    "name",
    [
        "mine_slim",
        "mine_l1structure",
        "mine_l2structure",
        "mine_seeds",
        "mine_defences",
        "mine_label",
        "mine_topk_3",
        "mine_memguard_0.5_adaptive",
        "mine_round_0_adaptive",
    ],
)
def test_a_run_cannot_take_the_folders_of_others(name, tmp_path):
    with pytest.raises(UserError, match=f"a run cannot be called {name}"):
        train.main([*NETWORK, *TINY, "--root", str(tmp_path), "--run_name", name])
    assert not list(tmp_path.rglob("*.*"))


def test_only_one_run_at_a_time_downloads_the_data():
    stages = joined_stages(plans_of(reproduce.parse(["--seeds", "3", "4", "--keep", "signals"])))
    check_order(stages)
    first, second = (f"digits_resnet18_smoke_seed{seed}" for seed in (3, 4))
    needs = {stage.key: stage.needs for stage in stages}
    assert needs[StageKey(second, "data")] == (StageKey(first, "data"),) and needs[StageKey(first, "data")] == ()
    assert needs[StageKey(second, "train", role="victim_model")] == (StageKey(second, "data"),)
    assert StageKey(second, "query", role="shadow_model_0") in needs


def test_without_attacks_every_model_is_made_and_asked_and_no_defence_of_answers_is_tried():
    stages = joined_stages(plans_of(reproduce.parse(["--no_attacks", "--defences", "memguard"])))
    check_order(stages)
    assert [stage.key.kind for stage in stages] == ["data", *["train", *["compress"] * 4, "query"] * 2]
    assert all(stage.settings.drop_weights == "none" for stage in stages if stage.key.kind == "query")


def test_a_comparison_trains_identical_models_once_and_other_runs_wait_for_them():
    plans = plans_of(reproduce.parse(["--defences", "ppb:4", "dp", "--seeds", "1", "2"]))
    names = [f"digits_resnet18_smoke_seed1{name}" for name in ("", "_ppb_4", "_ppb_4_adaptive")]
    names += [f"digits_resnet18_gn_smoke_seed1{name}" for name in ("", "_dp_1", "_dp_1_adaptive")]
    assert [plan.name for plan in plans][:6] == names and len(plans) == 12
    stages = joined_stages(plans)
    check_order(stages)
    needs = {stage.key: stage.needs for stage in stages}
    plain, defended, adaptive = names[:3]

    def key(run, role):
        return StageKey(run, "train", role=role)

    assert key(defended, "victim_model") in needs[key(adaptive, "victim_model")]
    assert key(plain, "shadow_model_0") in needs[key(defended, "shadow_model_0")]
    assert needs[key(defended, "victim_model")] == (StageKey(defended, "data"),)
    assert needs[key(adaptive, "shadow_model_0")] == (StageKey(adaptive, "data"),)


def test_snapshots_follow_one_another_and_answers_are_defended_after_they_were_given():
    stages = joined_stages(plans := plans_of(reproduce.parse(["--defences", "memguard", "--variants", "pruning_0.6"])))
    check_order(stages)
    plain, unaware, adaptive = (plan.name for plan in plans)
    assert adaptive == f"{unaware}_adaptive" and unaware.startswith(f"{plain}_memguard_")
    behind = [stage for stage in stages if stage.key.run == adaptive]
    assert [str(stage.key) for stage in behind] == ["NR original", "NR pruning_0.6", "SR pruning_0.6", "MR"]
    assert all(stage.key._replace(run=plain) in stage.needs and stage.settings.answers.adaptive for stage in behind)

    settings = reproduce.parse(["--early_stopping"])
    stages = stages_of(plans := plans_of(settings), settings)
    check_order(stages)
    shares = [pytest.approx(i / 10) for i in range(1, 10)]
    assert [plan.run.defence.argument for plan in plans] == [*shares, *shares, None]
    assert {stage.key.kind for stage in stages} == {"data", "train", "NR"}
    trained = [stage for stage in stages if stage.key.kind == "train" and stage.key.role == "victim_model"]
    chain, copied = trained[:10], trained[10:]
    assert [stage.key.run for stage in chain] == [plan.name for plan in plans[9:]]
    assert all(before.key in after.needs for before, after in pairwise(chain))
    adaptive = dict(zip((plan.name for plan in plans[:9]), chain, strict=False))
    assert all(adaptive[copy.key.run].key in copy.needs for copy in copied)
    shadows = [stage for stage in stages if stage.key.kind == "train" and stage.key.role == "shadow_model_0"]
    assert all(chain[-1].key._replace(role="shadow_model_0") in copy.needs for copy in shadows[10:])


def test_a_defence_is_tuned_on_the_attackers_pool_alone(tmp_path):
    root = ["--root", str(tmp_path), "--preset", "tiny"]
    reproduce.main([*NETWORK, *root, "--tune_defence", "weight_decay:0.01:0.1:8", "weight_decay:0.01:3:64"])
    assert {folder.parent.name for folder in tmp_path.rglob("model.pt")} == {"shadow_model_0"}
    folder = tmp_path / "results/digits_resnet18_w0.125_tiny_tuning"
    table = pd.read_csv(folder / "tuning.csv")
    assert table["lr"].tolist() == [0.1, 3] and table["batch_size"].tolist() == [8, 64]
    best = table.loc[table["pool_accuracy"].idxmax()]
    assert table.loc[table["chosen"], "lr"].tolist() == [best["lr"]]
    chosen = f"--defend_lr {best['lr']:g} --defend_batch_size {best['batch_size']}"
    assert chosen in (folder / "summary.md").read_text()
    assert "diverged" not in (folder / "summary.md").read_text()


def test_a_candidate_that_diverges_is_on_the_page_and_costs_no_other(tmp_path, capsys):
    command = [*NETWORK, "--root", str(tmp_path), "--preset", "tiny", "--tune_defence"]
    names = [f"weight_decay:0.01:{rate}:8" for rate in ("1e30", "0.1", "0.01")]
    reproduce.main([*command, *names])
    folder = tmp_path / "results/digits_resnet18_w0.125_tiny_tuning"
    assert "lr1e+30_batch8_adaptive is not chosen" in (out := capsys.readouterr().out) and "lower --defend_lr" in out
    table = pd.read_csv(folder / "tuning.csv")
    assert table["lr"].tolist() == [1e30, 0.1, 0.01] and table["pool_accuracy"].isna().tolist() == [True, False, False]
    assert not table.loc[0, "chosen"] and table["chosen"].sum() == 1
    page = (folder / "summary.md").read_text()
    assert "| 1e+30 | 8 | diverged |" in page and "`diverged`: the loss" in page
    with pytest.raises(UserError, match="of every candidate at least one model diverged"):
        reproduce.main([*command, names[0]])


def test_a_learning_rate_of_fine_tuning_is_tuned_by_the_mean_accuracy_over_the_compressed_models(tmp_path):
    """Fine-tuning with the rate 1e30 diverges."""
    command = [*NETWORK, "--root", str(tmp_path), "--preset", "tiny", "--variants", "pruning_0.9", "clustering_4"]
    names = [f"weight_decay:0.01:0.1:8:{rate}" for rate in ("1e-9", "0.1", "1e30")]
    reproduce.main([*command, "--tune_defence", *names])
    assert {folder.parent.name for folder in tmp_path.rglob("model.pt")} == {"shadow_model_0"}
    folder = tmp_path / "results/digits_resnet18_w0.125_tiny_finetuning_tuning"
    table = pd.read_csv(folder / "tuning.csv")
    models = ["original", "pruning_0.9", "clustering_4"]
    assert table["finetuning_lr"].tolist() == [1e-9, 0.1, 1e30]
    np.testing.assert_allclose(table["pool_accuracy"][:2], table[models][:2].mean(axis=1))
    assert table.loc[0, "original"] == table.loc[1, "original"]
    assert np.isnan(table.loc[2, ["pool_accuracy", "pruning_0.9"]].astype(float)).all()
    assert table.loc[2, "original"] == table.loc[0, "original"]  # what did not diverge stands in the table
    pruned = (tmp_path / "results_pruning").glob("*_finetuning_lr*_adaptive_0.9/shadow_model_0")
    assert sorted(checkpoints.load_meta(model)["made_from"]["lr"] for model in pruned) == [1e-9, 0.1]
    page = (folder / "summary.md").read_text()
    best = arguments.spelled(table.loc[table["pool_accuracy"].idxmax(), "finetuning_lr"])
    assert f"--defences weight_decay:0.01:0.1:8:{best}\n" in page
    assert f"--defend_lr 0.1 --defend_batch_size 8 --defend_finetuning_lr {best}\n" in page
    assert "| fine-tuning lr | pool accuracy | original | pruning_0.9 | clustering_4 |" in page


@pytest.mark.parametrize(
    ("preset", "rates"),
    [
        ("broad", [0.03, 0.1, 0.3, 1, 3]),
        ("text", [0.0006, 0.002, 0.006, 0.02, 0.06]),
        ("paper", [0.06, 0.2, 0.6, 2, 6]),
    ],
)
def test_the_grid_of_a_tuning_lies_around_the_usual_learning_rate_and_batch_size(preset, rates):
    tuned = reproduce.parse(["--preset", preset, "--tune_defence", "dp:1", "dp:1:0.5"]).tuned
    assert list(dict.fromkeys(defence.lr for defence in tuned[:15])) == rates
    usual = 128 if preset == "paper" else 32
    assert [defence.batch_size for defence in tuned[:3]] == [usual, 4 * usual, 16 * usual]
    assert (tuned[15].lr, tuned[15].batch_size) == (0.5, usual) and len(tuned) == 16


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ((0.1, 32), "learning rate 0.1 is the smallest. Values"),
        ((1, 64), "learning rate 1 is the largest and batch size 64 is the largest. Values"),
        ((0.3, 32), None),
    ],
)
def test_a_tuning_page_says_where_nothing_was_tried_beyond_the_choice(chosen, says):
    rows = [(0.1, 32), (0.3, 16), (0.3, 32), (1, 64)]
    table = pd.DataFrame(rows, columns=["lr", "batch_size"]).assign(defence="dp", argument=1.0, network="mlp")
    table = table.assign(pool_accuracy=0.5, train_accuracy=0.5, epsilon=None, chosen=[row == chosen for row in rows])
    config = {"dataset_name": "letters", "data": "abc", "width": 1.0, "seed": 7}
    page = to_markdown(page_of_tuning(table, config, "", {}))
    assert (says in page) if says else ("lies at the end" not in page)


def test_tuning_trains_the_sub_models_that_the_first_shadow_model_needs():
    settings = reproduce.parse(["--tune_defence", "selena:3:0.1:32"])
    stages = stages_of(plans_of(settings), settings)
    check_order(stages)
    assert [stage.key.kind for stage in stages] == ["data", "part", "part", "part", "train"]
    assert {stage.key.role for stage in stages[1:]} == {"shadow_model_0"}


def test_a_run_whose_data_stage_fails_leaves_the_other_runs_alone():
    stages = joined_stages(plans_of(reproduce.parse(["--seeds", "3", "4", "5"])))
    second, third = (StageKey(f"digits_resnet18_smoke_seed{seed}", "data") for seed in (4, 5))
    assert second not in {stage.key: stage.needs for stage in stages}[third]


def test_a_compressed_model_that_is_not_fine_tuned_is_the_same_however_others_are():
    command = ["--defences", "ppb", "--undefended_finetuning", "--variants", "quantization_int8_static", "pruning_0.6"]
    stages = joined_stages(plans := plans_of(reproduce.parse(command)))
    defended, plain = plans[1].name, plans[3].name
    assert plans[3].run.defence.undefended_finetuning and not plans[3].run.defence.adaptive
    needs = {stage.key: {key.run for key in stage.needs} for stage in stages if stage.key.role == "victim_model"}
    copied = {str(key.variant): defended in needs[key] for key in needs if key.run == plain and key.kind == "compress"}
    assert copied == {"quantization_int8_static": True, "pruning_0.6": False}


def test_roles_trained_separately_equal_roles_trained_together(tiny_root, tmp_path):
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


def test_roles_that_the_run_does_not_have_are_named(tiny_root):
    with pytest.raises(UserError, match="--roles shadow_model_7: this run has victim_model shadow_model_0$"):
        prune.main([*NETWORK, "--run_name", "tiny", "--root", str(tiny_root), "--roles", "shadow_model_7"])


def worker_plan(folder):
    """Stages of tests/worker_stage.py that end in all the ways there are."""
    ways = {"works": (), "die_once": (), "accident": (), "mistake": (), "exit": (), "follows": ("works", "die_once")}
    ways["lost"] = ("follows", "accident")
    return [
        Stage(StageKey("", way), happen, Happening(way=way, folder=folder), tuple(StageKey("", need) for need in needs))
        for way, needs in ways.items()
    ]


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with a core each on this machine."""
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    cluster.add_node(**small)
    yield cluster
    cluster.shutdown()


@pytest.fixture(params=["processes", pytest.param("ray", marks=[NEEDS_RAY, pytest.mark.slow])])
def engine(request):
    if request.param == "processes":
        return processes(2)
    return on_ray(request.getfixturevalue("cluster").address, 1, 1.0)


def test_workers_die_and_stages_fail_without_losing_the_others(engine, tmp_path, capsys):
    with pytest.raises(UserError) as stopped, engine as entered:
        run_plan(worker_plan(tmp_path), entered)
    attempts = {file.name: file.read_text().count("\n") for file in tmp_path.iterdir()}
    tried = 1 + RETRIES
    assert attempts == {"works": 1, "die_once": 2, "accident": tried, "mistake": 1, "exit": 1, "follows": 1}
    message = str(stopped.value)
    assert "3 of 7 stages failed, and 1 that need them are undone" in message and "\n" not in message
    assert "accident (RuntimeError: a GPU fell off)" in message and "mistake (no such thing: say another)" in message
    assert "exit (exit speaks)" in message
    out, err = capsys.readouterr()
    assert "follows speaks" in out and err.count("raise RuntimeError") == tried and "UserError" not in err


def test_idle_workers_end_by_themselves_and_so_leave_nothing_behind(tmp_path):
    with processes(2) as entered:
        workers = multiprocessing.active_children()
        run_plan(worker_plan(tmp_path)[:1], entered)
    assert [worker.exitcode for worker in workers] == [0, 0]


def audit(root, *flags):
    command = [*NETWORK, "--run_name", "small", "--root", str(root), "--preset", "tiny", "--threads", "1"]
    reproduce.main([*command, "--variants", *THREE_VARIANTS, *map(str, flags)])
    return pd.read_csv(root / "results/small/summary.csv", keep_default_na=False).drop(columns="seconds")


@pytest.fixture(scope="module")
def longer_pruning():
    """Pruning that trains long enough to save its state once: that happens after five epochs."""
    usual = PRESETS["tiny"]
    PRESETS["tiny"] = replace(usual, pruning={"epochs": 6})
    yield
    PRESETS["tiny"] = usual


@pytest.fixture(scope="module")
def local_table(longer_pruning, tmp_path_factory):
    """The table of the run in this process, on one thread as in the workers."""
    return audit(tmp_path_factory.mktemp("local"))


def through_workers(patch, folder, dying=None):
    """Let stages run through tests/worker_stage.py; in the stage named `dying`, once, its worker is killed."""
    engine_of_settings = reproduce.engine_of

    def wrap(stage):
        settings = Wrapped(stage=stage, folder=folder, dies=str(stage.key) == dying)
        return replace(stage, action=run_real_stage, settings=settings)

    @contextlib.contextmanager
    def engine(settings):
        with engine_of_settings(settings) as entered:
            yield entered._replace(start=lambda stage: entered.start(wrap(stage)))

    patch.setattr(reproduce, "engine_of", engine)


@NEEDS_RAY
@pytest.mark.slow
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


@pytest.mark.slow
def test_two_jobs_at_once_give_the_table_of_one_local_process(local_table, tmp_path, monkeypatch):
    through_workers(monkeypatch, tmp_path)
    pd.testing.assert_frame_equal(audit(tmp_path, "--jobs", 2), local_table, check_exact=True)


@pytest.mark.slow
def test_models_that_were_asked_on_one_machine_are_attacked_on_another_without_their_weights(
    local_table, tmp_path, capsys
):
    made, copied = tmp_path / "made", tmp_path / "copied"
    command = [*NETWORK, "--run_name", "small", "--preset", "tiny", "--threads", "1", "--variants", *THREE_VARIANTS]
    reproduce.main([*command, "--root", str(made), "--no_attacks", "--keep", "signals"])
    assert "without --no_attacks attacks them" in capsys.readouterr().out
    assert not [*made.rglob("model.pt"), *made.rglob("*.csv")] and len(list(made.rglob("answers.npz"))) == 8
    made.rename(copied)
    pd.testing.assert_frame_equal(audit(copied), local_table, check_exact=True)


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
        (["--seeds", "4", "4"], "two or more"),
        (["--seeds", "1", "2", "--seed", "3"], "not allowed with"),
        (["--defences", "foo"], "--defences foo"),
        (["--defences", "ppb:-1"], "--defences ppb:-1"),
        (["--defences", "--defend", "ppb"], "--defences tries"),
        (["--defences", "--adaptive"], "--adaptive needs a defence"),
        (["--tune_defence", "dp:1", "--early_stopping"], "two commands"),
        (["--tune_defence", "memguard"], "is not trained"),
        (["--tune_defence", "dp:1:1:8:1", "dp:1:1:8"], "name a FINETUNING_LR for all candidates, or for none"),
        (["--tune_defence", "dp:1:1:8", "--variants", "pruning_0.9"], "leave out --variants"),
        (
            ["--tune_defence", "dp:1:1:8:1", "--variants", "quantization_int8_static"],
            "none of these --variants",
        ),
        (["--no_attacks", "--tune_defence", "dp:1"], "leave out --no_attacks"),
        (["--early_stopping", "--finetuning_epochs", "3"], "leave out --finetuning_epochs"),
        (["--early_stopping", "--keep", "signals"], "leave --keep out"),
        (["--defences", "none"], "--defences none compares nothing: name a defence"),
        (["--defences", "memguard", "--undefended_finetuning"], "--defences names none: leave it out"),
        (["--early_stopping", "--split", "online", "--shadow_num", "16"], "leave out --split online"),
        (["--defences", "relaxloss", "--split", "online", "--shadow_num", "16"], "leave out --split online"),
        (["--compare", "results/a", "--finetuning_epochs", "3"], "leave out --finetuning_epochs"),
        (["--compare", "results/a", "--variants", "pruning_0.6"], "leave out --variants"),
        (["--variants", "nonsense"], "'nonsense' is no compressed variant"),
    ],
)
def test_contradictory_commands_are_refused_in_one_line(flags, says, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *flags, "--root", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        run_script(reproduce.main)
    err = capsys.readouterr().err
    assert stopped.value.code == 2 and says in err and len(err.strip().splitlines()) == 1, err


def test_a_task_has_room_on_a_living_machine_with_its_cores_and_gpus():
    node = {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}}
    assert has_room(node, 4, 0.5) and has_room({**node, "Resources": {"CPU": 1.0}}, 1, 0)
    assert not has_room(node, 5, 0) and not has_room({**node, "Alive": False}, 1, 0)
    assert not has_room({**node, "Resources": {"CPU": 9.0}}, 1, 0.5)


def test_without_ray_the_command_that_installs_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r'pip install "\.\[ray\]"'):
        reproduce.main(["--engine", "ray", "--root", str(tmp_path)])
