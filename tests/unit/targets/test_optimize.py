import itertools
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from coopt_fl.core.errors import PriorError
from coopt_fl.core.link import Link
from coopt_fl.data.source import CorruptImage
from coopt_fl.targets import Alignment, optimize, represent
from tests.unit.targets.conftest import Pictures

SETTINGS = {"batch_size": 4, "precision": "float32", "on_error": "raise"}
SKIPPING = SETTINGS | {"on_error": "skip"}
WEIGHT = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
ALIGNMENT = Alignment(WEIGHT, np.arange(3, dtype=np.float32), "ridge")


def expected(ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the expected features: an image's level is its id modulo 251, divided by 255."""
    return (ids % 251)[:, None] / 255 * np.arange(1, 5)


def test_features_are_the_priors_in_the_order_asked_for(prior: Callable) -> None:
    ids = np.array([7, 3, 250, 11, 0, 42])
    found = represent(prior(), Pictures(300), ids, **SETTINGS)
    assert (found.ids == ids).all()
    assert found.values.dtype == np.float32
    assert found.skipped == ()
    np.testing.assert_allclose(found.values, expected(ids), atol=1e-6)


def test_targets_are_the_aligned_features_of_each_block_in_float16(prior: Callable) -> None:
    blocks = [np.array([5, 9, 2, 8, 1]), np.array([40]), np.arange(100, 108)]
    found = list(optimize(prior(), Pictures(300), blocks, ALIGNMENT, **SETTINGS))
    assert len(found) == 3
    for ids, block in zip(blocks, found, strict=True):
        assert (block.ids == ids).all()
        assert block.values.dtype == np.float16
        targets = expected(ids) @ WEIGHT + np.arange(3)
        np.testing.assert_allclose(block.values, targets, atol=4e-3)


def test_a_batch_is_of_one_block_and_its_size_a_power_of_two(prior: Callable) -> None:
    some, source = prior(), Pictures(300)
    blocks = [np.arange(6), np.arange(10, 11), np.arange(20, 28), np.arange(30, 33)]
    list(optimize(some, source, blocks, ALIGNMENT, **SETTINGS))
    assert some.model.batches == [4, 2, 1, 4, 4, 4]
    assert source.most_read == 4


def test_the_bits_of_a_row_do_not_depend_on_what_else_is_asked_for(prior: Callable) -> None:
    block = np.arange(30, 36)
    some = prior()
    alone = next(optimize(some, Pictures(99), [block], ALIGNMENT, **SETTINGS))
    blocks = [np.arange(3), block, np.arange(50, 57)]
    among = list(optimize(some, Pictures(99), blocks, ALIGNMENT, **SETTINGS))[1]
    assert alone.values.tobytes() == among.values.tobytes()


def test_blocks_come_as_they_are_done(prior: Callable) -> None:
    some = prior()
    blocks = (np.arange(k, k + 4) for k in itertools.count(0, 4))
    stream = optimize(
        some, Pictures(999), list(itertools.islice(blocks, 200)), ALIGNMENT, **SETTINGS
    )
    assert some.model.batches == []
    next(stream)
    assert some.model.batches == [4]


class Late(Link):
    """A device whose outputs arrive only when the caller waits for them."""

    ahead = 2

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.unfetched = list[tuple[Tensor, Tensor]]()

    def fetch(self, values: Tensor) -> Tensor:
        self.unfetched.append((torch.zeros_like(values), values))
        return self.unfetched[-1][0]

    def work(self) -> "Late":
        return self

    def synchronize(self) -> None:
        for there, values in self.unfetched:
            there.copy_(values)


def test_a_device_is_at_the_next_block_when_one_is_handed_out(prior: Callable) -> None:
    """Results are the same, few blocks are in memory, and the consumer may stop at any time."""
    blocks = [np.arange(6), np.arange(10, 11), np.arange(20, 28), np.arange(30, 33)]
    here = list(optimize(prior(), Pictures(99, (1,)), blocks, ALIGNMENT, **SKIPPING))
    some = prior()
    stream = optimize(some, Pictures(99, (1,)), blocks, ALIGNMENT, **SKIPPING, link=Late())
    there = [next(stream)]
    assert some.model.batches == [4, 2, 1], "one block more"
    for mine, other in zip([*there, *stream], here, strict=True):
        assert mine.ids.tolist() == other.ids.tolist() and mine.skipped == other.skipped
        assert mine.values.tobytes() == other.values.tobytes()
    stopped = optimize(prior(), Pictures(99), blocks, ALIGNMENT, **SETTINGS, link=Late())
    next(stopped)
    stopped.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("ahead")]


