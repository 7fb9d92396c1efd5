"""After any fault of a participant or the platform, no block is lost, and none is fused twice."""

import errno
import json
import math
import os
import shutil
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import Message
from flwr.proto.node_pb2 import NodeInfo
from google.protobuf.message import DecodeError

import coopt_fl
from coopt_fl.core.errors import DataError, OutputError, ParticipantError
from coopt_fl.federation import protocol
from coopt_fl.optimized.verify import verify
from coopt_fl.strategies.membership import Membership
from coopt_fl.strategies.platform import OpenDataPlatform
from tests.flower.deployment import (
    DIED,
    OFFLINE,
    Deployment,
    Nth,
    impatient,
    patient,
    targets_of,
)
from tests.flower.grid import blocks_of, run_platform, telling

NAMES = ("alpha", "beta", "gamma")


def digest(out: Path) -> str:
    return coopt_fl.load(out).digest


def changes(out: Path) -> list[dict[str, Any]]:
    provenance, problems = verify(out / "dataset")
    assert problems == []
    return provenance.plan_changes


@pytest.mark.parametrize(
    ("code", "act"),
    [
        pytest.param(DIED, lambda grid: None, id="its process is killed mid-chunk"),
        pytest.param(OFFLINE, lambda grid: None, id="its reply is lost after the upload"),
        pytest.param(
            OFFLINE,
            lambda grid: (grid.kill("beta"), grid.start("beta")),
            id="its SuperNode is started again, with another id",
        ),
        pytest.param(OFFLINE, lambda grid: grid.start("beta"), id="the new one comes first"),
    ],
)
def test_who_comes_back_goes_on(code: int, act: Any, undisturbed: Path, tmp_path: Path) -> None:
    grid = Deployment(fault=Nth("beta", 2, act), code=code).start(*NAMES)
    run_platform(patient(), tmp_path / "cut", grid)
    assert digest(tmp_path / "cut") == digest(undisturbed)
    assert changes(tmp_path / "cut") == []
    assert set(grid.done.values()) == {1}


def test_who_is_gone_for_good_is_replaced_if_that_was_allowed(
    undisturbed: Path, tmp_path: Path
) -> None:
    at_rest = targets_of(undisturbed)
    grid = Deployment(fault=Nth("beta", 2, lambda grid: grid.kill("beta"))).start(*NAMES)
    run_platform(impatient(min_participants=2), tmp_path / "cut", grid)
    (change,) = changes(tmp_path / "cut")
    assert change["origin"] == "beta"
    assert "went offline" in change["reason"]
    assert set(change["owners"]) == {"alpha", "gamma"}
    plan = json.loads((tmp_path / "cut" / "state" / "plan.json").read_text())
    stored = np.load(tmp_path / "cut" / "state" / "order.npz")
    blocks = np.split(stored["ids"], np.cumsum(stored["sizes"])[:-1])
    moved = np.concatenate([blocks[index] for index in change["blocks"]])
    stayed = np.setdiff1d(np.arange(203), moved)
    cut = targets_of(tmp_path / "cut")
    assert np.array_equal(cut[stayed], at_rest[stayed])
    assert not np.array_equal(cut[moved], at_rest[moved])
    owners = [plan["blocks"][index][0][0] for index in change["blocks"]]
    assert owners == change["owners"]
    assert set(grid.done.values()) == {1}


def test_else_the_run_stops_and_a_later_one_completes_it(undisturbed: Path, tmp_path: Path) -> None:
    grid = Deployment(fault=Nth("beta", 2, lambda grid: grid.kill("beta"))).start(*NAMES)
    with pytest.raises(ParticipantError, match=r"beta.*Start it again, or set min_participants"):
        run_platform(impatient(), tmp_path / "cut", grid)
    before = blocks_of(tmp_path / "cut")
    assert before
    run_platform(impatient(), tmp_path / "cut", Deployment().start(*NAMES))
    after = blocks_of(tmp_path / "cut")
    assert {name: after[name] for name in before} == before
    assert digest(tmp_path / "cut") == digest(undisturbed)


def test_a_later_run_may_also_go_on_without_it(tmp_path: Path) -> None:
    grid = Deployment(fault=Nth("beta", 2, lambda grid: grid.kill("beta"))).start(*NAMES)
    with pytest.raises(ParticipantError):
        run_platform(impatient(), tmp_path, grid)
    without = Deployment().start("alpha", "gamma")
    with pytest.raises(ParticipantError, match="missing: beta"):
        run_platform(impatient(), tmp_path, without)
    run_platform(impatient(min_participants=2), tmp_path, without)
    (change,) = changes(tmp_path)
    assert change["origin"] == "beta"
    targets_of(tmp_path)


