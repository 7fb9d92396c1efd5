"""Who optimizes which blocks, and who takes over: by default in proportion to weight."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from coopt_fl.core.errors import ConfigError

FASTEST = 20.0
"""The highest reported speed that counts, relative to the median of all."""


@dataclass(frozen=True, eq=False)
class Member:
    """A participant that can be given work.

    Attributes:
        name: its name in the roster.
        weight: its share relative to the others', as configured.
        speed: samples/s as it reports them; 0 if it was not asked.
        errors: squared error to expect of its targets of each block of the run, by the block's
            index (B,); None unless the policy is registered with ``by_region``, or where it is not
            known yet.
        most: most blocks of those given out, relative to what its weight alone would give it.
    """

    name: str
    weight: float = 1.0
    speed: float = 0.0
    errors: NDArray[np.float64] | None = None
    most: float = math.inf


class AssignmentPolicy(Protocol):
    """Decides who optimizes which blocks, at first and when a participant is lost or rejected."""

    def __call__(self, blocks: Sequence[int], members: Sequence[Member]) -> list[str]:
        """Return the name of the owner of each of ``blocks``, one of ``members``."""


def assigned(
    policy: AssignmentPolicy, blocks: Sequence[int], members: Sequence[Member]
) -> list[str]:
    """Return the owner of each block, as the policy assigns it.

    Raises:
        ConfigError: the policy does not return one of the members for each block.
    """
    owners, names = list(policy(blocks, members)), {member.name for member in members}
    if len(owners) != len(blocks) or not names.issuperset(owners):
        raise ConfigError(
            f"the assignment must give one of {', '.join(sorted(names))} for each of "
            f"{len(blocks)} blocks, but it gave {len(owners)} names: {owners[:5]} ..."
        )
    return owners


@dataclass(frozen=True)
class Proportional:
    """Assigns blocks in proportion to the members' "weight" or "speed"."""

    by: str = "weight"

    def __call__(self, blocks: Sequence[int], members: Sequence[Member]) -> list[str]:
        """Give each member consecutive blocks.

        They are random samples, as blocks are cut from a permutation of the ids. Counts follow the
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
