"""A stage takes as many threads as cores are free, and a training keeps the number that it began with."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from conftest import NETWORK, ROOT, TINY, stopped_in

import train
from attacks.common import classifiers
from compleak.pipeline import workers
from compleak.pipeline.workers import threads_for_each
from compleak.training.plugin import train_plugin
from core import threads
from core.threads import Look, available_cores, cores_left, free_cores, look_at_cores, threads_for_stage


@pytest.fixture(autouse=True)
def threads_given_back():
    """What a test sets does not stay for the tests after it."""
    usual = torch.get_num_threads()
    yield
    threads.use_threads(usual)


@pytest.mark.parametrize(
    ("busy", "own", "expected"),
    [
        (0, 0, 2),  # a quiet machine
        (20, 20, 2),  # all that is busy is this process
        (10, 0, 1),  # one busy process beside it
        (20, 0, 1),  # two: one core is always taken
        (14, 10, 2),  # others took 0.4 cores
        (16, 10, 1),  # others took 0.6 cores
    ],
)
def test_cores_that_others_keep_busy_are_not_free(busy, own, expected):
    before = Look(at=100.0, busy=50.0, own=5.0)
    now = Look(at=110.0, busy=50.0 + busy, own=5.0 + own)
    assert cores_left(before, now, cores=2) == expected


def test_the_flag_overrides_the_environment_which_overrides_the_count_of_free_cores(monkeypatch):
    monkeypatch.setattr(threads, "free_cores", lambda: 5)
    monkeypatch.setenv("OMP_NUM_THREADS", "3,1")
    assert threads_for_stage(7) == 7 and threads_for_stage(None) == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads_for_stage(None) == 5


def test_jobs_share_what_the_environment_allows_and_otherwise_the_cores(monkeypatch):
    monkeypatch.setattr(workers, "available_cores", lambda: 16)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert threads_for_each(2) == 2 and threads_for_each(8) == 1
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads_for_each(2) == 8


def test_a_forest_grows_its_trees_on_the_threads_that_the_stage_has(monkeypatch):
    pools = []

    class NotedPool(ThreadPoolExecutor):
        def __init__(self, workers):
            pools.append(workers)
            super().__init__(workers)

    monkeypatch.setattr(classifiers, "ThreadPoolExecutor", NotedPool)
    monkeypatch.setattr(classifiers, "threads_in_use", lambda: 3)
    features = np.random.default_rng(0).normal(size=(90, 2))
    classifiers.forest(features, np.arange(90) % 2, np.arange(90), features[:5], seed=0)
    assert pools == [3]


def test_a_stage_that_takes_fewer_threads_says_so_in_one_line(monkeypatch, capsys):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "free_cores", lambda: 1)
    monkeypatch.setattr(threads, "available_cores", lambda: 4)
    assert threads_for_stage(None) == 1
    assert capsys.readouterr().out == "1 of 4 cores free: 1 thread(s); --threads overrides\n"


@pytest.mark.skipif(look_at_cores() is None, reason="this system has no /proc/stat")
def test_two_busy_processes_are_seen_in_the_first_moment_of_a_stage():
    code = "from core.threads import available_cores, free_cores; print(free_cores(), available_cores())"
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(available_cores())]
    try:
        time.sleep(0.5)
        printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout
    finally:
        for process in busy:
            process.kill()
            process.wait()
    free, cores = map(int, printed.split())
    assert free <= max(1, cores // 2), printed


@pytest.mark.skipif(look_at_cores() is None, reason="this system has no /proc/stat")
def test_a_second_look_soon_after_the_first_gives_the_same_answer_at_once():
    first = free_cores()
    started = time.monotonic()
    assert free_cores() == first and time.monotonic() - started < 0.1


def test_a_training_of_a_plug_in_that_goes_on_leaves_the_number_of_threads_alone(tmp_path):
    def make_network():
        return torch.nn.Linear(4, 2)

    points = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    recipe = {"epochs": 1, "lr": 0.01, "batch_size": 4, "seed": 0}
    for count in (2, 1):
        threads.use_threads(count)
        train_plugin(make_network, points, np.arange(8) % 2, **recipe, resume_file=tmp_path / "state.pt", desc="test")
        assert torch.get_num_threads() == count


def test_a_resumed_training_uses_as_many_threads_as_it_began_with(tmp_path, monkeypatch, capsys):
    command = [*NETWORK, *TINY, "--epochs", "2", "--root", str(tmp_path), "--roles", "victim_model", "--threads"]
    with stopped_in(1):
        train.main([*command, "2"])
    train.main([*command, "1"])
    assert torch.get_num_threads() == 1  # for what follows that training
    assert "goes on with 2 thread(s), the number that it began with" in capsys.readouterr().out
