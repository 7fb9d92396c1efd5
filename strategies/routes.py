"""The ways that payloads take to the platform: in replies, as objects elsewhere, as local files."""

import hashlib
import secrets
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from coopt_fl.config.schema import Config
from coopt_fl.core import remote
from coopt_fl.core.errors import DataError, OutputError, ParticipantError
from coopt_fl.core.files import make_folder
from coopt_fl.federation import protocol
from coopt_fl.federation.protocol import Delivery, IntArray, Payload
from coopt_fl.federation.records import Records
from coopt_fl.federation.state import RunState
from coopt_fl.federation.units import unit_file
from coopt_fl.optimized.block import Block

from .exchange import SLACK_BYTES

THROUGH_FLOWER = "flower"
"""The ``payload.route`` by which payloads are in the replies."""


class Asked(NamedTuple):
    """What a payload has to hold.

    Attributes:
        units: ids (ascending) of each block that was asked for, in order.
        dim: width n of a target.
        contributor: index of the participant.
        size: bytes of the arrays.
    """

    units: Mapping[int, IntArray]
    dim: int
    contributor: int
    size: int


class Route(Protocol):
    """One way: where a participant has to leave a payload, and how it gets into the state."""

    answer: type[Any]

    def place(self, name: str) -> dict[str, str]:
        """Return the fields of a request to ``name`` that say where its payload has to be."""

    def fetch(self, name: str, answer: Any, asked: Asked) -> tuple[Delivery, dict[int, Block]]:
        """Return what ``name`` says that it delivers, and the units after the protocol's checks."""

    def store(
        self, name: str, told: Delivery, index: int, unit: Block, block: IntArray, audited: IntArray
    ) -> None:
        """Store one of the units, see :meth:`RunState.save_unit`."""

    def stored(self, name: str, answer: Any, units: Iterable[Block]) -> int:
        """Forget the payload of ``name``; return how many bytes came beside the reply."""

    def close(self) -> None:
        """Clean up after payloads that nobody fetched."""


class InReplies:
    """Payloads are in the replies."""

    answer: type[Any] = Payload

    def __init__(self, state: RunState) -> None:
        self.state = state

    def place(self, name: str) -> dict[str, str]:
        """Return no place."""
        return {"upload": "", "folder": ""}

    def fetch(self, name: str, answer: Any, asked: Asked) -> tuple[Delivery, dict[int, Block]]:
        """Return the answer itself and its units."""
        units = protocol.accept_payload(answer, asked.units, asked.dim, asked.contributor)
        return answer, units

    def store(
        self, name: str, told: Delivery, index: int, unit: Block, block: IntArray, audited: IntArray
    ) -> None:
        """Write it."""
        self.state.save_unit(index, unit, block, audited)

    def stored(self, name: str, answer: Any, units: Iterable[Block]) -> int:
        """Do nothing: all bytes were in the reply."""
        return 0

    def close(self) -> None:
        """Do nothing."""


class OutOfBand(InReplies):
    """Payloads are files below ``url``; a reply holds the size and sum of one.

    The platform says where a participant has to write, so that nobody's file is taken for
    another's. A file that was changed is asked for again: its author may not be to blame.
    """

    answer = protocol.Receipt

    def __init__(self, state: RunState, url: str, key: str) -> None:
        super().__init__(state)
        self.folder = remote.join(url, key[:16])  # of the run's dataset
        self._places: dict[str, list[str]] = defaultdict(list)

    def place(self, name: str) -> dict[str, str]:
        """Return the URL of a file of this run and participant, which nobody else can guess."""
        place = remote.join(self.folder, name, f"{secrets.token_hex(8)}.npz")
        self._places[name].append(place)
        return {"upload": place, "folder": ""}

    def fetch(self, name: str, answer: Any, asked: Asked) -> tuple[Delivery, dict[int, Block]]:
        """Fetch the file that a participant announces.

        Raises:
            ParticipantError: it is larger than it has to be, or no payload.
            DataError: it is not there, or not the one that was announced.
        """
        most = asked.size + SLACK_BYTES
        if not 0 < answer.size <= most:
            raise ParticipantError(f"its payload has {answer.size} bytes, expected at most {most}")
        place = self._places[name][-1]
        data = remote.fetch(place, answer.size)
        if len(data) != answer.size or hashlib.sha256(data).hexdigest() != answer.sha256:
            raise DataError(
                f"the payload at {remote.shown(place)} is not the one that it announced; see who "
                "else can write there"
            )
        return super().fetch(name, protocol.decode(Payload, data), asked)

    def stored(self, name: str, answer: Any, units: Iterable[Block]) -> int:
        """Remove the file, where the platform may."""
        _remove(self._places[name].pop())
        return int(answer.size)

    def close(self) -> None:
        """Remove what nobody fetched; a participant that was late may have written it since."""
        for places in self._places.values():
            for place in places:
                _remove(place)


class OnHost(InReplies):
    """Units are files in a private folder of the run, which the platform adopts by renaming them.

    Only for participants that this process started on its own host. Each request has a folder of
    its own, so that whoever answers late cannot replace what is being checked. Its name and those
    of the files in it are the platform's: no answer can name a file.
    """

    answer = Delivery

    def __init__(self, state: RunState) -> None:
        super().__init__(state)
        self._folders: dict[str, Path] = {}

    def place(self, name: str) -> dict[str, str]:
        """Make the folder of a request and return its path."""
        folder = self.state.arriving.resolve() / f"{name}-{secrets.token_hex(8)}"
        make_folder(folder)
        self._folders[name] = folder
        return {"upload": "", "folder": str(folder)}

    def fetch(self, name: str, answer: Any, asked: Asked) -> tuple[Delivery, dict[int, Block]]:
        """Return the answer and the units in the files.

        Raises:
            DataError: a file is not there, or not of the size that it has to be.
        """
        folder = self._folders[name]
        units = protocol.accept_delivery(answer, folder, asked.units, asked.dim, asked.contributor)
        return answer, units

    def store(
        self, name: str, told: Delivery, index: int, unit: Block, block: IntArray, audited: IntArray
    ) -> None:
        """Adopt the file."""
        file = unit_file(self._folders[name], index)
        digest = told.digests[told.blocks.index(index)]
        self.state.adopt_unit(file, index, unit, digest, block, audited)

    def stored(self, name: str, answer: Any, units: Iterable[Block]) -> int:
        """Remove the empty folder."""
        shutil.rmtree(self._folders.pop(name), ignore_errors=True)
        return sum(unit.ids.nbytes + unit.targets.nbytes for unit in units)

    def close(self) -> None:
        """Remove all of it, with what nobody adopted."""
        shutil.rmtree(self.state.arriving, ignore_errors=True)


def route_of(config: Config, records: Records, own_host: bool) -> Route:
    """Return the way of a run's payloads.

    Args:
        config: the run.
        records: of the run.
        own_host: whether this process started all participants on its host.
    """
    if config.payload.route != THROUGH_FLOWER:
        return OutOfBand(records.state, config.payload.route, records.key)
    return OnHost(records.state) if own_host else InReplies(records.state)


def _remove(place: str) -> None:
    with suppress(OutputError):
        remote.remove(place)
