"""Which prior, or consensus of priors, everyone aligns to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from coopt_fl.core.errors import ConfigError, ParticipantError
from coopt_fl.targets import CONSENSUS
from coopt_fl.targets.alignable import alignability
from coopt_fl.targets.uniformity import uniformity

FEWEST_SHARED = 25
"""Fewest shared samples with which sound priors always passed the test of alignability.

See docs/decisions/2026-11-27-alignable-priors.md.
"""


@dataclass(frozen=True)
class Election:
    """The outcome of the election.

    Attributes:
        reference: a participant's name, or "consensus".
        best: the accepted participant with the lowest uniformity.
        accepted: participants that others can be aligned to; only they may be the reference.
        uniformity: V(psi; S) of every participant.
        warnings: sentences for the user.
    """

    reference: str
    best: str
    accepted: list[str]
    uniformity: dict[str, float]
    warnings: list[str]


class ReferencePolicy(Protocol):
    """Chooses what everyone aligns to."""

    def __call__(
        self, features: Mapping[str, NDArray[np.float32]], wanted: str, dim: int, seed: int
    ) -> Election:
        """Return the outcome; its ``reference`` is a name in ``features`` or "consensus".

        Args:
            features: each participant's features (S, m_k) of the same shared samples.
            wanted: ``reference`` in the configuration: "consensus", "best", or the policy's name.
            dim: width n of a target.
            seed: of the run.
        """


def elected(election: Election, features: Mapping[str, NDArray[np.float32]]) -> Election:
    """Check and return the outcome of a policy.

    Raises:
        ConfigError: it names a participant that is not in ``features``.
    """
    named = {election.best, *election.accepted} | {election.reference} - {CONSENSUS}
    if strange := sorted(named - set(features)):
        raise ConfigError(
            f"the reference policy names {', '.join(strange)}, but there are {', '.join(features)}"
        )
    return election


def elect(
    features: Mapping[str, NDArray[np.float32]], wanted: str, dim: int, seed: int
) -> Election:
    """Choose the most uniform alignable prior, or the consensus of all alignable ones.

    Uniformity (CoOpt, section 3.2) alone would elect isotropic noise, which is perfectly uniform; a
    candidate must also be *alignable*, see :mod:`coopt_fl.targets.alignable`. A consensus needs 2 n
    shared samples.

    Raises:
        ParticipantError: no prior is alignable.
    """
    scores = {name: uniformity(one) for name, one in features.items()}
    size = len(next(iter(features.values())))
    accepted, warnings = _candidates(features, seed)
    if size < FEWEST_SHARED and len(features) > 1:
        warnings.append(
            f"{size} shared samples are few: alignment gains little, and a sound prior may be "
            f"taken for noise; set shared.size to {FEWEST_SHARED} or more"
        )
    best = min(accepted, key=lambda name: scores[name])
    reference = CONSENSUS if wanted == CONSENSUS else best
    if wanted == CONSENSUS and size < 2 * dim:
        warnings.append(
            f"a consensus of {dim} dimensions needs {2 * dim} shared samples, there are {size}: "
            f"{best} is the reference instead; raise shared.size or lower targets.dim"
        )
        reference = best
    return Election(reference, best, accepted, scores, warnings)


def _candidates(
    features: Mapping[str, NDArray[np.float32]], seed: int
) -> tuple[list[str], list[str]]:
    """Return the alignable participants, and a warning about each of the others."""
    names = list(features)
    verdicts = alignability(features.values(), seed)
    accepted = [name for name, verdict in zip(names, verdicts, strict=True) if verdict.alignable]
    if not accepted:
        evidence = ", ".join(
            f"{name}: CKA {max(verdict.cka):.3f}, chance {max(verdict.threshold):.3f}"
            for name, verdict in zip(names, verdicts, strict=True)
        )
        raise ParticipantError(
            "no participant's features resemble the others' more than chance does, so there is "
            "nothing to align to: raise shared.size, or replace the priors "
            f"({evidence})"
        )
    refused = [name for name in names if name not in accepted]
    return accepted, [
        f"{name} cannot be the reference: its features do not resemble the others'"
        for name in refused
    ]
