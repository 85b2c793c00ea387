"""The paper's grid as a whole: its bytes on disk, and its hours as they follow from what was measured."""

import tempfile
from pathlib import Path

import torch

import attacks
from benchmarks import attack_stage, loops, synthetic
from benchmarks.measure import Row, Size
from compleak.runs import checkpoints
from compleak.runs.variants import ORIGINAL, PAPER_GRID
from core import console

# `reproduce.py --preset paper --dataset_name cifar10`: the stages' defaults
MODELS = 2  # a victim and a shadow
MEMBERS, POINTS, AUDITED = 20_000, 50_000, 20_000  # images: trained on, asked about, in a model's audit set
EPOCHS, TUNING_EPOCHS = 100, 30
DISK_BUDGET = 700.0  # MB
SECONDS_BUDGET = 600.0  # on an H200


def disk(size: Size, device: torch.device) -> list[Row]:
    """Megabytes of each variant's checkpoint, of one signals file, and of all that the grid leaves behind."""
    source, rows = loops.network(size), []
    with tempfile.TemporaryDirectory() as folder:
        rows.append(megabytes(str(ORIGINAL), saved(folder, source.state_dict())))
        for variant in console.progress(PAPER_GRID, "packing"):
            prepared = variant.module.prepare(source, variant.parsed_degree).train()
            prepared(loops.resident_batch(size, torch.device("cpu"))[0])  # int8 needs ranges
            packed = variant.module.pack(prepared.eval())
            rows.append(megabytes(str(variant), saved(folder, packed)))
        resume = saved(folder, {"weights": source.state_dict(), "momentum": [p.detach() for p in source.parameters()]})
        signals = synthetic.write(Path(folder), [str(ORIGINAL)], size.audited)[0].stat().st_size
    rows.append(megabytes("signals.npz of one variant", signals, f"{5 * size.audited:,} points"))
    return [*rows, grid(rows, resume, size)]


def saved(folder: str, tensors: dict) -> int:
    return checkpoints.save(Path(folder), tensors, {}, {})["bytes"]


def megabytes(what: str, count: int, note: str = "") -> Row:
    return Row(what, count / 1e6, "MB", note=note)


def grid(rows: list[Row], resume: int, size: Size) -> Row:
    """Checkpoints of every model, signals and scores of every variant, and the largest state of a stopped training."""
    *models, signals = [row.value for row in rows]
    tables = len(models) * len(attacks.NR) + (len(models) - 1) * len(attacks.SR) + 4 * len(attacks.MR)
    scores = (tables + 2 * len(models) + 4) * 2 * size.audited * 8 / 1e6  # float64; the controls have scores too
    total = MODELS * sum(models) + len(models) * signals + scores + resume / 1e6
    return Row("the paper's grid in all", total, "MB", DISK_BUDGET, note="without the data set, with a resume state")


def estimate(rows: list[Row], device: torch.device) -> list[Row]:
    """Seconds of the paper preset, from the rows measured on this device; nothing where one of them is missing."""
    found = {row.what: row.value for row in rows}
    needed = (loops.LOOP, loops.PRUNED, loops.QAT, loops.CLUSTERED, loops.ASK, loops.SENSITIVITY, attack_stage.STAGE)
    if not all(found.get(what, 0) > 0 for what in needed):
        return []
    tuned = 4 * found[loops.PRUNED] + found[loops.QAT] + 3 * found[loops.CLUSTERED]
    training = MODELS * MEMBERS * (EPOCHS + TUNING_EPOCHS * tuned) / found[loops.LOOP]
    asking = 9 * MODELS * (POINTS / found[loops.ASK] + AUDITED / found[loops.SENSITIVITY])
    parts = {"training and compression": training, "signals": asking, "attacks": found[attack_stage.STAGE]}
    budget = SECONDS_BUDGET if device.type == "cuda" else None
    note = "from the rows above; k-means and files not counted"
    whole = Row("paper preset in all", sum(parts.values()), "s", budget, note=note)
    return [*(Row(f"paper preset: {name}", value, "s", note=note) for name, value in parts.items()), whole]
