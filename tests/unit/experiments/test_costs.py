"""Bytes and averages of the cost experiments, compared with counts by hand."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity

from coopt_fl.config.schema import Config
from coopt_fl.federation import protocol
from coopt_fl.students.session import devices_for
from experiments import fedavg
from experiments.costs import Payload8, arrays_up, in_int8, quantised, traffic, widths
from experiments.fedavg import Local, federated, shards_of
from experiments.grid import Weighing, weigh
from experiments.lab import Lab
from experiments.scales import SCALES

(STUDY,) = SCALES["smoke"].values()
K = 3

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab(STUDY)


@pytest.fixture(autouse=True)
def stamped() -> Iterator[None]:
    yield
    TaskIdentity._run_id = TaskIdentity._node_id = TaskIdentity._task_id = None


def payload(rows: int, dim: int) -> protocol.Payload:
    rng = np.random.default_rng(0)
    targets = rng.standard_normal((rows, dim)).astype(np.float16)
    nothing = np.empty(0, np.int64)
    return protocol.Payload([0], [rows], nothing, ["0" * 64], 1.0, np.arange(rows), targets)


def test_a_message_weighs_its_numbers_and_little_else() -> None:
    rows, dim = 1000, 64
    told = payload(rows, dim)
    half = weigh(protocol.encode(told))
    codes, scales = quantised(told.targets.astype(np.float32))
    plain = {key: value for key, value in vars(told).items() if key != "targets"}
    small = weigh(protocol.encode(Payload8(**plain, codes=codes, scales=scales)))
    assert 0 < half - rows * (8 + 2 * dim) < 2500
    assert 0 < small - rows * (8 + dim) - 4 * dim < 3000


def test_each_further_number_of_a_target_costs_what_the_formula_says(lab: Lab) -> None:
    """All other content of messages is the same for two widths, except for digits."""
    shared, wide = STUDY.shared, widths(STUDY)
    found, expected = [], []
    for dim in (8, 16):
        sent = traffic(lab, K, dim, 0).sent
        up, payloads = sum(sent.up.values()), sent.messages[protocol.OPTIMIZE] / K
        found.append((up, up - sent.up[protocol.OPTIMIZE] + sent.int8))
        rows = sent.rows / K
        assert sent.rows == 320 + 16, "and one for the audit of each block"
        expected.append(
            (
                sum(arrays_up(shared, m, dim, rows, 2) for m in wide),
                sum(arrays_up(shared, m, dim, rows, 1, payloads) for m in wide),
            )
        )
    grown = np.diff(found, axis=0)[0]
    np.testing.assert_allclose(grown, np.diff(expected, axis=0)[0], atol=64 * K)
    assert np.all(np.array(found) > expected)


def test_codes_are_within_half_a_scale() -> None:
    targets = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)
    targets[:, 2] = 0
    targets[:, 3] *= 1000
    codes, scales = quantised(targets)
    assert np.all(np.abs(codes * scales - targets) <= 0.5001 * scales)
    assert np.abs(codes).max(axis=0).tolist() == [127, 127, 0, 127, 127, 127]


def test_each_participant_is_quantised_alone(lab: Lab) -> None:
    made = lab.collaborate(0)
    made.targets[made.participants == 1] *= 1000
    after = in_int8(made).targets
    for owner in range(K):
        mine = made.participants == owner
        scale = np.abs(made.targets[mine]).max(axis=0) / 127
        error = np.abs(after[mine] - made.targets[mine])
        assert np.all(error <= 0.501 * scale) and error.max() > 0


def test_a_participant_keeps_nothing_between_rounds(lab: Lab) -> None:
    student = replace(STUDY.student, objective=fedavg.OBJECTIVE)
    with devices_for(Config(0, STUDY.data, student=student), 1) as fabric:
        mine = Local(fabric, lab, lab.all[:100], student, 0)
        start, ends = mine.weights, []
        for _ in range(2):
            mine.take(start)
            mine.epoch(0)
            ends.append(mine.weights)
    for name, array in ends[0].items():
        assert np.array_equal(array.numpy(), ends[1][name].numpy())
        moved = not np.array_equal(array.numpy(), start[name].numpy())
        assert moved or name.endswith(("num_batches_tracked", "bias"))


def test_weights_are_averaged_by_the_images_of_the_same_shards(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[Message]] = []

    class Watched(Weighing):
        def seen(self, message: Message) -> None:
            super().seen(message)
            reply = bool(message.metadata.reply_to_message_id)
            if not reply and (not seen or seen[-1][-1].metadata.reply_to_message_id):
                seen.append([])
            seen[-1].append(message)

    monkeypatch.setattr(fedavg, "Weighing", Watched)
    found = federated(lab, K, 1, 0)
    owners = lab.collaborate(0).participants
    shards = shards_of(lab, K, 0)
    assert [sorted(rows) for rows in shards] == [
        np.flatnonzero(owners == k).tolist() for k in range(K)
    ]
    assert len(seen) == STUDY.student.epochs == found["rounds"]
    for before, after in pairwise(seen):
        replies, wanted = before[K:], after[0].content["arrays"]
        by_node = sorted(replies, key=lambda one: one.metadata.src_node_id)
        counts = [int(one.content["metrics"]["num-examples"]) for one in by_node]
        assert counts == [120, 100, 100]
        differ = 0
        for name, array in wanted.items():
            each = [one.content["arrays"][name].numpy().astype(np.float64) for one in by_node]
            differ += not np.array_equal(each[0], each[1])
            mean = np.average(each, axis=0, weights=counts)
            np.testing.assert_allclose(array.numpy(), mean, rtol=1e-5, atol=1e-6)
        assert differ > len(wanted) / 2
    numbers = sum(array.numpy().nbytes for array in seen[0][0].content["arrays"].values())
    each = len(seen) * numbers / 1e6
    assert each < found["down each, MB"] < 1.5 * each
