"""Liars are rejected, others take over their blocks, and no honest participant is rejected."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

import coopt_fl
from coopt_fl.config.schema import Config
from coopt_fl.core.errors import ParticipantError
from coopt_fl.federation import protocol
from coopt_fl.federation.protocol import Payload
from coopt_fl.optimized.block import block_digest
from coopt_fl.optimized.verify import verify
from coopt_fl.priors.schemes import trivial
from tests.flower.deployment import Deployment, Nth, impatient, patient
from tests.flower.grid import ANSWERS, run_platform, tiny

NAMES = ("alpha", "beta", "gamma", "delta")
ROWS, THOUSANDS = 900, 4500

Lie = Callable[["Lying", protocol.Optimize, Payload], Payload]
Fitted = Callable[[protocol.Aligned], protocol.Aligned]


@dataclass
class Lying(Deployment):
    """``liar`` tells ``lie`` of its targets, and ``features`` of the shared set."""

    liar: str = "delta"
    lie: Lie = lambda grid, request, payload: payload
    features: Callable[[np.ndarray], np.ndarray] = lambda features: features
    projection: Fitted = lambda fitted: fitted
    alignment: Fitted = lambda fitted: fitted
    described: dict[str, Any] = field(default_factory=dict)
    seen: list[tuple[str, Payload]] = field(default_factory=list)

    def _answer(self, message: Message) -> Message | None:
        reply = super()._answer(message)
        if reply is None or reply.has_error():
            return reply
        name, kind = self.names.get(message.metadata.dst_node_id), message.metadata.message_type
        told = protocol.decode(ANSWERS[kind], reply.content)
        if name == self.liar:
            told = self._lied(message, told)
        if kind == protocol.OPTIMIZE:
            self.seen.append((str(name), told))
        return Message(protocol.encode(told), reply_to=message)

    def _lied(self, message: Message, told: Any) -> Any:
        kind = message.metadata.message_type
        if kind == protocol.REPRESENT:
            return replace(told, features=self.features(told.features).astype(np.float32))
        if kind == protocol.OPTIMIZE:
            request = protocol.decode(protocol.Optimize, message.content)
            return signed(request, self.lie(self, request, told))
        if kind == protocol.DESCRIBE:
            return replace(told, **self.described)
        return (self.projection if kind == protocol.PROJECT else self.alignment)(told)


def signed(request: protocol.Optimize, payload: Payload) -> Payload:
    """Return ``payload`` with matching digests, if it has the shape of a payload."""
    if payload.digests != ["?"]:
        ends = np.cumsum(payload.rows).tolist()
        parts = [slice(end - rows, end) for end, rows in zip(ends, payload.rows, strict=True)]
        who = np.int16(request.contributor)
        payload = replace(
            payload,
            digests=[
                block_digest(
                    payload.ids[part],
                    payload.targets[part],
                    np.full(len(payload.ids[part]), who),
                )
                for part in parts
            ],
        )
    return payload


def digits(**changes: object) -> Config:
    """Four participants with similar priors, whose targets agree almost completely."""
    tree = {
        "data.source": "digits", "data.limit": ROWS, "shared.size": 100, "targets.dim": 16,
        "optimize.block_rows": 45, "optimize.batch_size": 45, "optimize.chunk_mb": 0.005,
        "audit.fraction": 0.05, "deadline.join": 5, "deadline.rejoin": 0.3,
    }  # fmt: skip
    return tiny(**(tree | roster() | changes))


def thousands() -> Config:
    """Enough samples for the default ``audit.fraction``: 25 of a liar's are compared."""
    tree = {
        "data.limit": THOUSANDS, "shared.size": 100, "targets.dim": 16, "optimize.block_rows": 225,
        "optimize.batch_size": 64, "optimize.chunk_mb": 1, "deadline.join": 5,
        "deadline.rejoin": 0.3,
    }  # fmt: skip
    return tiny(**(tree | roster()))


