"""Messages under way: at most one per node, replies taken one at a time as they arrive."""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from coopt_fl.errors import ParticipantError

POLL_SECONDS = 0.1
AGAIN = "what was delivered is kept: run the same command again to continue"
LOST = {
    ErrorCode.MESSAGE_UNAVAILABLE: "it did not answer in time",
    ErrorCode.NODE_UNAVAILABLE: "it went offline",
    ErrorCode.CLIENT_APP_CRASHED: "it died",
}


@dataclass(frozen=True)
class Job:
    """What was asked of a node: which participant it is, and until when it may take."""

    participant: str
    node: int
    deadline: float


class Exchange:
    """The job table between the platform and the grid."""

    def __init__(self, stopped: threading.Event, reply_seconds: float) -> None:
        self._stopped = stopped
        self._reply_seconds = reply_seconds
        self._jobs: dict[str, Job] = {}

    def busy(self, node: int) -> bool:
        """Whether a message to ``node`` is under way."""
        return node in self.nodes()

    def nodes(self) -> list[int]:
        """Return the nodes to which a message is under way."""
        return [job.node for job in self._jobs.values()]

    def send(self, grid: Grid, messages: Sequence[Message], names: dict[int, str]) -> None:
        """Send messages, a list because a generator fails in deployments; ``names`` by node.

        Raises:
            ParticipantError: the grid refuses one.
        """
        if not messages:
            return
        deadline = time.monotonic() + self._reply_seconds
        nodes = [message.metadata.dst_node_id for message in messages]
        sent = list(grid.push_messages(messages))
        for index, node in enumerate(nodes):
            if index >= len(sent) or not sent[index]:
                raise ParticipantError(
                    f"the message to participant {names[node]} could not be sent: lower "
                    "optimize.chunk_mb, or look at the SuperLink's log"
                )
            self._jobs[str(sent[index])] = Job(names[node], node, deadline)

    def take(self, reply: Message) -> Job:
        """Take the job that ``reply`` answers off the table and return it."""
        return self._jobs.pop(reply.metadata.reply_to_message_id)

    def replies(self, grid: Grid) -> Iterator[Message]:
        """Yield replies until nothing is under way; the caller may send more meanwhile.

        Raises:
            ParticipantError: a participant is past its deadline.
            KeyboardInterrupt: the run was asked to stop.
        """
        while self._jobs:
            for message_id in list(self._jobs):
                yield from grid.pull_messages([message_id])
            if self._stopped.is_set():
                raise KeyboardInterrupt
            self._check_deadlines()
            time.sleep(POLL_SECONDS)

    def abandon(self) -> list[str]:
        """Wait no longer for anyone; return who had not answered."""
        silent = [job.participant for job in self._jobs.values()]
        self._jobs.clear()
        return silent

    def hurry(self, seconds: float) -> None:
        """Give all that is under way at most ``seconds`` from now."""
        latest = time.monotonic() + seconds
        self._jobs = {
            key: replace(job, deadline=min(job.deadline, latest)) for key, job in self._jobs.items()
        }

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        for job in self._jobs.values():
            if now > job.deadline:
                raise ParticipantError(
                    f"participant {job.participant} did not answer within deadline.reply="
                    f"{self._reply_seconds:g} s; raise it or lower optimize.chunk_mb; {AGAIN}"
                )


def content_of(reply: Message) -> RecordDict:
    """Return what a reply carries.

    Raises:
        ParticipantError: Flower's error as one sentence; its own text can be a page of traceback.
    """
    if not reply.has_error():
        return reply.content
    reason = str(reply.error.reason or "")
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    what = LOST.get(reply.error.code, "it failed")
    detail = lines[-1][:200] if lines else f"code {reply.error.code}"
    if "ActorDied" in reason or "ActorUnavailable" in reason:
        what, detail = "it died", "its process was killed, perhaps for lack of memory"
    raise ParticipantError(f"{what} ({detail}); {AGAIN}")
