"""Messages under way: at most one per node, replies taken one at a time as they arrive."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.superlink.grid import InMemoryGrid
from google.protobuf.message import DecodeError

from coopt_fl.core.errors import CooptError, ParticipantError, quoting
from coopt_fl.core.typed import plain_words
from coopt_fl.federation import protocol

IN_FLIGHT_BYTES = 128_000_000
"""Most bytes of arrays under way at once; a single message may have more."""

ID_BYTES, FLOAT_BYTES = 8, 4

SLACK_BYTES = 1_000_000
"""Bytes that a reply may have beyond its ids, features and targets."""

POLL_SECONDS = 0.1
"""Seconds between two looks for replies in a simulation."""

REMOTE_POLL_SECONDS = 1.0
"""The same in a deployment, where each look is a network call and replies take seconds."""

UNDECODABLE = (DecodeError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What Flower raises when an object's checksum is right and its content is malformed."""

AGAIN = "what was delivered is kept: run the same command again to continue"
LOST = {
    ErrorCode.MESSAGE_UNAVAILABLE: "it did not answer in time",
    ErrorCode.NODE_UNAVAILABLE: "it went offline",
    ErrorCode.CLIENT_APP_CRASHED: "it died",
}


class LostReplyError(ParticipantError):
    """No answer will come: the participant died, went offline, or was too slow."""


class Phase(Protocol):
    """One phase of the protocol: what it asks of a participant, and how it takes the answer."""

    message_type: str
    answer: type[Any]

    def missing(self, name: str) -> bool:
        """Whether something of ``name`` is not stored yet; a phase ends when nothing is missing."""
        return False

    def ready(self, name: str) -> bool:
        """Whether ``name`` can be asked now."""
        return True

    def ask(self, name: str) -> Any:
        """Return the next request to participant ``name``."""

    def cost(self, name: str) -> int:
        """Return the bytes of the arrays in the next request to ``name`` and in its answer."""
        return 0

    def accept(self, name: str, answer: Any) -> None:
        """Check and store the answer to the last request.

        Raises:
            ParticipantError: the answer is not acceptable.
        """

    def returned(self, name: str) -> None:
        """Take back the last request to ``name``, which failed or was refused."""
        return


@dataclass(frozen=True)
class Job:
    """One outstanding request.

    Attributes:
        phase: the phase that asks.
        participant: the participant that is asked.
        node: the node to which the message goes.
        cost: bytes of the arrays in the request and its answer.
        deadline: when the answer is overdue, in monotonic seconds.
        late: the error message when it is.
    """

    phase: Phase
    participant: str
    node: int
    cost: int
    deadline: float = 0.0
    late: str = ""


