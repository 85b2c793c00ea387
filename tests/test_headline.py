"""The headline in worlds without a leak: the choice among many attacks must not invent one."""

import numpy as np
import pytest

import CompLeakNR
from tests.planted import planted_signals, write_signals

SEEDS = 20
QUICK = "yeom2018,song2021,rmia,base,watson2022,lira,info_rmia,pmia_class,joint,calibrated,neural,combined"


@pytest.mark.slow
@pytest.mark.parametrize("shadows", [1, 4])
def test_without_a_leak_the_headline_reads_one_half_over_seeds(shadows, tmp_path):
    aucs = []
    for seed in range(SEEDS):
        (signals, *_), truth, _ = planted_signals(1 + shadows, 600, leak=0.0, seed=seed)
        write_signals(tmp_path / "model.npz", signals, truth)
        table = CompLeakNR.main(["--signals", str(tmp_path / "model.npz"), "--attacks", QUICK, "--again"])
        aucs.append(table.loc[table["headline"], "auc"].item())
    by_chance = np.sqrt(1 / (6 * len(truth) / 2))
    assert abs(np.mean(aucs) - 0.5) < 3 * by_chance / np.sqrt(SEEDS)
    assert np.std(aucs) < 1.5 * by_chance
