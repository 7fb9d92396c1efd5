"""Who takes part, and who takes over: names, not node ids, and only those that see the same data.

Nodes come and go: one that was started again has another node id, and the platform hears of the
old one's end up to a minute late. So a second node of the same name waits as a *spare* until the
first is lost.
"""

import math
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from flwr.app import RecordDict

from coopt_fl.config.schema import Config
from coopt_fl.core.errors import ConfigError, CooptError, DataError, ParticipantError
from coopt_fl.data import Source
from coopt_fl.federation import protocol
from coopt_fl.federation.decisions import Decisions
from coopt_fl.federation.plan import Change
from coopt_fl.federation.records import Records

from .exchange import AGAIN, Phase

MOST_LETTERS, MOST_WIDTH, MOST_SPEED = 2000, 65_536, 1e7
"""Of what a participant says of itself: letters, numbers in a feature, samples/s."""

SHA256 = re.compile("[0-9a-f]{64}")

STRIKES = 3
"""Requests in a row that may come to nothing before others take over."""


@dataclass(frozen=True)
class Absence:
    """Since when (monotonic seconds) a participant is away, and why."""

    since: float
    reason: CooptError


class Membership(Phase):
    """The describe phase: asks nodes who they are and keeps those that belong.

    Attributes:
        simulated: whether the participants are processes of this host's simulation.
        nodes: node id of each participant that is here, in the order of the roster.
        absences: participants that were here.
    """

    message_type = protocol.DESCRIBE

    def __init__(
        self,
        task: protocol.Task,
        config: Config,
        source: Source,
        records: Records,
        simulated: bool,
    ) -> None:
        self.task, self.config, self.source, self.records = task, config, source, records
        self.simulated = simulated
        self.roster = [participant.name for participant in config.participants]
        self.nodes: dict[str, int] = {}
        self.absences: dict[str, Absence] = {}
        self._there: dict[int, str] = {}
        self._registered: dict[int, str] = {}
        self._spares: dict[int, str] = {}
        self._refused: dict[int, CooptError] = {}
        self._strikes: Counter[str] = Counter()
        self._partitions = 0

    def present(self, nodes: Mapping[int, str]) -> None:
        """Note which nodes are there now, and as what each is registered ("" for as nothing)."""
        self._there = dict(nodes)
        self._registered |= nodes  # which holds, too, for who is away when its answer is looked at
        self._spares = {node: name for node, name in self._spares.items() if node in nodes}
        self._refused = {node: why for node, why in self._refused.items() if node in nodes}

    def newcomers(self) -> dict[str, int]:
        """Return the nodes that did not yet say who they are."""
        known = {*self.nodes.values(), *self._spares, *self._refused}
        return {f"on node {node}": node for node in self._there if node not in known}

    def ask(self, name: str) -> protocol.Describe:
        """Ask a newcomer who it is."""
        return protocol.Describe(self.task, self.config.assignment.by == "speed")

    def cost(self, name: str) -> int:
        """Describe messages carry no arrays."""
        return 0

    def accept(self, name: str, content: RecordDict) -> None:
        """Welcome a newcomer.

        Raises:
            CooptError: why not.
        """
        node = int(name.removeprefix("on node "))
        described = protocol.decode(protocol.Description, content)
        self._check(described, self._registered[node])
        self._partitions = described.partitions if self.simulated else 0
        spare = self.nodes.get(described.name) in self._there
        self.records.remember(described.name, asdict(described), first=not spare)
        if spare:
            self._spares[node] = described.name
        else:
            self._welcome(described.name, node)

    def refuse(self, node: int, reason: CooptError) -> None:
        """Do not ask ``node`` again."""
        self._refused[node] = reason

    def lose(self, name: str, node: int, reason: CooptError) -> None:
        """Note that a request to ``node`` came to nothing; its spare takes its place."""
        self._strikes[name] += 1
        if name not in self.roster:
            if self._strikes[name] >= STRIKES or node not in self._there:
                self.refuse(node, reason)
            return
        self.absences[name] = Absence(time.monotonic(), reason)
        if self.nodes.get(name) == node:
            del self.nodes[name]
            spare = next((node for node, known in self._spares.items() if known == name), None)
            if spare is not None:
                del self._spares[spare]
                self._welcome(name, spare)

    def reject(self, name: str, reason: CooptError) -> None:
        """Have nothing more to do with a participant."""
        node = self.nodes.pop(name, None)
        for one in [node, *(spare for spare, known in self._spares.items() if known == name)]:
            if one is not None:
                self.refuse(one, reason)

    def heard(self, name: str) -> None:
        """Note that ``name`` answered well."""
        self._strikes[name] = 0
        self.absences.pop(name, None)

    def fit(self) -> list[str]:
        """Return who is here and may be given work."""
        return [name for name in self.nodes if self._strikes[name] < STRIKES]

    def overdue(self, name: str) -> CooptError | None:
        """Return why others should take over from ``name``, or None."""
        absence = self.absences.get(name)
        if absence is None or name in self.fit():
            return None
        away = time.monotonic() - absence.since
        late = name not in self.nodes and away > self.config.deadline.rejoin
        return absence.reason if late or self._strikes[name] >= STRIKES else None

    def complete(self) -> bool:
        """Whether waiting longer is of no use: all are there, or (simulated) all have spoken."""
        here = {*self.nodes, *self.records.rejected}
        nobody = self.simulated and len(self._refused) >= len(self.roster)
        if here >= set(self.roster) or nobody:
            return True
        return 0 < self._partitions <= len(self.nodes) + len(self._refused)

    def fewest(self) -> int:
        """Return how many participants a run goes on with; who was rejected is not missed."""
        left = len(self.roster) - len(self.records.rejected)
        return max(1, min(self.config.min_participants or left, left))

    def enough(self) -> bool:
        """Whether those who are here are enough to go on."""
        return len(self.nodes) >= self.fewest()

    def settle(self) -> list[str]:
        """Return warnings about who is missing.

        Raises:
            ConfigError: a simulation has fewer nodes than the roster.
            CooptError: too few participants joined, for the reason that the first was refused.
        """
        if 0 < self._partitions < len(self.roster):
            raise ConfigError(
                f"{self._partitions} simulated nodes for {len(self.roster)} participants: run "
                f'`flwr run . --federation-config "num-supernodes={len(self.roster)} '
                'client-resources-num-cpus=1"`'
            )
        missing = [n for n in self.roster if n not in self.nodes and n not in self.records.rejected]
        reasons = [f"on node {node}: {error}" for node, error in self._refused.items()]
        reasons += [f"a second node says that it is {name}" for name in self._spares.values()]
        if not self.enough():
            raise self._too_few(missing, reasons)
        for name in missing:
            self.absences[name] = Absence(-math.inf, ParticipantError("it did not join"))
        return [f"going on without participant {name}" for name in missing] + reasons

    def _too_few(self, missing: list[str], reasons: list[str]) -> CooptError:
        if self._refused:
            kind = type(next(iter(self._refused.values())))
            more = f"; missing: {', '.join(missing)}" if missing else ""
            return kind(f"a participant cannot take part ({'; '.join(reasons)}){more}")
        also = f" ({'; '.join(reasons)})" if reasons else ""
        return ParticipantError(
            f"{len(self.nodes)} of {self.fewest()} participants joined within deadline.join="
            f"{self.config.deadline.join:g} s; missing: {', '.join(missing)}{also}: start them, or "
            "lower min_participants"
        )

    def _welcome(self, name: str, node: int) -> None:
        here = self.nodes | {name: node}
        self.nodes = {known: here[known] for known in self.roster if known in here}

    def _check(self, described: protocol.Description, registered: str) -> None:
        name = described.name
        words = (name, described.prior, described.device, str(described.versions))
        if max(map(len, words)) > MOST_LETTERS or not SHA256.fullmatch(described.weights_sha256):
            raise ParticipantError("what it says of itself is too long, or no sha256 sum")
        if any(protocol.plain_words(word) != word for word in words):
            raise ParticipantError(
                f"what it says of itself has one of {protocol.MARKUP}, or control letters"
            )
        if not 0 < described.width <= MOST_WIDTH:
            raise ParticipantError(
                f"its features are {described.width} wide, not 1 to {MOST_WIDTH}"
            )
        if name not in self.roster:
            raise ParticipantError(
                f"{name!r} is not in the roster ({', '.join(self.roster)}); name the node after one"
            )
        if registered and registered != name:
            raise ParticipantError(
                f"it is registered as {registered!r} and says that it is {name!r}; give its "
                "SuperNode the name under which its key is registered"
            )
        if name in self.records.rejected:
            raise ParticipantError(
                f"{name} was rejected ({self.records.rejected[name].reason}); the run goes on "
                "without it, a new --out would ask it again"
            )
        expected, rows = self.source.fingerprint, len(self.source.ids)
        if (described.fingerprint, described.rows) != (expected, rows):
            raise DataError(
                f"{name} sees other data than the platform: {described.rows} samples, fingerprint "
                f"{described.fingerprint[:12]}, expected {rows}, {expected[:12]}; "
                "give it the same files and data.limit"
            )
        speed, measured = described.rows_per_s, self.config.assignment.by == "speed"
        if not 0 <= speed <= MOST_SPEED or (measured and speed == 0):
            raise ParticipantError(f"{name} says that it makes {speed} samples/s")


