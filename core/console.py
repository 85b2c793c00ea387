"""What users see on the terminal: lines, progress bars, and one line instead of a traceback if they made a mistake."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from core.errors import UserError, one_line


def say(line: str) -> None:
    """Print a line without breaking a progress bar that is on the screen."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def progress(items, desc: str, total: int | None = None):
    """The items, with a progress bar if the output is a terminal."""
    return tqdm(items, desc=desc, total=total, disable=None, leave=False, dynamic_ncols=True)


def run_script(main: Callable[[Sequence[str] | None], object]) -> None:
    """Call a script's `main`. An error that the user can correct becomes one line on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a terminal that cannot show a character, such as ±, shows ? instead
    try:
        main(None)
    except (UserError, OSError) as error:
        end_with(str(error))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        end_with(f"the memory is full ({one_line(error)}): give a smaller --batch_size, or another --device")
    except KeyboardInterrupt:
        sys.exit(130)


def end_with(message: str) -> None:
    """End the script with one line on stderr and exit code 2."""
    print(f"{Path(sys.argv[0]).name}: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that the memory of the processor or of a GPU is full.

    Torch is not imported here. It has an error of its own for GPUs, and a RuntimeError for the processor.
    """
    is_of_torch = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or is_of_torch
