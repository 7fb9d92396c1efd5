"""Every configuration key: its type, default, help text and rules.

:mod:`coopt_fl.config.rules` checks the rules in the metadata. ``coopt config --explain`` prints the
help texts and the docstrings of the sections. The names here are the public surface.
"""

from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

DECODINGS = ("exact", "reduced", "device")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
MOST_PIXELS = 178_956_970  # Pillow's own limit, against decompression bombs


class Rules(TypedDict, total=False):
    """Conditions on the value of a key, besides its type.

    ``part`` is a kind of exchangeable part, whose names are in :mod:`coopt_fl.registry`.
    """

    choices: tuple[str, ...]
    part: str
    minimum: float
    maximum: float
    above: float


def _key(default: Any, help: str, **rules: Unpack[Rules]) -> Any:
    return field(default=default, metadata={"help": help, **rules})


@dataclass
class SplitConfig:
    """Names of the splits, if they are not train and test or validation.

    For files it is a whole word of the file's or a folder's name; for folders, rows and Hugging
    Face splits it is the whole name.
    """

    train: str | None = _key(None, "the split to train on; null: train")
    test: str | None = _key(None, "the split to judge on; null: test, or else validation")


@dataclass
class DataConfig:
    """Where the unlabeled images come from, and how they are decoded.

    "reduced" decodes a JPEG file at 1/2, 1/4 or 1/8 of its size if that is still at least the size
    that the model takes; "device" decodes it on the GPU. Both are faster, and their pixels differ
    slightly.
    """

    source: str = _key("digits", "kind of source of the images", part="source")
    root: str | None = _key(None, "folder, file or URL of the images; null: the per-user cache")
    limit: int | None = _key(None, "use only the first rows of each split", minimum=1)
    on_error: str = _key("raise", "what to do about a corrupt image", choices=("raise", "skip"))
    shards: str | None = _key(None, "URL of published shards; null: participants hold the images")
    decode: str = _key("exact", "how JPEG files become pixels", choices=DECODINGS)
    max_pixels: int = _key(MOST_PIXELS, "most pixels of an image, against attacks", minimum=1)
    license: str | None = _key(None, "licence of the images as you state it, such as cc-by-4.0")
    image_column: str | None = _key(None, "column of the images; null: image, or the only one")
    label_column: str | None = _key(None, "column of the labels; null: label, or a class label")
    split: SplitConfig = field(default_factory=SplitConfig)


@dataclass
class ParticipantConfig:
    """One participant: a name and the prior it owns."""

    name: str = _key("", "unique name")
    prior: str = _key("", "pretrained model, SCHEME:NAME; `coopt doctor` lists the schemes")
    weight: float = _key(1.0, "share of the blocks, relative to the others' weights", above=0)
    license: str | None = _key(
        None, "licence of the prior's weights, added to what its library states"
    )


@dataclass
class SharedConfig:
    """The shared set S that every participant sees."""

    size: int = _key(256, "samples in the shared set", minimum=8)


@dataclass
class TargetsConfig:
    """How targets are made.

    The projection turns the features of a single reference into targets, the consensus those of
    all priors; the solver fits the alignments to them.

    A consensus is "pca", the principal components of all features, or "gcca", the directions that
    the most priors know (generalised canonical correlation analysis), for priors of many kinds.
    """

    dim: int = _key(128, "width n of a target", minimum=1)
    projection: str = _key("pca", "how the reference's features become targets", part="projection")
    solver: str = _key("ridge", "how the others are aligned to these targets", part="solver")
    consensus: str = _key("pca", "how all features become targets", choices=("pca", "gcca"))


@dataclass
class OptimizeConfig:
    """How the work is divided into blocks, batches and replies."""

    block_rows: int = _key(1024, "samples in a block, the unit of plan and resume", minimum=1)
    batch_size: int = _key(64, "samples in one forward pass of a prior", minimum=1)
    chunk_mb: float = _key(16.0, "most MB of targets in one reply", above=0)


@dataclass
class PayloadConfig:
    """How targets reach the platform; this never changes a result."""

    route: str = _key("flower", "flower, or the URL of a folder (file, s3) that everyone can use")


@dataclass
class AuditConfig:
    """How participants check each other."""

    fraction: float = _key(0.01, "audited samples per sample of a block", minimum=0, maximum=0.5)
    policy: str = _key("majority", "which participants are believed", part="audit")


@dataclass
class PrivacyConfig:
    """Clipping and Gaussian noise for uploads: targets, and features of the shared set.

    A clip of 0.1 clips nearly every target, so that all have the norm to which the noise is
    scaled; null means no privacy.
    """

    clip: float | None = _key(None, "largest norm of a row / sqrt(its width)", above=0)
    noise_multiplier: float = _key(
        0.0, "standard deviation of an entry's noise / largest norm", minimum=0
    )


