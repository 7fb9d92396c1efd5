"""CPU time, traffic and memory of the platform with many participants and many samples.

``python -m benchmarks.crowd [PARTICIPANTSxSAMPLES]... --out FILE``, in a checkout with the extra
``dev``. The real platform and the real participants' code run in one process: messages are those of
a run, but there is no transport. Priors are ``trivial``, data synthetic, targets narrow.
"""

import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from flwr.app import Message
from matplotlib.figure import Figure
from numpy.typing import NDArray

from coopt_fl.bench.suite import results_of
from coopt_fl.config.load import from_tree
from coopt_fl.config.schema import Config
from coopt_fl.core.errors import ConfigError
from coopt_fl.core.files import write_json
from coopt_fl.core.progress import Progress
from coopt_fl.core.runtime import keep_freed_memory
from coopt_fl.federation.client_app import app
from coopt_fl.policies.reference import Election, elect
from coopt_fl.strategies.platform import OpenDataPlatform
from experiments.command import run
from experiments.grid import InProcess

DIM, WIDTHS, SHARED = 32, range(64, 68), 256
"""Width of a target, widths of the priors, and size of the shared set."""

SIZES = ("10x100000", "100x100000", "1000x100000", "10x1000000", "100x1000000", "1000x1000000",
         "1000x10000000")  # fmt: skip
LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Size:
    """Numbers of participants and of samples."""

    participants: int
    samples: int

    @classmethod
    def of(cls, word: str) -> "Size":
        """Parse "KxN"."""
        try:
            participants, samples = map(int, word.split("x"))
        except ValueError:
            raise ConfigError(f"{word!r} is not PARTICIPANTSxSAMPLES, as in {SIZES[0]}") from None
        return cls(participants, samples)

    def config(self) -> Config:
        """Return a run's configuration with the default blocks, reference and audit."""
        widths = [WIDTHS[k % len(WIDTHS)] for k in range(self.participants)]
        people = [{"name": f"p{k}", "prior": f"trivial:{m}"} for k, m in enumerate(widths)]
        tree = {
            "data": {"source": "synthetic", "limit": self.samples},
            "participants": people,
            "shared": {"size": SHARED},
            "targets": {"dim": DIM},
            "optimize": {"batch_size": 1024},
            "runtime": {"threads": 1},
        }
        return from_tree(tree, [], "crowd")


@dataclass
class Crowd(InProcess):
    """Counts the bytes of messages.

    Attributes:
        arrays: bytes of arrays, by type of message.
        words: characters of all other values, by type of message.
    """

    arrays: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)

    def seen(self, message: Message) -> None:
        """Count a message."""
        kind = message.metadata.message_type
        arrays = message.content.array_records.values()
        self.arrays[kind] += sum(len(one.data) for record in arrays for one in record.values())
        plain = message.content.config_records.values()
        self.words[kind] += sum(len(str(one)) for record in plain for one in record.values())


class Watch(Progress):
    """Records the platform's CPU time and peak memory in each phase.

    Memory is anonymous resident memory in MB, above that at the start.
    """

    def __init__(self, crowd: Crowd) -> None:
        super().__init__()
        self.crowd, self.start = crowd, own_memory()
        self.peak, self.peaks, self.cpu = 0.0, dict[str, float](), dict[str, float]()
        self.election, self.warnings = 0.0, list[str]()

    def warn(self, message: str) -> None:
        """Keep a warning."""
        self.warnings.append(message)

    @contextmanager
    def phase(self, name: str, note: str = "") -> Iterator[None]:
        """Measure a phase."""
        self.peak, before = 0.0, self.platform()
        with super().phase(name, note):
            yield
        self.cpu[name] = round(self.platform() - before, 2)
        self.peaks[name] = round(max(self.peak, self._now()), 1)

    def platform(self) -> float:
        """Return CPU seconds so far, without those of the participants."""
        return time.process_time() - self.crowd.seconds

    def elect(
        self, features: Mapping[str, NDArray[np.float32]], wanted: str, dim: int, seed: int
    ) -> Election:
        """Hold the default election, and record its CPU time."""
        before = time.process_time()
        election = elect(features, wanted, dim, seed)
        self.election = round(time.process_time() - before, 2)
        return election

    def look(self) -> None:
        """Track the peak memory until the process ends."""
        while True:
            self.peak = max(self.peak, self._now())
            time.sleep(LOOK_SECONDS)

    def _now(self) -> float:
        return own_memory() - self.start


