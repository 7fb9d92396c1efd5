"""The messages between platform and participants, and how the platform checks replies.

Every message is a frozen dataclass. Its arrays travel as an ``ArrayRecord``, everything else as
one JSON text; a participant's error travels as an ``error`` record, which :func:`error_in` finds.
A message holds all that is needed to act on it, because participants keep no state.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from coopt_fl.config.schema import Config
from coopt_fl.core import typed
from coopt_fl.core.errors import CooptError, ParticipantError, error_named, kind_of, quoting
from coopt_fl.core.files import ONE_AT_A_TIME
from coopt_fl.core.typed import LICENCE, PLAIN, Count, Rule, Sha256, plain_words, within
from coopt_fl.federation.units import read_unit, unit_file
from coopt_fl.optimized.block import Block, all_finite, rows_digest
from coopt_fl.optimized.licences import LIBRARY, OWNER

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]
HalfArray = NDArray[np.float16]
Indexes = NDArray[np.int16]

DESCRIBE = "query.describe"
REPRESENT = "query.represent"
PROJECT = "train.project"
ALIGN = "train.align"
OPTIMIZE = "train.optimize"

MOST_SPEED = 1e7
"""Highest speed that is accepted of a prior, samples/s."""

MOST_SECONDS = 1e7
"""Longest time that is accepted of a chunk: four months."""

Words = Annotated[str, PLAIN]

LICENCES = Rule(
    lambda stated: {LIBRARY, OWNER} >= stated.keys() and all(map(LICENCE.holds, stated.values())),
    f"the licence that {LIBRARY} or {OWNER} states, each {LICENCE.words}",
)


@dataclass(frozen=True)
class Task:
    """What every request carries: the data, the roster, and how to compute.

    ``roster`` lists [name, prior] of the participants in order. ``shards`` is the URL of the
    published shards, whose manifest has the sha256 ``shards_sha256``; None: participants hold the
    images, and ``image_column`` and ``train`` say which to read. ``clip`` and ``noise_multiplier``
    are those of ``privacy`` in the configuration. Only simulated participants get ``plugins``, see
    :func:`coopt_fl.federation.client_app.identify`.
    """

    source: str
    root: str | None
    image_column: str | None
    train: str | None
    limit: int | None
    on_error: str
    shards: str | None
    shards_sha256: str
    decode: str
    max_pixels: int
    roster: list[list[str]]
    batch_size: int
    threads: int
    precision: str
    deterministic: bool
    clip: float | None
    noise_multiplier: float
    plugins: list[str]


def task_of(config: Config, shards_sha256: str, simulated: bool = False) -> Task:
    """Return the part of ``config`` that participants need."""
    return Task(
        source=config.data.source,
        root=config.data.root,
        image_column=config.data.image_column,
        train=config.data.split.train,
        limit=config.data.limit,
        on_error=config.data.on_error,
        shards=config.data.shards,
        shards_sha256=shards_sha256,
        decode=config.data.decode,
        max_pixels=config.data.max_pixels,
        roster=[[participant.name, participant.prior] for participant in config.participants],
        batch_size=config.optimize.batch_size,
        threads=config.runtime.threads,
        precision=config.runtime.precision,
        deterministic=config.runtime.deterministic,
        clip=config.privacy.clip,
        noise_multiplier=config.privacy.noise_multiplier,
        plugins=config.plugins if simulated else [],
    )


@dataclass(frozen=True)
class Describe:
    """Ask a participant to describe itself and, with ``measure``, to measure its speed."""

    task: Task
    measure: bool


@dataclass(frozen=True)
class Description:
    """A participant's name, prior, view of the data (decoded by ``decoder``), device and speed.

    ``partitions`` is 0 in a deployment. ``licenses`` are those that the prior's library and the
    participant state for its weights, see :mod:`coopt_fl.optimized.licences`.
    """

    name: Words
    prior: Words
    width: Annotated[int, within(1, 65_536)]
    weights_sha256: Sha256
    fingerprint: str
    rows: int
    decoder: Words
    device: Words
    versions: Annotated[dict[str, str], PLAIN]
    rows_per_s: Annotated[
        float, Rule(lambda n: 0 <= n <= MOST_SPEED, f"0 to {MOST_SPEED:g} samples/s")
    ]
    partitions: int
    licenses: Annotated[dict[str, str], LICENCES] = field(
        default_factory=dict, metadata={typed.LATER: True}
    )


@dataclass(frozen=True)
class Represent:
    """Ask for the features of the shared set; ``ids`` (S,)."""

    task: Task
    ids: IntArray


@dataclass(frozen=True)
class Representation:
    """Features (S', m) of ``ids`` (S',); unreadable images are in ``skipped``."""

    ids: IntArray
    features: FloatArray
    skipped: IntArray


@dataclass(frozen=True)
class Project:
    """Ask the reference for a projection to ``dim`` numbers, fitted on the samples ``ids``.

    ``blocks`` are those whose units contain the ids.
    """

    task: Task
    blocks: list[int]
    ids: IntArray
    dim: int
    method: str
    seed: int


@dataclass(frozen=True)
class Align:
    """Ask for the alignment of ``features`` (S, m) to ``targets`` (S, n)."""

    task: Task
    features: FloatArray
    targets: FloatArray
    solver: str
    seed: int


@dataclass(frozen=True)
class Aligned:
    """An affine map from features (m) to targets (n)."""

    weight: FloatArray
    bias: FloatArray
    solver: str


@dataclass(frozen=True)
class Optimize:
    """Ask for the targets of whole units: their ``ids`` concatenated, and the ``sizes`` of each.

    ``contributor`` is the participant's index in the dataset, and enters the digests. ``upload``
    is the URL to write the payload to, answered with a :class:`Receipt`; "": send it in the reply.
    ``folder`` is where a simulated participant, which is on the platform's host, has to leave the
    units as files instead (:mod:`coopt_fl.federation.units`), answered with a :class:`Delivery`.
    """

    task: Task
    contributor: int
    blocks: list[int]
    sizes: list[int]
    ids: IntArray
    weight: FloatArray
    bias: FloatArray
    upload: str
    folder: str


@dataclass(frozen=True)
class Receipt:
    """Confirms that a payload was written to ``upload``: its ``size`` in bytes and its sha256."""

    size: int
    sha256: Sha256


@dataclass(frozen=True)
class Delivery:
    """The metadata of delivered units: row count and digest of each; ids skipped, time taken."""

    blocks: list[int]
    rows: list[Count]
    skipped: IntArray
    digests: list[Sha256]
    seconds: Annotated[float, within(0, MOST_SECONDS)]


@dataclass(frozen=True)
class Payload(Delivery):
    """Targets (R, n) of ``ids`` (R,), ascending in each unit."""

    ids: IntArray
    targets: HalfArray


M = TypeVar("M")


def encode(message: Any) -> RecordDict:
    """Return ``message`` (one of the dataclasses here) as Flower records."""
    arrays, plain = _parts(message)
    records = ArrayRecord({name: Array(array) for name, array in arrays.items()})
    return RecordDict({"arrays": records, "plain": ConfigRecord({"json": json.dumps(plain)})})


def encode_error(error: CooptError) -> RecordDict:
    """Return a participant's error as records."""
    return RecordDict({"error": ConfigRecord({"kind": kind_of(error), "message": str(error)})})


