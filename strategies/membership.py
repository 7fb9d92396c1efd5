"""Membership and handover: who takes part, by name, and who takes over lost blocks.

Only participants that see the same data as the platform are members. A restarted node has another
node id, and the platform learns of the old one's end up to a minute late, so a second node of the
same name waits as a *spare* until the first is lost.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from coopt_fl.core.errors import ConfigError, CooptError, DataError, ParticipantError
from coopt_fl.federation import protocol
from coopt_fl.federation.decisions import Decisions
from coopt_fl.federation.plan import Change
from coopt_fl.policies.assignment import assigned
from coopt_fl.registry import PARTS

from .exchange import AGAIN, Phase

STRIKES = 3
"""Failed requests in a row after which others take over."""


@dataclass(frozen=True)
class Absence:
    """Since when (monotonic seconds) a participant is away, and why.

    ``strikes`` counts its failed requests in a row.
    """

    since: float
    reason: CooptError
    strikes: int


class Membership(Phase):
    """The describe phase: asks nodes who they are and accepts or refuses them.

    Attributes:
        simulated: whether the participants are processes of this host's simulation.
        nodes: node id of each participant that is connected, in the order of the roster.
        absences: participants that failed to answer, by name, or by ``on node N`` while unnamed.
    """

    message_type, answer = protocol.DESCRIBE, protocol.Description

    def __init__(self, task: protocol.Task, decisions: Decisions, simulated: bool) -> None:
        self.task, self.simulated = task, simulated
        self.config, self.source = decisions.config, decisions.source
        self.records = decisions.records
        policy = PARTS.find("assignment", self.config.assignment.by)
        self._measures_speed = bool(policy.fact("measures_speed"))
        self.roster = [participant.name for participant in self.config.participants]
        self.nodes: dict[str, int] = {}
        self.absences: dict[str, Absence] = {}
        self._there: dict[int, str] = {}
        self._registered: dict[int, str] = {}
        self._spares: dict[int, str] = {}
        self._refused: dict[int, CooptError] = {}
        self._partitions = 0

    def present(self, nodes: Mapping[int, str]) -> None:
        """Note which nodes are connected, with the name each is registered under ("": none)."""
        self._there = dict(nodes)
        self._registered |= nodes  # kept: a node may be gone when its answer is checked
        self._spares = {node: name for node, name in self._spares.items() if node in nodes}
        self._refused = {node: why for node, why in self._refused.items() if node in nodes}

    def newcomers(self) -> dict[str, int]:
        """Return the nodes that have not described themselves yet."""
        known = {*self.nodes.values(), *self._spares, *self._refused}
        return {f"on node {node}": node for node in self._there if node not in known}

    def ask(self, name: str) -> protocol.Describe:
        """Ask a newcomer who it is."""
        return protocol.Describe(self.task, self._measures_speed)

    def accept(self, name: str, answer: protocol.Description) -> None:
        """Make a newcomer a member, or a spare.

        Raises:
            CooptError: it cannot take part.
        """
        node = int(name.removeprefix("on node "))
        self._check(answer, self._registered[node])
        self._partitions = answer.partitions if self.simulated else 0
        spare = self.nodes.get(answer.name) in self._there
        self.records.remember(answer.name, asdict(answer), first=not spare)
        if spare:
            self._spares[node] = answer.name
        else:
            self._welcome(answer.name, node)

    def refuse(self, node: int, reason: CooptError) -> None:
        """Do not ask ``node`` again."""
        self._refused[node] = reason

    def lose(self, name: str, node: int, reason: CooptError) -> None:
        """Note that a request to ``node`` failed; a spare takes its place."""
        strikes = self._strikes(name) + 1
        self.absences[name] = Absence(time.monotonic(), reason, strikes)
        if name not in self.roster and (strikes >= STRIKES or node not in self._there):
            self.refuse(node, reason)
        if self.nodes.get(name) == node:
            del self.nodes[name]
            spare = next((node for node, known in self._spares.items() if known == name), None)
            if spare is not None:
                del self._spares[spare]
                self._welcome(name, spare)

    def reject(self, name: str, reason: CooptError) -> None:
        """Refuse all nodes of a participant from now on."""
        names = self._spares | {node: one for one, node in self.nodes.items()}
        self._refused |= {node: reason for node, one in names.items() if one == name}
        self.nodes.pop(name, None)

    def heard(self, name: str) -> None:
        """Note that ``name`` gave an acceptable answer."""
        self.absences.pop(name, None)

    def fit(self) -> list[str]:
        """Return the members that are connected and may be given work."""
        return [name for name in self.nodes if self._strikes(name) < STRIKES]

    def overdue(self, name: str) -> CooptError | None:
        """Return why others should take over from ``name``, or None if it is not overdue."""
        absence = self.absences.get(name)
        if absence is None or name in self.fit():
            return None
        away = time.monotonic() - absence.since
        late = name not in self.nodes and away > self.config.deadline.rejoin
        return absence.reason if late or absence.strikes >= STRIKES else None

    def _strikes(self, name: str) -> int:
        return self.absences[name].strikes if name in self.absences else 0

    def complete(self) -> bool:
        """Whether nobody else can join: all are connected, or (simulated) have answered."""
        here = {*self.nodes, *self.records.rejected}
        nobody = self.simulated and len(self._refused) >= len(self.roster)
        if here >= set(self.roster) or nobody:
            return True
        return 0 < self._partitions <= len(self.nodes) + len(self._refused)

    def fewest(self) -> int:
        """Return with how few participants the run goes on; rejected ones are not counted."""
        left = len(self.roster) - len(self.records.rejected)
        return max(1, min(self.config.min_participants or left, left))

    def enough(self) -> bool:
        """Whether enough participants are connected to go on."""
        return len(self.nodes) >= self.fewest()

    def settle(self) -> list[str]:
        """End joining: note who is missing and return warnings about it.

        Raises:
            ConfigError: a simulation has fewer nodes than the roster.
            CooptError: too few participants joined; of the type of the first refusal, if any.
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
            self.absences[name] = Absence(-math.inf, ParticipantError("it did not join"), 0)
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
        if name not in self.roster:
            raise ParticipantError(
                f"{name!r} is not in the roster; give the node one of its names: "
                f"{', '.join(self.roster)}"
            )
        if registered and registered != name:
            raise ParticipantError(
                f"it is registered as {registered!r} and says that it is {name!r}; give its "
                "SuperNode the name under which its key is registered"
            )
        if name in self.records.rejected:
            raise ParticipantError(
                f"{name} was rejected ({self.records.rejected[name].reason}); the run goes on "
                "without it; give another --out to ask it again"
            )
        expected, rows = self.source.fingerprint, len(self.source.ids)
        if (described.fingerprint, described.rows) != (expected, rows):
            raise DataError(
                f"{name} sees other data than the platform: {described.rows} samples, fingerprint "
                f"{described.fingerprint[:12]}, expected {rows}, {expected[:12]}; "
                "give it the same files and data.limit"
            )
        if described.rows_per_s == 0 and self._measures_speed:
            raise ParticipantError(f"{name} says that it makes 0 samples/s")