@dataclass
class AssignmentConfig:
    """How many samples each participant optimizes, and which ones.

    The partition is iid (random), dirichlet:ALPHA (each class shared out unevenly) or column:NAME
    (by the values of a column, or of "label"). Unless it is iid, each image belongs to one
    participant, and outside the shared set no other is asked about it.

    Shares are proportional to ``participants.N.weight`` or to the measured speed. By "competence",
    images go to the participants that predict images of their kind best, up to ``most`` times as
    many as the weight would give.
    """

    partition: str = _key("iid", "who gets which samples: iid, dirichlet:ALPHA or column:NAME")
    by: str = _key("weight", "what decides who gets how much, and of what", part="assignment")
    most: float | None = _key(
        2.0, "by competence: most blocks, relative to the share by weight; null: any", minimum=1
    )


@dataclass
class RuntimeConfig:
    """How a participant computes; part of the dataset key, since it changes the last bits.

    The precision "auto" is bfloat16 on a GPU, and float32 on a CPU. A GPU multiplies float32 as
    TF32, unless it must be deterministic.
    """

    threads: int = _key(1, "CPU threads of one participant", minimum=1)
    precision: str = _key("float32", "arithmetic of the priors", choices=PRECISIONS)
    deterministic: bool = _key(False, "use only deterministic GPU kernels")


@dataclass
class SimulationConfig:
    """How the simulation uses this host, or a Ray cluster; this never changes a result.

    It starts its own local Ray, even beside another one, unless an ``address`` is given. On a
    cluster, as many participants work at once as fit, and all hosts need the program and the data
    at the same paths.
    """

    address: str | None = _key(None, "HOST:PORT of a Ray cluster to join; null: start a local Ray")
    actors: int | None = _key(None, "participants that work at once; null: all that fit", minimum=1)
    cpus: float = _key(1.0, "CPU cores reserved by one actor, at least 1", above=0)
    gpus: float | None = _key(
        None, "GPUs (or fraction) reserved by one actor; null: equal shares", minimum=0
    )


@dataclass
class StudentConfig:
    """The model that is trained on the optimized dataset, or by a self-supervised baseline.

    A baseline augments as its paper does, and flips only with ``crop_flip``. Whitening gives all
    directions of the targets the same weight, which helps if all priors are weak. The precision
    "auto" is bfloat16 on a GPU, and float32 on a CPU.
    """

    model: str = _key("resnet18", "convnet:WIDTH, a torchvision name, or timm:NAME")
    init: str | None = _key(None, "pretrained weights: a checkpoint, timm:NAME; null: random")
    epochs: int = _key(20, "passes over the dataset", minimum=1)
    objective: str = _key("regression", "training objective", part="objective")
    loss: str = _key("cosine", "loss between output and target", choices=("cosine", "mse"))
    head: str = _key(
        "mlp", "head from features to targets; dropped after training", choices=("mlp", "linear")
    )
    whiten: bool = _key(False, "give all directions of the targets the same weight")
    batch_size: int = _key(128, "samples in one step, over all devices", minimum=1)
    lr: float = _key(1e-3, "peak learning rate of AdamW", above=0)
    weight_decay: float = _key(0.01, "weight decay of AdamW", minimum=0)
    image_size: int | None = _key(
        None, "side of the input in pixels; null: that of the images, at most 224", minimum=8
    )
    augment: str = _key("crop_flip", "augmentation", choices=("none", "crop", "crop_flip"))
    precision: str = _key("auto", "arithmetic of the training", choices=PRECISIONS)


@dataclass
class ProbeConfig:
    """The linear classifier that judges a student, and the reference prior beside it."""

    limit: int = _key(10_000, "most images of each split", minimum=1)


@dataclass
class DeadlineConfig:
    """How long the platform waits, in seconds."""

    join: float = _key(120.0, "seconds to wait for all participants to appear", above=0)
    reply: float = _key(3600.0, "seconds to wait for any one reply", above=0)
    rejoin: float = _key(
        180.0, "seconds to wait for a lost participant before others take over", above=0
    )


@dataclass
class Config:
    """A whole run.

    All priors are aligned to the ``reference``: "consensus" (what all priors' features of the
    shared set have in common, see ``targets.consensus``) or "best" (the best prior).
    """

    seed: int = _key(0, "seed of the run", minimum=0)
    data: DataConfig = field(default_factory=DataConfig)
    participants: list[ParticipantConfig] = field(default_factory=list)
    min_participants: int | None = _key(
        None, "fewest participants to plan with; null: all", minimum=1
    )
    shared: SharedConfig = field(default_factory=SharedConfig)
    targets: TargetsConfig = field(default_factory=TargetsConfig)
    reference: str = _key("consensus", "what all priors are aligned to", part="reference")
    optimize: OptimizeConfig = field(default_factory=OptimizeConfig)
    payload: PayloadConfig = field(default_factory=PayloadConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    assignment: AssignmentConfig = field(default_factory=AssignmentConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    deadline: DeadlineConfig = field(default_factory=DeadlineConfig)
    tracker: str = _key("none", "where learning curves are logged as well", part="tracker")
    plugins: list[str] = field(
        default_factory=list, metadata={"help": "modules, or .py files, that add parts"}
    )
