"""A run's models, exported and audited as anybody's, give the numbers of the run."""

import pandas as pd
import pytest

import audit
import CompLeakMR
import CompLeakNR
import CompLeakSR
import export
from tests.conftest import NETWORK

VARIANTS = ["pruning_0.9", "quantization_int8"]
RUN = [*NETWORK, "--run_name", "tiny"]
ATTACKS = {"NR": "yeom2018,song2021,shokri2017,calibrated", "SR": "SR2,model_updates,calibrated", "MR": "MR,calibrated"}


@pytest.fixture(scope="module")
def tables(tiny_root, tmp_path_factory):
    """(of the run, of the audit of its exported models): one row an attack."""
    folder = tmp_path_factory.mktemp("exported")
    run = [*RUN, "--root", str(tiny_root), *("--sensitivity_draws", "0", "--queries", "0", "--label_queries", "0")]
    names = {scenario: ["--attacks", text] for scenario, text in ATTACKS.items()}
    compressed = {
        "pruning_0.9": ["--compress", "--compress_name", "pruning", "--compress_degree", "0.9"],
        "quantization_int8": ["--compress", "--compress_name", "quantization", "--compress_degree", "int8"],
    }

    def out(name):
        return ["--out", str(folder / "run" / name)]

    of_run = [CompLeakNR.main([*run, "--original", *names["NR"], *out("original")])]
    for name, flags in compressed.items():
        of_run.append(CompLeakNR.main([*run, *flags, *names["NR"], *out(name)]))
        of_run.append(CompLeakSR.main([*run, "--original", *flags, *names["SR"], *out(name)]))
    mr = CompLeakMR.main([*run, "--variants", *VARIANTS, *names["MR"], *out("all")])
    of_run.append(mr[mr["variant"] == "all"])

    export.main([*RUN, "--root", str(tiny_root), "--variants", *VARIANTS, "--out", str(folder / "shipped"), "--audit"])
    task = (folder / "shipped" / "task.yaml").read_text()
    attacks = "".join(f"  {scenario}: [{text}]\n" for scenario, text in ATTACKS.items())
    (folder / "shipped" / "task.yaml").write_text(f"{task}accept_low_accuracy: true\nattacks:\n{attacks}")
    (finished,) = audit.main([str(folder / "shipped" / "task.yaml"), "--out", str(folder / "audit"), "--threads", "1"])
    keys = ["scenario", "variant", "attack", "classifier"]
    of_run = pd.concat(of_run)
    rows = [
        table[~table["attack"].isin(["null", "blind", "references"])].set_index(keys)
        for table in (of_run, finished.findings.attacks)
    ]
    return rows[0], rows[1]


def test_every_attack_of_the_run_is_in_the_audit(tables):
    of_run, of_audit = tables
    assert set(of_run.index) == set(of_audit.index)
    assert len(of_run) > 15


def test_float_models_give_the_same_auc_in_every_scenario(tables):
    of_run, of_audit = tables
    rows = [key for key in of_run.index if "int8" not in key[1] and key[1] != "all"]
    pd.testing.assert_series_equal(of_run.loc[rows, "auc"], of_audit.loc[rows, "auc"], atol=1e-3, rtol=0)


def test_int8_models_and_all_together_give_nearly_the_same_auc(tables):
    """The exported int8 model is computed in whole numbers, which moves single answers by up to a hundredth."""
    of_run, of_audit = tables
    differences = (of_run["auc"] - of_audit["auc"].loc[of_run.index]).abs()
    assert differences.max() < 0.06 and differences.median() < 0.01
