"""The whole protocol in-process: real strategy, real ClientApp, a grid without network."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Error, Message, RecordDict

import coopt_fl
from coopt_fl.core.errors import (
    ConfigError,
    CooptError,
    DataError,
    OutputError,
    ParticipantError,
    PriorError,
)
from coopt_fl.data import open_source
from coopt_fl.federation import protocol, server_app
from coopt_fl.optimized.block import block_digest
from coopt_fl.optimized.verify import verify
from coopt_fl.priors import load_prior
from coopt_fl.strategies import exchange
from coopt_fl.strategies.inspection import Inspection
from tests.flower.grid import FakeGrid, blocks_of, run_platform, telling, tiny
from tests.unit.data import make


def digest(out: Path) -> str:
    return coopt_fl.load(out).digest


def test_dataset_covers_every_id_once_and_verifies(tmp_path: Path) -> None:
    run_platform(tiny(), tmp_path)
    provenance, problems = verify(tmp_path / "dataset")
    dataset = coopt_fl.load(tmp_path)
    assert problems == []
    assert sorted(dataset.ids) == list(range(203))
    assert dataset.targets.shape == (203, 16)
    assert [c.name for c in provenance.contributors] == ["alpha", "beta", "gamma"]


def test_targets_are_the_aligned_features_of_each_owner(tmp_path: Path) -> None:
    """Recompute every target from the priors and the stored alignments, without the platform."""
    config = tiny()
    run_platform(config, tmp_path)
    dataset = coopt_fl.load(tmp_path)
    source = open_source(config.data)
    for index, participant in enumerate(config.participants):
        mine = dataset.participants == index
        stored = np.load(tmp_path / "state" / "alignments" / f"{participant.name}.npz")
        import torch

        features = load_prior(participant.prior).features(
            torch.stack(source.read(dataset.ids[mine]))
        )
        expected = features.numpy().astype(np.float64) @ stored["weight"] + stored["bias"]
        assert mine.sum() > 0
        np.testing.assert_allclose(dataset.targets[mine], expected, rtol=2e-3, atol=2e-3)


def test_digest_ignores_chunks_order_of_replies_and_transport(tmp_path: Path) -> None:
    run_platform(tiny(), tmp_path / "a")
    one_chunk = tiny(**{"optimize.chunk_mb": 5})
    run_platform(one_chunk, tmp_path / "b")
    run_platform(tiny(), tmp_path / "c", FakeGrid(3, backwards=True))
    assert digest(tmp_path / "a") == digest(tmp_path / "b") == digest(tmp_path / "c")


def test_digest_follows_the_seed(tmp_path: Path) -> None:
    run_platform(tiny(), tmp_path / "a")
    run_platform(tiny(seed=1), tmp_path / "b")
    assert digest(tmp_path / "a") != digest(tmp_path / "b")


def test_resume_after_a_failure_redoes_nothing_and_ends_the_same(
    undisturbed: Path, tmp_path: Path
) -> None:
    seen = []

    def break_after_three(request: Message, reply: Message) -> Message:
        if request.metadata.message_type == protocol.OPTIMIZE:
            seen.append(request)
            if len(seen) > 3:
                return Message(Error(code=8, reason="killed"), reply_to=request)
        return reply

    with pytest.raises(ParticipantError, match="it died"):
        run_platform(tiny(), tmp_path / "cut", FakeGrid(3, tamper=break_after_three))
    before = blocks_of(tmp_path / "cut")
    assert 0 < len(before) < 11
    grid = run_platform(tiny(), tmp_path / "cut")
    after = blocks_of(tmp_path / "cut")
    assert {name: after[name] for name in before} == before
    assert set(grid.kinds()) == {protocol.DESCRIBE, protocol.OPTIMIZE}
    assert digest(tmp_path / "cut") == digest(undisturbed)


@pytest.mark.parametrize(
    "kind", [protocol.DESCRIBE, protocol.REPRESENT, protocol.PROJECT, protocol.ALIGN]
)
def test_resume_from_a_failure_in_every_phase(kind: str, undisturbed: Path, tmp_path: Path) -> None:
    def fail(request: Message, reply: Message) -> Message:
        if request.metadata.message_type == kind:
            return Message(Error(code=5, reason="gone"), reply_to=request)
        return reply

    impatient = tiny(**{"deadline.join": 0.1})
    with pytest.raises(ParticipantError, match="went offline"):
        run_platform(impatient, tmp_path / "cut", FakeGrid(3, tamper=fail))
    run_platform(tiny(), tmp_path / "cut")
    assert digest(tmp_path / "cut") == digest(undisturbed)


def test_other_settings_are_refused_in_the_same_directory(tmp_path: Path) -> None:
    run_platform(tiny(), tmp_path)
    with pytest.raises(OutputError, match=r"targets\.dim: 16 there, 8 here"):
        run_platform(tiny(**{"targets.dim": 8}), tmp_path)


def test_weights_share_out_the_samples(tmp_path: Path) -> None:
    run_platform(
        tiny(**{"participants.0.weight": 3, "optimize.block_rows": 5, "optimize.batch_size": 5}),
        tmp_path,
    )
    counts = np.bincount(coopt_fl.load(tmp_path).participants)
    assert abs(counts[0] - 203 * 3 / 5) <= 10
    assert abs(counts[1] - counts[2]) <= 5


def test_consensus_aligns_everyone(tmp_path: Path) -> None:
    run_platform(tiny(reference="consensus"), tmp_path)
    provenance, problems = verify(tmp_path / "dataset")
    assert problems == []
    assert provenance.reference == "consensus"
    assert all(c.r2_heldout < 1 for c in provenance.contributors)


def test_reference_has_the_lowest_uniformity(tmp_path: Path) -> None:
    run_platform(tiny(), tmp_path)
    provenance, _ = verify(tmp_path / "dataset")
    best = min(provenance.contributors, key=lambda c: c.uniformity)
    assert provenance.reference == best.name
    assert best.r2_heldout == 1.0


def test_deployment_names_participants_by_node_config(tmp_path: Path) -> None:
    """The dataset is the same whether participants are named by partition or by --node-config."""
    names = ["gamma", "alpha", "beta"]
    run_platform(tiny(), tmp_path / "simulated")
    grid = FakeGrid(3, node_config=lambda k: {"name": names[k]})
    run_platform(tiny(), tmp_path / "deployed", grid)
    assert digest(tmp_path / "simulated") == digest(tmp_path / "deployed")


def test_a_node_brings_its_own_prior_images_and_device(tmp_path: Path) -> None:
    """Participants do not have the configuration's root, and gamma has another prior."""
    names = ["alpha", "beta", "gamma"]
    for place in ("platform", *names):
        make.tree(tmp_path / place, [f"train/a/{number:03}.png" for number in range(80)])
    config = tiny(
        **{"data.source": "imagefolder", "data.limit": 80, "data.root": tmp_path / "platform"},
        **{"shared.size": 40, "deadline.join": 0.5},
    )

    def node(k: int) -> dict[str, int | str]:
        own = {"name": names[k], "data-root": str(tmp_path / names[k]), "device": "cpu"}
        return own | ({"prior": "trivial:28"} if k == 2 else {})

    class Elsewhere(FakeGrid):
        def push_messages(self, messages: list[Message]) -> list[str]:
            """Participants have another disk than the platform."""
            (tmp_path / "platform").rename(tmp_path / "away")
            try:
                return super().push_messages(messages)
            finally:
                (tmp_path / "away").rename(tmp_path / "platform")

    grid = Elsewhere(3, node_config=node, simulated=False)
    run_platform(config, tmp_path / "run", grid)
    provenance, problems = verify(tmp_path / "run" / "dataset")
    assert problems == []
    priors = [one.prior for one in provenance.contributors]
    assert [prior.partition("?")[0] for prior in priors] == [
        "trivial:24",
        "trivial:32",
        "trivial:28",
    ]

    make.write(tmp_path / "gamma" / "train" / "a" / "007.png", make.encode(make.pixels(7_000)))
    with pytest.raises(DataError, match="gamma sees other data than the platform"):
        run_platform(config, tmp_path / "other", Elsewhere(3, node_config=node, simulated=False))


