"""The open data platform: a Flower strategy that turns D into an optimized dataset."""

import threading
import time
from collections.abc import Callable, Iterable
from logging import INFO

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from flwr.supercore import log

from coopt_fl import protocol
from coopt_fl.data import Source
from coopt_fl.errors import CooptError, ParticipantError
from coopt_fl.optimized.plan import Plan
from coopt_fl.optimized.state import RunState
from coopt_fl.progress import Silent
from coopt_fl.runtime import compute
from coopt_fl.schema import Config
from strategies import phases
from strategies.exchange import Exchange
from strategies.membership import Membership
from strategies.phases import Align, Optimize, Phase, Project, Represent
from strategies.planning import fuse, make_plan, settle_reference, shared_targets
from strategies.records import Records

DRAIN_SECONDS = 60.0


class OpenDataPlatform(Strategy):
    """Describe, represent, elect, project, align, optimize, fuse.

    Each phase asks only for what the run's state lacks, and stores every reply before the next is
    taken: after any death, a new platform on the same state goes on where the last one was.

    Args:
        config: the run.
        source: the unlabeled data; only its ids and fingerprint are used here.
        state: where everything is kept.
        progress: told what happens.
        stopped: set from outside to end the run early.
    """

    def __init__(
        self,
        config: Config,
        source: Source,
        state: RunState,
        progress: Silent,
        stopped: threading.Event,
    ) -> None:
        self.config, self.source, self.state = config, source, state
        self.progress, self.stopped = progress, stopped
        self.records = Records(state)
        self.task = protocol.task_of(config)
        self.members = Membership(self.task, config, source, self.records)
        self.phase: Phase = self.members
        self.costs: dict[int, int] = {}
        self.exchange = Exchange(stopped, config.deadline.reply)

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
        with self.progress.phase("describe"):
            self._join(grid)
        plan = make_plan(self.config, self.source, self.records, list(self.members.nodes))
        self.members.keep(plan.contributors)
        with self.progress.phase("represent"):
            self._evaluate(grid, Represent(self.task, plan, self.records))
        with self.progress.phase("align"):
            self._align(grid, plan)
        with self.progress.phase("optimize"):
            work = Optimize(self.task, self.config, plan, self.records, self.progress)
            rows = self._train(grid, work)
        with self.progress.phase("fuse"):
            fuse(self.config, self.source, self.records, plan, self.progress)
        result = Result(train_metrics_clientapp={1: MetricRecord({"rows": rows})})
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
        """Return the next describe or represent requests, to participants that are idle."""
        return self._requests()

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Check and store descriptions, or features of the shared set."""
        return self._accept(replies)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Return the next project, align or optimize requests, to participants that are idle."""
        return self._requests()

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check and store alignments or targets; they go to the disk, so no arrays come back."""
        return None, self._accept(replies)

    def _join(self, grid: Grid) -> None:
        """Describe nodes as they appear, until everyone is there or ``deadline.join`` is past."""
        deadline = time.monotonic() + self.config.deadline.join
        while True:
            self.members.present(grid.get_node_ids())
            try:
                self._evaluate(grid, self.members)
            except ParticipantError as error:
                silent = self.exchange.abandon()
                if not silent:
                    raise
                self.members.refuse(silent, error)
            if self.members.complete() or time.monotonic() > deadline:
                break
            if self.stopped.wait(0.5):
                raise KeyboardInterrupt
        for warning in self.members.settle():
            self.progress.warn(warning)

    def _align(self, grid: Grid, plan: Plan) -> None:
        """Settle the reference, then everyone's map from features to its targets."""
        threads = self.config.runtime.threads
        features = self.records.features(plan.contributors)
        with compute(threads):
            reference = settle_reference(self.config, self.records, features, self.progress)
        project = Project(self.task, self.config, plan, self.records, reference, self.progress)
        self._train(grid, project)
        with compute(threads):
            targets = shared_targets(self.config, self.records, features, reference)
        self._warn_of_few(len(targets))
        self._train(grid, Align(self.task, self.config, self.records, features, targets))

    def _warn_of_few(self, size: int) -> None:
        """Warn here of what a participant, too, would warn of, where nobody sees it."""
        wide = self.config.targets.dim
        if size < 2 * wide and self.config.targets.solver != "none":
            self.progress.warn(
                f"{size} shared samples are few to align targets of width {wide}: set shared.size "
                f"to {2 * wide} or more, or targets.dim lower"
            )

    def _evaluate(self, grid: Grid, phase: Phase) -> int:
        """Run a query phase to its end; return the samples it covered."""
        nothing = ArrayRecord(), ConfigRecord()
        return self._run(
            grid,
            phase,
            lambda: self.configure_evaluate(1, *nothing, grid),
            lambda reply: self.aggregate_evaluate(1, [reply]),
        )

    def _train(self, grid: Grid, phase: Phase) -> int:
        """Run a train phase to its end; return the samples it covered."""
        nothing = ArrayRecord(), ConfigRecord()
        return self._run(
            grid,
            phase,
            lambda: self.configure_train(1, *nothing, grid),
            lambda reply: self.aggregate_train(1, [reply])[1],
        )

    def _run(
        self,
        grid: Grid,
        phase: Phase,
        configure: Callable[[], list[Message]],
        aggregate: Callable[[Message], MetricRecord | None],
    ) -> int:
        """Send and accept until nobody has more to do.

        After a failure nothing new is sent, but what is under way is still taken and stored.
        """
        self.phase = phase
        failed: CooptError | None = None
        rows = 0
        self.exchange.send(grid, configure(), self.members.names())
        try:
            for reply in self.exchange.replies(grid):
                try:
                    metrics = aggregate(reply) or MetricRecord()
                    rows += int(str(metrics.get("rows", 0)))
                    if failed is None:
                        self.exchange.send(grid, configure(), self.members.names())
                except CooptError as error:
                    failed = failed or error
                    self.exchange.hurry(DRAIN_SECONDS)
        except CooptError as error:
            raise failed or error from None
        if failed:
            raise failed
        return rows

    def _requests(self) -> list[Message]:
        """Return the next request of the present phase to each idle participant.

        Who would bring more than ``IN_FLIGHT_BYTES`` under way waits for the next reply.
        """
        messages = []
        under_way = sum(self.costs[node] for node in self.exchange.nodes())
        for name, node in self.members.addressed(self.phase).items():
            if self.exchange.busy(node):
                continue
            cost = self.phase.cost(name)
            if under_way > 0 and under_way + cost > phases.IN_FLIGHT_BYTES:
                continue
            request = self.phase.ask(name)
            if request is not None:
                content = protocol.encode(request)
                messages.append(Message(content, node, self.phase.message_type))
                self.costs[node] = cost
                under_way += cost
        return messages

    def _accept(self, replies: Iterable[Message]) -> MetricRecord:
        """Let the present phase check and store each reply; name the participant in errors."""
        rows = 0
        for reply in replies:
            job = self.exchange.take(reply)
            try:
                rows += self.phase.accept(job.participant, reply)
                self.records.add_upload(job.participant, reply)
            except CooptError as error:
                raise type(error)(f"participant {job.participant}: {error}") from None
        return MetricRecord({"rows": rows})
