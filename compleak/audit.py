"""The attack stage: signals in, one table of attacks with intervals and controls out, the same for NR, SR and MR."""

import argparse
import contextlib
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

import attacks
from attacks.arrays import audit_rows
from compleak import metrics, paths, runs, signals
from compleak.techniques import TECHNIQUES, parse_degree, pruner_flag, pruning_degree
from core import arguments, console, devices
from core.errors import UserError
from core.files import read_json, sha256, write_atomically, write_json
from core.provenance import provenance
from data.splits import DEFAULT_SEED

START = "Start Membership Inference Attacks"
FIRST_STAGE = "SR2/random_forest"  # the row of SR whose scores MR starts from
SCENARIOS = {"NR": attacks.NR, "SR": attacks.SR, "MR": attacks.MR}


class Pair(NamedTuple):
    """Where SR's verdict on the original and one compressed model is kept for MR, and what it follows from."""

    file: Path
    key: str


def variant_flags(parser: argparse.ArgumentParser):
    """The flags that name a compressed model, in a group to which a scenario adds its own."""
    group = parser.add_argument_group("what to attack")
    group.add_argument("--compress", action="store_true", help="attack a compressed model, named by the next two flags")
    group.add_argument("--compress_name", choices=tuple(TECHNIQUES), help="technique")
    group.add_argument("--compress_degree", help="0.6 0.7 0.8 0.9 (pruning), int8 (quantization), 4 8 16 (clustering)")
    pruner_flag(group)
    return group


def recipe_flag(group) -> None:
    group.add_argument(
        "--recipe",
        choices=("fast", "paper"),
        default="fast",
        help="training of SAMIA's, nn's and MR's networks: fast, AdamW for a few epochs, or paper, SGD for 100 "
        "(default: %(default)s)",
    )


def attack_flags(parser: argparse.ArgumentParser, scenario: str) -> None:
    group = parser.add_argument_group("attack")
    known, default = (names_of(rows[scenario]) for rows in (attacks.KNOWN, SCENARIOS))
    left_out = ", ".join(name for name in known if name not in default)
    group.add_argument(
        "--attacks",
        type=lambda text: named_attacks(text, known),
        metavar="NAME[,NAME...]",
        help=f"rows of the table: {', '.join(known)} (default: all{left_out and f' but {left_out}'})",
    )
    group.add_argument("--out", type=Path, help="folder for the table and scores (default: beside the signals)")
    group.add_argument("--seed", type=arguments.seed, help="of the attacks and the bootstrap (default: the run's)")
    signals.draws_flag(group)
    recipe_flag(group)
    group.add_argument(
        "--skip_done", action="store_true", help="keep a table that was made from these signals and settings"
    )


def names_of(rows: Sequence[attacks.Attack]) -> list[str]:
    return list(dict.fromkeys(row.name for row in rows))


def named_attacks(text: str, known: Sequence[str]) -> list[str]:
    """The names that are listed, separated by commas, in the table's order."""
    asked = {name.strip() for name in text.split(",")}
    if unknown := sorted(asked.difference(known)):
        raise argparse.ArgumentTypeError(f"no attack {unknown[0]!r} here: choose from {', '.join(known)}")
    return [name for name in known if name in asked]


def chosen(scenario: str, names: Sequence[str] | None) -> tuple[attacks.Attack, ...]:
    """The rows of a scenario's table: the usual ones, or all that go by these names."""
    if names is None:
        return SCENARIOS[scenario]
    return tuple(row for row in attacks.KNOWN[scenario] if row.name in names)


def variant_from_flags(args: argparse.Namespace) -> str:
    """The variant that --original or --compress, --compress_name and --compress_degree name."""
    if not args.compress:
        if args.compress_name or args.compress_degree or args.pruner_name:
            raise UserError("--compress_name, --compress_degree and --pruner_name need --compress")
        return paths.ORIGINAL
    if not args.compress_name or not args.compress_degree:
        raise UserError("--compress needs --compress_name and --compress_degree, for example pruning and 0.6")
    if args.pruner_name and args.compress_name != "pruning":
        raise UserError(f"--pruner_name goes with --compress_name pruning, not {args.compress_name}")
    degree = pruning_degree(args.pruner_name, args.compress_degree)
    return paths.variant_name(args.compress_name, parse_degree(args.compress_name, degree)[0])


def run_signals(args: argparse.Namespace, run: runs.Run, variants: Sequence[str]) -> list[Path]:
    """The signals files of a run's variants, made where they are missing."""
    device = devices.choose(args.device)
    return [signals.collect(run, variant, device, args.batch_size, args.sensitivity_draws) for variant in variants]


