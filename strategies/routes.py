"""Payloads that come as files, which participants write elsewhere than into their replies."""

import hashlib
import secrets
from contextlib import suppress

from flwr.app import RecordDict

from coopt_fl.core import remote
from coopt_fl.core.errors import DataError, OutputError, ParticipantError
from coopt_fl.federation import protocol

from .exchange import SLACK_BYTES


class OutOfBand:
    """Payloads are files below ``url``; a reply holds the size and sum of one.

    The platform says where a participant has to write, so that nobody's file is taken for
    another's. A file that was changed is asked for again: its author may not be to blame.
    """

    def __init__(self, url: str, key: str) -> None:
        self.url, self.key = url, key  # of the run's dataset
        self._places: dict[str, str] = {}
        self._abandoned: list[str] = []

    def place(self, name: str) -> str:
        """Return the URL of a file of this run and participant, which nobody else can guess."""
        file = f"{secrets.token_hex(8)}.npz"
        self._places[name] = remote.join(self.url, self.key[:16], name, file)
        return self._places[name]

    def payload(
        self, name: str, content: RecordDict, expected: int
    ) -> tuple[protocol.Payload, int]:
        """Fetch the file that an answer announces; return the payload and the file's bytes.

        Args:
            name: of the participant.
            content: its answer.
            expected: bytes of the arrays in the payload.

        Raises:
            ParticipantError: it is larger than it has to be, or no payload.
            DataError: it is not there, or not the one that was announced.
        """
        receipt = protocol.decode(protocol.Receipt, content)
        most = expected + SLACK_BYTES
        if not 0 < receipt.size <= most:
            raise ParticipantError(f"its payload has {receipt.size} bytes, expected at most {most}")
        place = self._places[name]
        data = remote.fetch(place, receipt.size)
        if len(data) != receipt.size or hashlib.sha256(data).hexdigest() != receipt.sha256:
            raise DataError(
                f"the payload at {remote.shown(place)} is not the one that it announced; see who "
                "else can write there"
            )
        return protocol.unpack(data), len(data)

    def forget(self, name: str) -> None:
        """Remove the file of a payload that is stored, where the platform may."""
        _remove(self._places[name])

    def abandon(self, name: str) -> None:
        """Wait no longer for a file; a participant that is late may still write it."""
        self._abandoned.append(self._places[name])
        self.forget(name)

    def close(self) -> None:
        """Remove what came late."""
        for place in self._abandoned:
            _remove(place)


def _remove(place: str) -> None:
    with suppress(OutputError):
        remote.remove(place)
