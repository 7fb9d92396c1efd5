"""The platform's event loop: idle nodes are asked, answers are stored, lost nodes replaced."""

import time
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import suppress
from itertools import count

from flwr.app import Message

from coopt_fl.core.errors import CooptError, DataError, OutputError, ParticipantError, quoting
from coopt_fl.core.typed import plain_words
from coopt_fl.federation import protocol

from . import exchange
from .exchange import Exchange, Job, LostReplyError, Phase
from .membership import Handover

DRAIN_SECONDS = 60.0
LOOK_SECONDS = 1.0
"""How often the platform looks who is there."""

UNFETCHED = "its payload is not there, or is not the one that it announced"
NOT_SENT = "its message could not be sent: lower optimize.chunk_mb, or look at the SuperLink's log"


class Conversation:
    """Talks to all participants at once until a phase has what it needs.

    Args:
        exchange: the messages under way.
        handover: has others take over from the members that are lost or rejected.
    """

    def __init__(self, exchange: Exchange, handover: Handover) -> None:
        self.exchange, self.handover = exchange, handover
        self.members, self.records = handover.members, handover.records
        self.phases: Sequence[Phase] = ()
        self.looked = 0.0
        self.turns: dict[str, int] = {}
        self._numbers = count(1)

    def work(self, *phases: Phase) -> None:
        """Have everything done that ``phases`` lack.

        After a failure nothing new is sent, but what is under way is still taken and stored.
        """
        self.phases = phases
        try:
            while self._unfinished() or self._awaited():
                self.step()
        except CooptError:
            self._drain()
            raise

    def _active(self) -> list[str]:
        """Return the contributors that still count; none before there is anything to do."""
        return self.records.active() if self.phases else []

    def _unfinished(self) -> list[str]:
        """Return the contributors of which something is missing."""
        return [n for n in self._active() if any(phase.missing(n) for phase in self.phases)]

    def _awaited(self) -> list[Job]:
        """Return what is under way, but for questions to newcomers."""
        return [job for job in self.exchange.under_way() if job.phase is not self.members]

    def step(self) -> None:
        """See which nodes are there, send, receive, reassign, and rest."""
        if time.monotonic() - self.looked > LOOK_SECONDS:
            self.members.present(self.exchange.nodes())
            self.looked = time.monotonic()
        self._send()
        for reply in self.exchange.replies():
            self.accept([reply])
            self._send()
        for job, reason in self.exchange.lost():
            self._failed(job, reason)
        self._replace()
        self.exchange.rest()

    def _replace(self) -> None:
        """Reassign overdue participants' blocks, unless a newcomer is still joining."""
        busy = {job.participant for job in self.exchange.under_way()}
        describing = any(job.phase is self.members for job in self.exchange.under_way())
        for name in self._unfinished():
            reason = None if name in busy else self.members.overdue(name)
            if reason is not None and (self.handover.possible(name) or not describing):
                self.handover.give_up(name, reason)

    def _send(self) -> None:
        """Send each idle node its next request, if it has one."""
        for message, job in self.requests():
            if not self.exchange.send(message, job):
                self._failed(job, LostReplyError(NOT_SENT))

    def _drain(self) -> None:
        """Store what is under way, but wait no longer than a minute for it."""
        self.exchange.hurry(DRAIN_SECONDS)
        while self._awaited():
            for reply in self.exchange.replies():
                with suppress(CooptError):
                    self.accept([reply])
            self.exchange.lost()
            self.exchange.rest()

    def requests(self) -> list[tuple[Message, Job]]:
        """Return the next request to each idle node.

        Who would bring more than ``IN_FLIGHT_BYTES`` under way waits for the next reply, and who
        was asked later waits behind it.
        """
        found, under_way = list[tuple[Message, Job]](), self.exchange.under_way()
        total = sum(job.cost for job in under_way)
        busy = {key for job in under_way for key in (job.node, job.participant)}
        for name, node, phase in self._open_requests(busy):
            job = Job(phase, name, node, phase.cost(name))
            if total > 0 and total + job.cost > exchange.IN_FLIGHT_BYTES:
                break
            total += job.cost
            message = Message(protocol.encode(phase.ask(name)), node, phase.message_type)
            found.append((message, job))
            self.turns[name] = next(self._numbers)
        return found

    def _open_requests(self, busy: Set[int | str]) -> Iterator[tuple[str, int, Phase]]:
        """Yield who could be asked, at which node, in the first phase that is not finished.

        Who was asked longest ago comes first; who or whose node is ``busy`` is left out.
        """
        for name, node in self.members.newcomers().items():
            if node not in busy:
                yield name, node, self.members
        active = set(self._active())
        idle = [n for n in self.members.fit() if not {n, self.members.nodes[n]} & busy]
        for name in sorted(idle, key=lambda name: self.turns.get(name, 0)):
            phase = next((phase for phase in self.phases if phase.missing(name)), None)
            if name in active and phase is not None and phase.ready(name):
                yield name, self.members.nodes[name], phase

    def accept(self, replies: Iterable[Message]) -> None:
        """Check and store each reply; reject whose answer is unacceptable."""
        for reply in replies:
            job = self.exchange.take(reply)
            problem = exchange.problem_in(reply)
            try:
                if problem is None:
                    self._store(job, reply)
            except OutputError:
                raise
            except DataError as error:
                problem = quoting(DataError(plain_words(str(error))), UNFETCHED)
            except CooptError as error:
                reason = ParticipantError(plain_words(str(error)))
                self._refuse(job, quoting(reason, error.public))
            if problem is not None:
                self._failed(job, problem)

    def _store(self, job: Job, reply: Message) -> None:
        exchange.require_size(reply.content, job.cost)
        job.phase.accept(job.participant, protocol.decode(job.phase.answer, reply.content))
        if job.phase is not self.members:
            if sent := exchange.sent_bytes(reply.content):
                self.records.add_upload(job.participant, sent)
            self.members.heard(job.participant)

    def _refuse(self, job: Job, reason: ParticipantError) -> None:
        """Have nothing more to do with whoever gave an unacceptable answer."""
        if job.phase is self.members:
            self.members.refuse(job.node, reason)
        else:
            job.phase.returned(job.participant)
            self.handover.reject(job.participant, reason, {})

    def _failed(self, job: Job, error: CooptError) -> None:
        """Note that a request came to nothing; in a simulation that is the end of the run."""
        if job.phase is self.members and not isinstance(error, LostReplyError):
            self.members.refuse(job.node, error)
            return
        job.phase.returned(job.participant)
        if job.phase is not self.members:
            if self.members.simulated:
                raise type(error)(f"participant {job.participant}: {error}")
            self.handover.progress.warn(f"participant {job.participant}: {error}")
        self.members.lose(job.participant, job.node, error)