def test_a_device_that_a_node_does_not_have_is_its_error(tmp_path: Path) -> None:
    def node(k: int) -> dict[str, int | str]:
        return {"name": ["alpha", "beta", "gamma"][k], "device": "cuda:99" if k == 1 else "cpu"}

    grid = FakeGrid(3, node_config=node, simulated=False)
    with pytest.raises(CooptError, match=r"on node 101: prior 'trivial:32' cannot be loaded"):
        run_platform(tiny(**{"deadline.join": 0.1}), tmp_path, grid)


def test_unknown_node_is_refused(tmp_path: Path) -> None:
    grid = FakeGrid(
        3, node_config=lambda k: {"name": ["alpha", "beta", "mallory"][k], "prior": "trivial:8"}
    )
    with pytest.raises(ParticipantError, match="'mallory' is not in the roster"):
        run_platform(tiny(**{"deadline.join": 0.1}), tmp_path, grid)


def test_overrides_must_be_quoted_as_in_a_shell() -> None:
    settings = {"config": "digits", "overrides": "data.root='over there", "out": ""}
    with pytest.raises(ConfigError, match="No closing quotation; quote it"):
        server_app.app(FakeGrid(3), Context(1, 1, {}, RecordDict(), settings))


def test_goes_on_with_enough_participants(tmp_path: Path) -> None:
    grid = FakeGrid(2, node_config=lambda k: {"name": ["alpha", "gamma"][k]})
    config = tiny(**{"deadline.join": 0.1, "min_participants": 2})
    run_platform(config, tmp_path, grid)
    provenance, problems = verify(tmp_path / "dataset")
    assert problems == []
    assert [c.name for c in provenance.contributors] == ["alpha", "gamma"]


