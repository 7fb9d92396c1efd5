"""The platform's event loop: ask idle nodes, store answers, replace lost nodes."""

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
"""Seconds between two lookups of the connected nodes."""

UNFETCHED = "its payload is not there, or is not the one that it announced"
NOT_SENT = "its message could not be sent: lower optimize.chunk_mb, or look at the SuperLink's log"


class Conversation:
    """Talks to all participants at once until a phase has what it needs.

    Args:
        exchange: the messages under way.
        handover: reassigns the blocks of lost or rejected members.
    """

    def __init__(self, exchange: Exchange, handover: Handover) -> None:
        self.exchange, self.handover = exchange, handover
        self.members, self.records = handover.members, handover.records
        self.phases: Sequence[Phase] = ()
        self.looked = 0.0
        self.turns: dict[str, int] = {}
        self._numbers = count(1)

    def work(self, *phases: Phase) -> None:
        """Send and store until nothing is missing in any of ``phases``.

        After a failure nothing new is sent, but replies under way are still awaited and stored.
        """
        self.phases = phases
        try:
            while self._unfinished() or self._awaited():
                self.step()
        except CooptError:
            self._drain()
            raise

    def _active(self) -> list[str]:
        """Return the contributors that are not rejected or replaced; none without phases."""
        return self.records.active() if self.phases else []

    def _unfinished(self) -> list[str]:
        """Return the active contributors of which some phase lacks something."""
        return [n for n in self._active() if any(phase.missing(n) for phase in self.phases)]

    def _awaited(self) -> list[Job]:
        """Return the jobs under way, except those that ask newcomers to describe themselves."""
        return [job for job in self.exchange.under_way() if job.phase is not self.members]

    def step(self) -> None:
        """Look up the connected nodes, send, receive, reassign, and rest."""
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
        """Store the replies under way, waiting at most ``DRAIN_SECONDS``."""
        self.exchange.hurry(DRAIN_SECONDS)
        while self._awaited():
            for reply in self.exchange.replies():
                with suppress(CooptError):
                    self.accept([reply])
            self.exchange.lost()
            self.exchange.rest()

    def requests(self) -> list[tuple[Message, Job]]:
        """Return the next request to each idle node.

        The list ends at the first request with which more than ``IN_FLIGHT_BYTES`` would be under
        way; it and those behind it wait for the next reply.
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
        """Yield participant, node and phase of each possible request.

        Newcomers come first, then those asked longest ago, each in its first unfinished phase.
        Participants and nodes that are ``busy`` are left out.
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
        """Check and store each reply; reject participants whose answer is unacceptable."""
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
        """Refuse the node, or reject the participant, that gave an unacceptable answer."""
        if job.phase is self.members:
            self.members.refuse(job.node, reason)
        else:
            job.phase.returned(job.participant)
            self.handover.reject(job.participant, reason, {})

    def _failed(self, job: Job, error: CooptError) -> None:
        """Note that a request failed; in a simulation this ends the run."""
        if job.phase is self.members and not isinstance(error, LostReplyError):
            self.members.refuse(job.node, error)
            return
        job.phase.returned(job.participant)
        if job.phase is not self.members:
            if self.members.simulated:
                raise type(error)(f"participant {job.participant}: {error}")
            self.handover.progress.warn(f"participant {job.participant}: {error}")
        self.members.lose(job.participant, job.node, error)