def roster() -> dict[str, str]:
    """Return the configuration's participants by key."""
    priors = {name: f"trivial:{64 + 8 * index}" for index, name in enumerate(NAMES)}
    pairs = list(enumerate(priors.items()))
    names = {f"participants.{index}.name": name for index, (name, _) in pairs}
    return names | {f"participants.{index}.prior": prior for index, (_, prior) in pairs}


def noise(shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(5).normal(size=shape) * scale).astype(np.float16)


def permuted(payload: Payload) -> np.ndarray:
    order = np.random.default_rng(3).permutation(len(payload.targets))
    return payload.targets[order]


def rotated(payload: Payload) -> np.ndarray:
    dim = payload.targets.shape[1]
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(dim, dim)))[0]
    return (payload.targets.astype(np.float64) @ turn).astype(np.float16)


def replayed(grid: Lying, payload: Payload) -> np.ndarray:
    """Another participant's targets, for other ids."""
    other = next((p for name, p in grid.seen if name != grid.liar), payload)
    return np.resize(other.targets, payload.targets.shape)


def targets(make: Callable[[Lying, Payload], np.ndarray]) -> Lie:
    return lambda grid, request, payload: replace(
        payload, targets=np.ascontiguousarray(make(grid, payload), dtype=np.float16)
    )


def honest_about_shared(make: Callable[[Payload], np.ndarray]) -> Lie:
    """It knows the shared set and is honest on it, so only others' targets expose it."""

    def lie(grid: Lying, request: protocol.Optimize, payload: Payload) -> Payload:
        shared = next(
            protocol.decode(protocol.Represent, m.content).ids
            for m in grid.sent
            if m.metadata.message_type == protocol.REPRESENT
        )
        told = np.where(np.isin(payload.ids, shared)[:, None], payload.targets, make(payload))
        return replace(payload, targets=told.astype(np.float16))

    return lie


LIES: dict[str, Lie] = {
    "constant": targets(lambda grid, p: np.ones_like(p.targets)),
    "zero": targets(lambda grid, p: np.zeros_like(p.targets)),
    "collapsed to a line": targets(lambda grid, p: p.targets[:, :1] * np.ones_like(p.targets)),
    "noise": targets(lambda grid, p: noise(p.targets.shape)),
    "rows permuted": targets(lambda grid, p: permuted(p)),
    "half as large": targets(lambda grid, p: p.targets * np.float16(0.5)),
    "twice as large": targets(lambda grid, p: p.targets * np.float16(2)),
    "rotated": targets(lambda grid, p: rotated(p)),
    "of the other sign": targets(lambda grid, p: -p.targets),
    "replayed": targets(replayed),
    "noise, but for the shared set": honest_about_shared(lambda p: noise(p.targets.shape)),
    "permuted, but for the shared set": honest_about_shared(permuted),
    "rotated, but for the shared set": honest_about_shared(rotated),
    "mirrored, but for the shared set": honest_about_shared(lambda p: -p.targets),
    "constant, but for the shared set": honest_about_shared(lambda p: np.ones_like(p.targets)),
    "five times as large, but for the shared set": honest_about_shared(lambda p: 5 * p.targets),
}

MALFORMED: dict[str, Lie] = {  # others are in tests/unit/policies/test_payloads.py
    "NaN": targets(lambda grid, p: np.where(p.ids[:, None] == p.ids[0], np.nan, p.targets)),
    "wrong digest": lambda grid, r, p: replace(p, digests=["?"]),
    "something skipped": lambda grid, r, p: replace(p, skipped=p.ids[:1]),
    "oversized": lambda grid, r, p: replace(p, skipped=np.zeros(400_000, np.int64)),
}


def rejection(out: Path, liar: str, rows: int = ROWS) -> dict[str, Any]:
    """Return the rejection of ``liar``; assert that it is the only one and that no id is lost."""
    provenance, problems = verify(out / "dataset")
    assert problems == []
    (change,) = provenance.plan_changes
    assert change["origin"] == liar
    assert change["rejected"]
    assert liar not in change["owners"]
    dataset = coopt_fl.load(out)
    index = [one.name for one in provenance.contributors].index(liar)
    assert not (dataset.participants == index).any()
    assert np.array_equal(np.sort(dataset.ids), np.arange(rows))
    return change