def test_simulated_nodes_may_appear_one_after_another(tmp_path: Path) -> None:
    run_platform(tiny(), tmp_path, FakeGrid(3, one_by_one=True))
    assert sorted(coopt_fl.load(tmp_path).ids) == list(range(203))


def test_too_few_simulated_nodes_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num-supernodes=3"):
        run_platform(tiny(), tmp_path, FakeGrid(2))


def test_other_data_are_refused_by_name(tmp_path: Path) -> None:
    other = telling(protocol.DESCRIBE, lambda told: replace(told, fingerprint="0" * 64), {101})
    with pytest.raises(DataError, match="beta sees other data"):
        run_platform(tiny(), tmp_path, FakeGrid(3, tamper=other))


def test_a_prior_that_cannot_load_keeps_its_exit_code(tmp_path: Path) -> None:
    with pytest.raises(PriorError, match="on node 102"):
        run_platform(tiny(**{"participants.2.prior": "checkpoint:/nowhere.pt"}), tmp_path)


def test_an_exception_in_a_participant_is_one_line(tmp_path: Path) -> None:
    def crash(request: Message, reply: Message) -> Message:
        if request.metadata.message_type == protocol.OPTIMIZE:
            reason = "Traceback (most recent call last):\n  File ...\nValueError: boom"
            return Message(Error(code=2, reason=reason), reply_to=request)
        return reply

    with pytest.raises(ParticipantError, match=r"participant \w+: .*ValueError: boom") as caught:
        run_platform(tiny(), tmp_path, FakeGrid(3, tamper=crash))
    assert "\n" not in str(caught.value)


def test_silence_past_the_deadline_ends_the_run(tmp_path: Path) -> None:
    def swallow(request: Message, reply: Message) -> Message | None:
        return None if request.metadata.message_type == protocol.ALIGN else reply

    with pytest.raises(ParticipantError, match=r"deadline\.reply"):
        run_platform(tiny(**{"deadline.reply": 0.3}), tmp_path, FakeGrid(3, tamper=swallow))


@pytest.mark.parametrize("speed", [float("nan"), -1.0, 0.0])
def test_an_impossible_speed_is_refused(speed: float, tmp_path: Path) -> None:
    boast = telling(protocol.DESCRIBE, lambda told: replace(told, rows_per_s=speed))
    grid = FakeGrid(3, tamper=boast)
    with pytest.raises(ParticipantError, match="samples/s"):
        run_platform(tiny(**{"assignment.by": "speed", "deadline.join": 0.1}), tmp_path, grid)


