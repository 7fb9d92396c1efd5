"""What the platform knows about its participants, kept in the run's state."""

from typing import Any

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray

from coopt_fl.errors import ParticipantError
from coopt_fl.optimized.state import RunState
from coopt_fl.targets import Alignment

Features = NDArray[np.float32]

PERMANENT = ("prior", "weights_sha256", "width", "device")
"""What must stay as it was when a run is continued; another kind of device changes the bits."""


class Records:
    """Typed access to the platform's records; all of it survives the process."""

    def __init__(self, state: RunState) -> None:
        self.state = state

    def description(self, name: str) -> dict[str, Any] | None:
        """Return how a participant described itself when it first joined."""
        found: dict[str, Any] | None = (self.state.record("participants") or {}).get(name)
        return found

    def width(self, name: str) -> int:
        """Return the width m of a participant's features."""
        return int((self.description(name) or {})["width"])

    def remember(self, name: str, description: dict[str, Any]) -> None:
        """Store how a participant described itself, the first time.

        Raises:
            ParticipantError: it is not the one that this run began with, so that its targets
                would not fit those that are stored.
        """
        first = self.description(name)
        if first is None:
            known = self.state.record("participants") or {}
            self.state.save_record("participants", known | {name: description})
            return
        changed = [key for key in PERMANENT if first[key] != description[key]]
        if changed:
            raise ParticipantError(
                f"the {changed[0]} of {name} changed since this run began; restore it, or give "
                "another --out"
            )

    def add_upload(self, name: str, reply: Message) -> None:
        """Count the bytes of the arrays that a participant sent."""
        sent = 0
        if reply.has_content():
            for record in reply.content.array_records.values():
                sent += sum(len(array.data) for array in record.values())
        known: dict[str, int] = self.state.record("uploads") or {}
        self.state.save_record("uploads", known | {name: known.get(name, 0) + sent})

    def has_features(self, name: str) -> bool:
        """Whether a participant has represented the shared set."""
        return self.state.arrays(f"features/{name}") is not None

    def save_features(self, name: str, ids: NDArray[np.int64], features: Features) -> None:
        """Store features (S', m) of the shared samples ``ids`` that a participant could read."""
        self.state.save_arrays(f"features/{name}", ids=ids, features=features)

    def features(self, names: list[str]) -> dict[str, Features]:
        """Return everyone's features of those shared samples that everyone could read."""
        stored = {name: self.state.arrays(f"features/{name}") or {} for name in names}
        common = stored[names[0]]["ids"]
        for arrays in stored.values():
            common = np.intersect1d(common, arrays["ids"])
        return {
            name: arrays["features"][np.isin(arrays["ids"], common)]
            for name, arrays in stored.items()
        }

    def alignment(self, name: str) -> Alignment | None:
        """Return a participant's alignment; it is fitted once and never again."""
        stored = self.state.arrays(f"alignments/{name}")
        if stored is None:
            return None
        return Alignment(
            weight=stored["weight"],
            bias=stored["bias"],
            r2_heldout=float(stored["r2_heldout"]),
            solver=str(stored["solver"]),
        )

    def save_alignment(self, name: str, alignment: Alignment) -> None:
        """Store a participant's alignment."""
        self.state.save_arrays(
            f"alignments/{name}",
            weight=alignment.weight,
            bias=alignment.bias,
            r2_heldout=np.array(alignment.r2_heldout, np.float64),
            solver=np.array(alignment.solver),
        )
