"""Transfer of batches to a GPU, overlapped with its computation so that it never waits for data.

While the GPU works on a batch, a thread reads the next ones and copies them to it. The CPU reads
and computes itself: there, nothing is prefetched, and no thread is started.
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
"""Most batches that are prefetched, and most that are queued on the device."""


class Work(Protocol):
    """All work that was queued on a device up to some moment."""

    def synchronize(self) -> None:
        """Wait until the work is done."""


class Link:
    """Synchronous transfer: nothing moves to a CPU, any other device gets a blocking copy.

    Attributes:
        device: where the batches go.
        ahead: batches to prefetch; 0: each is read when it is requested.
        keeps: whether images may stay on the device if they fit.
    """

    ahead = 0
    keeps = True

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def reading(self) -> AbstractContextManager[object]:
        """Return the context in which the reading thread works."""
        return nullcontext()

    def send(self, batch: Sent) -> Any:
        """Start to copy tensors, in the reading thread; return the input of :meth:`receive`."""
        return tuple(tensor.to(self.device) for tensor in batch)

    def receive(self, sent: Any) -> Sent:
        """Return the tensors on the device, ready for work that this thread queues from now on."""
        arrived: Sent = sent
        return arrived

    def work(self) -> Work | None:
        """Return the work that this thread has queued on the device; None: it is done."""
        return None

    def fetch(self, values: Tensor) -> Tensor:
        """Copy values from the device to the CPU; they are valid once :meth:`work` is done."""
        return values.cpu()


class CudaLink(Link):
    """Asynchronous transfer to a GPU: from page-locked memory, on a CUDA stream of its own.

    torch caches freed page-locked and device memory, and reuses it only when the copies and
    computations that use it are done.
    """

    ahead = IN_FLIGHT

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._copies = torch.cuda.Stream(device)

    def reading(self) -> AbstractContextManager[object]:
        """Make this GPU the current one of the calling thread."""
        return torch.cuda.device(self.device)

    def send(self, batch: Sent) -> tuple[Sent, torch.cuda.Event]:
        """Copy to page-locked memory and start the copy from there; CUDA tensors are not pinned."""
        with torch.cuda.stream(self._copies):
            pinned = (tensor if tensor.is_cuda else tensor.pin_memory() for tensor in batch)
            sent = tuple(tensor.to(self.device, non_blocking=True) for tensor in pinned)
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
        """Return an event after all work in the current stream of this thread."""
        event: torch.cuda.Event = torch.cuda.current_stream(self.device).record_event()
        return event

    def fetch(self, values: Tensor) -> Tensor:
        """Start a copy to page-locked memory, which runs after the computation."""
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        return host.copy_(values, non_blocking=True)


def link_to(device: torch.device) -> Link:
    """Return the link to a device."""
    return CudaLink(device) if device.type == "cuda" else Link(device)


def feed(batches: Iterable[tuple[Sent, T]], link: Link) -> Generator[tuple[Sent, T], None, None]:
    """Yield the tensors of each batch on the device, with the rest of the batch as it came.

    The caller has queued its work on a batch when it requests the next one. At most ``IN_FLIGHT``
    batches are queued, so that waiting ones do not fill the device's memory.
    """
    queued = deque[Work]()
    with closing(ahead(_sent(batches, link), link.ahead)) as coming:
        for sent, rest in coming:
            yield link.receive(sent), rest
            if (work := link.work()) is not None:
                queued.append(work)
            if len(queued) > IN_FLIGHT:
                queued.popleft().synchronize()


def _sent(batches: Iterable[tuple[Sent, T]], link: Link) -> Generator[tuple[Any, T], None, None]:
    """Yield batches whose copy has started; reading one may itself decode on the device."""
    with link.reading():
        for tensors, rest in batches:
            yield link.send(tensors), rest


def ahead(items: Generator[T, None, None], most: int) -> Generator[T, None, None]:
    """Yield ``items`` while a thread prefetches up to ``most`` of them; 0: no thread.

    An exception of ``items`` is raised here in its turn. Closing this iterator closes ``items``,
    in the thread, and ends the thread.
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
            for waiting in coming:
                waiting.cancel()
            thread.submit(items.close).result()
