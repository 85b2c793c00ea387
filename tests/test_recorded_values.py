"""What every attack finds in two planted worlds, recorded, so that no change of a number goes unnoticed.

`tests/recorded/planted.csv` holds the numbers. A change that is meant to move some of them records all anew and says in
its commit which ones moved and why:

    OMP_NUM_THREADS=1 python -m tests.test_recorded_values
"""

from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest

import attacks
from attacks import neural
from attacks.common import classifiers
from compleak.audits import metrics
from tests.planted import World, planted_signals

FILE = Path(__file__).parent / "recorded" / "planted.csv"
TREES = 40  # in place of 500, which would take minutes
LEAST_STEPS = 30  # of `neural`, in place of 120
SHADOWS = {"one shadow": 1, "four shadows": 4}
NUMBER_OF_MODELS = {"NR": 1, "SR": 2, "MR": 3}
MEASURED = ("accused", "acc", "auc", "tpr", "shadow_auc")

# Processors with other vector instructions round the last bits differently. For most attacks that exchanges no two
# scores: their numbers were equal to 1e-9 with SSE, AVX2 and AVX-512. A network's weights drift apart in training. An
# AUC moved by up to 0.0003 there and the share of accused points by up to 0.01, while another seed moves at least one
# number of each network by more than is allowed here. From an Intel to an AMD processor `dsq` and the regression of
# `label_only_augmentation` move further.
NETWORKS = ("samia", "nn", "nn_top3", "nn_cls", "rapid", "MR", "seqmia_versions", "neural", "combined")
EXACT = dict.fromkeys(MEASURED, 1e-6)
OF_NETWORKS = {"accused": 0.03, "acc": 0.015, "auc": 0.002, "tpr": 0.02, "shadow_auc": 0.002}
TOLERANCES = {
    **dict.fromkeys(NETWORKS, OF_NETWORKS),
    "dsq": OF_NETWORKS | {"accused": 0.08, "acc": 0.035, "shadow_auc": 0.015},
    "label_only_augmentation/logistic_regression": dict.fromkeys(MEASURED, 1e-5),
}


def planted(world: str) -> World:
    return planted_signals(1 + SHADOWS[world], 800, variants=3, seed=7)


def measure(world: str, scenario: str) -> pd.DataFrame:
    """One row for each attack of the scenario that can run in this world: its key and what it finds, as fractions."""
    signals, truth, _ = planted(world)
    models = signals[: NUMBER_OF_MODELS[scenario]]
    rows = []
    with mock.patch.object(classifiers, "TREES", TREES), mock.patch.object(neural, "LEAST_STEPS", LEAST_STEPS):
        for attack in attacks.KNOWN[scenario]:
            if not attacks.missing(attack, models):
                numbers = numbers_of(attack.run(models, seed=7), models[0], truth)
                rows.append({"world": world, "scenario": scenario, "attack": attack.key, **numbers})
    return pd.DataFrame(rows)


def numbers_of(result: attacks.Result, signals: attacks.Signals, truth: np.ndarray) -> dict[str, float]:
    """The share of audited points that are called members; ACC, AUC and TPR at 0.1 % FPR; AUC on the shadows."""
    shadow, _ = attacks.audit_rows(signals)
    return {
        "accused": result.decision.mean(),
        "acc": metrics.balanced_accuracy(result.decision, truth),
        "auc": metrics.auc(result.scores, truth),
        "tpr": metrics.tpr_at_fpr(result.scores, truth),
        "shadow_auc": metrics.auc(result.shadow_scores, signals.member[shadow]),
    }


def measure_all() -> pd.DataFrame:
    return pd.concat([measure(world, scenario) for world in SHADOWS for scenario in NUMBER_OF_MODELS])


@pytest.mark.parametrize("world", ["one shadow", pytest.param("four shadows", marks=pytest.mark.slow)])
@pytest.mark.parametrize("scenario", NUMBER_OF_MODELS)
def test_every_attack_reproduces_its_recorded_numbers(world, scenario):
    recorded = pd.read_csv(FILE).query("world == @world and scenario == @scenario").set_index("attack")
    measured = measure(world, scenario).set_index("attack")
    assert list(measured.index) == list(recorded.index)
    for attack, numbers in measured.iterrows():
        for name, tolerance in TOLERANCES.get(attack, EXACT).items():
            assert numbers[name] == pytest.approx(recorded.loc[attack, name], abs=tolerance), f"{name} of {attack}"


if __name__ == "__main__":
    measure_all().to_csv(FILE, index=False, float_format="%.9f")