@pytest.mark.parametrize("corrupt", [(2,), (0, 1, 2, 3), (0, 5), tuple(range(6))])
def test_corrupt_images_are_left_out_and_named(prior: Callable, corrupt: tuple[int, ...]) -> None:
    source, settings = Pictures(20, corrupt), SETTINGS | {"on_error": "skip"}
    blocks = [np.arange(6), np.arange(10, 16)]
    first, second = optimize(prior(), source, blocks, ALIGNMENT, **settings)
    left = np.array([id for id in range(6) if id not in corrupt], np.int64)
    assert first.ids.tolist() == left.tolist()
    assert first.skipped == corrupt
    assert first.values.shape == (len(left), 3)
    np.testing.assert_allclose(
        first.values, (expected(left) @ WEIGHT + np.arange(3)).reshape(-1, 3), atol=4e-3
    )
    assert second.ids.tolist() == list(range(10, 16))
    seen = represent(prior(), source, blocks[0], **settings)
    assert seen.ids.tolist() == left.tolist()
    assert seen.skipped == corrupt
    with pytest.raises(CorruptImage):
        represent(prior(), source, blocks[0], **SETTINGS)


def test_images_of_mixed_sizes(prior: Callable) -> None:
    some, ids = prior(), np.arange(6)
    found = represent(some, Pictures(20, large=(1, 4)), ids, **SETTINGS)
    np.testing.assert_allclose(found.values, expected(ids), atol=1e-5)
    assert some.model.batches == [4, 2]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_feature_that_is_not_finite_names_the_sample(prior: Callable, bad: float) -> None:
    def spoil(features: Tensor) -> Tensor:
        return torch.where(features[:, :1] * 255 > 8.5, bad, features)

    ids = np.array([3, 1, 4, 1 + 4, 9, 2])
    with pytest.raises(PriorError, match=r"levels, sample 9 .pictures row 9.*not finite"):
        represent(prior(spoil), Pictures(20), ids, **SETTINGS)
    stream = optimize(prior(spoil), Pictures(20), [ids[:4], ids[4:]], ALIGNMENT, **SETTINGS)
    assert len(next(stream).ids) == 4
    with pytest.raises(PriorError, match="sample 9"):
        next(stream)


def test_a_feature_that_the_alignment_would_hide_is_still_refused(prior: Callable) -> None:
    """Infinity times a zero weight is NaN; the error must not blame float16."""
    silent = Alignment(np.zeros((4, 3), np.float32), np.zeros(3, np.float32), "ridge")
    spoiled = prior(lambda features: features / 0.0)
    with pytest.raises(PriorError, match="features are not finite"):
        next(optimize(spoiled, Pictures(9), [np.arange(1, 4)], silent, **SETTINGS))


def test_a_target_beyond_float16_is_refused(prior: Callable) -> None:
    loud = Alignment(np.full((4, 3), 1e8), np.zeros(3, np.float32), "lstsq")
    with pytest.raises(PriorError, match=r"sample 5 .*too large for float16"):
        next(optimize(prior(), Pictures(9), [np.array([0, 5, 6])], loud, **SETTINGS))


def test_an_alignment_of_another_width_is_refused_before_any_work(prior: Callable) -> None:
    wide = Alignment(np.ones((5, 3), np.float32), np.zeros(3, np.float32), "ridge")
    with pytest.raises(PriorError, match="width 4, but its alignment takes 5"):
        optimize(prior(), Pictures(9), [np.arange(3)], wide, **SETTINGS)


def test_nothing_to_do(prior: Callable) -> None:
    none = np.array([], np.int64)
    assert represent(prior(), Pictures(9), none, **SETTINGS).values.shape == (0, 4)
    assert list(optimize(prior(), Pictures(9), [], ALIGNMENT, **SETTINGS)) == []
