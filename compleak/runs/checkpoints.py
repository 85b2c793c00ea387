"""Checkpoint folders: `model.pt` (tensors only), `meta.json` (what it is, readable) and the state of a stopped run.

`meta.json` is written last and holds the hash of `model.pt`: a folder with both is whole, anything else is not done.
Once a model has been asked all questions its weights can be dropped; `meta.json` stays and says so.
Its `made_from` says what the checkpoint was made from (data, split, network, settings); a stage that would make it
from something else refuses to use it.
"""

import contextlib
import functools
import io
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from core.console import say
from core.errors import UserError
from core.files import is_refused, make_folder, read_json, sha256, write_atomically, write_json
from core.threads import use_threads

FORMAT = 1
WEIGHTS, META, RESUME = "model.pt", "meta.json", "resume.pt"
SAME_SETTINGS = "use the same settings, another --run_name, or delete it"
STOPPED = "stopped.pt"  # the state of a training that a defence ended early, from which a longer one may go on


class Checkpoint(NamedTuple):
    """Tensors of one model and what `meta.json` says of them."""

    tensors: dict[str, torch.Tensor]
    meta: dict


def save(folder: Path, tensors: dict[str, torch.Tensor], made_from: dict, facts: dict) -> dict:
    """Write both files and drop the resume state; returns the metadata written."""
    weights = folder / WEIGHTS
    write_tensors(weights, tensors)
    meta = {
        "format": FORMAT,
        "sha256": sha256(weights),
        "bytes": weights.stat().st_size,
        "made_from": made_from,
        **facts,
    }
    write_json(folder / META, meta)
    remove_resume_files(folder)
    return meta


def is_finished(folder: Path) -> bool:
    """Whether the folder holds a finished model, whatever it was made from."""
    return (folder / META).exists()


def is_done(folder: Path, made_from: dict) -> bool:
    """True where the folder holds the finished model; UserError where it holds one made from something else."""
    if not is_finished(folder):
        return False
    refuse_difference(folder, load_meta(folder)["made_from"], made_from)
    if not dropped(folder):
        load(folder)  # a damaged file is better found now
    remove_resume_files(folder)  # left where a run was killed between the last two steps
    return True


def copy_identical_model(folder: Path, made_from: dict) -> Path | None:
    """Copy the model that another run under the same root has made from exactly the same; None where none has.

    The runs of a defence share models: the victim is the same whether or not the attacker is adaptive, and the shadow
    models of an attacker who assumes no defence are those of the undefended run.
    """
    others = [meta.parent for meta in sorted(folder.parent.parent.glob(f"*/{folder.name}/{META}"))]
    twin = next((other for other in others if _is_whole(other, made_from)), None)
    if twin is not None:
        further = load_meta(twin).get("files", [])
        for name in (WEIGHTS, *further, META):  # META last: a folder that has it is whole
            write_atomically(folder / name, functools.partial(shutil.copyfile, twin / name))
    return twin


def _is_whole(folder: Path, made_from: dict) -> bool:
    """Whether a folder, of any age and origin, holds a model made from this, with its weights."""
    try:
        meta = load_meta(folder)
        has_all_files = all((folder / name).exists() for name in meta.get("files", []))
        return meta["made_from"] == made_from and has_all_files and bool(load(folder))
    except UserError:
        return False


def drop_weights(folder: Path) -> None:
    """Keep of a finished checkpoint only what `meta.json` says of it."""
    write_json(folder / META, {**load_meta(folder), "dropped": True})
    (folder / WEIGHTS).unlink(missing_ok=True)


def dropped(folder: Path) -> bool:
    return load_meta(folder).get("dropped", False)


def refuse_difference(what: Path, found: dict, wanted: dict, advice: str = SAME_SETTINGS) -> None:
    """UserError, with the advice, that names the first setting in which a stored output differs from what is wanted."""
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key) != wanted.get(key):
            raise UserError(f"{what} was made with {key} {found.get(key)}, not {wanted.get(key)}: {advice}")


def load_meta(folder: Path) -> dict:
    if not is_finished(folder):
        raise UserError(f"{folder} holds no finished checkpoint ({META} is missing)")
    meta = read_json(folder / META)
    if meta.get("format") != FORMAT or not isinstance(meta.get("made_from"), dict) or "sha256" not in meta:
        raise UserError(
            f"{folder / META} is not of this project's format {FORMAT}: delete the folder and make it again"
        )
    return meta