def own_memory() -> float:
    """Return the anonymous resident memory of this process in MB."""
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in status if line.startswith("RssAnon:")]
    return int(line.split()[1]) * 1024 / 1e6


def measure(size: Size) -> dict[str, Any]:
    """Optimize and publish a dataset in this process; return time, memory and traffic."""
    keep_freed_memory()
    crowd = Crowd(app, size.participants)
    watch = Watch(crowd)
    threading.Thread(target=watch.look, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        platform = OpenDataPlatform(
            size.config(), Path(folder) / "out", reference=watch.elect, progress=watch
        )
        platform.start(crowd)
        seconds = time.perf_counter() - started
    return {
        "size": asdict(size),
        "seconds": round(seconds, 1),
        "cpu_seconds": watch.cpu,
        "cpu_seconds_election": watch.election,
        "cpu_seconds_participants": round(crowd.seconds, 1),
        "peak_MB": watch.peaks,
        "messages": crowd.messages,
        "array_MB": {kind: round(count / 1e6, 2) for kind, count in crowd.arrays.items()},
        "other_MB": {kind: round(count / 1e6, 2) for kind, count in crowd.words.items()},
        "warnings": watch.warnings[:5],
    }


def main(
    sizes: Annotated[
        list[str] | None, typer.Argument(metavar="[PARTICIPANTSxSAMPLES]...", help="Default: all.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Add results to this JSON file, and draw a figure beside it."),
    ] = None,
) -> None:
    """Measure the platform at each given number of participants and samples."""
    chosen = [Size.of(word) for word in sizes or SIZES]
    found = results_of(["python -m benchmarks.crowd"])
    if out is not None and out.exists():
        found["rows"] = json.loads(out.read_bytes())["rows"]
    spawn = get_context("spawn")
    with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as alone:
        for size, row in zip(chosen, alone.map(measure, chosen), strict=True):
            print(row, flush=True)
            found["rows"] = [one for one in found["rows"] if Size(**one["size"]) != size] + [row]
            if out is not None:
                write_json(out, found)
                figure(found["rows"]).savefig(out.with_suffix(".png"), metadata={"Software": None})


def figure(rows: list[dict[str, Any]]) -> Figure:
    """Draw time, traffic and memory over samples, with a line for each number of participants."""
    whole = Figure(figsize=(10, 3.2), dpi=110, layout="constrained")
    panels: dict[str, Callable[[dict[str, Any]], float]] = {
        "CPU seconds of the platform": lambda row: sum(row["cpu_seconds"].values()),
        "MB sent and received": lambda row: sum(
            (*row["array_MB"].values(), *row["other_MB"].values())
        ),
        "MB of memory above the start": lambda row: max(row["peak_MB"].values()),
    }
    for axis, (title, of) in zip(whole.subplots(1, len(panels)), panels.items(), strict=True):
        for k, marker in zip(
            sorted({row["size"]["participants"] for row in rows}), "os^Dv", strict=False
        ):
            mine = sorted(
                (row["size"]["samples"], of(row))
                for row in rows
                if row["size"]["participants"] == k
            )
            axis.plot(*zip(*mine, strict=True), marker=marker, label=f"{k} participants")
        axis.set(title=title, xlabel="samples", xscale="log", yscale="log")
        axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return whole


if __name__ == "__main__":
    sys.exit(run(main))
