"""The platform's event loop: idle nodes are asked, answers are stored, lost nodes replaced."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import count

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from coopt_fl.core.errors import CooptError, DataError, OutputError, ParticipantError
from coopt_fl.core.progress import Progress
from coopt_fl.federation import protocol
from coopt_fl.federation.records import Records

from . import exchange
from .exchange import Exchange, Job, LostReplyError, Phase, Work, content_of
from .membership import Handover, Membership

DRAIN_SECONDS = 60.0
LOOK_SECONDS = 1.0
"""How often the platform looks who is there."""

NOT_SENT = "its message could not be sent: lower optimize.chunk_mb, or look at the SuperLink's log"


class Conversation:
    """Talks to all participants at once until a phase has what it needs.

    Args:
        exchange: the messages under way.
        members: who is there.
        handover: has others take over.
        records: of the run.
        progress: told what happens.
    """

    def __init__(
        self,
        exchange: Exchange,
        members: Membership,
        handover: Handover,
        records: Records,
        progress: Progress,
    ) -> None:
        self.exchange, self.members, self.handover = exchange, members, handover
        self.records, self.progress = records, progress
        self.works: Sequence[Work] = ()
        self.looked, self.count = 0.0, count()
        self.turns: dict[str, int] = {}

    def work(self, grid: Grid, *works: Work) -> None:
        """Have everything done that ``works`` lack.

        After a failure nothing new is sent, but what is under way is still taken and stored.
        """
        self.works = works
        try:
            while self._unfinished() or self._awaited():
                self.step(grid)
        except CooptError:
            self._drain(grid)
            raise
        finally:
            self.records.save_uploads()

    def _unfinished(self) -> list[str]:
        """Return the contributors of which something is missing."""
        active = self.records.active() if self.works else []
        return [name for name in active if any(work.missing(name) for work in self.works)]

    def _awaited(self) -> list[Job]:
        """Return what is under way, but for questions to newcomers."""
        return [job for job in self.exchange.under_way() if job.phase is not self.members]

    def step(self, grid: Grid) -> None:
        """See which nodes are there, send, receive, reassign, and rest."""
        if time.monotonic() - self.looked > LOOK_SECONDS:
            nodes = list(grid.get_nodes())
            self.members.present({node.node_id: node.name for node in nodes})
            self.exchange.present({node.node_id: node.last_activated_at for node in nodes})
            self.looked = time.monotonic()
        self._send(grid)
        self._receive(grid)
        self._replace()
        self.exchange.rest(self.members.simulated)

    def _replace(self) -> None:
        """Reassign overdue participants' blocks, unless a newcomer is still joining."""
        busy = self.exchange.busy()
        describing = any(job.phase is self.members for job in self.exchange.under_way())
        for name in self._unfinished():
            reason = None if name in busy else self.members.overdue(name)
            if reason is not None and (self.handover.possible(name) or not describing):
                self.handover.give_up(name, reason)

    def _send(self, grid: Grid) -> None:
        """Send each idle node its next request, if it has one."""
        for job in self.exchange.send(grid, self.requests()):
            self._failed(job, LostReplyError(NOT_SENT))

    def _receive(self, grid: Grid) -> None:
        """Take what has come, one reply at a time."""
        for reply, _ in self.exchange.replies(grid):
            self.accept([reply])
            self._send(grid)
        for job, reason in self.exchange.lost():
            self._failed(job, reason)

    def _drain(self, grid: Grid) -> None:
        """Store what is under way, but wait no longer than a minute for it."""
        self.exchange.hurry(DRAIN_SECONDS)
        while self._awaited():
            for reply, _ in self.exchange.replies(grid):
                with suppress(CooptError):
                    self.accept([reply])
            self.exchange.lost()
            self.exchange.rest(self.members.simulated)

    def requests(self, kind: str = "") -> list[Message]:
        """Return the next request, of one ``kind`` ("query", "train") or any, to each idle node.

        Who would bring more than ``IN_FLIGHT_BYTES`` under way waits for the next reply, and who
        was asked later waits behind it.
        """
        messages, busy, under_way = list[Message](), self.exchange.busy(), self.exchange.cost()
        for name, node, phase in self._open_requests():
            if {name, node} & busy or not phase.message_type.startswith(kind):
                continue
            cost = phase.cost(name)
            if under_way > 0 and under_way + cost > exchange.IN_FLIGHT_BYTES:
                break
            messages.append(Message(protocol.encode(phase.ask(name)), node, phase.message_type))
            self.exchange.prepare(Job(phase, name, node, cost))
            self.turns[name] = next(self.count)
            under_way += cost
        return messages

    def _open_requests(self) -> Iterator[tuple[str, int, Phase]]:
        """Yield who could be asked, at which node, in the first phase that is not finished.

        Who was asked longest ago comes first.
        """
        for name, node in self.members.newcomers().items():
            yield name, node, self.members
        active = set(self.records.active() if self.works else [])
        for name in sorted(self.members.fit(), key=lambda name: self.turns.get(name, -1)):
            work = next((work for work in self.works if work.missing(name)), None)
            if name in active and work is not None and work.ready(name):
                yield name, self.members.nodes[name], work

    def accept(self, replies: Iterable[Message]) -> None:
        """Have the phase of each reply check and store it."""
        for reply in replies:
            job = self.exchange.take(reply)
            try:
                content = content_of(reply)
                problem = protocol.error_in(content)
            except LostReplyError as lost:
                problem = lost
            if problem is None:
                self._check(job, content)
            else:
                self._failed(job, problem)

    def _check(self, job: Job, content: RecordDict) -> None:
        """Have an answer checked and stored; reject whose answers are unacceptable."""
        try:
            exchange.require_size(content, job.cost)
            job.phase.accept(job.participant, content)
            if job.phase is not self.members:
                self.records.add_upload(job.participant, exchange.sent_bytes(content))
                self.members.heard(job.participant)
        except OutputError:
            raise
        except DataError as error:
            self._failed(job, DataError(protocol.plain_words(str(error))))
        except CooptError as error:
            reason = ParticipantError(protocol.plain_words(str(error)))
            if job.phase is self.members:
                self.members.refuse(job.node, reason)
            else:
                job.phase.returned(job.participant)
                self.handover.reject(job.participant, reason, {})

    def _failed(self, job: Job, error: CooptError) -> None:
        """Note that a request came to nothing; in a simulation that is the end of the run."""
        if job.phase is self.members:
            if isinstance(error, LostReplyError):
                self.members.lose(job.participant, job.node, error)
            else:
                self.members.refuse(job.node, error)
            return
        job.phase.returned(job.participant)
        if self.members.simulated:
            raise type(error)(f"participant {job.participant}: {error}")
        self.progress.warn(f"participant {job.participant}: {error}")
        self.members.lose(job.participant, job.node, error)
