"""The agreement of participants before optimization, and elections that only experiments use."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt_fl.federation.plan import Plan
from coopt_fl.policies.reference import Election
from coopt_fl.targets import CONSENSUS, Alignment, HeldOut, Recipe, uniformity
from coopt_fl.targets.collaborate import apply

Array = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Agreed:
    """The state of a collaboration before optimization: plan, reference and alignments.

    Attributes:
        features: float32 (N, m_k) of all images, by participant.
        plan: the plan; an image's id is its row.
        recipe: projection, solver and width of the targets.
        on_s: float32 (S, m_k), the features of the shared set that each participant sent.
        election: the election of the reference.
        shared_targets: float32 (S, n), to which all participants align.
        alignments: from features to targets, by participant; the reference's is its projection.
        seconds: time for uniformity, election and alignment.
    """

    features: Mapping[str, Array]
    plan: Plan
    recipe: Recipe
    on_s: Mapping[str, Array]
    election: Election
    shared_targets: Array
    alignments: Mapping[str, Alignment]
    seconds: float

    def rows_of(self, name: str) -> Rows:
        """Return the rows of a participant's shard, block by block."""
        blocks = [self.plan.blocks[index] for index in self.plan.blocks_of(name)]
        return np.concatenate([np.empty(0, np.int64), *blocks])

    def targets(self, name: str, features: Array) -> Array:
        """Return the targets (R, n) of features (R, m) by a participant's alignment."""
        return apply(self.alignments[name], features)

    def held_out(self) -> dict[str, HeldOut]:
        """Return each alignment's cross-validation on the shared set; the reference's R2 is 1."""
        wanted = self.shared_targets
        return {
            name: HeldOut(wanted, 1.0)
            if name == self.election.reference
            else self.recipe.held_out(name, x, wanted)
            for name, x in self.on_s.items()
        }

    def r2(self) -> list[float]:
        """Return the held-out R2 of every alignment."""
        return [one.r2 for one in self.held_out().values()]

    def fused(self, replicas: int = 1) -> tuple[Array, NDArray[np.int16]]:
        """Return the targets (N, n) of all images, and their participants (N,), -1 for averages.

        Args:
            replicas: number of participants that make each target, beginning with the block's
                owner; their targets are averaged.
        """
        names = list(self.features)
        rows = len(self.features[names[0]])
        targets = np.zeros((rows, self.recipe.dim), np.float32)
        participants = np.zeros(rows, np.int16)
        for k, name in enumerate(names):
            mine = self.rows_of(name)
            makers = [names[(k + r) % len(names)] for r in range(replicas)]
            each = [self.targets(maker, self.features[maker][mine]) for maker in makers]
            targets[mine] = np.mean(each, axis=0)
            participants[mine] = k if replicas == 1 else -1
        return targets, participants


def uniformity_alone(
    features: Mapping[str, Array],
    wanted: str,
    dim: int,
    seed: int,
    choose: Callable[..., str] = min,
) -> Election:
    """Elect by uniformity, as in the paper, without the platform's test of alignability.

    With fewer than 7 shared samples that test is impossible, and with few samples it may refuse
    sound priors. ``choose=max`` elects the least uniform prior.
    """
    scores = {name: uniformity(x) for name, x in features.items()}
    best = choose(scores, key=scores.__getitem__)
    reference = CONSENSUS if wanted == CONSENSUS else best
    return Election(reference, best, list(features), scores, [])


def as_told(features: Mapping[str, Array], wanted: str, dim: int, seed: int) -> Election:
    """Elect ``wanted``: a participant, or the consensus."""
    return Election(wanted, wanted, list(features), {}, [])
