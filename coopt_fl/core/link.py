"""The way of batches to a device that computes on its own, so that it never waits for the next one.

While it works on a batch, a thread reads the next ones and sends them. To a CPU, which reads and
computes itself, there is no way to go: nothing is done ahead, and no thread is started.
"""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
Sent = tuple[Tensor, ...]

IN_FLIGHT = 2
"""Batches that are read and sent ahead, and as many that the device was given to work on."""


class Work(Protocol):
    """What a device was given to do, up to some moment."""

    def synchronize(self) -> None:
        """Wait until it is done."""


class Link:
    """The plain way: to a CPU, where nothing moves, or at once to any other device.

    Attributes:
        device: where it leads.
        ahead: batches under way at a time; 0: each is fetched when it is asked for.
        keeps: whether images may stay on the device, where they fit.
    """

    ahead = 0
    keeps = True

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def reading(self) -> AbstractContextManager[object]:
        """Return what the thread that reads does so in."""
        return nullcontext()

    def send(self, batch: Sent) -> Any:
        """Start to send tensors, in the thread that reads; return what :meth:`receive` takes."""
        return tuple(one.to(self.device) for one in batch)

    def receive(self, sent: Any) -> Sent:
        """Return the tensors on the device, for the work that this thread gives it from now on."""
        arrived: Sent = sent
        return arrived

    def work(self) -> Work | None:
        """Return all that this thread has given the device to do; None: it is done."""
        return None

    def fetch(self, values: Tensor) -> Tensor:
        """Return values of the device on the CPU; they are there when :meth:`work` is done."""
        return values.cpu()


class CudaLink(Link):
    """The way to a GPU: from page-locked memory, on a stream of its own, beside the computation.

    torch keeps page-locked and device memory that is free again, and gives neither away before the
    copies and computations that use it are done.
    """

    ahead = IN_FLIGHT

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._copies = torch.cuda.Stream(device)

    def reading(self) -> AbstractContextManager[object]:
        """Make this GPU the current one, which each thread has for itself."""
        return torch.cuda.device(self.device)

    def send(self, batch: Sent) -> tuple[Sent, torch.cuda.Event]:
        """Copy to page-locked memory, and start to copy from there; what is there stays."""
        with torch.cuda.stream(self._copies):
            pinned = (one if one.is_cuda else one.pin_memory() for one in batch)
            sent = tuple(one.to(self.device, non_blocking=True) for one in pinned)
            return sent, self._copies.record_event()

    def receive(self, sent: tuple[Sent, torch.cuda.Event]) -> Sent:
        """Let the computation, not this thread, wait for the copy."""
        tensors, arrived = sent
        computation = torch.cuda.current_stream(self.device)
        computation.wait_event(arrived)
        for tensor in tensors:
            tensor.record_stream(computation)
        return tensors

    def work(self) -> torch.cuda.Event:
        """Return what the stream of this thread holds."""
        event: torch.cuda.Event = torch.cuda.current_stream(self.device).record_event()
        return event

    def fetch(self, values: Tensor) -> Tensor:
        """Start to copy to page-locked memory, after the computation."""
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        return host.copy_(values, non_blocking=True)


def link_to(device: torch.device) -> Link:
    """Return the way to a device."""
    return CudaLink(device) if device.type == "cuda" else Link(device)


def feed(batches: Iterable[tuple[Sent, T]], link: Link) -> Generator[tuple[Sent, T], None, None]:
    """Yield tensors on the device, each with what came with it.

    A batch is taken to be in the hands of the device when the next one is asked for. It is given at
    most ``IN_FLIGHT``, so that what waits for it does not fill its memory.
    """
    given = deque[Work]()
    with closing(ahead(_sent(batches, link), link.ahead)) as coming:
        for one, rest in coming:
            yield link.receive(one), rest
            if (work := link.work()) is not None:
                given.append(work)
            if len(given) > IN_FLIGHT:
                given.popleft().synchronize()


def _sent(batches: Iterable[tuple[Sent, T]], link: Link) -> Generator[tuple[Any, T], None, None]:
    """Yield batches that are on their way; what reads them may decode on the device, too."""
    with link.reading():
        for tensors, rest in batches:
            yield link.send(tensors), rest


def ahead(items: Generator[T, None, None], most: int) -> Generator[T, None, None]:
    """Yield ``items`` while a thread takes up to ``most`` of them ahead; 0: no thread.

    What they raise is raised here, in its place. When this iterator is closed, that thread closes
    ``items``, and ends.
    """
    if not most:
        yield from items
        return
    end: Any = object()
    with ThreadPoolExecutor(1, "ahead") as thread:
        coming = deque(thread.submit(next, items, end) for _ in range(most))
        try:
            while (item := coming.popleft().result()) is not end:
                coming.append(thread.submit(next, items, end))
                yield item
        finally:
            for one in coming:
                one.cancel()
            thread.submit(items.close).result()