class Handover:
    """Has others take over, and stores who before anybody is asked."""

    def __init__(self, decisions: Decisions, members: Membership) -> None:
        self.decisions, self.members = decisions, members
        self.records, self.progress = decisions.records, decisions.progress

    def possible(self, name: str) -> bool:
        """Whether enough others are here to go on without ``name``."""
        return len(self._heirs(name)) >= self.members.fewest()

    def give_up(self, name: str, reason: CooptError) -> None:
        """Have others do what ``name`` has left, if enough are here.

        Raises:
            CooptError: the ``reason``, if too few are here.
        """
        heirs = self._heirs(name)
        if not self.possible(name):
            raise type(reason)(
                f"participant {name}: {reason}. Start it again, or set min_participants to "
                f"{max(len(heirs), 1)} or less to have others take over its blocks"
            )
        stored = self.records.state.has_unit
        blocks = [index for index in self.records.plan.blocks_of(name) if not stored(index)]
        self._move(Change(name, blocks, [], str(reason), {}), heirs)

    def reject(self, name: str, reason: CooptError, evidence: dict[str, Any]) -> None:
        """Use nothing of ``name``, now and in what it has delivered.

        Raises:
            CooptError: the ``reason``, if nobody else is here.
        """
        if not self._heirs(name):
            raise type(reason)(
                f"participant {name}: {reason}; nobody else is here to take over; {AGAIN}"
            )
        self.records.reject(name, str(reason), evidence)
        self.members.reject(name, reason)
        self._free(name)

    def finish_rejections(self) -> None:
        """Finish reassignments that an interrupted run recorded."""
        for name in self.records.rejected:
            if self.records.plan.blocks_of(name):
                self._free(name)

    def _free(self, name: str) -> None:
        verdict = self.records.rejected[name]
        blocks = self.records.plan.blocks_of(name)
        for index in blocks:
            self.records.state.remove_block(index)
        change = Change(name, blocks, [], verdict.reason, verdict.evidence, rejected=True)
        self._move(change, self._heirs(name))

    def _heirs(self, name: str) -> list[str]:
        return [other for other in self.members.fit() if other != name]

    def _move(self, change: Change, heirs: list[str]) -> None:
        """Store ``change`` with new owners among ``heirs``."""
        name, blocks = change.origin, change.blocks
        if blocks and not heirs:
            raise ParticipantError(f"nobody is here to take over from {name}; {AGAIN}")
        owners = self.decisions.assign(blocks, self.decisions.members(heirs)) if blocks else []
        self.records.change(replace(change, owners=owners))
        self.progress.warn(
            f"participant {name}: {'rejected: ' if change.rejected else ''}{change.reason}; "
            f"{len(blocks)} blocks go to {', '.join(dict.fromkeys(owners)) or 'nobody'}"
        )
