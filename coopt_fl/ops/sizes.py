"""Settings that suit given images, each with its reason; nothing is read here.

The bounds come from the method: a consensus needs twice as many shared samples as a target has
numbers, a sound election needs 25, and each participant needs a block. Whether something is too
slow is judged by the speed of two idle CPU cores; a GPU is never too slow.
"""

import math
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import reduce
from typing import Any

from coopt_fl.config.schema import Config, DataConfig
from coopt_fl.policies.reference import FEWEST_SHARED
from coopt_fl.students.images import LARGEST_SIDE, MEASURED, SMALLEST_SIDE
from coopt_fl.students.models import SMALL_IMAGE

DIMS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
SIDES = (224, 160, 128, 96)
SPARE = 2
"""Extra shared samples, in case some images turn out to be unreadable."""

FEW = FEWEST_SHARED + 1
"""Fewest images with which a sound election is possible."""

STEPS = 400
"""Fewest training steps of a student, which needs about 100 to beat a random one."""

PRIOR_RATE, PRIOR_SECONDS = 80.0, 180
"""Images/s through a bundled prior at 96 pixels; the most seconds for all images."""

RESNET_RATE, SMALL_RESNET_RATE, STUDENT_SECONDS = 16.0, 9.0, 1200
"""Images/s when training resnet18 at 96 and at 32 pixels; the most seconds for all epochs."""


@dataclass(frozen=True)
class Images:
    """What is known of the images.

    Attributes:
        data: Where they are.
        count: Images of the train split.
        tested: Images of the test split; 0 without one.
        edge: Shorter edge in pixels, the median of the images that were read.
        unreadable: How many of the images to read could not be read.
    """

    data: DataConfig
    count: int
    tested: int = 0
    edge: int = LARGEST_SIDE
    unreadable: int = 0


@dataclass(frozen=True)
class Choice:
    """The value of a key, and the reason for it."""

    value: Any
    reason: str


class Choices(dict[str, Choice]):
    """The fitted keys, in the order of the file.

    Args:
        config: The participants, and the values of the keys in ``asked``.
        asked: Keys, or sections, that the user set: their values in ``config`` are kept.
    """

    def __init__(self, config: Config, asked: AbstractSet[str]) -> None:
        super().__init__()
        self.config, self.asked = config, asked

    def put(self, key: str, value: Any, reason: str) -> Any:
        """Choose ``value`` unless the user set the key; return the value that it has now."""
        if self.given(key):
            value, reason = reduce(getattr, key.split("."), self.config), "This was asked for."
        self[key] = Choice(value, reason)
        return value

    def given(self, key: str) -> bool:
        """Whether the user set ``key``."""
        return any(key == one or key.startswith(f"{one}.") for one in self.asked)


def choose(images: Images, config: Config, asked: AbstractSet[str], *, gpu: bool) -> Choices:
    """Return the fitted keys; the others stay as ``config`` has them.

    Args:
        images: The images: at least 8, and at least as many as there are participants.
        config: See :class:`Choices`.
        asked: See :class:`Choices`.
        gpu: Whether the run has a GPU.
    """
    made = Choices(config, asked)
    judge = f"{images.tested:,} more judge the student" if images.tested else "no others judge it"
    made.put("data.source", images.data.source, f"{images.count:,} images to optimize; {judge}.")
    made.put("data.root", images.data.root, "")
    if images.unreadable:
        reason = f"{images.unreadable} of the images looked at cannot be read; the run lists them."
        made.put("data.on_error", "skip", reason)
    _participants(made, images, gpu)
    _shared_set(made, images)
    _work(made, images.count, gpu)
    _student(made, images, gpu)
    return made


