"""An accelerator that takes a set time for each batch, and none of the CPU's.

Like a GPU, it is given work and returns at once; only who reads a result waits for it.
"""

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coopt_fl.core.link import IN_FLIGHT, Link, Sent
from coopt_fl.data.image import Preprocess
from coopt_fl.priors import Prior

BYTES_PER_S = 10e9
"""What page-locked memory sends over a PCI Express 4 bus of 16 lanes, with some to spare."""

SIDE = 32


class Simulated:
    """The accelerator: it does what it is given one after another."""

    def __init__(self) -> None:
        self._free = 0.0  # when all is done, by time.perf_counter

    def launch(self, seconds: float) -> None:
        """Give it work of so many seconds."""
        self._free = max(self._free, time.perf_counter()) + seconds

    def given(self) -> "Until":
        """Return what it was given so far."""
        return Until(self._free)


@dataclass(frozen=True)
class Until:
    """Work that is done at a time."""

    done: float

    def synchronize(self) -> None:
        """Wait until then."""
        time.sleep(max(0.0, self.done - time.perf_counter()))


class SimulatedLink(Link):
    """The way to it, on which it keeps no images."""

    ahead = IN_FLIGHT
    keeps = False

    def __init__(self, accelerator: Simulated) -> None:
        super().__init__(torch.device("cpu"))
        self._accelerator = accelerator

    def send(self, batch: Sent) -> Sent:
        """Take as long as a bus."""
        time.sleep(sum(one.nbytes for one in batch) / BYTES_PER_S)
        return batch

    def work(self) -> Until:
        """Return what the accelerator was given."""
        return self._accelerator.given()


class Timed(nn.Module):
    """The mean colour, for which the accelerator is busy for some seconds, whatever the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.accelerator, self.seconds = Simulated(), 0.0
        self.scale = nn.Parameter(torch.ones(()))  # a student has something to train

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, 3)."""
        self.accelerator.launch(self.seconds)
        return self.scale * images.mean((2, 3))


def prior(model: Timed) -> Prior:
    """Return a prior of images of 32 pixels, on the CPU as torch sees it."""
    preprocess = Preprocess(SIDE, SIDE, "bilinear", (0.5,) * 3, (0.5,) * 3)
    return Prior("simulated", 3, "", preprocess, model.eval(), torch.device("cpu"))


def student(name: str, image_size: int) -> nn.Module:
    """Build the backbone of a student."""
    return Timed()