def error_in(records: RecordDict) -> CooptError | None:
    """Return the error that ``records`` carry instead of an answer."""
    error = records.config_records.get("error")
    if error is None:
        return None
    reported = error_named(str(error.get("kind")), plain_words(str(error.get("message"))))
    return quoting(reported, f"it reported an error ({kind_of(reported)})")


def pack(payload: Payload) -> bytes:
    """Return a payload as the bytes of an .npz file."""
    arrays, plain = _parts(payload)
    file = io.BytesIO()
    np.savez(file, **arrays, plain=np.array(json.dumps(plain).encode()))  # type: ignore[arg-type]
    return file.getvalue()


def decode(kind: type[M], sent: RecordDict | bytes) -> M:
    """Return the message of type ``kind`` in records, or in a file that :func:`pack` made.

    Raises:
        ParticipantError: they are no such message, or a field is not of its declared type.
    """
    try:
        with ONE_AT_A_TIME:
            arrays, text = _unpacked(sent) if isinstance(sent, bytes) else _received(sent)
        return typed.decode(kind, json.loads(text) | arrays)
    except Exception as problem:  # untrusted bytes make zipfile and numpy raise nearly anything
        came = f"a malformed {kind.__name__} message came"
        raise quoting(ParticipantError(f"{came}: {problem}"), came) from None


def _received(records: RecordDict) -> tuple[dict[str, NDArray[Any]], str]:
    sent = records.array_records["arrays"]
    arrays = {name: array.numpy() for name, array in sent.items()}
    return arrays, str(records.config_records["plain"]["json"])


def _unpacked(data: bytes) -> tuple[dict[str, NDArray[Any]], str]:
    members = zipfile.ZipFile(io.BytesIO(data)).infolist()
    if any(one.compress_type != zipfile.ZIP_STORED for one in members):
        raise ValueError("it is compressed, so its size is unbounded")
    if sum(one.file_size for one in members) > len(data):
        raise ValueError("it claims more bytes than it has")
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return arrays, arrays.pop("plain").item()


