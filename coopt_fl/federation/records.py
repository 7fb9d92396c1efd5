"""What the platform knows about its participants, kept in the run's state."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from coopt_fl.core.errors import ParticipantError
from coopt_fl.core.lazy import Lazy
from coopt_fl.federation.holding import Run
from coopt_fl.federation.plan import Change, Plan, read_plan, save_changes, save_plan
from coopt_fl.federation.state import RunState
from coopt_fl.policies.reference import Election
from coopt_fl.targets import Alignment

Ids = NDArray[np.int64]
Features = NDArray[np.float32]
T = TypeVar("T")

PERMANENT = ("prior", "weights_sha256", "width", "device", "decoder")
"""What must not change in a description when a run is resumed.

Another kind of device changes the bits of targets. Descriptions of earlier versions have no
decoder; see also :func:`coopt_fl.federation.holding.open_state`.
"""


@dataclass(frozen=True)
class Rejection:
    """Why a participant was rejected: a sentence, and the numbers behind it."""

    reason: str
    evidence: dict[str, Any]


class Records:
    """Typed access to the platform's stored records.

    Attributes:
        rejected: why each rejected participant was rejected, by name.
    """

    def __init__(self, state: RunState) -> None:
        self.state = state
        self._plan = read_plan(state)
        self._described = state.record("participants", dict[str, dict[str, Any]]) or {}
        self.rejected = state.record("rejected", dict[str, Rejection]) or {}
        self._uploads = state.record("uploads", dict[str, int]) or {}
        self._asked = state.record("represented", list[str]) or []
        self._election = state.record("reference", Election)

    @property
    def key(self) -> str:
        """The dataset key."""
        return _required(self.state.record("run", Run)).key

    @property
    def planned(self) -> bool:
        """Whether there is a plan."""
        return self._plan is not None

    @property
    def plan(self) -> Plan:
        """The plan as it is now."""
        return _required(self._plan)

    def make(self, plan: Plan) -> None:
        """Store the participants' descriptions, then the run's plan."""
        self.state.save_record("participants", self._described)
        save_plan(self.state, plan)
        self._plan = plan

    def assign(self, plan: Plan) -> None:
        """Store the first owners of all blocks."""
        save_changes(self.state, plan)
        self._plan = plan

    def change(self, change: Change) -> None:
        """Apply a change that a fault made necessary, and store the plan."""
        self._plan = self.plan.moved(change)
        save_changes(self.state, self._plan)

    def reject(self, name: str, reason: str, evidence: dict[str, Any]) -> None:
        """Store that a participant is rejected, and why."""
        self.rejected[name] = Rejection(reason, evidence)
        plain = {name: asdict(one) for name, one in self.rejected.items()}
        self.state.save_record("rejected", plain)

    def active(self) -> list[str]:
        """Return the contributors that still count, in order."""
        out = self.plan.out() | set(self.rejected)
        return [name for name in self.plan.contributors if name not in out]

    def description(self, name: str) -> dict[str, Any] | None:
        """Return how a participant described itself when it first joined."""
        return self._described.get(name)

    def width(self, name: str) -> int:
        """Return the width m of a participant's features."""
        return int((self.description(name) or {})["width"])

    def remember(self, name: str, description: dict[str, Any], first: bool) -> None:
        """Note how a participant described itself; with a plan, this is stored and binding.

        Args:
            name: the participant.
            description: its description.
            first: whether no other node of this name is here. Before there is a plan, nothing
                depends on an earlier process's description, and this one replaces it.

        Raises:
            ParticipantError: something in ``PERMANENT`` changed since the run began, so its
                targets would not fit those that are stored.
        """
        known = self.description(name)
        if known is None or (first and not self.planned):
            self._described[name] = description
            if self.planned:
                self.state.save_record("participants", self._described)
            return
        changed = [key for key in PERMANENT if key in known and known[key] != description[key]]
        if changed:
            raise ParticipantError(
                f"the {changed[0]} of {name} changed since this run began; restore it, or give "
                "another --out"
            )

    @property
    def election(self) -> Election:
        """The outcome of the election."""
        return _required(self._election)

    @property
    def elected(self) -> bool:
        """Whether there was an election."""
        return self._election is not None

    def elect(self, election: Election) -> None:
        """Store the outcome of an election."""
        self.state.save_record("reference", asdict(election))
        self._election = election

    @property
    def reference(self) -> str:
        """The participant that was elected, or "consensus"."""
        return self.election.reference

    def add_upload(self, name: str, size: int) -> None:
        """Add to the bytes of targets and features that a participant sent."""
        self._uploads[name] = self._uploads.get(name, 0) + size
        self.state.save_record("uploads", self._uploads)

    def add_projection(self, name: str, blocks: list[int]) -> None:
        """Store that ``name`` is asked for a projection fitted on ``blocks``."""
        if (name, blocks) not in (asked := self._projections()):
            self.state.save_record("projections", [*asked, (name, blocks)])

    def projections(self, rows: int) -> list[list[int]]:
        """Return the blocks of every projection, fitted on ``rows`` samples, ever asked for."""
        asked = [blocks for _, blocks in self._projections()]
        if not asked and self.reference in self.plan.contributors:  # a run of an earlier version
            asked = [self.plan.projected(self.reference, rows)]
        return asked

    def _projections(self) -> list[tuple[str, list[int]]]:
        return self.state.record("projections", list[tuple[str, list[int]]]) or []

    def add_represented(self, name: str) -> None:
        """Store that ``name`` is asked for features of the shared set."""
        if name not in self._asked:
            self._asked.append(name)
            self.state.save_record("represented", self._asked)

    def represented(self) -> list[str]:
        """Return the contributors that were ever asked for features of the shared set."""
        asked = set(self._asked)  # earlier versions did not record who was asked
        return [n for n in self.plan.contributors if n in asked or self.has("features", n)]

    def has(self, what: str, name: str) -> bool:
        """Whether a participant's "features", "alignments" or "held_out" are stored."""
        return self.state.has_arrays(f"{what}/{name}")

    def save(self, what: str, name: str, **arrays: Any) -> None:
        """Store what is known of a participant.

        Args:
            what: "features" (of the shared samples ``ids`` that it could read), "alignments", or
                "held_out": its alignment cross-validated.
            name: the participant.
            arrays: the arrays, by name.
        """
        self.state.save_arrays(f"{what}/{name}", **arrays)

    def features(self, names: list[str]) -> tuple[Ids, Mapping[str, Features]]:
        """Return the shared ids (S,) that all of ``names`` could read, and their features (S, m).

        Features are read from disk on access, so memory holds those of one participant at a time.
        """
        common = reduce(np.intersect1d, map(self._represents, names))
        return common, Lazy(names, lambda name: self._features(name, common))

    def _features(self, name: str, common: Ids) -> Features:
        stored = self.state.arrays(f"features/{name}") or {}
        features: Features = stored["features"][np.isin(stored["ids"], common)]
        return features

    def _represents(self, name: str) -> Ids:
        ids: Ids = (self.state.arrays(f"features/{name}", only=("ids",)) or {})["ids"]
        return ids

    def shared_targets(self) -> tuple[Ids, Features] | None:
        """Return the shared ids (S,) and their targets S_Y* (S, n), or None if not yet settled."""
        stored = self.state.arrays("shared_targets")
        return None if stored is None else (stored["ids"], stored["targets"])

    def aligning(self, name: str) -> tuple[Features, Features]:
        """Return a participant's features (S, m) and targets (S, n) of the same shared samples."""
        ids, targets = self.aligned_to(name)
        own, features = self.features([name])
        return features[name][np.isin(own, ids)], targets

    def aligned_to(self, name: str) -> tuple[Ids, Features]:
        """Return the shared ids (S,) that a participant is aligned on, and their targets (S, n)."""
        ids, targets = _required(self.shared_targets())
        here = np.isin(ids, self._represents(name))
        return ids[here], targets[here]

    def alignment(self, name: str) -> Alignment:
        """Return a participant's alignment; it is fitted once and never again.

        Raises:
            ParticipantError: it has not been delivered.
        """
        settled = self.state.has_arrays("shared_targets") and name == self.reference
        stored = self.state.arrays(f"alignments/{name}", settled)
        if stored is None:
            raise ParticipantError(f"{name} has delivered no alignment; run the same command again")
        return Alignment(stored["weight"], stored["bias"], str(stored["solver"]))


def _required(value: T | None) -> T:
    if value is None:
        raise LookupError("it is not settled yet")
    return value
