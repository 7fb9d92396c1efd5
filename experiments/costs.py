"""The cost of collaboration in bytes: sent by each participant, stored for each image."""

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from flwr.app import Message
from numpy.typing import NDArray

from coopt_fl.config.load import from_tree
from coopt_fl.config.schema import Config
from coopt_fl.core.runtime import pick_device
from coopt_fl.federation import protocol
from coopt_fl.federation.client_app import app
from coopt_fl.optimized.read import OptimizedDataset, load
from coopt_fl.priors import load_prior
from coopt_fl.strategies.platform import OpenDataPlatform
from experiments.agreement import Array, uniformity_alone
from experiments.figures import lines
from experiments.grid import Weighing, weigh
from experiments.lab import Lab, Made
from experiments.scales import Study
from experiments.table import Cell, table

Codes = NDArray[np.int8]

LEVELS = 127
MB = 1e6
COMMON = (protocol.REPRESENT, protocol.PROJECT, protocol.ALIGN)
"""Messages before a participant's targets, whose size does not depend on its number of images."""


def quantised(targets: Array) -> tuple[Codes, Array]:
    """Return int8 codes (R, n) of targets, and the scale of each dimension, float32 (n,).

    A code times its scale differs from the target by at most half a scale.
    """
    scales = np.abs(targets.astype(np.float32)).max(axis=0, initial=0) / LEVELS
    scales[scales == 0] = 1
    return np.rint(targets / scales).astype(np.int8), scales


@dataclass(frozen=True)
class Payload8(protocol.Delivery):
    """A hypothetical payload in int8: ids (R,), codes (R, n), scales (n,)."""

    ids: protocol.IntArray
    codes: Codes
    scales: protocol.FloatArray


@dataclass
class Weighing8(Weighing):
    """Also counts the bytes that payloads would have in int8.

    Attributes:
        int8: Bytes of all replies with targets in int8, with a scale per dimension of a payload.
        rows: Number of targets in them: more than images, because some are for the audit.
    """

    int8: int = 0
    rows: int = 0

    def seen(self, message: Message) -> None:
        """Count a message."""
        super().seen(message)
        kind, reply = message.metadata.message_type, message.metadata.reply_to_message_id
        if kind != protocol.OPTIMIZE or not reply:
            return
        payload = protocol.decode(protocol.Payload, message.content)
        codes, scales = quantised(payload.targets.astype(np.float32))
        told = {key: value for key, value in vars(payload).items() if key != "targets"}
        small = protocol.encode(Payload8(**told, codes=codes, scales=scales))
        self.rows += len(codes)
        self.int8 += weigh(message) - weigh(message.content) + weigh(small)


@dataclass(frozen=True)
class Traffic:
    """The bytes that a run sent and stored.

    Attributes:
        sent: Counts of all its messages.
        stored: Bytes of the published Parquet files.
        stored8: Bytes that they would have in int8.
    """

    sent: Weighing8
    stored: int
    stored8: int


def traffic(lab: Lab, participants: int, dim: int, seed: int) -> Traffic:
    """Run the real platform and participants on the study's images, and count the bytes.

    Priors are random maps as wide as the study's, and the election accepts all of them: sizes
    depend neither on the values of targets nor on the election.
    """
    config = run_of(lab.study, len(lab.all), participants, dim, seed)
    grid = Weighing8(app, participants)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        OpenDataPlatform(config, out, reference=uniformity_alone).start(grid)
        files = sum(file.stat().st_size for file in (out / "dataset/data").iterdir())
        small = stored_in_int8(load(out), out / "int8.parquet", config.optimize.block_rows)
    return Traffic(grid, files, small)


def run_of(study: Study, samples: int, participants: int, dim: int, seed: int) -> Config:
    """Return the configuration of a run with the given number of participants."""
    wide = widths(study)
    people = [
        {"name": f"p{k}", "prior": f"trivial:{wide[k % len(wide)]}"} for k in range(participants)
    ]
    tree = {
        "seed": seed,
        "data": asdict(study.data),
        "participants": people,
        "shared": {"size": shared_for(study, dim)},
        "targets": {"dim": dim},
        "optimize": {"block_rows": blocks_for(study, samples, participants), "batch_size": 256},
        "audit": {"fraction": study.audit},
    }
    return from_tree(tree, [], "costs")


def widths(study: Study) -> list[int]:
    """Return the feature widths of the study's priors."""
    return [load_prior(spec, pick_device(), study.precision).width for spec in study.priors]


def shared_for(study: Study, dim: int) -> int:
    """Return the size of the shared set: a consensus needs at least twice the target width."""
    return max(study.shared, 2 * dim)


