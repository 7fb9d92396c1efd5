"""The open data platform: a Flower strategy that turns D into an optimized dataset."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import count
from logging import INFO

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from flwr.supercore import log

from coopt_fl.config.schema import Config
from coopt_fl.core.errors import CooptError, DataError, OutputError, ParticipantError
from coopt_fl.core.progress import Progress
from coopt_fl.core.runtime import compute
from coopt_fl.data import Source
from coopt_fl.federation import protocol
from coopt_fl.federation.planning import (
    fuse,
    make_plan,
    settle_reference,
    settle_targets,
    shards_sum,
)
from coopt_fl.federation.records import Records, require_size, sent_bytes
from coopt_fl.federation.state import RunState
from coopt_fl.policies.reference import CONSENSUS

from . import phases
from .exchange import Exchange, Job, LostReplyError, content_of, is_simulated
from .handover import Handover
from .inspection import Inspection
from .membership import Membership
from .phases import Align, Optimize, Phase, Project, Represent, Work

DRAIN_SECONDS = 60.0
LOOK_SECONDS = 1.0
"""How often the platform looks who is there."""

LEAST_SECRET = 2**40
"""Smaller seeds are found by trying."""

NOT_SENT = "its message could not be sent: lower optimize.chunk_mb, or look at the SuperLink's log"


class OpenDataPlatform(Strategy):
    """Describe, represent, elect, project, align, optimize, audit, fuse.

    Each phase asks only for what the run's state lacks, and stores every reply before the next is
    taken: after any death, a new platform on the same state goes on where the last one was.

    Args:
        config: the run.
        source: the unlabeled data; only its ids and fingerprint are used here.
        state: where everything is kept.
        progress: told what happens.
        stopped: set from outside to end the run early.

    Raises:
        DataError: ``data.shards`` are not those of this run.
    """

    def __init__(
        self,
        config: Config,
        source: Source,
        state: RunState,
        progress: Progress,
        stopped: threading.Event,
    ) -> None:
        self.config, self.source = config, source
        self.progress = progress
        self.records = Records(state)
        self.task = protocol.task_of(config, shards_sum(config, source))
        self.members = Membership(self.task, config, source, self.records)
        self.exchange = Exchange(stopped, config.deadline.reply)
        self.works: Sequence[Work] = ()
        self.handover = Handover(config, self.records, self.members, progress)
        self.looked = 0.0
        self.turns: dict[str, int] = {}
        self.count = count()

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,
        num_rounds: int = 1,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run all phases and publish the dataset.

        Args:
            grid: Flower's grid of participants.
            initial_arrays: unused, for there is no global model.
            num_rounds: unused; one round optimizes everything.
            timeout: unused; ``deadline.reply`` bounds each reply.
            train_config: unused, like the next: participants get all from the configuration.
            evaluate_config: unused.
            evaluate_fn: called with (1, no arrays) once the dataset is published.

        Raises:
            CooptError: what went wrong; the state keeps what was done.
        """
        self.summary()
        self.members.simulated = is_simulated(grid)
        with self.progress.phase("describe"):
            self._join(grid)
        plan = make_plan(self.config, self.source, self.records, list(self.members.nodes))
        if len(plan.blocks) < len(plan.contributors):
            self.progress.warn(
                f"{len(plan.contributors)} participants share {len(plan.blocks)} blocks, so some "
                f"have nothing to do: lower optimize.block_rows={self.config.optimize.block_rows}"
            )
        self.handover.finish_rejections()
        represent = Represent(self.task, self.records)
        with self.progress.phase("represent"):
            self._work(grid, represent)
        with self.progress.phase("align"):
            align = self._align(grid, represent)
        with self.progress.phase("optimize"):
            self._optimize(grid, represent, align)
        with self.progress.phase("fuse"):
            published = fuse(self.config, self.source, self.records, self.progress)
        result = Result(train_metrics_clientapp={1: MetricRecord({"rows": published.rows})})
        if evaluate_fn is not None and (scores := evaluate_fn(1, ArrayRecord())) is not None:
            result.evaluate_metrics_serverapp[1] = scores
        return result

    def summary(self) -> None:
        """Log what will run."""
        config = self.config
        log(INFO, "\t├──> Data: %s, %d samples", self.source.name, len(self.source.ids))
        for participant in config.participants:
            log(INFO, "\t├──> Participant %s: %s", participant.name, participant.prior)
        log(INFO, "\t├──> Shared set: %d, reference: %s", config.shared.size, config.reference)
        log(INFO, "\t└──> Targets: %d wide, by %s", config.targets.dim, config.targets.solver)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Return the next describe and represent requests, to nodes that are idle."""
        return self._requests("query")

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Check and store descriptions, or features of the shared set; nothing is measured."""
        self._accept(replies)
        return None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Return the next project, align or optimize requests, to participants that are idle."""
        return self._requests("train")

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check and store alignments or targets; they go to the disk, so no arrays come back."""
        self._accept(replies)
        return None, None

    def _join(self, grid: Grid) -> None:
        """Describe nodes as they appear, until everyone is there or ``deadline.join`` is past.

        Who is still busy describing itself then is waited for only if too few are there.
        """
        deadline = time.monotonic() + self.config.deadline.join
        while not self.members.complete():
            late = time.monotonic() > deadline
            if late and (self.members.enough() or not self.exchange.under_way()):
                break
            self._step(grid)
        for warning in self.members.settle():
            self.progress.warn(warning)
        if self.config.seed < LEAST_SECRET and not self.members.simulated:
            self.progress.warn(
                "a participant can guess so small a seed, and with it which samples are audited: "
                "set seed to a large random number (docs/security.md)"
            )

    def _align(self, grid: Grid, represent: Represent) -> Align:
        """Settle the reference, then everyone's map from features to its targets."""
        threads = self.config.runtime.threads
        while True:
            ids, features = self.records.features(self.records.active())
            with compute(threads):
                reference = settle_reference(self.config, self.records, features, self.progress)
            settled = self.records.shared_targets() is not None
            if settled and reference in features and not self.records.has_alignment(reference):
                raise OutputError(
                    f"the alignment of {reference} is missing, which all others were aligned to; "
                    "give another --out"
                )
            project = Project(self.task, self.config, self.records, reference, self.progress)
            self._work(grid, represent, project)
            if reference == CONSENSUS or settled or self.records.has_alignment(reference):
                break
        with compute(threads):
            size = settle_targets(self.config, self.records, ids, features, reference)
        self._warn_of_few(size)
        align = Align(self.task, self.config, self.records)
        self._work(grid, represent, align)
        return align

    def _optimize(self, grid: Grid, represent: Represent, align: Align) -> None:
        """Have all blocks optimized by participants that pass the audit."""
        inspection = Inspection(self.config, self.records)
        optimize = Optimize(self.task, self.config, self.records, inspection, self.progress)
        self._work(grid, represent, align, optimize)
        while self._audit(inspection):
            self._work(grid, represent, align, optimize)

    def _audit(self, inspection: Inspection) -> bool:
        """Reject whom the others contradict; return whether their blocks have to be done again."""
        answers = inspection.answers()
        comparisons = inspection.comparisons(answers)
        judgement = inspection.judge(comparisons)
        turncoats = inspection.turncoats(comparisons)
        for sentence in judgement.undecided:
            self.progress.warn(sentence)
        self.records.state.save_record("audit", inspection.summary(judgement, comparisons))
        verdicts = {
            name: (evidence.sentence, asdict(evidence))
            for name, evidence in judgement.rejected.items()
        }
        for name, sentence in (turncoats | inspection.idlers(answers)).items():
            verdicts.setdefault(name, (sentence, {}))
        for name, (sentence, evidence) in verdicts.items():
            self.handover.reject(name, ParticipantError(sentence), evidence)
        return bool(verdicts)

    def _warn_of_few(self, size: int) -> None:
        """Warn here of what a participant, too, would warn of, where nobody sees it."""
        wide = self.config.targets.dim
        if size < 2 * wide and self.config.targets.solver != "none":
            self.progress.warn(
                f"{size} shared samples are few to align targets of width {wide}: set shared.size "
                f"to {2 * wide} or more, or targets.dim lower"
            )

    def _work(self, grid: Grid, *works: Work) -> None:
        """Have everything done that ``works`` lack.

        After a failure nothing new is sent, but what is under way is still taken and stored.
        """
        self.works = works
        try:
            while self._unfinished() or self._awaited():
                self._step(grid)
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

    def _step(self, grid: Grid) -> None:
        """Look who is there, send, receive, replace whom it is no use to wait for, and rest."""
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
        """Give up whom it is no use to wait for, unless somebody who may help is just coming."""
        busy = self.exchange.busy()
        describing = any(job.phase is self.members for job in self.exchange.under_way())
        for name in self._unfinished():
            reason = None if name in busy else self.members.overdue(name)
            if reason is not None and (self.handover.possible(name) or not describing):
                self.handover.give_up(name, reason)

    def _send(self, grid: Grid) -> None:
        """Send each idle node its next request, if it has one."""
        nothing = ArrayRecord(), ConfigRecord()
        messages = self.configure_evaluate(1, *nothing, grid)
        messages += self.configure_train(1, *nothing, grid)
        for job in self.exchange.send(grid, messages):
            self._failed(job, LostReplyError(NOT_SENT))

    def _receive(self, grid: Grid) -> None:
        """Take what has come, one reply at a time."""
        for reply, job in self.exchange.replies(grid):
            if job.phase.message_type.startswith("query"):
                self.aggregate_evaluate(1, [reply])
            else:
                self.aggregate_train(1, [reply])
            self._send(grid)
        for job, reason in self.exchange.lost():
            self._failed(job, reason)

    def _drain(self, grid: Grid) -> None:
        """Store what is under way, but wait no longer than a minute for it."""
        self.exchange.hurry(DRAIN_SECONDS)
        while self._awaited():
            for reply, _ in self.exchange.replies(grid):
                with suppress(CooptError):
                    self._accept([reply])
            self.exchange.lost()
            self.exchange.rest(self.members.simulated)

    def _requests(self, kind: str) -> list[Message]:
        """Return the next request of that kind ("query", "train") to each idle node.

        Who would bring more than ``IN_FLIGHT_BYTES`` under way waits for the next reply, and who
        was asked later waits behind it.
        """
        messages, busy, under_way = list[Message](), self.exchange.busy(), self.exchange.cost()
        for name, node, phase in self._open():
            if {name, node} & busy or not phase.message_type.startswith(kind):
                continue
            cost = phase.cost(name)
            if under_way > 0 and under_way + cost > phases.IN_FLIGHT_BYTES:
                break
            messages.append(Message(protocol.encode(phase.ask(name)), node, phase.message_type))
            self.exchange.prepare(Job(phase, name, node, cost))
            self.turns[name] = next(self.count)
            under_way += cost
        return messages

    def _open(self) -> Iterator[tuple[str, int, Phase]]:
        """Yield who could be asked, at which node, in the first phase that is not finished.

        Who was asked longest ago comes first.
        """
        for name, node in self.members.newcomers().items():
            yield name, node, self.members
        active = set(self.records.active() if self.works else [])
        for name in sorted(self.members.fit(), key=lambda name: self.turns.get(name, -1)):
            work = next((work for work in self.works if work.missing(name)), None)
            if name in active and work is not None:
                yield name, self.members.nodes[name], work

    def _accept(self, replies: Iterable[Message]) -> None:
        """Let the phase of each reply check and store it."""
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
            require_size(content, job.cost)
            job.phase.accept(job.participant, content)
            if not isinstance(job.phase, Membership):
                self.records.add_upload(job.participant, sent_bytes(content))
                self.members.heard(job.participant)
        except OutputError:
            raise
        except DataError as error:
            self._failed(job, DataError(protocol.plain_words(str(error))))
        except CooptError as error:
            reason = ParticipantError(protocol.plain_words(str(error)))
            if isinstance(job.phase, Membership):
                self.members.refuse(job.node, reason)
            else:
                job.phase.returned(job.participant)
                self.handover.reject(job.participant, reason, {})

    def _failed(self, job: Job, error: CooptError) -> None:
        """Note that a request came to nothing; in a simulation that is the end of the run."""
        name = job.participant
        if isinstance(job.phase, Membership):
            if isinstance(error, LostReplyError):
                self.members.lose(name, job.node, error)
            else:
                self.members.refuse(job.node, error)
            return
        job.phase.returned(name)
        if self.members.simulated:
            raise type(error)(f"participant {name}: {error}")
        self.progress.warn(f"participant {name}: {error}")
        self.members.lose(name, job.node, error)
