"""Who optimizes which blocks, and who takes over: by default in proportion to weight or speed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from coopt_fl.core.errors import ConfigError

FASTEST = 20.0
"""What a participant's word about its speed is worth at most, over the median of all."""


@dataclass(frozen=True)
class Member:
    """A participant that can be given work.

    Attributes:
        name: in the roster.
        weight: its share relative to the others', as configured.
        speed: samples/s, as it says itself; 0 where that was not asked for.
    """

    name: str
    weight: float = 1.0
    speed: float = 0.0


class AssignmentPolicy(Protocol):
    """Decides who does what, before any work and again when a participant is lost or rejected."""

    def __call__(self, blocks: Sequence[int], members: Sequence[Member]) -> list[str]:
        """Return the name of the owner of each of ``blocks``, one of ``members``."""


def assigned(
    policy: AssignmentPolicy, blocks: Sequence[int], members: Sequence[Member]
) -> list[str]:
    """Return the owner of each block by a policy, whose answer is checked.

    Raises:
        ConfigError: it gives not one of the members for each block.
    """
    owners, names = list(policy(blocks, members)), {member.name for member in members}
    if len(owners) != len(blocks) or not names.issuperset(owners):
        raise ConfigError(
            f"the assignment must give one of {', '.join(sorted(names))} for each of "
            f"{len(blocks)} blocks, not {owners[:5]} ... of {len(owners)}"
        )
    return owners


@dataclass(frozen=True)
class Proportional:
    """Shares in proportion to what members are asked for ``by``: their "weight" or "speed"."""

    by: str = "weight"

    def __call__(self, blocks: Sequence[int], members: Sequence[Member]) -> list[str]:
        """Give each member consecutive blocks.

        That is as random as the permutation that the blocks were cut from. Counts follow the
        shares by largest remainder, earlier members first on a tie.
        """
        shares = np.array([getattr(member, self.by) for member in members], np.float64)
        if self.by == "speed":
            shares = np.minimum(shares, FASTEST * np.median(shares))
        quotas = shares / shares.sum() * len(blocks)
        counts = np.floor(quotas).astype(int)
        order = np.argsort(counts - quotas, kind="stable")
        counts[order[: len(blocks) - counts.sum()]] += 1
        return [
            member.name
            for member, count in zip(members, counts.tolist(), strict=True)
            for _ in range(count)
        ]


BY_WEIGHT, BY_SPEED = Proportional("weight"), Proportional("speed")
"""The policies of ``assignment.by``."""