def test_other_weights_cannot_continue_a_run(tmp_path: Path) -> None:
    def gone(request: Message, reply: Message) -> Message:
        if request.metadata.message_type == protocol.OPTIMIZE:
            return Message(Error(code=5, reason="gone"), reply_to=request)
        return reply

    with pytest.raises(ParticipantError, match="went offline"):
        run_platform(tiny(), tmp_path, FakeGrid(3, tamper=gone))
    other = telling(protocol.DESCRIBE, lambda told: replace(told, weights_sha256="0" * 64))
    grid = FakeGrid(3, tamper=other)
    with pytest.raises(ParticipantError, match="the weights_sha256 of alpha changed"):
        run_platform(tiny(), tmp_path, grid)


def test_nothing_may_be_left_out_unasked(tmp_path: Path) -> None:
    def lazy(payload: protocol.Payload) -> protocol.Payload:
        return replace(
            payload,
            rows=[0] * len(payload.rows),
            ids=payload.ids[:0],
            targets=payload.targets[:0],
            skipped=payload.ids,
            digests=[block_digest(payload.ids[:0], payload.targets[:0], np.empty(0, np.int16))]
            * len(payload.rows),
        )

    with pytest.raises(ParticipantError, match="expected every sample"):
        run_platform(tiny(), tmp_path, FakeGrid(3, tamper=telling(protocol.OPTIMIZE, lazy)))


def test_what_leaves_nothing_to_a_consensus_falls_back_to_the_best(tmp_path: Path) -> None:
    config = tiny(**{"reference": "consensus", "targets.projection": "random"})
    run_platform(config, tmp_path)
    assert verify(tmp_path / "dataset")[0].reference in ("alpha", "beta", "gamma")


def test_uploads_are_counted(tmp_path: Path) -> None:
    """It is at least alpha's float32 features (64, 24) and float16 targets (rows, 16)."""
    run_platform(tiny(), tmp_path)
    uploads = json.loads((tmp_path / "state" / "uploads.json").read_text())
    rows = int((coopt_fl.load(tmp_path).participants == 0).sum())
    least = 64 * 24 * 4 + rows * 16 * 2
    assert least < uploads["alpha"] < 3 * least


def test_a_silent_stranger_does_not_end_the_run(tmp_path: Path) -> None:
    """A node that never says who it is: the others are enough."""

    def silent(request: Message, reply: Message) -> Message | None:
        return None if request.metadata.dst_node_id == 103 else reply

    names = ["alpha", "beta", "gamma", "stranger"]
    grid = FakeGrid(4, node_config=lambda k: {"name": names[k]}, tamper=silent)
    run_platform(tiny(**{"deadline.reply": 2.0}), tmp_path, grid)
    assert verify(tmp_path / "dataset")[1] == []


def test_what_is_under_way_at_once_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for one message, one is in flight at a time, and the dataset is the same."""
    most = []

    class Counting(FakeGrid):
        def push_messages(self, messages: list[Message]) -> list[str]:
            sent = super().push_messages(messages)
            if messages[0].metadata.message_type != protocol.DESCRIBE:
                most.append(len(self.waiting))
            return sent

    run_platform(tiny(), tmp_path / "free", Counting(3))
    assert max(most) == 3
    most.clear()
    monkeypatch.setattr(exchange, "IN_FLIGHT_BYTES", 3000)
    run_platform(tiny(), tmp_path / "bounded", Counting(3))
    assert max(most) == 1
    assert digest(tmp_path / "bounded") == digest(tmp_path / "free")


def test_with_room_for_one_message_everyone_has_a_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the roster's last participants would only begin after the first have finished.

    Everyone's cross-validation is waited for, since nobody has a turn before it is done.
    """
    monkeypatch.setattr(Inspection, "ready", lambda self, name: bool(self.known(name)))
    monkeypatch.setattr(exchange, "IN_FLIGHT_BYTES", 3000)
    grid = FakeGrid(3)
    run_platform(tiny(), tmp_path, grid)
    asked = [
        m.metadata.dst_node_id for m in grid.sent if m.metadata.message_type == protocol.OPTIMIZE
    ]
    assert len(asked) > 6
    for first in range(0, 6, 3):
        assert len(set(asked[first : first + 3])) == 3