def blocks_for(study: Study, samples: int, participants: int) -> int:
    """Return the block size, small enough that every participant gets a block."""
    return min(study.block_rows, -(-samples // participants))


def stored_in_int8(dataset: OptimizedDataset, file: Path, block_rows: int) -> int:
    """Write a dataset's targets in int8, and return the size of the file in bytes.

    The columns are those of the published files, but a target is a single value of n bytes, because
    Parquet stores an int8 in four bytes. The scales of each participant's targets are metadata.
    """
    targets = dataset.targets.astype(np.float32)
    codes, scales = np.zeros(targets.shape, np.int8), dict[bytes, bytes]()
    for owner in np.unique(dataset.participants):
        mine = dataset.participants == owner
        codes[mine], own = quantised(targets[mine])
        scales[f"scales {owner}".encode()] = own.tobytes()
    n = dataset.dim
    columns = {
        "id": pa.array(dataset.ids),
        "target": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(n), len(codes), [None, pa.py_buffer(codes.tobytes())]
        ),
        "participant": pa.array(dataset.participants),
    }
    compression = {"id": "zstd", "target": "none", "participant": "zstd"}
    whole = pa.table(columns).replace_schema_metadata(scales)
    pq.write_table(whole, file, row_group_size=block_rows, compression=compression,
                   use_dictionary=False, write_statistics=["id"])  # fmt: skip
    return file.stat().st_size


def arrays_up(
    shared: int, width: int, dim: int, rows: float, each: int, payloads: float = 0
) -> float:
    """Return the bytes of the arrays that a participant sends, by formula.

    Args:
        shared: Size of the shared set, of which it sends float32 features.
        width: Width of its features; its alignment has as many rows, and a bias.
        dim: Width of a target.
        rows: Number of its targets, each with an id of 8 bytes.
        each: Bytes of a number in a target.
        payloads: Number of payloads with float32 scales.
    """
    fixed = shared * (4 * width + 8) + 4 * dim * (width + 1)
    return fixed + rows * (8 + each * dim) + 4 * dim * payloads


@table(
    lambda study: [{"participants": k, "dim": n} for k in study.crowds for n in study.widths],
    lines("participants", "up each, MB"),
)
def costs(lab: Lab, cell: Cell) -> Cell:
    """Traffic and storage: the bytes of the messages and files of a run.

    Sent bytes are per participant, in MB; stored bytes per image. Some traffic does not grow with a
    participant's images: features of the shared set and the alignment go up; ids of the shared set,
    features and targets for alignment go down. ``by formula`` counts the arrays alone.
    """
    k, dim = cell["participants"], cell["dim"]
    found, images = traffic(lab, k, dim, cell["seed"]), len(lab.all)
    sent, shared = found.sent, shared_for(lab.study, dim)
    up, down = (sum(way.values()) for way in (sent.up, sent.down))
    saved = sent.up[protocol.OPTIMIZE] - sent.int8
    rows, payloads = sent.rows / k, sent.messages[protocol.OPTIMIZE] / k
    wide = [widths(lab.study)[j % len(lab.study.priors)] for j in range(k)]
    formula = fmean(arrays_up(shared, m, dim, rows, 2) for m in wide)
    small = fmean(arrays_up(shared, m, dim, rows, 1, payloads) for m in wide)
    return {
        "up each, MB": up / k / MB,
        "up each in int8, MB": (up - saved) / k / MB,
        "of it before targets, MB": sum(sent.up[one] for one in COMMON) / k / MB,
        "down each, MB": down / k / MB,
        "up and down for an image, B": (up + down) / images,
        "in int8 for an image, B": (up - saved + down) / images,
        "stored for an image, B": found.stored / images,
        "stored in int8 for an image, B": found.stored8 / images,
        "up by formula, MB": formula / MB,
        "up in int8 by formula, MB": small / MB,
        "shared set": shared,
    }


STORED = ("float16", "int8")


@table(lambda study: [{"dim": n, "stored as": t} for n in study.widths for t in STORED])
def target_width(lab: Lab, cell: Cell) -> Cell:
    """The student's accuracy with narrower or coarser targets.

    In int8 each participant's targets have a scale per dimension. The shared set grows with the
    target width as far as a consensus needs it.
    """
    seed, dim = cell["seed"], cell["dim"]
    made: Made = lab.collaborate(seed, dim=dim, shared=shared_for(lab.study, dim))
    if cell["stored as"] == "int8":
        made = in_int8(made)
    return lab.student(made, seed)


def in_int8(made: Made) -> Made:
    """Return the targets after quantising each participant's to int8 and back."""
    targets = made.targets.copy()
    for owner in np.unique(made.participants):
        mine = made.participants == owner
        codes, scales = quantised(targets[mine])
        targets[mine] = codes * scales
    return replace(made, targets=targets)
