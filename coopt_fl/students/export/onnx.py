"""``--to onnx``: ``model.onnx``, from uint8 images to features, in batches of any size.

Normalisation is part of the graph. Its user has to resize the images' shorter edge to the input
size, which is in the metadata, and to crop the centre.
"""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from coopt_fl.core.errors import ConfigError
from coopt_fl.core.extras import install_hint
from coopt_fl.data.image import per_channel
from coopt_fl.students.checkpoint import LoadedStudent
from coopt_fl.students.export import Written, description, photographs

NEEDS = ("onnx", "onnxscript", "onnxruntime")
FILE = "model.onnx"
EXAMPLE = """\
import numpy as np, onnxruntime, PIL.ImageOps
session = onnxruntime.InferenceSession("{{folder}}/model.onnx")
square = PIL.ImageOps.fit(image.convert("RGB"), ({size}, {size}), PIL.Image.Resampling.BILINEAR)
batch = np.asarray(square).transpose(2, 0, 1)[None]  # uint8 (B, 3, {size}, {size}), any B
features = session.run(None, {{"images": batch}})[0]  # (B, {width})"""


class FromBytes(nn.Module):
    """A student preceded by its normalisation."""

    factor: Tensor
    offset: Tensor

    def __init__(self, student: LoadedStudent) -> None:
        super().__init__()
        mean, std = (
            per_channel(one, "cpu") for one in (student.preprocess.mean, student.preprocess.std)
        )
        self.register_buffer("factor", 1 / (255 * std))
        self.register_buffer("offset", -mean / std)
        self.backbone = student.model.backbone

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, m) of uint8 images (B, 3, s, s)."""
        return cast(Tensor, self.backbone(images.float() * self.factor + self.offset))


def problem() -> str | None:
    """Return a sentence on missing packages of the extra ``export``; None if all are installed."""
    missing = [name for name in NEEDS if find_spec(name) is None]
    return f"ONNX needs {', '.join(missing)}: {install_hint('export')}" if missing else None


def check() -> None:
    """Raise ConfigError unless the packages of the extra ``export`` are installed."""
    if found := problem():
        raise ConfigError(found)


@contextmanager
def plain_attention(model: nn.Module) -> Iterator[None]:
    """Turn off fused attention in timm's layers until the block ends.

    torch cannot export fused attention with windows (Hiera), nor with a position bias and a dynamic
    batch size (BEiT).
    """
    fused: list[Any] = [one for one in model.modules() if getattr(one, "fused_attn", False)]
    for layer in fused:
        layer.fused_attn = False
    try:
        yield
    finally:
        for layer in fused:
            layer.fused_attn = True


def keep_constants(graph: Any) -> None:
    """Add the constants to an ONNX graph that its nodes use and that it has lost.

    onnxscript 0.7.2 gives the bounds of all clamps of one value the same names, and a graph keeps
    one constant of a name. So where a value is clamped several times (Gemma 4), bounds are lost.
    """
    for node in graph:
        for value in node.inputs:
            if value is not None and value.const_value is not None and value.producer() is None:
                graph.register_initializer(value)


def write(student: LoadedStudent, folder: Path) -> Written:
    """Save the graph with its metadata.

    Raises:
        ConfigError: torch cannot make a graph of the model.
    """
    own = student.model
    images = photographs(own.image_size)[:2].contiguous()
    try:
        with warnings.catch_warnings(action="ignore"), plain_attention(own):  # torch's own warnings
            program: Any = torch.onnx.export(
                FromBytes(student).eval(),
                (images,),
                input_names=["images"],
                output_names=["features"],
                dynamic_shapes={"images": {0: "batch"}},
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ConfigError(f"torch makes no ONNX graph of {own.name}: {reason}") from error
    keep_constants(program.model.graph)
    program.model.metadata_props["coopt"] = json.dumps(
        {"student": own.name, "features": own.width, **description(student)}
    )
    program.save(str(folder / FILE))
    example = EXAMPLE.format(size=own.image_size, width=own.width)
    wrong = f"onnxruntime computes other features of {own.name} than torch: export it elsewhere"
    return Written(lambda: _read(folder / FILE), example, wrong)


def _read(file: Path) -> Callable[[Tensor], Tensor]:
    """Return the model as onnxruntime runs it."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
