"""What importing the package and printing the help add to starting Python."""

import subprocess
import sys
from collections.abc import Callable, Iterator

from coopt_fl.bench.case import Case, Reach, Row
from coopt_fl.bench.timing import in_turn, spread, timed

REPEATS = 9
NOTHING = ("-c", "pass")
WHAT = {
    "import": ("import coopt_fl", ("-c", "import coopt_fl")),
    "help": ("coopt --help", ("-m", "coopt_fl", "--help")),
}


def measure() -> Iterator[Row]:
    """Yield a row for each, in seconds more than ``python -c pass``."""
    for name, (path, arguments) in WHAT.items():
        case = Case(f"imports/{name}", path, "python -c pass", Reach(0.5, at_least=False), "s more")
        pairs = in_turn(timed(_python(*arguments)), timed(_python(*NOTHING)), REPEATS)
        yield case.measured(
            spread(whole - nothing for whole, nothing in pairs),
            seconds=spread(whole for whole, _ in pairs),
            python_seconds=spread(nothing for _, nothing in pairs),
        )


def _python(*arguments: str) -> Callable[[], object]:
    command = [sys.executable, *arguments]
    return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