def test_one_that_joins_late_only_takes_over(tmp_path: Path) -> None:
    """gamma starts after the plan was made, and beta leaves for good later."""

    def begin(grid: Deployment) -> None:
        grid.kill("beta")
        grid.start("gamma")

    run_platform(
        impatient(min_participants=2), tmp_path / "two", Deployment().start("alpha", "beta")
    )
    grid = Deployment(fault=Nth("beta", 2, begin)).start("alpha", "beta")
    run_platform(impatient(min_participants=2), tmp_path / "late", grid)
    (change,) = changes(tmp_path / "late")
    assert set(change["owners"]) == {"alpha", "gamma"}
    dataset = coopt_fl.load(tmp_path / "late")
    assert [c.name for c in dataset.provenance.contributors] == ["alpha", "beta", "gamma"]
    assert (dataset.participants == 2).any()
    assert set(grid.done.values()) == {1}
    plan = coopt_fl.load(tmp_path / "two").participants == 1
    moved = (dataset.participants != 1) & plan
    assert moved.any() and not moved.all()
    late, two = targets_of(tmp_path / "late"), targets_of(tmp_path / "two")
    order = np.argsort(dataset.ids)
    assert np.array_equal(late[~moved[order]], two[~moved[order]])


def test_one_that_joins_late_and_is_not_needed_gets_nothing(tmp_path: Path) -> None:
    grid = Deployment(fault=Nth("beta", 2, lambda grid: grid.start("gamma"))).start("alpha", "beta")
    run_platform(impatient(min_participants=2), tmp_path, grid)
    assert changes(tmp_path) == []
    assert set(coopt_fl.load(tmp_path).participants.tolist()) == {0, 1}


@pytest.mark.parametrize("kind", ["represent", "project", "align"])
def test_who_is_lost_before_it_delivered_anything_is_replaced(
    kind: str, undisturbed: Path, tmp_path: Path
) -> None:
    """Even the reference is replaced: another one is elected."""
    reference = verify(undisturbed / "dataset")[0].reference
    lost = reference if kind == "project" else next(n for n in NAMES if n != reference)

    class Losing(Deployment):
        def _answer(self, message: Message) -> Message | None:
            name = self.names.get(message.metadata.dst_node_id)
            if message.metadata.message_type.endswith(kind) and name == lost:
                self.kill(lost)
            return super()._answer(message)

    grid = Losing().start(*NAMES)
    run_platform(impatient(min_participants=2), tmp_path / "cut", grid)
    (change,) = changes(tmp_path / "cut")
    provenance = verify(tmp_path / "cut" / "dataset")[0]
    assert change["origin"] == lost
    assert (provenance.reference == lost) is False
    targets_of(tmp_path / "cut")


@dataclass
class Slow(Deployment):
    """beta's answers arrive at the tenth poll, all others' at the first."""

    looks: Counter[str] = field(default_factory=Counter)
    came: list[str] = field(default_factory=list)

    def pull_messages(self, message_ids: list[str]) -> list[Message]:
        (message_id,) = message_ids
        (asked,) = (m for m in self.sent if m.metadata.message_id == message_id)
        name = self.names[asked.metadata.dst_node_id]
        self.looks[message_id] += 1
        if self.looks[message_id] < (10 if name == "beta" else 1):
            return []
        if asked.metadata.message_type == protocol.OPTIMIZE:
            self.came.append(name)
        return super().pull_messages(message_ids)


def test_a_straggler_ten_times_slower_is_waited_for_and_holds_nobody_up(
    undisturbed: Path, tmp_path: Path
) -> None:
    grid = Slow().start(*NAMES)
    run_platform(patient(), tmp_path / "slow", grid)
    assert digest(tmp_path / "slow") == digest(undisturbed)
    assert changes(tmp_path / "slow") == []
    assert set(grid.done.values()) == {1}
    firsts = grid.came[: grid.came.index("beta")]
    assert len(firsts) == grid.came.count("alpha") + grid.came.count("gamma") > 2


