"""Which benchmarks there are, and a run of some of them: what ``coopt bench`` does."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from coopt_fl.bench.case import Row
from coopt_fl.bench.compare import compare
from coopt_fl.bench.results import Results, read, results_of
from coopt_fl.core.errors import ConfigError, OutputError
from coopt_fl.core.files import make_folder, write_json

NAMES = (
    "optimize",
    "handwritten",
    "alignment",
    "student",
    "sharing",
    "fusion",
    "startup",
    "imports",
    "transport",
)
"""The modules of this package whose ``measure()`` yields rows, in the order of the table."""

Tell = Callable[[Row], None]


def bench(names: Sequence[str], out: Path | None, earlier: Path | None, tell: Tell) -> Results:
    """Measure, write each row to ``out`` at once, and compare with what is in ``earlier``.

    Args:
        names: of benchmarks; none: all.
        out: gets the results as JSON.
        earlier: what an earlier run wrote.
        tell: told of each row as soon as it is known.

    Raises:
        ConfigError: there is no such benchmark, or ``earlier`` cannot be compared with.
        OutputError: ``out`` cannot be written.
    """
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise ConfigError(f"there is no benchmark {unknown[0]!r}; choose of {', '.join(NAMES)}")
    before = read(earlier) if earlier is not None else None
    if out is not None:
        if out.is_dir():
            raise OutputError(f"{out} is a folder; give --out the name of a file")
        make_folder(out.parent)
    found = results_of(["coopt bench", *names])
    for name in names or NAMES:
        for row in import_module(f"coopt_fl.bench.{name}").measure():
            tell(row)
            found["rows"].append(row)
            if out is not None:
                write_json(out, found)
    return found if before is None else {**found, "comparison": compare(before, found)}
