"""What all scripts share: flags that mean the same everywhere, one-line errors, quiet progress."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from compleak import paths
from compleak.errors import UserError
from defenses import DEFENCES

DEFAULTS = {"dataset_name": "cifar10", "model_name": "resnet18", "width": 1.0}  # of the flags that name a run
UNDEFENDED = {"defend": "", "defend_arg": None, "adaptive": False, "undefended_original": False}  # these name it too


class Parser(argparse.ArgumentParser):
    """argparse, but an error is the single line that says what is wrong."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def parser(doc: str, defaults: dict[str, str] | None = None) -> argparse.ArgumentParser:
    """A parser that shows the script's docstring, with the flags that say which run is meant and where it lives.

    defaults: what the help says of flags whose default the script changes.
    """
    usual = {**DEFAULTS, "width": "1", "batch_size": "128", "run_name": "<dataset>_<model>[_w<width>]"}
    said = {**usual, **(defaults or {})}
    made = Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    run = made.add_argument_group("which run")
    run.add_argument(
        "--dataset_name",
        type=folder_name,
        help="digits, cifar10, cifar100, svhn, purchase100, texas100, location, or any name with --data_dir "
        f"(default: {said['dataset_name']})",
    )
    run.add_argument(
        "--data_dir",
        type=Path,
        help="folder or tar archive of train/<class>/* and test/<class>/* images; "
        "of purchase100, texas100 and location the folder, archive or file (default: data/datasets/)",
    )
    run.add_argument(
        "--model_name",
        help="resnet18, resnet18_gn (group norm), vgg16_bn or mobilenetv2; mlp for purchase100, texas100 and location "
        f"(default: {said['model_name']})",
    )
    run.add_argument("--width", type=positive_float, help=f"width multiplier of the network (default: {said['width']})")
    run.add_argument(
        "--num_cls", type=positive_int, help="number of classes; checked against the data (default: the data's)"
    )
    run.add_argument(
        "--run_name",
        type=folder_name,
        help=f"folder under results/, to which a defence adds its name (default: {said['run_name']})",
    )
    defence_flags(made)
    where = made.add_argument_group("where")
    where.add_argument(
        "--root",
        type=Path,
        default=paths.PROJECT,
        help="folder that holds data/ and results*/ (default: the project's)",
    )
    where.add_argument("--device", help="cuda, cpu, ... (default: CUDA where there is one, else the CPU)")
    where.add_argument(
        "--batch_size", type=positive_int, default=128, help=f"images a step (default: {said['batch_size']})"
    )
    return made


def defence_flags(made: argparse.ArgumentParser) -> None:
    """A defence is part of a run: each stage is told of it, and its name is part of the run's folder."""
    group = made.add_argument_group("which defence the run has")
    group.add_argument(
        "--defend", choices=("", *DEFENCES), metavar="|".join(DEFENCES), default="", help="trained into the models"
    )
    arguments = "; ".join(f"{name}: {d.argument} (default: {d.default:g})" for name, d in DEFENCES.items())
    group.add_argument("--defend_arg", type=positive_float, help=arguments)
    group.add_argument(
        "--adaptive",
        action="store_true",
        help="the attacker knows the defence and trains his shadows with it (default: he assumes none)",
    )
    group.add_argument(
        "--undefended_original",
        action="store_true",
        help="defend fine-tuning after compression alone, as where an existing model is compressed",
    )


def training_flags(made: argparse.ArgumentParser, epochs_flag: str, epochs: int, lr: float) -> None:
    """The flags of every stage that trains; each keeps the name the artifact's users know for its epochs."""
    group = made.add_argument_group("training")
    group.add_argument(
        epochs_flag,
        dest="epochs",
        type=positive_int,
        default=epochs,
        help="passes over the members (default: %(default)s)",
    )
    group.add_argument(
        "--lr", type=positive_float, default=lr, help="learning rate, cosine to 0 (default: %(default)s)"
    )
    group.add_argument(
        "--no_augment",
        action="store_true",
        help="train without random crop and flip; tables of features are never augmented",
    )
    roles_flag(group)


def roles_flag(group) -> None:
    group.add_argument(
        "--roles",
        nargs="*",
        metavar="ROLE",
        help="victim_model shadow_model_0 ...: only these models, or none (default: all of the run)",
    )


def identity(args: argparse.Namespace) -> dict:
    """Data set, network and width as typed, else the defaults. What was not typed stays None in `args`."""
    typed = {key: getattr(args, key) for key in DEFAULTS}
    return {key: DEFAULTS[key] if value is None else value for key, value in typed.items()}


def defence(args: argparse.Namespace) -> dict:
    """The defence as typed, its argument's default filled in. UserError for flags that lack --defend."""
    typed = {key: getattr(args, key) for key in UNDEFENDED}
    if not args.defend:
        if typed != UNDEFENDED:
            raise UserError(f"--defend_arg, --adaptive and --undefended_original need --defend {'|'.join(DEFENCES)}")
        return typed
    return {**typed, "defend_arg": args.defend_arg or DEFENCES[args.defend].default}


def default_name(named: dict) -> str:
    """The folder of a run that has no --run_name."""
    width = "" if named["width"] == 1 else f"_w{named['width']:g}"
    return f"{named['dataset_name']}_{named['model_name']}{width}"


def run_name(args: argparse.Namespace) -> str:
    return (args.run_name or default_name(identity(args))) + paths.defence_suffix(*defence(args).values())


def folder_name(text: str) -> str:
    """What becomes part of a folder's name, and may not lead out of the folder that holds it."""
    if Path(text).name != text or text == "..":
        raise argparse.ArgumentTypeError(f"{text!r} is not a plain name: leave out slashes and '..'")
    return text


def positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more")
    return value


def positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not 0 or a positive number")
    return value


def seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**31:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to {2**31 - 1}")
    return value


def share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share from 0 to below 1")
    return value


def proper_share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def whole_or_share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return value


def say(line: str) -> None:
    """Print without tearing a progress bar apart."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def progress(items, desc: str, total: int | None = None):
    """A progress bar on a terminal, nothing elsewhere."""
    return tqdm(items, desc=desc, total=total, disable=None, leave=False, dynamic_ncols=True)


def run(main: Callable[[Sequence[str] | None], object]) -> None:
    """Call a script's main; what the user can mend ends in one line on stderr and exit code 2, never in a traceback."""
    try:
        main(None)
    except (UserError, OSError) as error:
        sys.exit(_complain(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _complain(error: Exception) -> int:
    print(f"{Path(sys.argv[0]).name}: error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
