"""The open data platform: a Flower strategy that turns D into an optimized dataset."""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from logging import INFO
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from flwr.supercore import log

from coopt_fl.config.schema import Config
from coopt_fl.core.errors import ParticipantError
from coopt_fl.core.progress import Progress
from coopt_fl.data import Source
from coopt_fl.data.blocks import advised
from coopt_fl.federation import protocol
from coopt_fl.federation.decisions import Decisions, shards_sum
from coopt_fl.federation.holding import open_run
from coopt_fl.federation.records import Records
from coopt_fl.optimized.provenance import read_provenance
from coopt_fl.policies.assignment import AssignmentPolicy
from coopt_fl.policies.audit import AuditPolicy
from coopt_fl.policies.reference import ReferencePolicy
from coopt_fl.registry import PARTS
from coopt_fl.targets import CONSENSUS

from .conversation import Conversation
from .exchange import Exchange, is_simulated
from .inspection import Inspection
from .membership import Handover, Membership
from .payloads import Optimize
from .phases import Align, Project, Represent
from .routes import route_of

LISTED = 20
"""How many participants the log lists."""

LEAST_SECRET = 2**40
"""Smaller seeds can be found by trying them all."""


class OpenDataPlatform(Strategy):
    """Describe, represent, elect, project, align, optimize, audit, fuse.

    Each phase asks only for what the run's state lacks, and stores every reply before it takes the
    next: if the process dies, a new platform on the same directory continues where it stopped.
    Decisions are stored, too, and stay the same even if the new platform has other policies.

    Args:
        config: the run.
        out: its directory; ``dataset/`` and the platform's own ``state/`` are made in it.
        reference: chooses what everyone aligns to; None: as ``reference`` in ``config`` says.
        assignment: chooses who optimizes what; None: as ``assignment.by`` says.
        audit: decides which participants to reject; None: as ``audit.policy`` says.
        progress: receives phases, progress and warnings.
        stopped: set from outside to end the run early.
        own_host: whether this process started all participants on its own host, so that they can
            deliver their payloads as files.
    """

    def __init__(
        self,
        config: Config,
        out: Path,
        *,
        reference: ReferencePolicy | None = None,
        assignment: AssignmentPolicy | None = None,
        audit: AuditPolicy | None = None,
        progress: Progress | None = None,
        stopped: threading.Event | None = None,
        own_host: bool = False,
    ) -> None:
        self.config, self.out = config, out
        self.reference, self.assignment = reference, assignment
        private = config.privacy.clip is not None
        make: Callable[[str, bool], AuditPolicy] = PARTS.find("audit", config.audit.policy).call
        self.audit = audit or make(config.runtime.precision, private)
        self.progress = progress or Progress()
        self.stopped = stopped or threading.Event()
        self.own_host = own_host

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
        """Run all phases and publish the dataset; a finished run is left as it is.

        Flower's own ``start`` averages a model over rounds; this replaces it, as there is no model.

        Args:
            grid: Flower's grid of participants.
            initial_arrays: unused: there is no global model.
            num_rounds: unused; one round optimizes everything.
            timeout: unused; ``deadline.reply`` bounds each reply.
            train_config: unused: participants are sent what they need of ``config``.
            evaluate_config: unused.
            evaluate_fn: called with (1, no arrays) once the dataset is published.

        Raises:
            CooptError: the run failed; the state keeps the finished work.
        """
        with open_run(self.config, self.out, self.progress) as (source, state):
            if not state.published:
                self._open(grid, source, Records(state))
                self.summary()
                with closing(self.inspection):
                    self._run()
            rows = read_provenance(state.dataset).rows
        result = Result(train_metrics_clientapp={1: MetricRecord({"rows": rows})})
        if evaluate_fn is not None and (scores := evaluate_fn(1, ArrayRecord())) is not None:
            result.evaluate_metrics_serverapp[1] = scores
        return result

    def summary(self) -> None:
        """Log the settings of the run."""
        config = self.config
        log(INFO, "\t├──> Data: %s, %d samples", self.source.name, len(self.source.ids))
        for participant in config.participants[:LISTED]:
            log(INFO, "\t├──> Participant %s: %s", participant.name, participant.prior)
        if len(config.participants) > LISTED:
            log(INFO, "\t├──> ... %d participants in all", len(config.participants))
        log(INFO, "\t├──> Shared set: %d, reference: %s", config.shared.size, config.reference)
        log(INFO, "\t└──> Targets: %d wide, by %s", config.targets.dim, config.targets.solver)

    def _no_rounds(self, *args: Any, **kwargs: Any) -> Any:
        """Raise: Flower's four hooks, called once a round for all nodes, cannot drive the protocol.

        Nodes come, answer and go at any time, so :meth:`start` calls none of the hooks. Their work
        is done in :mod:`coopt_fl.strategies.conversation`, and the decisions are those of the
        policies that the constructor takes.
        """
        raise NotImplementedError("there are no rounds: start(grid) runs the whole protocol")

    configure_evaluate = aggregate_evaluate = configure_train = aggregate_train = _no_rounds

    def _open(self, grid: Grid, source: Source, records: Records) -> None:
        """Make the objects that a run needs, on top of its records.

        Raises:
            DataError: ``data.shards`` are not of this run.
        """
        self.source, self.records = source, records
        simulated = is_simulated(grid)
        self.decisions = Decisions(
            self.config, source, records, self.progress, self.reference, self.assignment
        )
        if not records.planned:
            _ = self.decisions.groups  # reads all images if it needs regions, before anyone waits
        self.task = protocol.task_of(self.config, shards_sum(self.decisions), simulated)
        self.inspection = Inspection(self.decisions, self.audit)
        self.members = Membership(self.task, self.decisions, simulated)
        self.handover = Handover(self.decisions, self.members)
        exchange = Exchange(grid, self.stopped, self.config.deadline.reply, simulated)
        self.conversation = Conversation(exchange, self.handover)

    def _run(self) -> None:
        """Run the phases in order; earlier ones stay open for participants that join late."""
        phase, work = self.progress.phase, self.conversation.work
        represent, align = Represent(self.task, self.decisions), Align(self.task, self.decisions)
        with phase("describe"):
            self._join()
        plan = self.decisions.plan(list(self.members.nodes))
        if len(plan.blocks) < len(plan.contributors):
            problem = (
                f"{len(plan.contributors)} participants share {len(plan.blocks)} blocks, so some "
                f"have nothing to do: lower optimize.block_rows={self.config.optimize.block_rows}"
            )
            self.progress.warn(advised(problem, self.config.data))
        self.handover.finish_rejections()
        with phase("represent"):
            work(represent)
        with phase("align"):
            self._settle(represent)
            work(represent, align)
            if not self.records.plan.owners:
                self.inspection.cross_validate(self.records.active())
                self.decisions.assign_blocks()
        self.decisions.check_shares()
        route = route_of(self.config, self.records, self.own_host)
        self.progress.log(f"payloads come by {type(route).__name__}")
        with phase("optimize"), closing(Optimize(self.task, self.inspection, route)) as optimize:
            work(represent, align, optimize)
            while self._audit():
                work(represent, align, optimize)
        self.inspection.close()  # its thread may be at fits that publish needs
        with phase("fuse"):
            self.decisions.publish()

    def _join(self) -> None:
        """Describe nodes as they appear, until everyone is there or ``deadline.join`` is past.

        Nodes that are still describing themselves then are waited for only if too few are there.
        """
        deadline = time.monotonic() + self.config.deadline.join
        while not self.members.complete():
            late = time.monotonic() > deadline
            if late and (self.members.enough() or not self.conversation.exchange.under_way()):
                break
            self.conversation.step()
        for warning in self.members.settle():
            self.progress.warn(warning)
        if self.config.seed < LEAST_SECRET and not self.members.simulated:
            self.progress.warn(
                "a participant can guess so small a seed, and then knows which samples are "
                "audited: set seed to a large random number (docs/security.md)"
            )

    def _settle(self, represent: Represent) -> None:
        """Settle the reference, electing again if one is lost, and its targets of S."""
        records, recipe = self.records, self.decisions.recipe
        while True:
            reference = self.decisions.reference()
            self.conversation.work(represent, Project(self.task, self.decisions, reference))
            settled = records.state.has_arrays("shared_targets")
            if settled or reference == CONSENSUS or records.has("alignments", reference):
                break
        size = self.decisions.shared_targets()
        if size < 2 * recipe.dim and recipe.solver != "none":
            # the warnings of participants are not shown
            problem = (
                f"{size} shared samples are few to align targets of width {recipe.dim}: set "
                f"shared.size to {2 * recipe.dim} or more, or targets.dim lower"
            )
            self.progress.warn(advised(problem, self.config.data))

    def _audit(self) -> bool:
        """Reject participants that fail the audit; return whether blocks have to be done again."""
        judgement = self.inspection.judge()
        for sentence in judgement.undecided:
            self.progress.warn(sentence)
        for name, verdict in judgement.rejected.items():
            self.handover.reject(name, ParticipantError(verdict.sentence), dict(verdict.evidence))
        return bool(judgement.rejected)