def audit(
    scenario: str,
    jobs: dict[str, list[Path | None]],
    args: argparse.Namespace,
    out: Path,
    run: runs.Run | None,
) -> pd.DataFrame:
    """Run a scenario's attacks on each job (variant -> its signals files), print the table, write it and the scores.

    `jobs` gives NR [the model], SR [original, compressed], MR [original or None, *compressed]; `run` is None for files
    that are nobody's run. Returns the table of PROTOCOL §7.
    """
    seed = args.seed if args.seed is not None else (run.config["seed"] if run else DEFAULT_SEED)
    records = {path: signals.load(path) for files in jobs.values() for path in files if path}
    chosen_rows = chosen(scenario, args.attacks)
    made_from = _made_from(jobs, args, seed)
    if chosen_rows != SCENARIOS[scenario]:
        made_from["attacks"] = args.attacks
    record_file, table_file = out / f"{scenario}.json", out / f"{scenario}.csv"
    if args.skip_done and _done(out, scenario, made_from):
        table = pd.read_csv(table_file, keep_default_na=False)
        console.say(f"{scenario}: done before, {table_file}")
        return table

    device = devices.choose(args.device)
    signals.same_points(list(records.values()), [str(path) for path in records])
    truth = next(iter(records.values())).truth
    console.say(START)
    if run and run.config["defend"]:
        console.say(f"{run.name}: {runs.defence_said(run)}")
    rows, scores = [], {}
    for variant, files in jobs.items():
        views = [signals.attacker_view(records[path]) if path else None for path in files]
        pairs = _pairs(files, made_from["signals"][variant], seed, made_from["code"], None if run else out)
        options = {"seed": seed, "recipe": args.recipe, "device": device}
        found, scored = _attack_all(scenario, chosen_rows, variant, views, pairs, truth, options)
        scores |= {key if not rows else f"{variant}/{key}": values for key, values in scored.items()}
        rows += found
    blind = blind_control(run, *next(iter(records.items())), seed, made_from["code"])
    if blind is not None:
        head = [scenario, next(iter(jobs)), "blind", "", ""]
        asked = ~np.isnan(blind)
        rows.append(_row(head, blind[asked], blind[asked] >= 0, truth[asked], seed, 0.0) | {"headline": False})
        scores["blind"] = blind

    table = pd.DataFrame(rows)
    record_file.unlink(missing_ok=True)  # what it says of the old table does not hold of the new one
    _write(out, scenario, table, scores)
    write_json(record_file, {"made_from": made_from, **provenance(device)})
    return table


def _attack_all(
    scenario: str,
    chosen_rows: Sequence[attacks.Attack],
    variant: str,
    views: list,
    pairs: list[Pair],
    truth: np.ndarray,
    options: dict,
):
    """The attacks on one job, and the null control: a table's rows, and scores (A,) by key.

    The control is the headline's. Where no attack is eligible (`--attacks samia,nn`), no row is marked the headline,
    and the control is that of the first row.
    """
    rows, results, known = [], {}, shadow_membership(views)
    for attack in chosen_rows:
        lacks = attacks.missing(attack, views)
        if lacks:
            console.say(f"{scenario} {variant}: {attack.key} left out, these signals hold no {' and no '.join(lacks)}")
            continue
        started = time.monotonic()
        try:
            result = _run(attack, views, pairs, {**options, "earlier": results})
        except attacks.Unusable as error:
            console.say(f"{scenario} {variant}: {attack.key} left out, {error}")
            continue
        results[attack.key] = result
        head = [scenario, variant, attack.name, attack.classifier, attack.artifact_row]
        row = _row(head, result.scores, result.decision, truth, options["seed"], time.monotonic() - started)
        null_row = _row(head, *null_control(result.scores, result.decision, truth), options["seed"], 0.0)
        row |= {f"null_{key}": null_row[key] for key in ("auc", "auc_lo", "auc_hi")}
        rows.append(row | _on_shadows(attack, result, known, truth))
    if not rows:
        raise UserError(f"no attack of {scenario} can run on these signals")

    # Only what the attacker has, his shadows, may say which attack he deploys.
    worth = [row["shadow_log_auc"] for row in rows]
    best = None if np.isnan(worth).all() else int(np.nanargmax(worth))
    rows = [{**row, "headline": number == best} for number, row in enumerate(rows)]
    # Every row carries its own null as well.
    controlled = results[list(results)[best or 0]]
    null = null_control(controlled.scores, controlled.decision, truth)
    rows.append({**_row([scenario, variant, "null", "", ""], *null, options["seed"], 0.0), "headline": False})
    scores = {key: result.scores for key, result in results.items()}
    return rows, {**scores, "null": np.where(truth, np.nan, controlled.scores)}


def shadow_membership(views: list) -> np.ndarray:
    """(M,) of 0/1: the truth behind attacks' `shadow_scores`."""
    given = next(view for view in views if view is not None)
    return given.member[audit_rows(given)[0]]


def _on_shadows(attack: attacks.Attack, result: attacks.Result, known: np.ndarray, truth: np.ndarray) -> dict:
    """A row's last columns: whom the shadows' threshold for 0.1 % false alarms accuses; the attack's worth there."""
    strict = metrics.strict_threshold(result.shadow_scores, known)
    quality = metrics.log_auc(result.shadow_scores, known) if attack.eligible else np.nan
    return {**metrics.accusations(result.scores >= strict, truth), "shadow_log_auc": quality}


