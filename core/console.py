"""What people see on the terminal: lines, progress bars, and one line instead of a traceback for their own mistakes."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from core.errors import UserError


def say(line: str) -> None:
    """Print a line without tearing a progress bar apart."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def progress(items, desc: str, total: int | None = None):
    """A progress bar on a terminal, nothing elsewhere."""
    return tqdm(items, desc=desc, total=total, disable=None, leave=False, dynamic_ncols=True)


def run_script(main: Callable[[Sequence[str] | None], object]) -> None:
    """Call a script's `main`. An error that the user can mend becomes one line on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a terminal that cannot show a sign, such as ±, shows ? in its place
    try:
        main(None)
    except (UserError, OSError) as error:
        print(f"{Path(sys.argv[0]).name}: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