class Handover:
    """Reassigns blocks; stores the new owners before anybody is asked."""

    def __init__(self, decisions: Decisions, members: Membership) -> None:
        self.decisions, self.members = decisions, members
        self.records, self.progress = decisions.records, decisions.progress
        partition = decisions.config.assignment.partition
        self.alone = f"with assignment.partition={partition} nobody else does its samples"

    def possible(self, name: str) -> bool:
        """Whether enough other participants are connected to go on without ``name``."""
        return len(self._heirs(name)) >= self.members.fewest()

    def give_up(self, name: str, reason: CooptError) -> None:
        """Reassign the unfinished blocks of ``name``.

        Raises:
            CooptError: of the type of ``reason``, if too few others are connected.
        """
        if self.decisions.partitioned:
            raise type(reason)(f"participant {name}: {reason}. Start it again: {self.alone}")
        heirs = self._heirs(name)
        if not self.possible(name):
            raise type(reason)(
                f"participant {name}: {reason}. Start it again, or set min_participants to "
                f"{max(len(heirs), 1)} or less to have others take over its blocks"
            )
        stored = self.records.state.has_unit
        blocks = [index for index in self.records.plan.blocks_of(name) if not stored(index)]
        self._move(Change(name, blocks, [], reason.public or str(reason), {}), heirs)

    def reject(self, name: str, reason: CooptError, evidence: dict[str, Any]) -> None:
        """Reject ``name``: discard and reassign all its blocks, delivered or not.

        Raises:
            CooptError: of the type of ``reason``, if nobody else is connected.
        """
        if self.decisions.partitioned:
            raise type(reason)(
                f"participant {name}: {reason}; {self.alone}: repair it and run the same command "
                "again, or give another --out"
            )
        if not self._heirs(name):
            raise type(reason)(
                f"participant {name}: {reason}; nobody else is here to take over; {AGAIN}"
            )
        if reason.public:
            self.progress.warn(f"participant {name}: {reason}")
        self.records.reject(name, reason.public or str(reason), evidence)
        self.members.reject(name, reason)
        self.finish_rejections()

    def finish_rejections(self) -> None:
        """Reassign the blocks of rejected participants; also finishes interrupted reassignments."""
        for name, verdict in self.records.rejected.items():
            plan = self.records.plan
            blocks = plan.blocks_of(name)
            if blocks or name not in plan.out():
                for index in blocks:
                    self.records.state.remove_block(index)
                change = Change(name, blocks, [], verdict.reason, verdict.evidence, rejected=True)
                self._move(change, self._heirs(name))

    def _heirs(self, name: str) -> list[str]:
        """Return who can take over from ``name``: nobody if the data are partitioned.

        Before blocks are assigned these are its fellow contributors, among whom they will be.
        """
        if self.decisions.partitioned:
            return []
        others = [other for other in self.members.fit() if other != name]
        if self.records.plan.owners:
            return others
        return [other for other in others if other in self.records.active()]

    def _move(self, change: Change, heirs: list[str]) -> None:
        """Choose new owners among ``heirs``, and store ``change`` with them."""
        name, blocks = change.origin, change.blocks
        if blocks and not heirs:
            raise ParticipantError(f"nobody is here to take over from {name}; {AGAIN}")
        members = self.decisions.members(heirs)
        owners = assigned(self.decisions.assign, blocks, members) if blocks else []
        self.records.change(replace(change, owners=owners))
        self.progress.warn(
            f"participant {name}: {'rejected: ' if change.rejected else ''}{change.reason}; "
            f"{len(blocks)} blocks go to {', '.join(dict.fromkeys(owners)) or 'nobody'}"
        )
