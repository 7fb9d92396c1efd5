"""How payloads reach the platform: in replies, as objects in a store, as local files."""

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
"""The ``payload.route`` that sends payloads in the replies."""


class Asked(NamedTuple):
    """What a payload has to contain.

    Attributes:
        units: ids (ascending) of each unit that was asked for, by block index, in order.
        dim: width n of a target.
        contributor: index of the participant.
        size: bytes of the arrays.
    """

    units: Mapping[int, IntArray]
    dim: int
    contributor: int
    size: int


class Route(Protocol):
    """One way: where a participant puts its payload, and how that gets into the state."""

    answer: type[Any]

    def place(self, name: str) -> dict[str, str]:
        """Return the fields of a request to ``name`` that say where to put its payload."""

    def fetch(self, name: str, answer: Any, asked: Asked) -> tuple[Delivery, dict[int, Block]]:
        """Return the metadata of a delivery by ``name``, and its units, checked by the protocol."""

    def store(
        self, name: str, sent: Delivery, index: int, unit: Block, block: IntArray, audited: IntArray
    ) -> None:
        """Store one of the units, see :meth:`RunState.save_unit`."""

    def stored(self, name: str, answer: Any, units: Iterable[Block]) -> int:
        """Clean up after a payload that is stored; return the bytes that came beside the reply."""

    def close(self) -> None:
        """Remove payloads that were never fetched."""


class InReplies:
    """Payloads are in the replies."""

    answer: type[Any] = Payload

    def __init__(self, state: RunState) -> None:
        self.state = state

    def place(self, name: str) -> dict[str, str]:
        """Return empty fields: the payload comes in the reply."""
        return {"upload": "", "folder": ""}

    def fetch(self, name: str, answer: Any, asked: Asked) -> tuple[Delivery, dict[int, Block]]:
        """Return the answer itself and its units."""
        units = protocol.accept_payload(answer, asked.units, asked.dim, asked.contributor)
        return answer, units

    def store(
        self, name: str, sent: Delivery, index: int, unit: Block, block: IntArray, audited: IntArray
    ) -> None:
        """Write the rows of the unit."""
        self.state.save_unit(index, unit, block, audited)

    def stored(self, name: str, answer: Any, units: Iterable[Block]) -> int:
        """Do nothing: all bytes were in the reply."""
        return 0

    def close(self) -> None:
        """Do nothing."""


class OutOfBand(InReplies):
    """Payloads are files below ``url``; a reply has the size and sha256 of one.

    The platform chooses each file's URL, so that no file is taken for another participant's. A
    changed file is asked for again, not held against its author, as others may write there.
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
            ParticipantError: it is larger than expected, or no payload.
            DataError: it is missing, or not the one that was announced.
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
        """Remove files that were never fetched; a late participant may have written some."""
        for places in self._places.values():
            for place in places:
                _remove(place)


class OnHost(InReplies):
    """Units are files in a private folder of the run, which the platform adopts by renaming them.

    Only for participants that this process started on its own host. Each request has a folder of
    its own, so that a late answer cannot replace files that are being checked. The platform chooses
    its name and those of its files; no answer can name a file.
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
            DataError: a file is missing, or not of the expected size.
        """
        folder = self._folders[name]
        units = protocol.accept_delivery(answer, folder, asked.units, asked.dim, asked.contributor)
        return answer, units

    def store(
        self, name: str, sent: Delivery, index: int, unit: Block, block: IntArray, audited: IntArray
    ) -> None:
        """Adopt the file."""
        file = unit_file(self._folders[name], index)
        digest = sent.digests[sent.blocks.index(index)]
        self.state.adopt_unit(file, index, unit, digest, block, audited)

    def stored(self, name: str, answer: Any, units: Iterable[Block]) -> int:
        """Remove the empty folder."""
        shutil.rmtree(self._folders.pop(name), ignore_errors=True)
        return sum(unit.ids.nbytes + unit.targets.nbytes for unit in units)

    def close(self) -> None:
        """Remove the folders of all requests, with files that were never adopted."""
        shutil.rmtree(self.state.arriving, ignore_errors=True)


def route_of(config: Config, records: Records, own_host: bool) -> Route:
    """Return the route of a run's payloads.

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