@pytest.fixture
def truth(tmp_path_factory: pytest.TempPathFactory, identity: None, quick: None) -> Path:
    """An honest run, in which nobody is rejected; made once and shared; no test may change it."""
    out = tmp_path_factory.getbasetemp() / "truth"
    if not (out / "dataset" / "provenance.json").exists():
        run_platform(digits(), out, Deployment().start(*NAMES))
        assert verify(out / "dataset")[0].plan_changes == []
    return out


@pytest.mark.parametrize("name", [*LIES, *MALFORMED])
def test_a_liar_is_rejected_and_its_blocks_are_done_by_others(
    name: str, truth: Path, tmp_path: Path
) -> None:
    grid = Lying(lie=(LIES | MALFORMED)[name]).start(*NAMES)
    run_platform(digits(), tmp_path, grid)
    change = rejection(tmp_path, "delta")
    moved = np.isin(coopt_fl.load(truth).participants, 3)
    told, true = coopt_fl.load(tmp_path), coopt_fl.load(truth)
    assert np.array_equal(told.ids, true.ids)
    assert np.array_equal(told.targets[~moved], true.targets[~moved])
    distance = np.linalg.norm(told.targets[moved].astype(float) - true.targets[moved], axis=1)
    assert np.median(distance) < 0.3 * np.median(np.linalg.norm(true.targets.astype(float), axis=1))
    assert len(change["blocks"]) == 5


@pytest.mark.parametrize(
    "name", ["noise, but for the shared set", "rotated, but for the shared set"]
)
def test_what_only_others_can_tell_is_found_by_default(name: str, tmp_path: Path) -> None:
    config = thousands()
    assert config.audit.fraction == 0.01
    run_platform(config, tmp_path, Lying(lie=LIES[name]).start(*NAMES))
    change = rejection(tmp_path, "delta", THOUSANDS)
    assert change["reason"].startswith("delta disagrees with alpha, beta, gamma on ")


