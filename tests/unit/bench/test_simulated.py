"""The simulated accelerator, tested with a fake clock."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from coopt_fl.bench import simulated
from coopt_fl.bench.simulated import Simulated, SimulatedLink, Timed, prior
from coopt_fl.data.source import ArraySource
from coopt_fl.targets import Alignment, optimize


@dataclass
class Clock:
    """A clock that advances only by ``sleep``."""

    now: float = 100.0
    slept: list[float] = field(default_factory=list)

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(simulated, "time", clock)
    return clock


def test_it_works_on_one_thing_after_another_and_nobody_waits(clock: Clock) -> None:
    accelerator = Simulated()
    accelerator.launch(2.0)
    first = accelerator.given()
    accelerator.launch(3.0)
    assert clock.now == 100
    first.synchronize()
    assert clock.now == 102
    accelerator.given().synchronize()
    assert clock.now == 105
    clock.now = 200  # idle
    accelerator.launch(1.0)
    accelerator.given().synchronize()
    assert clock.now == 201


def test_sending_takes_what_a_bus_takes(clock: Clock) -> None:
    SimulatedLink(Simulated()).send((torch.zeros(10_000, dtype=torch.uint8),))
    assert clock.slept == [1e-6]


def test_a_whole_optimization_takes_its_time(clock: Clock) -> None:
    """It takes six batches of a second each, plus the time of sending, and nothing else."""
    model = Timed()
    encoder, model.seconds = prior(model), 1.0
    source = ArraySource("array", np.zeros((24, 32, 32, 3), np.uint8))
    alignment = Alignment(np.ones((3, 2), np.float32), np.zeros(2, np.float32), "")
    blocks, link = np.split(source.ids, 3), SimulatedLink(model.accelerator)
    how = {"batch_size": 4, "precision": "float32", "on_error": "raise", "link": link}
    made = list(optimize(encoder, source, blocks, alignment, **how))
    assert np.concatenate([block.ids for block in made]).tolist() == list(range(24))
    assert clock.now == pytest.approx(106, abs=1e-3)