def _run(attack: attacks.Attack, views: list, pairs: list[Pair], options: dict) -> attacks.Result:
    """One attack. What SR finds of a pair is left for MR, which makes what SR has not left."""
    options = {**options, "progress": lambda epochs: console.progress(epochs, attack.key)}
    if attack.name == "MR":
        stages = console.progress(list(zip(views[1:], pairs, strict=True)), "SR of each compressed model")
        options["memberships"] = [first_stage(views[0], view, pair, options["seed"]) for view, pair in stages]
    result = attack.run(views, **options)
    if attack.key == FIRST_STAGE:
        keep_first_stage(pairs[0], attacks.Membership(result.shadow_scores, result.scores))
    return result


def _pairs(files: list[Path | None], hashes: list[str | None], seed: int, code: str, out: Path | None) -> list[Pair]:
    """One for each compressed model: in `out`, or beside its signals where these are a run's own."""
    return [
        Pair((out or file.parent) / f"{file.stem}_sr.npz", f"{hashes[0]} {own} {seed} {code}")
        for file, own in zip(files[1:], hashes[1:], strict=True)
    ]


def first_stage(original, compressed, pair: Pair, seed: int) -> attacks.Membership:
    """What SR says of a pair: as it was left, or made now and left for the next table."""
    with contextlib.suppress(*signals.DAMAGED), np.load(pair.file, allow_pickle=False) as found:
        if str(found["key"]) == pair.key:
            return attacks.Membership(found["shadow"], found["victim"])
    made = attacks.membership(original, compressed, seed=seed)
    keep_first_stage(pair, made)
    return made


def keep_first_stage(pair: Pair, made: attacks.Membership) -> None:
    write_atomically(pair.file, lambda part: np.savez(part, key=np.array(pair.key), **made._asdict()))


def null_control(scores: np.ndarray, decision: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, ...]:
    """The attack on the victim's non-members alone: scores, decisions, and which half was queried like members.

    The first half in file order went through the members' call (`signals.query_order`); no attack can tell the halves
    apart unless members are loaded or queried in another way than non-members (PROTOCOL §7).
    """
    others = np.flatnonzero(~truth)
    return scores[others], decision[others], np.arange(len(others)) < len(others) // 2


def blind_control(run: runs.Run | None, file: Path, record: signals.Record, seed: int, code: str):
    """Scores of the classifier that sees raw images only, (A,), NaN on half; kept with the run. None without a run."""
    if run is None:
        console.say("blind left out: it needs the images, and these signals are from files alone")
        return None
    points, kept = signals.points(file)[record.audit[0]], run.dir / "blind.npz"
    key = hashlib.sha256(points.tobytes() + record.truth.tobytes() + f"{seed} {code}".encode()).hexdigest()
    with contextlib.suppress(*signals.DAMAGED), np.load(kept, allow_pickle=False) as found:
        if str(found["key"]) == key:
            return found["scores"]
    scores = attacks.blind(runs.dataset(run).images[points], record.truth, seed=seed)
    write_atomically(kept, lambda part: np.savez(part, scores=scores, key=np.array(key)))
    return scores


def _row(head: list[str], scores, decision, truth, seed: int, seconds: float) -> dict:
    names = ("scenario", "variant", "attack", "classifier", "artifact_row")
    measured = metrics.evaluate(scores, decision, truth, seed=seed)
    first = {key: measured.pop(key) for key in metrics.COLUMNS}
    return {**dict(zip(names, head, strict=True)), **first, "seed": seed, "seconds": round(seconds, 2), **measured}


def _made_from(jobs: dict[str, list[Path | None]], args: argparse.Namespace, seed: int) -> dict:
    """All that the numbers of a table follow from: signals, settings, and the code of attacks and metrics."""
    code = hashlib.sha256()
    for file in sorted([*Path(attacks.__file__).parent.glob("*.py"), Path(metrics.__file__), Path(__file__)]):
        code.update(file.read_bytes())
    hashes = {variant: [sha256(path) if path else None for path in files] for variant, files in jobs.items()}
    return {"signals": hashes, "seed": seed, "recipe": args.recipe, "code": code.hexdigest()[:16]}


def _done(out: Path, scenario: str, made_from: dict) -> bool:
    files = [out / f"{scenario}{end}" for end in (".csv", "_scores.npz", ".json")]
    return all(file.exists() for file in files) and read_json(files[-1]).get("made_from") == made_from


def _write(out: Path, scenario: str, table: pd.DataFrame, scores: dict[str, np.ndarray]) -> None:
    write_atomically(out / f"{scenario}_scores.npz", lambda part: np.savez(part, **scores))
    write_atomically(out / f"{scenario}.csv", lambda part: table.to_csv(part, index=False))