def test_who_is_ten_times_slower_may_be_given_a_tenth(tmp_path: Path) -> None:
    """Shares follow the measured speed, which counts at most 20 times the median's."""
    speeds = {"alpha": 1000.0, "beta": 100.0, "gamma": 1000.0}

    def told(said: protocol.Description) -> protocol.Description:
        assert said.rows_per_s > 0
        return replace(said, rows_per_s=speeds[said.name])

    def grid() -> Deployment:
        return Deployment(tamper=telling(protocol.DESCRIBE, told)).start(*NAMES)

    cut = {"assignment.by": "speed", "optimize.block_rows": 4, "optimize.batch_size": 4}
    run_platform(patient(**cut), tmp_path / "slow", grid())
    counts = np.bincount(coopt_fl.load(tmp_path / "slow").participants)
    assert np.abs(counts - 203 * np.array([10, 1, 10]) / 21).max() <= 4
    speeds["beta"] = 1e6
    run_platform(patient(**cut), tmp_path / "fast", grid())
    counts = np.bincount(coopt_fl.load(tmp_path / "fast").participants)
    assert np.abs(counts - 203 * np.array([1, 20, 1]) / 22).max() <= 4


def test_a_chunk_past_its_deadline_is_asked_again(undisturbed: Path, tmp_path: Path) -> None:
    grid = Deployment(fault=Nth("beta", 2), code=None).start(*NAMES)
    run_platform(patient(**{"deadline.reply": 0.3}), tmp_path / "cut", grid)
    assert digest(tmp_path / "cut") == digest(undisturbed)
    assert set(grid.done.values()) == {1}


def test_who_is_always_past_the_deadline_is_replaced(tmp_path: Path) -> None:
    grid = Deployment(fault=Nth("beta", 2, onwards=True), code=None).start(*NAMES)
    run_platform(impatient(min_participants=2, **{"deadline.reply": 0.3}), tmp_path, grid)
    (change,) = changes(tmp_path)
    assert change["origin"] == "beta"
    assert "deadline.reply" in change["reason"]
    targets_of(tmp_path)


@pytest.mark.parametrize("number", range(8, 60, 5))
def test_a_full_disk_stops_the_run_and_a_later_one_completes_it(
    number: int, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, real = [0], os.fsync

    def full(handle: int) -> None:
        count[0] += 1
        if count[0] >= number:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="No space left"):
            run_platform(patient(), tmp_path / "cut", Deployment().start(*NAMES))
    before = blocks_of(tmp_path / "cut")
    run_platform(patient(), tmp_path / "cut", Deployment().start(*NAMES))
    after = blocks_of(tmp_path / "cut")
    assert {name: after[name] for name in before} == before
    assert digest(tmp_path / "cut") == digest(undisturbed)


@pytest.mark.parametrize("number", range(1, 15, 2))
def test_a_platform_that_dies_between_any_two_messages_goes_on(
    number: int, undisturbed: Path, tmp_path: Path
) -> None:

    class Dying(Deployment):
        def push_messages(self, messages: list[Message]) -> list[str]:
            if len(self.sent) >= number:
                raise KeyboardInterrupt
            return super().push_messages(messages)

    first, second = Dying().start(*NAMES), Deployment().start(*NAMES)
    with pytest.raises(KeyboardInterrupt):
        run_platform(patient(), tmp_path / "cut", first)
    run_platform(patient(), tmp_path / "cut", second)
    assert digest(tmp_path / "cut") == digest(undisturbed)
    blocks = tmp_path / "cut" / "state" / "blocks"
    assert sum(second.done.values()) <= len(list(blocks.iterdir()))


def test_a_platform_that_dies_after_a_handover_keeps_to_it(tmp_path: Path) -> None:
    """The handover is stored before the new owners get requests, and beta gets no block back."""
    gone = Nth("beta", 2, lambda grid: grid.kill("beta"))

    class Dying(Deployment):
        def push_messages(self, messages: list[Message]) -> list[str]:
            plan = tmp_path / "state" / "plan.json"
            if plan.exists() and json.loads(plan.read_text())["changes"]:
                raise KeyboardInterrupt
            return super().push_messages(messages)

    with pytest.raises(KeyboardInterrupt):
        run_platform(impatient(min_participants=2), tmp_path, Dying(fault=gone).start(*NAMES))
    grid = Deployment().start(*NAMES)
    run_platform(impatient(min_participants=2), tmp_path, grid)
    (change,) = changes(tmp_path)
    dataset = coopt_fl.load(tmp_path)
    assert set(change["blocks"]) <= set(grid.done)
    assert dataset.provenance.contributors[1].name == "beta"
    targets_of(tmp_path)


