"""Seconds that other work on the host hardly changes; also of interrupted trainings."""

import hashlib
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch

from coopt_fl.core.cache import cache_dir
from coopt_fl.core.runtime import pick_device
from coopt_fl.students.checkpoint import LoadedStudent
from coopt_fl.students.curve import Point
from coopt_fl.students.probe import Judge, Judged


class Stopwatch:
    """Measures CPU seconds per thread of this process, or wall-clock seconds if it uses a GPU."""

    def __init__(self) -> None:
        self._wall, self._busy = time.perf_counter(), time.process_time()

    @property
    def seconds(self) -> float:
        """The seconds so far, never more than those of the wall clock."""
        wall = time.perf_counter() - self._wall
        if pick_device().type != "cpu":
            return wall
        return min(wall, (time.process_time() - self._busy) / torch.get_num_threads())


class TimedJudge(Judge):
    """A judge that sums up the CPU seconds of its probes."""

    busy = 0.0

    def __call__(self, student: LoadedStudent) -> Judged:
        """Probe the student, see :class:`Judge`."""
        zero = time.process_time()
        judged = super().__call__(student)
        self.busy += time.process_time() - zero
        return judged


class CpuClock:
    """Measures the CPU seconds of a training's epochs, whatever else the host does.

    Probes do not count. The seconds are kept in a file, so that they survive an interruption.
    """

    def __init__(self, file: Path, judge: TimedJudge) -> None:
        self._file, self._judge, self._zero = file, judge, 0.0

    def begun(self, done: int, epochs: int) -> None:
        """Start the clock."""
        self._zero = self._now()

    def epoch(self, point: Point, epochs: int) -> None:
        """Record the CPU seconds of an epoch."""
        now = self._now()
        with self._file.open("a") as file:
            file.write(f"{now - self._zero}\n")
        self._zero = now

    @property
    def found(self) -> dict[str, float]:
        """The median over the epochs per thread, if they ran on a CPU; else nothing."""
        if pick_device().type != "cpu":
            return {}
        epochs = [float(line) for line in self._file.read_text().split()]
        return {"epoch cpu s": median(epochs) / torch.get_num_threads()}

    def _now(self) -> float:
        return time.process_time() - self._judge.busy


@contextmanager
def resumed(training: str) -> Iterator[Path]:
    """Yield the folder of a training, as an interruption left it; remove it after success."""
    folder = cache_dir() / "trainings" / hashlib.sha256(training.encode()).hexdigest()[:32]
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    shutil.rmtree(folder)
