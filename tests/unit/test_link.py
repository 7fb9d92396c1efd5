"""Work ahead of a device: its thread, its limit, and that nothing is left behind."""

import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from coopt_fl.core import link as links
from coopt_fl.core.link import IN_FLIGHT, CudaLink, Link, ahead, feed, link_to

CPU = torch.device("cpu")


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("ahead")]


@dataclass
class Items:
    """Yields numbers up to ``end``, then optionally an error; records the consuming threads."""

    end: int
    error: bool = False
    made: list[int] = field(default_factory=list)
    by: set[int] = field(default_factory=set)
    closed_by: int | None = None

    def __call__(self) -> Generator[int, None, None]:
        try:
            for number in range(self.end):
                self.made.append(number)
                self.by.add(threading.get_ident())
                yield number
            if self.error:
                raise KeyError("planted")
        finally:
            self.closed_by = threading.get_ident()


@given(end=st.integers(0, 9), most=st.integers(0, 4))
def test_items_come_in_order_and_no_thread_stays(end: int, most: int) -> None:
    items = Items(end)
    assert list(ahead(items(), most)) == list(range(end))
    assert items.closed_by is not None and not threads()
    here = {threading.get_ident()} if end else set()
    assert (items.by == here) if most == 0 else items.by.isdisjoint(here)


@pytest.mark.parametrize("most", [0, 1, 3])
def test_an_error_comes_where_it_belongs(most: int) -> None:
    seen, items = [], Items(4, error=True)
    with pytest.raises(KeyError, match="planted"):
        for number in ahead(items(), most):
            seen.append(number)
    assert seen == [0, 1, 2, 3] and not threads()


def test_it_is_never_further_ahead_than_asked_for() -> None:
    items = Items(20)
    for number in ahead(items(), 3):
        assert len(items.made) <= number + 1 + 3


@pytest.mark.parametrize("taken", [1, 2])
def test_who_stops_early_leaves_nothing_behind(taken: int) -> None:
    items = Items(1000)
    coming = ahead(items(), 2)
    for _ in range(taken):
        next(coming)
    assert threads()
    coming.close()
    assert items.closed_by in items.by and not threads(), "closed where it ran"
    assert len(items.made) <= taken + 2


class Slow(Link):
    """A device that does no work until the caller waits for it."""

    ahead = 2

    def __init__(self) -> None:
        super().__init__(CPU)
        self.given, self.done, self.sent_by = 0, 0, set[int]()

    def send(self, batch: tuple[Tensor, ...]) -> Any:
        self.sent_by.add(threading.get_ident())
        return batch

    def receive(self, sent: Any) -> tuple[Tensor, ...]:
        self.given += 1
        return tuple(one + 1 for one in sent)

    def work(self) -> "Wait":
        return Wait(self, self.given)


@dataclass
class Wait:
    link: Slow
    upto: int

    def synchronize(self) -> None:
        self.link.done = max(self.link.done, self.upto)


def test_a_device_is_given_few_batches_at_a_time_from_another_thread() -> None:
    link = Slow()
    batches = (((torch.tensor([k]),), k) for k in range(9))
    for (values,), k in feed(batches, link):
        assert values.item() == k + 1
        assert link.given - link.done <= IN_FLIGHT + 1, "the newest is not yet launched"
    assert link.sent_by.isdisjoint({threading.get_ident()}) and not threads()


def test_to_a_cpu_nothing_moves_and_nobody_else_reads() -> None:
    values, items = torch.arange(3), Items(3)
    pairs = (((values,), number) for number in items())
    for (there,), _ in feed(pairs, link_to(CPU)):
        assert there.data_ptr() == values.data_ptr()
    assert items.by == {threading.get_ident()}
    assert link_to(CPU).work() is None


class Recorder:
    """Stands in for torch.cuda's streams, and records their calls in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said = list[str]()
        mine = {"Stream": lambda device: Stream(self, "copies"), "stream": self.stream}
        mine |= {"current_stream": lambda device: Stream(self, "computation")}
        for name, fake in mine.items():
            monkeypatch.setattr(links.torch.cuda, name, fake)
        monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: self.pin(tensor))
        monkeypatch.setattr(Tensor, "to", lambda *given, **how: self.to(*given, **how))
        monkeypatch.setattr(Tensor, "record_stream", lambda _, on: self.note(f"used by {on.name}"))

    def note(self, words: str) -> None:
        self.said.append(words)

    def stream(self, on: "Stream") -> "Stream":
        self.note(f"on {on.name}")
        return on

    def pin(self, tensor: Tensor) -> Tensor:
        self.note("pinned")
        return tensor

    def to(self, tensor: Tensor, device: torch.device, non_blocking: bool) -> Tensor:
        self.note(f"copied to {device}" + " at leisure" * non_blocking)
        return tensor


@dataclass
class Stream:
    recorder: Recorder
    name: str

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.recorder.note(f"off {self.name}")

    def record_event(self) -> str:
        self.recorder.note(f"event on {self.name}")
        return f"event of {self.name}"

    def wait_event(self, event: str) -> None:
        self.recorder.note(f"{self.name} waits for {event}")


def test_a_gpu_is_sent_pinned_memory_beside_its_computation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder = Recorder(monkeypatch)
    link = link_to(torch.device("cuda", 1))
    assert isinstance(link, CudaLink)
    sent = link.send((torch.zeros(2),))
    link.receive(sent)
    assert link.work() == "event of computation"
    assert recorder.said == [
        "on copies",
        "pinned",
        "copied to cuda:1 at leisure",
        "event on copies",
        "off copies",
        "computation waits for event of copies",
        "used by computation",
        "event on computation",
    ]