def test_an_error_of_its_own_does_not_stop_a_deployment(tmp_path: Path) -> None:
    """A participant that can no longer read its images is replaced."""

    class Broken(Deployment):
        def _answer(self, message: Message) -> Message | None:
            name = self.names.get(message.metadata.dst_node_id)
            if message.metadata.message_type == "train.optimize" and name == "beta":
                return Message(
                    protocol.encode_error(DataError("disk gone\n\x1b[2J<script")), reply_to=message
                )
            return super()._answer(message)

    run_platform(impatient(min_participants=2), tmp_path, Broken().start(*NAMES))
    (change,) = changes(tmp_path)
    assert change["reason"] == "it reported an error (DataError)", "its own words may name places"


def test_a_node_must_be_whom_it_is_registered_as(tmp_path: Path) -> None:
    grid = Deployment().start(*NAMES)
    grid.registered = {101: "alpha", 102: "mallory", 103: "gamma"}
    with pytest.raises(
        ParticipantError, match="registered as 'mallory' and says that it is 'beta'"
    ):
        run_platform(impatient(), tmp_path, grid)


def test_who_is_away_while_it_says_who_it_is_gets_no_name(tmp_path: Path) -> None:
    """mallory's node is absent when the platform lists the nodes, but its answer arrives."""

    @dataclass
    class Flapping(Deployment):
        def get_nodes(self) -> list[NodeInfo]:
            there = super().get_nodes()
            told = any(m.metadata.message_type == protocol.DESCRIBE for m in self.sent)
            return [n for n in there if n.node_id != 102] if told else there

        def pull_messages(self, message_ids: list[str]) -> list[Message]:
            platform.conversation.looked = -math.inf  # the next step looks again who is there
            return super().pull_messages(message_ids)

    grid = Flapping().start(*NAMES)
    grid.registered = {101: "alpha", 102: "mallory", 103: "gamma"}
    platform = OpenDataPlatform(impatient(min_participants=2), tmp_path)
    platform.start(grid)
    assert 102 not in platform.members.nodes.values()


def test_an_answer_that_flower_cannot_decode_counts_as_lost(tmp_path: Path) -> None:
    """Its checksums are right, but its content is not a record; no other participant suffers."""

    class Broken(Deployment):
        def pull_messages(self, message_ids: list[str]) -> list[Message]:
            replies = super().pull_messages(message_ids)
            for reply in replies:
                kind, node = reply.metadata.message_type, reply.metadata.src_node_id
                if kind == protocol.OPTIMIZE and node == 102:
                    raise DecodeError("Error parsing message")
            return replies

    run_platform(impatient(min_participants=2), tmp_path, Broken().start(*NAMES))
    (change,) = changes(tmp_path)
    assert change["origin"] == "beta"
    assert "cannot be decoded" in change["reason"]
    targets_of(tmp_path)


def test_a_second_node_of_a_name_gets_nothing_while_the_first_is_there(
    undisturbed: Path, tmp_path: Path
) -> None:
    grid = Deployment().start(*NAMES, "beta")
    run_platform(patient(), tmp_path / "two", grid)
    asked = [
        m.metadata.dst_node_id for m in grid.sent if m.metadata.message_type != "query.describe"
    ]
    assert 104 not in asked
    assert digest(tmp_path / "two") == digest(undisturbed)


def test_a_new_node_comes_while_a_message_to_the_old_one_is_under_way(
    undisturbed: Path, tmp_path: Path
) -> None:
    """beta's node vanishes silently; the new node gets no work until the old one is overdue."""

    def vanish(grid: Deployment) -> None:
        grid.kill("beta")
        grid.start("beta")

    class Progress(Deployment):
        def _answer(self, message: Message) -> Message | None:
            known = message.metadata.dst_node_id in self.names
            reply = super()._answer(message)
            still = message.metadata.dst_node_id in self.names
            return reply if known and still else None

    grid = Progress(fault=Nth("beta", 1, vanish)).start(*NAMES)
    run_platform(patient(**{"deadline.reply": 1}), tmp_path / "cut", grid)
    assert digest(tmp_path / "cut") == digest(undisturbed)
    assert changes(tmp_path / "cut") == []
    assert set(grid.done.values()) == {1}


@dataclass
class OwnPriors(Deployment):
    """Nodes with their own priors."""

    priors: dict[int, str] = field(default_factory=dict)

    def settings(self, node: int) -> dict[str, str]:
        own = {"prior": self.priors[node]} if node in self.priors else {}
        return super().settings(node) | own