@pytest.mark.parametrize(
    "changes",
    [{"privacy.clip": 1.0}, {"optimize.block_rows": 12}],
    ids=["privacy", "blocks too small to have a spread"],
)
def test_targets_at_the_mean_are_far_from_everyone_s(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    config = digits(reference="consensus", **{"audit.fraction": 0.3} | changes)
    grid = Lying(lie=honest_about_shared(lambda p: np.zeros_like(p.targets))).start(*NAMES)
    run_platform(config, tmp_path, grid)
    assert rejection(tmp_path, "delta")["reason"].startswith("delta disagrees with")


def test_an_alignment_to_infinity_is_refused(tmp_path: Path) -> None:
    """All of its numbers are finite, but not the targets that it makes."""
    endless = weighted(lambda w: np.where(np.arange(w.shape[1]) == 0, 3e38, w))
    grid = Lying(alignment=endless).start(*NAMES)
    run_platform(digits(reference="consensus", **{"privacy.clip": 1.0}), tmp_path, grid)
    assert "too large for float16" in rejection(tmp_path, "delta")["reason"]


def bare(**values: Any) -> RecordDict:
    """Return records that no honest program makes."""
    arrays = {name: Array(one) for name, one in values.items() if isinstance(one, np.ndarray)}
    plain = {name: one for name, one in values.items() if name not in arrays}
    text = ConfigRecord({"json": json.dumps(plain)})
    return RecordDict({"arrays": ArrayRecord(arrays), "plain": text})


RECORDS: dict[str, Callable[[Payload], RecordDict]] = {  # others are in tests/unit/test_typed.py
    "none": lambda p: RecordDict(),
    "another message": lambda p: protocol.encode(protocol.Receipt(9, "0" * 64)),
    "a single number skipped": lambda p: bare(**vars(p) | {"skipped": np.array(1)}),
    "rows beyond all bounds": lambda p: bare(**vars(p) | {"rows": [10**400] * len(p.rows)}),
    "half a letter": lambda p: bare(**vars(p) | {"digests": ["\ud800"] * len(p.rows)}),
}


@pytest.mark.parametrize("name", list(RECORDS))
def test_who_sends_malformed_records_is_rejected(name: str, tmp_path: Path) -> None:
    class Malformed(Lying):
        def _answer(self, message: Message) -> Message | None:
            reply = super()._answer(message)
            asked = message.metadata.message_type == protocol.OPTIMIZE
            if not asked or self.names[message.metadata.dst_node_id] != self.liar:
                return reply
            return Message(RECORDS[name](self.seen[-1][1]), reply_to=message)

    run_platform(digits(), tmp_path, Malformed().start(*NAMES))
    rejection(tmp_path, "delta")


def test_a_lie_in_one_chunk_alone_is_found(tmp_path: Path) -> None:
    """Its last chunk has the right statistics but targets of other samples; it is honest on S."""
    lie, told = honest_about_shared(permuted), []

    def last(grid: Lying, request: protocol.Optimize, payload: Payload) -> Payload:
        told.append(request.blocks)
        return lie(grid, request, payload) if len(told) == 2 else payload

    run_platform(digits(**{"audit.fraction": 0.5}), tmp_path, Lying(lie=last).start(*NAMES))
    change = rejection(tmp_path, "delta")
    assert change["evidence"]


def test_who_answers_twice_and_not_the_same_needs_nobody_to_contradict_it(tmp_path: Path) -> None:
    """With two participants there is no majority, but some audit rows are from its own blocks."""
    config = digits(min_participants=2, **{"deadline.join": 0.2, "audit.fraction": 0.3})
    grid = Lying(liar="beta", lie=honest_about_shared(permuted)).start("alpha", "beta")
    run_platform(config, tmp_path, grid)
    assert "of samples asked for twice" in rejection(tmp_path, "beta")["reason"]


def test_a_projection_is_asked_of_the_rows_that_targets_are_asked_of(tmp_path: Path) -> None:
    """Otherwise the reference could tell which rows are for the audit."""
    grid = Deployment().start(*NAMES)
    run_platform(digits(reference="best"), tmp_path, grid)
    units: dict[int, np.ndarray] = {}
    for message in grid.sent:
        if message.metadata.message_type == protocol.PROJECT:
            project = protocol.decode(protocol.Project, message.content)
        if message.metadata.message_type == protocol.OPTIMIZE:
            request = protocol.decode(protocol.Optimize, message.content)
            ids = np.split(request.ids, np.cumsum(request.sizes)[:-1])
            units |= dict(zip(request.blocks, ids, strict=True))
    told = np.concatenate([units[block] for block in project.blocks])
    assert np.array_equal(project.ids, told[: len(project.ids)])


def test_noise_is_not_elected_though_it_is_the_most_uniform(tmp_path: Path) -> None:
    grid = Lying(features=lambda f: np.random.default_rng(0).normal(size=f.shape)).start(*NAMES)
    run_platform(digits(), tmp_path, grid)
    provenance, _ = verify(tmp_path / "dataset")
    scores = {one.name: one.uniformity for one in provenance.contributors}
    assert min(scores, key=lambda name: scores[name]) == "delta"
    assert provenance.reference != "delta"
    rejection(tmp_path, "delta")


def test_a_reference_can_be_wrong_too(truth: Path, tmp_path: Path) -> None:
    reference = verify(truth / "dataset")[0].reference
    grid = Lying(liar=reference, lie=honest_about_shared(rotated)).start(*NAMES)
    run_platform(digits(), tmp_path, grid)
    rejection(tmp_path, reference)
    assert verify(tmp_path / "dataset")[0].reference == reference


def test_of_two_nobody_can_tell_who_lies(tmp_path: Path) -> None:
    grid = Lying(liar="beta", lie=honest_about_shared(rotated)).start("alpha", "beta")
    run_platform(digits(min_participants=2, **{"deadline.join": 0.2}), tmp_path, grid)
    provenance, problems = verify(tmp_path / "dataset")
    assert problems == []
    assert provenance.plan_changes == []
    said = " ".join(provenance.audit["undecided"])
    assert "alpha" in said
    assert "beta" in said


def test_features_that_later_targets_contradict(tmp_path: Path) -> None:
    """It sends another prior's features of S, so later targets of the same samples differ."""
    grid = Lying(features=lambda f: np.roll(f, 1, axis=1)).start(*NAMES)
    run_platform(digits(), tmp_path, grid)
    assert "shared" in rejection(tmp_path, "delta")["reason"]


def test_a_rejected_participant_stays_out_of_later_runs(tmp_path: Path) -> None:
    """The verdict is stored before its blocks are freed, in case the platform dies in between."""

    class Dying(Lying):
        def push_messages(self, messages: list[Message]) -> list[str]:
            if (tmp_path / "state" / "rejected.json").exists():
                raise KeyboardInterrupt
            return super().push_messages(messages)

    with pytest.raises(KeyboardInterrupt):
        run_platform(digits(), tmp_path, Dying(lie=LIES["noise"]).start(*NAMES))
    grid = Deployment().start(*NAMES)
    run_platform(digits(), tmp_path, grid)
    rejection(tmp_path, "delta")
    asked = {m.metadata.message_type for m in grid.sent if m.metadata.dst_node_id == 104}
    assert asked == {protocol.DESCRIBE}


def test_when_everybody_lies_the_run_stops(tmp_path: Path) -> None:
    class Liars(Lying):
        def _answer(self, message: Message) -> Message | None:
            self.liar = self.names[message.metadata.dst_node_id]
            return super()._answer(message)

    with pytest.raises(ParticipantError, match="nobody else is here to take over"):
        run_platform(digits(), tmp_path, Liars(lie=MALFORMED["NaN"]).start(*NAMES))


def weighted(make: Callable[[np.ndarray], np.ndarray]) -> Fitted:
    return lambda fitted: replace(fitted, weight=make(fitted.weight).astype(np.float32))


def moved(by: float) -> Fitted:
    return lambda fitted: replace(fitted, bias=fitted.bias + np.float32(by))


PROJECTIONS: dict[str, Fitted] = {
    "zero": weighted(lambda w: w * 0),
    "huge": weighted(lambda w: w * 1e6),
    "a line": weighted(lambda w: np.repeat(w[:, :1], w.shape[1], axis=1)),
    "far away": moved(1e6),
    "so far that float16 leaves little": moved(100),
    "no projection by its name": lambda fitted: replace(fitted, solver="ridge"),
}


@pytest.mark.parametrize("name", list(PROJECTIONS))
def test_a_reference_whose_projection_is_none_is_replaced(
    name: str, truth: Path, tmp_path: Path
) -> None:
    reference = verify(truth / "dataset")[0].reference
    grid = Lying(liar=reference, projection=PROJECTIONS[name]).start(*NAMES)
    run_platform(digits(), tmp_path, grid)
    rejection(tmp_path, reference)
    assert verify(tmp_path / "dataset")[0].reference != reference


@pytest.mark.parametrize("lost", [False, True], ids=["by itself", "by others"])
def test_what_a_projection_was_fitted_on_is_no_evidence_against_anyone(
    lost: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where variance decays slowly, 64 samples' own PCA spreads them 1.8 times as far as others."""
    monkeypatch.setattr(trivial, "_SIDE", 8)  # pixel noise, of which all 192 axes have as much
    config = (impatient if lost else patient)(
        **{f"participants.{index}.prior": f"trivial:{300 + 8 * index}" for index in range(3)},
        **{"data.limit": 1200, "shared.size": 400, "optimize.block_rows": 64},
        min_participants=2,
    )
    fault = Nth("gamma", 1, lambda grid: grid.kill("gamma") if lost else None)
    run_platform(config, tmp_path, Deployment(fault=fault).start(*NAMES[:3]))
    provenance, problems = verify(tmp_path / "dataset")
    assert problems == []
    assert provenance.reference == "gamma"
    assert provenance.audit["rejected"] == []
    assert [change["origin"] for change in provenance.plan_changes] == ["gamma"] * lost


@pytest.mark.parametrize("solver", ["projection:pca", "ridge"])
def test_an_alignment_of_its_own_is_found_whatever_it_is_called(
    solver: str, tmp_path: Path
) -> None:
    """Its targets follow its own alignment, but agree with no other participant's."""

    def own(fitted: protocol.Aligned) -> protocol.Aligned:
        weight = np.random.default_rng(7).normal(size=fitted.weight.shape)
        size = np.linalg.norm(fitted.weight) / np.linalg.norm(weight)
        return replace(fitted, weight=(weight * size).astype(np.float32), solver=solver)

    run_platform(digits(reference="consensus"), tmp_path, Lying(alignment=own).start(*NAMES))
    rejection(tmp_path, "delta")


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda f: f * 0, id="zero"),
        pytest.param(lambda f: f * 0 + f[:1], id="constant"),
        pytest.param(lambda f: f * 1e30, id="huge"),
        pytest.param(lambda f: np.where(f == f.max(), np.nan, f), id="NaN"),
        pytest.param(lambda f: f[:, :-1], id="narrow"),
        pytest.param(lambda f: f[:-1], id="one row less"),
    ],
)
def test_features_of_which_nothing_can_be_made(
    make: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    run_platform(digits(), tmp_path, Lying(features=make).start(*NAMES))
    provenance, problems = verify(tmp_path / "dataset")
    assert problems == []
    assert [change["origin"] for change in provenance.plan_changes] == ["delta"]


@pytest.mark.parametrize(
    "said",
    [
        {"partitions": 1},
        {"width": 0},
        {"width": 10**9},
        {"device": "x" * 10**6},
        {"rows_per_s": 1e300},
        {"weights_sha256": "../../etc"},
        {"name": "alpha", "partitions": 3},
        {"prior": "\ud800"},
        {"prior": "x` | 0 |\n\n# [Download the better one](https://example.org)"},
        {"device": "<script>"},
        {"versions": {"torch": "\udfff"}},
    ],
    ids=ascii,
)
def test_what_a_participant_says_of_itself_cannot_stop_the_others(
    said: dict[str, Any], tmp_path: Path
) -> None:
    settings = digits(min_participants=3, **{"deadline.join": 0.2})
    run_platform(settings, tmp_path, Lying(described=said).start(*NAMES))
    dataset = coopt_fl.load(tmp_path)
    assert np.array_equal(np.sort(dataset.ids), np.arange(ROWS))


def test_who_skips_what_others_can_read_is_rejected(tmp_path: Path) -> None:
    """It claims that nothing but the shared set can be read."""

    def idle(grid: Lying, request: protocol.Optimize, payload: Payload) -> Payload:
        shared = next(
            protocol.decode(protocol.Represent, m.content).ids
            for m in grid.sent
            if m.metadata.message_type == protocol.REPRESENT
        )
        kept = np.isin(payload.ids, shared)
        ends = np.cumsum(payload.rows).tolist()
        rows = [
            int(kept[end - count : end].sum())
            for end, count in zip(ends, payload.rows, strict=True)
        ]
        return replace(
            payload,
            ids=payload.ids[kept],
            targets=payload.targets[kept],
            skipped=payload.ids[~kept],
            rows=rows,
        )

    settings = digits(**{"data.on_error": "skip", "audit.fraction": 0.2})
    run_platform(settings, tmp_path, Lying(lie=idle).start(*NAMES))
    assert "skips" in rejection(tmp_path, "delta")["reason"]