def _parts(message: Any) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the arrays of a message, and everything else."""
    arrays, plain = {}, {}
    for one in fields(message):
        value = getattr(message, one.name)
        if isinstance(value, np.ndarray):
            arrays[one.name] = np.ascontiguousarray(value)
        else:
            plain[one.name] = vars(value) if isinstance(value, Task) else value
    return arrays, plain


def accept_payload(
    payload: Payload, expected: Mapping[int, IntArray], dim: int, contributor: int
) -> dict[int, Block]:
    """Check ``payload`` against the request; return its units by block index.

    Args:
        payload: the reply.
        expected: ids (ascending) of each unit that was asked for, by block index, in order.
        dim: width n of a target.
        contributor: index of the participant.

    Raises:
        ParticipantError: the payload is not what was asked for; nothing of it is used.
    """
    _check_counts(payload, list(expected))
    came, rows = (payload.ids.shape, payload.targets.shape), sum(payload.rows)
    shapes = ((rows,), (rows, dim))
    _require(came == shapes, f"ids and targets {shapes}", str(came))
    starts = np.cumsum([0, *payload.rows]).tolist()
    blocks: dict[int, Block] = {}
    for (index, wanted), count, start, digest in zip(
        expected.items(), payload.rows, starts[:-1], payload.digests, strict=True
    ):
        part, participants = slice(start, start + count), np.full(count, contributor, np.int16)
        unit = _unit(payload, wanted, payload.ids[part], payload.targets[part], participants)
        _require_unit(unit, index, wanted, unit.digest, digest)
        blocks[index] = unit
    return blocks


def accept_delivery(
    delivery: Delivery, folder: Path, expected: Mapping[int, IntArray], dim: int, contributor: int
) -> dict[int, Block]:
    """Check and return the units left in ``folder``, just as :func:`accept_payload` does.

    Raises:
        DataError: a file is not there, or not of the size that the number of rows makes.
        ParticipantError: see :func:`accept_payload`.
    """
    _check_counts(delivery, list(expected))
    blocks: dict[int, Block] = {}
    for (index, wanted), count, digest in zip(
        expected.items(), delivery.rows, delivery.digests, strict=True
    ):
        rows = read_unit(unit_file(folder, index), dim, count)
        _require(
            bool((rows["participant"] == contributor).all()), f"rows of {contributor}", "others"
        )
        unit = _unit(delivery, wanted, rows["id"], rows["target"], rows["participant"])
        _require_unit(unit, index, wanted, rows_digest(rows), digest)
        blocks[index] = unit
    return blocks


def require_skips(skipped: IntArray, asked: IntArray, on_error: str) -> None:
    """Check the ids that a participant ``skipped`` against those ``asked`` of it.

    Raises:
        ParticipantError: ``on_error`` does not allow skips, or an id was not asked for.
    """
    _require(on_error == "skip" or not len(skipped), "every sample", f"{len(skipped)} skipped")
    strange = np.setdiff1d(skipped, asked)
    _require(not len(strange), "only samples that were asked for", f"skipped {strange[:3]}")


def _unit(
    delivery: Delivery, wanted: IntArray, ids: IntArray, targets: HalfArray, participants: Indexes
) -> Block:
    """Return the rows of a unit with its share of the delivery's skipped ids and seconds."""
    share = delivery.seconds * len(ids) / max(sum(delivery.rows), 1)
    return Block(ids, targets, participants, np.intersect1d(wanted, delivery.skipped), share)


def _require_unit(unit: Block, index: int, wanted: IntArray, digest: str, claimed: str) -> None:
    """Check the ids of a unit, that its targets are finite, and its claimed digest."""
    _require(
        np.array_equal(unit.ids, np.setdiff1d(wanted, unit.skipped)),
        f"the ids of block {index}, each once and ascending",
        "other ids",
    )
    _require(all_finite(unit.targets), "finite targets", f"NaN or infinity in {index}")
    _require(digest == claimed, f"digest {digest[:12]}", claimed[:12])


def _check_counts(delivery: Delivery, asked: list[int]) -> None:
    """Check the blocks and counts before anything is indexed with them."""
    _require(delivery.blocks == asked, f"blocks {asked}", str(delivery.blocks))
    came, count = (len(delivery.rows), len(delivery.digests)), len(asked)
    _require(came == (count, count), f"{count} row counts and digests", str(came))


def _require(holds: bool, expected: str, came: str) -> None:
    if not holds:
        raise ParticipantError(f"expected {expected}, got {came}; its payload is not used")