def test_a_second_node_with_another_prior_never_takes_over(
    undisturbed: Path, tmp_path: Path
) -> None:
    grid = OwnPriors(fault=Nth("beta", 2, lambda grid: grid.names.pop(102)))
    grid.start(*NAMES, "beta").priors = {104: "trivial:40"}
    with pytest.raises(ParticipantError, match="beta"):
        run_platform(impatient(), tmp_path / "cut", grid)
    asked = {m.metadata.dst_node_id: m.metadata.message_type for m in grid.sent}
    assert asked[104] == protocol.DESCRIBE
    run_platform(patient(), tmp_path / "cut", Deployment().start(*NAMES))
    assert digest(tmp_path / "cut") == digest(undisturbed)


def test_a_wrong_prior_can_be_put_right_while_nothing_was_planned(
    undisturbed: Path, tmp_path: Path
) -> None:
    grid = OwnPriors(priors={102: "trivial:40"}).start("alpha", "beta")
    with pytest.raises(ParticipantError, match="missing: gamma"):
        run_platform(impatient(), tmp_path / "cut", grid)
    run_platform(patient(), tmp_path / "cut", Deployment().start(*NAMES))
    assert digest(tmp_path / "cut") == digest(undisturbed)


def test_who_is_missing_is_named_beside_who_was_refused(tmp_path: Path) -> None:
    grid = Deployment().start("alpha", "gamma", "stranger")
    with pytest.raises(ParticipantError, match=r"'stranger' is not in the roster.*missing: beta"):
        run_platform(impatient(), tmp_path, grid)


def test_a_spare_that_fails_like_the_first_is_given_up_with_it(tmp_path: Path) -> None:
    grid = Deployment(fault=Nth("beta", 1, onwards=True)).start(*NAMES, "beta", "beta")
    run_platform(impatient(min_participants=2), tmp_path, grid)
    (change,) = changes(tmp_path)
    assert change["origin"] == "beta"
    assert not (coopt_fl.load(tmp_path).participants == 1).any()
    targets_of(tmp_path)


def test_damaged_state_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    grid = Deployment(fault=Nth("beta", 2, lambda grid: grid.kill("beta"))).start(*NAMES)
    with pytest.raises(ParticipantError):
        run_platform(impatient(), tmp_path, grid)
    (tmp_path / "state" / "alignments" / "beta.npz").write_bytes(b"damaged")
    with pytest.raises(OutputError, match=r"beta\.npz is damaged"):
        run_platform(patient(), tmp_path, Deployment().start(*NAMES))


@pytest.mark.parametrize("rejected", [False, True], ids=["here", "rejected"])
def test_without_the_reference_s_alignment_nothing_can_be_aligned_anew(
    rejected: bool, tmp_path: Path
) -> None:
    grid = Deployment(fault=Nth("beta", 2, lambda grid: grid.kill("beta"))).start(*NAMES)
    with pytest.raises(ParticipantError):
        run_platform(impatient(), tmp_path, grid)
    reference = json.loads((tmp_path / "state" / "reference.json").read_text())["reference"]
    if rejected:
        verdict = {reference: {"reason": "it lied", "evidence": {}}}
        (tmp_path / "state" / "rejected.json").write_text(json.dumps(verdict))
    alignment = tmp_path / "state" / "alignments" / f"{reference}.npz"
    alignment.write_bytes(b"damaged")
    with pytest.raises(OutputError, match="give another --out"):
        run_platform(patient(), tmp_path, Deployment().start(*NAMES))
    alignment.unlink()
    if rejected:  # which leaves nothing to do with it
        run_platform(patient(), tmp_path, Deployment().start(*NAMES))
        assert verify(tmp_path / "dataset")[1] == []
    else:
        with pytest.raises(OutputError, match="give another --out"):
            run_platform(patient(), tmp_path, Deployment().start(*NAMES))


def test_a_node_that_comes_back_before_it_is_missed_is_asked_again(
    undisturbed: Path, tmp_path: Path
) -> None:
    """``deadline.reply`` is an hour, so the request must be repeated without waiting for it."""
    back = Nth("beta", 2, lambda grid: grid.restart("beta"))
    grid = Deployment(fault=back, code=None).start(*NAMES)
    run_platform(patient(), tmp_path / "cut", grid)
    assert digest(tmp_path / "cut") == digest(undisturbed)
    assert verify(tmp_path / "cut" / "dataset")[0].plan_changes == []
    assert set(grid.done.values()) == {1}
    assert back.seen >= 3