def load(folder: Path) -> Checkpoint:
    """Read a finished checkpoint. UserError where a file is missing, damaged or not the one `meta.json` describes."""
    meta, weights = load_meta(folder), folder / WEIGHTS
    if meta.get("dropped"):
        raise UserError(f"the weights of {folder} were dropped to save space: delete the folder to make them again")
    if not weights.exists() or sha256(weights) != meta["sha256"]:
        raise UserError(f"{weights} is damaged or was replaced: delete {folder} and run the stage that makes it again")
    return Checkpoint(read_tensors(weights), meta)


def write_tensors(path: Path, content: dict) -> None:
    """Save tensors so that the same ones give the same bytes.

    torch.save writes the name of its file into the file. Here that would be a temporary name, which holds the machine's
    name and a process number; saved to memory, the name is "archive".
    """
    memory = io.BytesIO()
    torch.save(content, memory)
    write_atomically(path, lambda part: part.write_bytes(memory.getbuffer()))


def read_tensors(path: Path) -> dict:
    """torch.load without code execution, on the CPU."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail in any way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is damaged or foreign ({reason}): delete it and run the stage again") from error


def resume_file(folder: Path, training: int = 0) -> Path:
    """Where the state of a stopped training is kept. A model that takes several trainings has a file for each."""
    return folder / (f"resume_{training}.pt" if training else RESUME)


def remove_resume_files(folder: Path) -> None:
    for file in folder.glob("resume*.pt"):
        file.unlink(missing_ok=True)


def stopped_file(folder: Path) -> Path:
    """Where an early-stopped training leaves its state for longer ones."""
    return folder / STOPPED


def take_over_stopped(resume: Path, identity: dict, epochs: int) -> None:
    """Move the state of the same training, stopped early in another run under the same root, to `resume`.

    Of several the one with the most epochs is taken, but none with more than `epochs`. Nothing happens where `resume`
    is there, or where there is no such state.
    """
    if resume.exists():
        return
    states = {}
    for file in sorted(resume.parent.parent.parent.glob(f"*/{resume.parent.name}/{STOPPED}")):
        state = read_tensors(file)
        if state["identity"] == identity and state["epoch"] <= epochs:
            states[state["epoch"]] = file
    if states:
        longest = max(states)
        make_folder(resume.parent)
        with contextlib.suppress(FileNotFoundError):  # another process was quicker
            states[longest].rename(resume)
            say(f"{resume.parent.name}: goes on from {states[longest].parent} after {longest} epochs")


def save_resume(path: Path, identity: dict, model: nn.Module, optimizer, procedure, epoch: int, loss: float) -> None:
    """Remember a training after `epoch` finished epochs."""
    state = {
        "identity": identity,
        "epoch": epoch,
        "loss": loss,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "procedure": procedure.state_dict(),
        "threads": torch.get_num_threads(),
    }
    write_tensors(path, state)


def load_resume(
    path: Path, identity: dict, model: nn.Module, optimizer, procedure, advice: str = SAME_SETTINGS
) -> tuple[int, float]:
    """Put a stopped training back where it was: (epochs done, last loss); (0, nan) where there is none.

    It goes on with as many threads as it began with, so that its last bits are those of a training never stopped.
    UserError, with the advice, where the state is that of another training.
    """
    if not path.exists():
        return 0, float("nan")
    state = read_resume(path, identity, advice)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    procedure.load_state_dict(state.get("procedure", {}))  # not there where an earlier version stopped
    threads = state.get("threads", torch.get_num_threads())
    if threads != torch.get_num_threads():
        say(f"{path.parent.name}: goes on with {threads} thread(s), the number that it began with")
        use_threads(threads)
    return state["epoch"], state["loss"]


def read_resume(path: Path, identity: dict, advice: str = SAME_SETTINGS) -> dict:
    """The state of a stopped training. UserError, with the advice, where another training has left it."""
    state = read_tensors(path)
    parts = {"identity", "epoch", "loss", "model", "optimizer"}
    if not isinstance(state, dict) or not parts <= state.keys():
        raise UserError(f"{path} is not the state of a stopped training: delete it")
    refuse_difference(path, state["identity"], identity, advice)
    return state


def foreign_states(folder: Path, identity: dict, numbers: Iterable[int]) -> list[Path]:
    """Of the states of stopped trainings of these numbers those that are damaged or that another training has left."""
    files = [resume_file(folder, number) for number in numbers]
    return [file for file in files if is_refused(file, lambda file: read_resume(file, identity))]


def megabytes(count: int) -> str:
    return f"{count / 1e6:.2f} MB"
