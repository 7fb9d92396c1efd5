"""Who takes part: names, not node ids, and only those that see the same data."""

import math
from collections.abc import Iterable
from dataclasses import asdict

from flwr.app import Message

from coopt_fl import protocol
from coopt_fl.data import Source
from coopt_fl.errors import ConfigError, CooptError, DataError, ParticipantError
from coopt_fl.schema import Config
from strategies.exchange import content_of
from strategies.records import Records


class Membership:
    """The describe phase: asks nodes who they are and keeps those that belong.

    Attributes:
        nodes: node id of each participant that belongs, in the order of the roster.
    """

    message_type = protocol.DESCRIBE

    def __init__(
        self, task: protocol.Task, config: Config, source: Source, records: Records
    ) -> None:
        self.task, self.config, self.source, self.records = task, config, source, records
        self.roster = [participant.name for participant in config.participants]
        self.nodes: dict[str, int] = {}
        self._newcomers: dict[str, int] = {}
        self._refused: dict[str, CooptError] = {}
        self._partitions = 0

    def present(self, nodes: Iterable[int]) -> None:
        """Note which nodes are there now; new ones will be asked who they are."""
        known = {*self.nodes.values(), *self._newcomers.values()}
        self._newcomers |= {f"on node {node}": node for node in nodes if node not in known}

    def addressed(self, phase: object) -> dict[str, int]:
        """Return whom ``phase`` may ask: newcomers in this phase, participants in the others."""
        if phase is not self:
            return dict(self.nodes)
        return {name: n for name, n in self._newcomers.items() if name not in self._refused}

    def names(self) -> dict[int, str]:
        """Return the name of each node."""
        return {node: name for name, node in {**self._newcomers, **self.nodes}.items()}

    def ask(self, name: str) -> protocol.Describe | None:
        """Ask a newcomer who it is."""
        return protocol.Describe(self.task, self.config.assignment.by == "speed")

    def cost(self, name: str) -> int:
        """Words weigh nothing."""
        return 0

    def accept(self, name: str, reply: Message) -> int:
        """Welcome a newcomer, or remember why not: others may be enough."""
        try:
            described = protocol.decode(protocol.Description, content_of(reply))
            self._partitions = described.partitions
            self._check(described)
        except CooptError as error:
            self._refused[name] = error
            return 0
        self.nodes[described.name] = self._newcomers.pop(name)
        self.nodes = {known: self.nodes[known] for known in self.roster if known in self.nodes}
        return described.rows

    def refuse(self, names: Iterable[str], reason: CooptError) -> None:
        """Go on without newcomers that could not say who they are."""
        self._refused |= dict.fromkeys(names, reason)

    def complete(self) -> bool:
        """Whether waiting longer is of no use: all are there, or (simulated) all have spoken."""
        spoken = len(self.nodes) + len(self._refused)
        enough = max(len(self.nodes), len(self._refused)) >= len(self.roster)
        return enough or 0 < self._partitions <= spoken

    def settle(self) -> list[str]:
        """Return warnings about who is missing.

        Raises:
            ConfigError: a simulation has fewer nodes than the roster.
            CooptError: too few participants joined, for the reason that the first was refused.
        """
        missing = [name for name in self.roster if name not in self.nodes]
        if 0 < self._partitions < len(self.roster):
            raise ConfigError(
                f"{self._partitions} simulated nodes for {len(self.roster)} participants: run "
                f'`flwr run . --federation-config "num-supernodes={len(self.roster)} '
                'client-resources-num-cpus=1"`'
            )
        wanted = self.config.min_participants or len(self.roster)
        reasons = [f"{name}: {error}" for name, error in self._refused.items()]
        if len(self.nodes) < wanted and self._refused:
            kind = type(next(iter(self._refused.values())))
            raise kind(f"a participant cannot take part ({'; '.join(reasons)})")
        if len(self.nodes) < wanted:
            raise ParticipantError(
                f"{len(self.nodes)} of {wanted} participants joined within deadline.join="
                f"{self.config.deadline.join:g} s; missing: {', '.join(missing)}: start them, or "
                "lower min_participants"
            )
        return [f"going on without participant {name}" for name in missing] + reasons

    def keep(self, contributors: list[str]) -> None:
        """Go on with the contributors of the plan alone.

        Raises:
            ParticipantError: one of them is not here.
        """
        absent = [name for name in contributors if name not in self.nodes]
        if absent:
            raise ParticipantError(
                f"{', '.join(absent)} took part in this run's plan but is not here; start it and "
                "run the same command again"
            )
        self.nodes = {name: self.nodes[name] for name in contributors}

    def _check(self, described: protocol.Description) -> None:
        name = described.name
        if name not in self.roster:
            raise ParticipantError(
                f"{name!r} is not in the roster ({', '.join(self.roster)}); name the node after one"
            )
        if name in self.nodes:
            raise ParticipantError(f"a second node says that it is {name}; names must be unique")
        expected, rows = self.source.fingerprint, len(self.source.ids)
        if (described.fingerprint, described.rows) != (expected, rows):
            raise DataError(
                f"{name} sees other data than the platform: {described.rows} samples, fingerprint "
                f"{described.fingerprint[:12]}, expected {rows}, {expected[:12]}; "
                "give it the same files and data.limit"
            )
        speed, measured = described.rows_per_s, self.config.assignment.by == "speed"
        if not math.isfinite(speed) or speed < 0 or (measured and speed == 0):
            raise ParticipantError(f"{name} says that it makes {speed} samples/s")
        self.records.remember(name, asdict(described))