def doubts(images: Images, config: Config) -> Iterator[str]:
    """Yield a sentence on each thing that will not work well with ``config``."""
    size, dim = config.shared.size, config.targets.dim
    if images.count < FEW:
        yield (
            f"{images.count} images are too few for good targets: with a shared set of fewer than "
            f"{FEWEST_SHARED} a sound prior may be taken for noise, and the run may end with an "
            f"error that says so. Add images, {FEW} or more."
        )
    if size > images.count:
        yield f"shared.size={size} is more than the {images.count} images: the run will be refused."
    if config.reference == "consensus" and size < 2 * dim:
        yield f"A consensus of targets.dim={dim} needs {2 * dim} shared samples; there are {size}."
    if -(-images.count // config.optimize.block_rows) < shares(config):
        yield f"optimize.block_rows={config.optimize.block_rows} leaves someone without work."
    if not images.tested:
        yield (
            "No test split: to judge students, put labeled images into val/ and all others into "
            "train/ (or into *test*.parquet and *train*.parquet)."
        )


def shares(config: Config) -> int:
    """Return how many blocks are needed so that the participant with the least weight gets one."""
    weights = [one.weight for one in config.participants] or [1.0]
    return -int(-sum(weights) // min(weights))


def _participants(made: Choices, images: Images, gpu: bool) -> None:
    """Set the resolution of the bundled priors."""
    config, wanted = made.config, max(images.edge, SIDES[-1])
    forward = 2.5 * images.count + images.tested  # shards, shared set, and the probe of a prior
    most = PRIOR_RATE * PRIOR_SECONDS / forward
    fast = [side for side in SIDES if side <= wanted and (gpu or (side / 96) ** 2 <= most)]
    side = max(fast, default=SIDES[-1])
    bundled, listed = False, []
    for index, one in enumerate(config.participants):
        spec, _, _ = one.prior.partition("@bundled")
        fitted = spec != one.prior and not made.given(f"participants.{index}.prior")
        prior = f"{spec}@bundled?size={side}" if fitted else one.prior
        bundled |= fitted
        weight = {"weight": one.weight} if one.weight != 1 else {}
        listed.append({"name": one.name, "prior": prior, **weight})
    if images.edge < side:
        why = f"more than the images have ({images.edge}), because these priors see little in fewer"
    elif not gpu and any(side < more <= wanted for more in SIDES):
        why = f"because more would take two CPU cores longer than {PRIOR_SECONDS // 60} minutes"
    else:
        why = f"which suits images whose shorter edge is {images.edge} pixels (median)"
    reason = f"ImageNet priors whose weights are installed already. At {side} pixels, {why}."
    made["participants"] = Choice(listed, reason if bundled else "")


def _shared_set(made: Choices, images: Images) -> None:
    """Set the width of targets, and the size of the shared set that their consensus needs."""
    few, usable = min(images.count, FEW), 1 - images.unreadable / min(images.count, MEASURED)
    asked = made.config.shared.size if made.given("shared.size") else None
    room = (asked or max(images.count // 2, few)) * usable
    dim = made.put(
        "targets.dim",
        max((dim for dim in DIMS if 2 * dim + SPARE <= room), default=DIMS[0]),
        "As wide as the shared set allows: a consensus needs two shared images for each number.",
    )
    spare = max(SPARE, dim // 32)
    wanted = math.ceil(max(2 * dim + spare, few) / usable)
    made.put(
        "shared.size",
        min(images.count, wanted),
        f"Twice targets.dim and some to spare for unreadable images; at least {FEW}, with which "
        "noise is told from a sound prior.",
    )


def _work(made: Choices, count: int, gpu: bool) -> None:
    """Set block and batch sizes with which each participant has work."""
    least = shares(made.config)
    even = [-(-count // (each * least)) for each in (4, 3, 2, 1)]  # as many blocks for each
    rows = next((rows for rows in even if rows >= 8), even[-1])
    if -(-count // rows) < least:
        rows = max(1, count // least)
    rows = made.put(
        "optimize.block_rows",
        min(rows, 1024),
        "Small enough for each participant to have work, and for a stopped run to repeat little.",
    )
    most = 256 if gpu else 32
    reason = (
        f"{most} are fast on a {'GPU' if gpu else 'CPU'}; a batch is never larger than a block."
    )
    made.put("optimize.batch_size", min(most, rows), reason)


def _student(made: Choices, images: Images, gpu: bool) -> None:
    """Set a student that can be trained here, and enough epochs."""
    edge = max(SMALLEST_SIDE, images.edge)
    reason = f"The images' shorter edge is {edge} pixels (median)"
    if edge > SIDES[-1] and not gpu:
        reason += f"; a CPU trains five times as fast at {SIDES[-1]} as at {LARGEST_SIDE}"
    most = LARGEST_SIDE if gpu else SIDES[-1]
    side = made.put("student.image_size", min(edge, most), f"{reason}.") or min(edge, LARGEST_SIDE)
    batch = made.put(
        "student.batch_size",
        min(images.count, max(8, min(_power(images.count // 16), 128 if gpu else 64))),
        "Small enough for an epoch to have many steps, as far as batch norm allows.",
    )
    steps = max(1, images.count // batch)
    epochs = max(-(-STEPS // steps), 20 if gpu else 10)
    reason = f"{epochs * steps:,} steps in all; a student gets better than random in about 100."
    epochs = made.put("student.epochs", epochs, reason)
    model, reason = _model(side, epochs * steps * batch, gpu)
    model = made.put("student.model", model, reason)
    rate = 0.003 if model.startswith("convnet") else 0.001
    made.put("student.lr", rate, "Peak learning rate of AdamW that suits this kind of model.")


def _model(side: int, seen: int, gpu: bool) -> tuple[str, str]:
    """Return a student for images of ``side`` pixels, ``seen`` of them in training, and why."""
    small = side <= SMALL_IMAGE
    rate = SMALL_RESNET_RATE * (32 / side) ** 2 if small else RESNET_RATE * (96 / side) ** 2
    slow = f"resnet18 would take two CPU cores about {seen / rate / 60:,.0f} minutes"
    if gpu or seen / rate <= STUDENT_SECONDS:
        kind = "torchvision's, with a first layer for small images" if small else "a usual model"
        return (
            "resnet18",
            f"{kind[0].upper()}{kind[1:]}; quick enough on a {'GPU' if gpu else 'CPU'}.",
        )
    if small:
        return "convnet:64", f"{slow}; this one is fast, but can only be exported to ONNX."
    return "timm:mobilenetv3_small_100", f"{slow}; this one, timm's, is nine times as fast."


def _power(number: int) -> int:
    """Return the largest power of two up to ``number``; 0 for 0."""
    return 1 << number.bit_length() >> 1
