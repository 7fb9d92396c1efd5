"""From a payload to blocks: every check that stands between a reply and the disk."""

from collections.abc import Mapping

import numpy as np

from coopt_fl.core.errors import ParticipantError
from coopt_fl.federation.protocol import IntArray, Payload
from coopt_fl.optimized.block import Block

MOST_SECONDS = 1e7
"""What a chunk can have taken: four months."""


def accept_payload(
    payload: Payload, expected: Mapping[int, IntArray], dim: int, contributor: int
) -> dict[int, Block]:
    """Return the blocks in ``payload`` after comparing them with what was asked for.

    Args:
        payload: the reply.
        expected: ids (ascending) of each block that was asked for, in order.
        dim: width n of a target.
        contributor: index of the participant.

    Raises:
        ParticipantError: what was expected, what came, and that nothing of it is used.
    """
    _check_shape(payload, list(expected), dim)
    blocks: dict[int, Block] = {}
    ends = np.cumsum(payload.rows).tolist()
    for (index, wanted), rows, end, digest in zip(
        expected.items(), payload.rows, ends, payload.digests, strict=True
    ):
        part = slice(end - rows, end)
        ids, targets = payload.ids[part], payload.targets[part]
        skipped = np.intersect1d(wanted, payload.skipped)
        _require(
            np.array_equal(ids, np.setdiff1d(wanted, skipped)),
            f"the ids of block {index}, each once and ascending",
            "other ids",
        )
        _require(bool(np.isfinite(targets).all()), "finite targets", f"NaN or infinity in {index}")
        participants = np.full(rows, contributor, np.int16)
        share = payload.seconds * rows / max(len(payload.ids), 1)
        block = Block(ids, targets, participants, skipped, share)
        _require(block.digest == digest, f"digest {block.digest[:12]}", str(digest)[:12])
        blocks[index] = block
    return blocks


def require_skips(skipped: IntArray, asked: IntArray, on_error: str) -> None:
    """Compare what a participant left out with what it was asked for, and with ``data.on_error``.

    Raises:
        ParticipantError: it may leave nothing out, or was not asked for it.
    """
    _require(on_error == "skip" or not len(skipped), "every sample", f"{len(skipped)} skipped")
    strange = np.setdiff1d(skipped, asked)
    _require(not len(strange), "only samples that were asked for", f"skipped {strange[:3]}")


def _check_shape(payload: Payload, asked: list[int], dim: int) -> None:
    """Compare the blocks, row counts and shapes before anything is indexed with them."""
    total = len(payload.ids)
    _require(payload.blocks == asked, f"blocks {asked}", str(payload.blocks))
    _require(
        len(payload.rows) == len(payload.digests) == len(asked),
        f"{len(asked)} row counts and digests",
        f"{len(payload.rows)} and {len(payload.digests)}",
    )
    _require(
        payload.ids.ndim == 1 and min(payload.rows) >= 0 and sum(payload.rows) == total,
        "as many ids as the rows of its blocks",
        f"ids {payload.ids.shape} for {sum(payload.rows)} rows",
    )
    _require(
        payload.targets.shape == (total, dim),
        f"targets of shape ({total}, {dim})",
        str(payload.targets.shape),
    )
    _require(0 <= payload.seconds <= MOST_SECONDS, "a time", str(payload.seconds))


def _require(holds: bool, expected: str, came: str) -> None:
    if not holds:
        raise ParticipantError(f"expected {expected}, got {came}; its payload is not used")
