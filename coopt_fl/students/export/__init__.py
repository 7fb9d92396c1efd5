"""Export of a student to other tools: as a timm or torchvision model, or as an ONNX graph.

Exported files get their final names only after the tool itself has loaded them and computed the
same features of sample photographs as the checkpoint.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from coopt_fl.core.errors import ConfigError, OutputError
from coopt_fl.core.files import adopt, make_folder, require_utf8
from coopt_fl.optimized.licences import UNKNOWN
from coopt_fl.students.checkpoint import LoadedStudent
from coopt_fl.students.images import resizing

TARGETS = ("timm", "torchvision", "onnx")
"""Formats; each is a module here with ``write(student, folder) -> Written`` and ``check()``."""

TOLERANCE = 1e-4
"""Largest allowed difference of a feature, relative to the largest feature."""

PERHAPS_ROUNDING = ", which may be rounding: train the student further and try again"


@dataclass(frozen=True)
class Written:
    """Files that a target wrote, still to be verified.

    Attributes:
        read: Loads the files; returns a function from uint8 images (B, 3, s, s) to features (B, m).
        example: Python code that loads them, with ``{folder}`` in place of the folder.
        another: Error message in case the loaded model is not the same as the student.
    """

    read: Callable[[], Callable[[Tensor], Tensor]]
    example: str
    another: str


@dataclass(frozen=True)
class Exported:
    """An exported student.

    Attributes:
        checkpoint: The checkpoint that was exported.
        target: One of :data:`TARGETS`.
        folder: The folder of the files.
        files: Their names.
        difference: Largest difference between the exported model's features of photographs and the
            checkpoint's, relative to the largest feature.
        example: Python code that loads the files and computes features.
    """

    checkpoint: str
    target: str
    folder: str
    files: list[str]
    difference: float
    example: str


def export_student(student: LoadedStudent, checkpoint: Path, target: str, out: Path) -> Exported:
    """Write ``student`` into the folder ``out`` in the format ``target``, and verify the files.

    Args:
        student: The student, on the CPU.
        checkpoint: The checkpoint that it was loaded from.
        target: One of :data:`TARGETS`.
        out: Created if it does not exist; files of the same names in it are replaced.

    Raises:
        ConfigError: The target is unknown, a package is not installed, the library has no such
            model, its features differ from the student's, or the student's features are all 0, so
            that nothing can be verified.
        OutputError: The files cannot be written.
    """
    require_utf8(out, "--out", OutputError)
    if target not in TARGETS:
        raise ConfigError(f"--to {target!r} is not known; give one of {', '.join(TARGETS)}")
    module = import_module(f"{__name__}.{target}")
    module.check()
    make_folder(out)
    try:
        with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as folder:
            written: Written = module.write(student, Path(folder))
            difference = _difference(student, written.read())
            if difference > TOLERANCE:
                differ = f"features differ by {difference:.1e} of the largest one"
                hint = PERHAPS_ROUNDING if difference < 10 * TOLERANCE else ""
                raise ConfigError(f"{written.another}; {differ}{hint}")
            files = sorted(path.name for path in Path(folder).iterdir())
            for name in files:
                adopt(Path(folder) / name, out / name)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot write in {out}: {reason}; give an --out with room") from error
    example = written.example.replace("{folder}", str(out.resolve()))
    return Exported(str(checkpoint), target, str(out), files, difference, example)


def photographs(size: int) -> Tensor:
    """Return 8 tiles of scikit-learn's two sample photographs, uint8 (8, 3, size, size)."""
    from sklearn.datasets import load_sample_images

    tiles = []
    for photograph in load_sample_images().images:  # 427 x 640
        whole = torch.from_numpy(photograph.copy()).permute(2, 0, 1)
        tiles += [half for side in whole.chunk(2, 1) for half in side.chunk(2, 2)]
    square = resizing(size).square
    return torch.cat([square(tile[None].contiguous()) for tile in tiles])


@torch.inference_mode()
def _difference(student: LoadedStudent, read: Callable[[Tensor], Tensor]) -> float:
    """Return the largest difference of features from the checkpoint's, see :data:`TOLERANCE`."""
    images = photographs(student.model.image_size)
    wanted = student.features(images)
    scale = float(wanted.abs().max())
    if scale == 0:
        raise ConfigError(
            "the student's features of sample photographs are all 0, so the export cannot be "
            "verified: train the student again"
        )
    found = torch.cat([read(part) for part in images.split([1, 3, 4])])  # batches of three sizes
    largest = (found - wanted).abs().nan_to_num(torch.inf).max()
    return float(largest) / scale


def description(student: LoadedStudent) -> dict[str, object]:
    """Return licence and preprocessing under the keys of timm's ``pretrained_cfg``."""
    size = student.model.image_size
    return {
        "license": student.meta.get("license", UNKNOWN),
        "input_size": [3, size, size],
        "interpolation": student.preprocess.interpolation,
        "crop_pct": 1.0,
        "crop_mode": "center",
        "mean": list(student.preprocess.mean),
        "std": list(student.preprocess.std),
    }


def destinations() -> dict[str, str]:
    """Return, for each kind of ``student.model``, where it can be exported."""
    return {
        "convnet:WIDTH": "onnx",
        "torchvision NAME": "torchvision, onnx; timm, too, if it has the same model by this name "
        "(resnet*, resnext*, wide_resnet*, densenet*)",
        "timm:NAME": "timm, onnx; encoders without a feature vector (*_enc) are no students",
        "python:..., plug-ins": "onnx",
        "up to 64 px": "onnx; timm for timm's vision transformers, and for the few with a stem of "
        "stride 1 (vgg*, dla*) their library; others get a stem that no library has: to export "
        "them elsewhere, train with student.image_size=96",
    }
