"""A payload is accepted if it is valid, or refused as a whole."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from coopt_fl.core.errors import ParticipantError
from coopt_fl.core.progress import Progress
from coopt_fl.federation.plan import Change, Plan
from coopt_fl.federation.protocol import (
    Payload,
    accept_payload,
    decode,
    encode,
    require_skips,
    task_of,
)
from coopt_fl.federation.state import RunState
from coopt_fl.optimized.block import block_digest
from coopt_fl.policies.audit import Audit
from coopt_fl.strategies.payloads import Optimize
from coopt_fl.strategies.routes import InReplies
from coopt_fl.targets import Alignment
from tests.flower.grid import tiny

EXPECTED = {4: np.array([1, 5, 9]), 7: np.array([2, 3])}


def payload(skipped: tuple[int, ...] = ()) -> Payload:
    rng = np.random.default_rng(0)
    ids = [np.setdiff1d(block, skipped) for block in EXPECTED.values()]
    targets = [rng.normal(size=(len(part), 6)).astype(np.float16) for part in ids]
    digests = [
        block_digest(i, t, np.full(len(i), 2, np.int16)) for i, t in zip(ids, targets, strict=True)
    ]
    return Payload(
        blocks=list(EXPECTED),
        rows=[len(part) for part in ids],
        ids=np.concatenate(ids),
        targets=np.concatenate(targets),
        skipped=np.array(skipped, np.int64),
        digests=digests,
        seconds=1.0,
    )


def test_good_payload_becomes_blocks() -> None:
    good = payload()
    blocks = accept_payload(good, EXPECTED, 6, 2)
    assert list(blocks) == [4, 7]
    assert np.array_equal(blocks[7].ids, [2, 3])
    assert np.array_equal(blocks[7].targets, good.targets[3:])
    assert set(blocks[4].participants) == {2}
    assert sum(block.seconds for block in blocks.values()) == pytest.approx(1.0)


def test_skipped_ids_are_left_out() -> None:
    blocks = accept_payload(payload(skipped=(5, 2, 3)), EXPECTED, 6, 2)
    assert np.array_equal(blocks[4].ids, [1, 9])
    assert np.array_equal(blocks[4].skipped, [5])
    assert len(blocks[7].ids) == 0


GOOD = payload()
NAN = GOOD.targets.copy()
NAN[1, 2] = np.nan
BAD = {
    "other block": replace(GOOD, blocks=[4, 8]),
    "missing block": replace(GOOD, blocks=[4]),
    "missing digest": replace(GOOD, digests=GOOD.digests[:1]),
    "wrong digest": replace(GOOD, digests=[GOOD.digests[0], "0" * 64]),
    "other contributor": payload(),
    "NaN": replace(GOOD, targets=NAN),
    "width": replace(GOOD, targets=GOOD.targets[:, :5]),
    "fewer rows": replace(GOOD, targets=GOOD.targets[:4]),
    "foreign id": replace(GOOD, ids=np.array([1, 5, 8, 2, 3])),
    "repeated id": replace(GOOD, ids=np.array([1, 5, 5, 2, 3])),
    "order of ids": replace(GOOD, ids=np.array([5, 1, 9, 2, 3])),
    "missing id": replace(GOOD, ids=GOOD.ids[:4]),
    "rows": replace(GOOD, rows=[2, 3]),
    "flat ids": replace(GOOD, ids=GOOD.ids.reshape(1, -1)),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_payload_is_refused(name: str) -> None:
    contributor = 1 if name == "other contributor" else 2
    with pytest.raises(ParticipantError, match=r"expected .* got .*not used"):
        accept_payload(BAD[name], EXPECTED, 6, contributor)


@pytest.mark.parametrize(
    "said", [{"rows": [6, -1]}, {"seconds": math.nan}, {"seconds": 1e8}, {"digests": ["?"] * 2}]
)
def test_impossible_numbers_make_no_message(said: dict[str, Any]) -> None:
    with pytest.raises(
        ParticipantError, match=f"malformed Payload message came: {next(iter(said))}"
    ):
        received(replace(GOOD, **said))


def received(told: Payload) -> Payload:
    """Return a payload as the platform gets it."""
    return decode(Payload, encode(told))


INTS = st.integers(-1, 10) | st.integers()
SHAPES = array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=6)
ANY: dict[str, st.SearchStrategy[Any]] = {
    "blocks": st.lists(INTS, max_size=3),
    "rows": st.lists(INTS, max_size=3),
    "ids": arrays(np.int64, SHAPES, elements=st.integers(-1, 10)),
    "targets": arrays(np.float16, SHAPES),
    "skipped": arrays(np.int64, SHAPES, elements=st.integers(-1, 10)),
    "digests": st.lists(st.text(max_size=4), max_size=3),
    "seconds": st.floats(),
}


@pytest.mark.whole
@settings(max_examples=500)
@given(st.dictionaries(st.sampled_from(list(ANY)), st.just(None), max_size=3), st.data())
def test_whatever_comes_becomes_the_blocks_asked_for_or_is_refused(
    odd: dict[str, None], data: st.DataObject
) -> None:
    told = replace(GOOD, **{name: data.draw(ANY[name], name) for name in odd})
    try:
        told = received(told)
        require_skips(told.skipped, np.concatenate(list(EXPECTED.values())), "skip")
        blocks = accept_payload(told, EXPECTED, 6, 2)
    except ParticipantError:
        return
    assert list(blocks) == list(EXPECTED)
    for index, block in blocks.items():
        assert sorted([*block.ids, *block.skipped]) == EXPECTED[index].tolist()
        assert block.targets.shape == (len(block.ids), 6)
        assert np.isfinite(block.targets).all()


def test_a_chunk_that_comes_back_after_a_handover_is_its_new_owners() -> None:
    """The chunk arrives before the platform has checked which blocks are missing."""
    plan = Plan(["ann", "bob"], ids := np.arange(8).reshape(4, 2), list(ids), [0, 0, 1, 1], ids[0])
    records = SimpleNamespace(
        plan=plan,
        state=(state := SimpleNamespace(has_unit=lambda index: False)),
        width=lambda name: 4,
        alignment=lambda name: Alignment(np.eye(4), np.zeros(4), "ridge"),
    )
    config = tiny(**{"targets.dim": 4, "optimize.chunk_mb": 1e-5})
    decisions = SimpleNamespace(config=config, progress=Progress())
    inspection: Any = SimpleNamespace(decisions=decisions, records=records, policy=Audit())
    optimize = Optimize(task_of(config, ""), inspection, InReplies(cast("RunState", state)))
    assert optimize.ask("ann").blocks == [0]
    records.plan = plan.moved(Change("ann", [0, 1], ["cyd", "cyd"], "it went offline", {}))
    optimize.returned("ann")
    assert optimize.ask("cyd").blocks == [0]
    assert optimize.ask("bob").blocks == [2]