def test_what_was_asked_is_what_the_loss_of_privacy_counts(tmp_path: Path) -> None:
    """The reference projects and dies; its blocks count as released by both it and the heirs."""
    config = impatient(**{"privacy.clip": 1.0, "audit.fraction": 0, "targets.dim": 4,
                          "min_participants": 2})  # fmt: skip
    run_platform(config, tmp_path / "whole", Deployment().start(*NAMES))
    reference = verify(tmp_path / "whole" / "dataset")[0].reference
    grid = Deployment(fault=Nth(reference, 1, lambda grid: grid.kill(reference))).start(*NAMES)
    run_platform(config, tmp_path / "cut", grid)
    assert released(tmp_path / "cut") == asked_of(grid)


def test_an_answer_about_the_shared_set_that_was_lost_is_counted_too(tmp_path: Path) -> None:
    """Each of the 64 shared samples counts three times by its features, and once by its target."""
    gone = Nth("gamma", 1, lambda grid: grid.kill("gamma"))
    grid = Deployment(fault=gone, at=protocol.REPRESENT).start(*NAMES)
    config = impatient(min_participants=2, **{"privacy.clip": 1.0, "audit.fraction": 0})
    run_platform(config, tmp_path, grid)
    assert sum(samples for releases, samples in released(tmp_path).items() if releases > 3) == 64


def test_a_run_that_was_begun_before_questions_were_recorded_counts_answers(tmp_path: Path) -> None:
    config = patient(**{"privacy.clip": 1.0, "audit.fraction": 0})
    grid = Deployment().start(*NAMES)
    run_platform(config, tmp_path, grid)
    (tmp_path / "state" / "represented.json").unlink()
    shutil.rmtree(tmp_path / "dataset")
    run_platform(config, tmp_path, Deployment().start(*NAMES))
    assert released(tmp_path) == asked_of(grid)


def released(out: Path) -> Counter[int]:
    """Return the provenance's number of samples by how often they were released."""
    loss = verify(out / "dataset")[0].privacy["loss"]
    return Counter({row["releases"]: row["samples"] for row in loss})


def asked_of(grid: Deployment) -> Counter[int]:
    """Return the number of samples by how often they were requested."""
    asked = Counter[int]()
    for message in grid.sent:
        kinds = {protocol.REPRESENT: protocol.Represent, protocol.PROJECT: protocol.Project,
                 protocol.OPTIMIZE: protocol.Optimize}  # fmt: skip
        if kind := kinds.get(message.metadata.message_type):
            asked.update(protocol.decode(kind, message.content).ids.tolist())
    return Counter(asked.values())


def test_nobody_is_waited_for_that_three_times_vanished_behind_a_successor() -> None:
    """A node of its name is there each time, so only the strikes reveal that it keeps vanishing."""
    decisions: Any = SimpleNamespace(config=patient(), source=None, records=None)
    members = Membership(cast(Any, None), decisions, simulated=False)
    members.nodes = {"beta": 200}
    for node in (100, 101, 102):
        assert members.overdue("beta") is None
        members.lose("beta", node, ParticipantError("it went offline"))
    assert "beta" not in members.fit()
    assert "it went offline" in str(members.overdue("beta"))


def test_without_the_plan_nothing_is_planned_anew(tmp_path: Path) -> None:
    """Blocks are stored by their index in the plan; another plan would credit them to others."""
    grid = Deployment(fault=Nth("beta", 2, lambda grid: grid.kill("beta"))).start(*NAMES)
    with pytest.raises(ParticipantError):
        run_platform(impatient(), tmp_path, grid)
    order = tmp_path / "state" / "order.npz"
    order.write_bytes(b"damaged")
    with pytest.raises(OutputError, match="give another --out"):
        run_platform(patient(), tmp_path, Deployment().start(*NAMES))
    order.unlink()
    with pytest.raises(OutputError, match="give another --out"):
        run_platform(patient(), tmp_path, Deployment().start(*NAMES))


def test_a_block_without_the_rows_for_the_audit_is_done_again(
    undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "cut"
    grid = Deployment(fault=Nth("beta", 2, lambda grid: grid.kill("beta"))).start(*NAMES)
    with pytest.raises(ParticipantError):
        run_platform(impatient(), out, grid)
    stored = sorted((out / "state" / "audit").iterdir())
    stored[0].unlink()
    grid = Deployment().start(*NAMES)
    run_platform(patient(), out, grid)
    assert digest(out) == digest(undisturbed)
    assert len(grid.done) == 11 - len(stored) + 1
