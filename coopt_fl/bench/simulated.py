"""A simulated accelerator that takes a set time per batch, and no CPU time.

Like a GPU it works asynchronously: launching work returns at once, and only reading a result waits.
"""

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coopt_fl.core.link import IN_FLIGHT, Link, Sent
from coopt_fl.data.image import Preprocess
from coopt_fl.priors import Prior

BYTES_PER_S = 10e9
"""Simulated bandwidth: a bit less than from page-locked memory over 16 lanes of PCI Express 4."""

SIDE = 32


class Simulated:
    """The accelerator: a queue of work that is done in order."""

    def __init__(self) -> None:
        self._free = 0.0  # time.perf_counter() at which all work will be done

    def launch(self, seconds: float) -> None:
        """Enqueue work of so many seconds."""
        self._free = max(self._free, time.perf_counter()) + seconds

    def given(self) -> "Until":
        """Return an event for the end of all work enqueued so far."""
        return Until(self._free)


@dataclass(frozen=True)
class Until:
    """An event at the time ``done``, by ``time.perf_counter()``."""

    done: float

    def synchronize(self) -> None:
        """Wait for the event."""
        time.sleep(max(0.0, self.done - time.perf_counter()))


class SimulatedLink(Link):
    """The link to the accelerator, which does not keep images in its memory."""

    ahead = IN_FLIGHT
    keeps = False

    def __init__(self, accelerator: Simulated) -> None:
        super().__init__(torch.device("cpu"))
        self._accelerator = accelerator

    def send(self, batch: Sent) -> Sent:
        """Return the batch after the time that a bus would take to transfer it."""
        time.sleep(sum(one.nbytes for one in batch) / BYTES_PER_S)
        return batch

    def work(self) -> Until:
        """Return an event for the end of the work enqueued so far."""
        return self._accelerator.given()


class Timed(nn.Module):
    """A model of the mean colour that keeps the accelerator busy for ``seconds`` per batch."""

    def __init__(self) -> None:
        super().__init__()
        self.accelerator, self.seconds = Simulated(), 0.0
        self.scale = nn.Parameter(torch.ones(()))  # so that there is a parameter to train

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, 3)."""
        self.accelerator.launch(self.seconds)
        return self.scale * images.mean((2, 3))


def prior(model: Timed) -> Prior:
    """Return a prior for images of 32 pixels, which torch takes to be on the CPU."""
    preprocess = Preprocess(SIDE, SIDE, "bilinear", (0.5,) * 3, (0.5,) * 3)
    return Prior("simulated", 3, "", preprocess, model.eval(), torch.device("cpu"))


def student(name: str, image_size: int) -> nn.Module:
    """Build the backbone of a student."""
    return Timed()