class Exchange:
    """The job table between the platform and the grid.

    Args:
        grid: Flower's grid of participants.
        stopped: set from outside to end the run early.
        reply_seconds: timeout of a reply.
        simulated: whether the nodes of the grid are simulated by this process.
    """

    def __init__(
        self, grid: Grid, stopped: threading.Event, reply_seconds: float, simulated: bool
    ) -> None:
        self._grid, self._stopped = grid, stopped
        self._reply_seconds, self._simulated = reply_seconds, simulated
        self._jobs: dict[str, Job] = {}
        self._undecodable: dict[str, LostReplyError] = {}
        self._activated: dict[int, str] = {}
        self._looked = 0.0

    def under_way(self) -> list[Job]:
        """Return the jobs that are not answered yet."""
        return list(self._jobs.values())

    def nodes(self) -> dict[int, str]:
        """Return the nodes that are there, with their names, and note when each was activated.

        A node that is restarted keeps its id if its key is registered, and Flower reports its
        absence only while it lasts. So the job of a restarted node counts as lost after one more
        look for its reply.
        """
        nodes, now = list(self._grid.get_nodes()), time.monotonic()
        activated = {node.node_id: node.last_activated_at for node in nodes}
        again = {one for one, when in activated.items() if self._activated.get(one, when) != when}
        self._activated |= activated
        for key, job in self._jobs.items():
            if job.node in again:
                self._jobs[key] = replace(job, deadline=now, late=f"it was started again; {AGAIN}")
        return {node.node_id: node.name for node in nodes}

    def send(self, message: Message, job: Job) -> bool:
        """Send a message; return whether the grid took it.

        Messages are sent one by one: if one of a list is too large, the grid refuses them all.
        """
        sent = [str(one) for one in self._grid.push_messages([message]) if one]
        late = (
            f"it did not answer within deadline.reply={self._reply_seconds:g} s; raise it or "
            f"lower optimize.chunk_mb; {AGAIN}"
        )
        deadline = time.monotonic() + self._reply_seconds
        self._jobs |= {one: replace(job, deadline=deadline, late=late) for one in sent}
        return bool(sent)

    def replies(self) -> Iterator[Message]:
        """Yield each reply that has come in time; the caller has to :meth:`take` its job.

        Raises:
            KeyboardInterrupt: the run was asked to stop.
        """
        self._looked = time.monotonic()
        for message_id in [key for key in self._jobs if key not in self._undecodable]:
            for reply in self._pull(message_id):
                if reply.metadata.reply_to_message_id in self._jobs:
                    yield reply
            if self._stopped.is_set():
                raise KeyboardInterrupt

    def take(self, reply: Message) -> Job:
        """Remove and return the job that ``reply`` answers."""
        return self._jobs.pop(reply.metadata.reply_to_message_id)

    def _pull(self, message_id: str) -> list[Message]:
        """Return the reply, if it has come; a reply that Flower cannot decode counts as lost."""
        try:
            return list(self._grid.pull_messages([message_id]))
        except UNDECODABLE as error:
            what = "its answer cannot be decoded"
            lost = LostReplyError(f"{what} ({error!r:.200}); {AGAIN}")
            self._undecodable[message_id] = quoting(lost, what)
            return []

    def lost(self) -> list[tuple[Job, LostReplyError]]:
        """Remove the jobs to which no answer will come; return them with the reasons.

        A job is late only if the last look for replies began after its deadline: while the replies
        of one look are stored, others may come in time.
        """
        late = {
            key: LostReplyError(job.late)
            for key, job in self._jobs.items()
            if self._looked > job.deadline
        }
        reasons, self._undecodable = late | self._undecodable, {}
        return [(self._jobs.pop(key), reason) for key, reason in reasons.items()]

    def rest(self) -> None:
        """Wait a little for the next answers.

        Raises:
            KeyboardInterrupt: the run was asked to stop.
        """
        if self._stopped.wait(POLL_SECONDS if self._simulated else REMOTE_POLL_SECONDS):
            raise KeyboardInterrupt

    def hurry(self, seconds: float) -> None:
        """Move the deadlines of all jobs to at most ``seconds`` from now."""
        latest = time.monotonic() + seconds
        for key, job in self._jobs.items():
            self._jobs[key] = replace(job, deadline=min(job.deadline, latest))


def is_simulated(grid: Grid) -> bool:
    """Whether this process simulates the nodes of ``grid``, whatever participants say of it."""
    return isinstance(grid, InMemoryGrid)


def problem_in(reply: Message) -> CooptError | None:
    """Return the error that a reply carries instead of an answer, or None.

    Flower's own error may be a page of traceback, which is shortened to one sentence.
    """
    if not reply.has_error():
        return protocol.error_in(reply.content)
    reason = str(reply.error.reason or "")
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    what = LOST.get(reply.error.code, "it failed")
    detail = lines[-1][:200] if lines else f"code {reply.error.code}"
    if "ActorDied" in reason or "ActorUnavailable" in reason:
        what, detail = "it died", "its process was killed, perhaps for lack of memory"
    return quoting(LostReplyError(f"{what} ({plain_words(detail)}); {AGAIN}"), what)


def require_size(content: RecordDict, cost: int) -> None:
    """Check the size of a reply against ``cost``, the bytes that its arrays may have.

    Raises:
        ParticipantError: it is far too large.
    """
    size, words = sent_bytes(content), 0
    for record in content.config_records.values():
        words += sum(len(str(value)) for value in record.values())
    if size > 2 * cost + SLACK_BYTES or words > SLACK_BYTES:
        raise ParticipantError(
            f"expected about {cost} bytes of arrays, got {size}, and {words} letters of text"
        )


def sent_bytes(content: RecordDict) -> int:
    """Return the bytes of the arrays in a reply."""
    records = content.array_records.values()
    return sum(len(array.data) for record in records for array in record.values())
