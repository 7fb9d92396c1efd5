"""``--to timm``: ``model.safetensors`` and ``config.json``, loaded by ``local-dir:FOLDER``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from coopt_fl.core.errors import ConfigError
from coopt_fl.data.image import Preprocess
from coopt_fl.students.checkpoint import LoadedStudent
from coopt_fl.students.export import Written, description
from coopt_fl.students.export.fitting import another, fill
from coopt_fl.students.models import timm_options

EXAMPLE = """\
import timm
model = timm.create_model({name!r}, pretrained=True, num_classes=0).eval()
data = timm.data.resolve_model_data_config(model)
transform = timm.data.create_transform(**data)  # of a PIL image
features = model(transform(image.convert("RGB"))[None])  # (1, {width})"""


def check() -> None:
    """Do nothing: timm is always installed."""


def write(student: LoadedStudent, folder: Path) -> Written:
    """Save the weights and the configuration as timm does for the Hugging Face Hub.

    Raises:
        ConfigError: timm has no such model.
    """
    import timm

    own = student.model
    tagged = own.name.removeprefix("timm:")
    name = tagged.partition(".")[0]
    if not timm.is_model(name):
        raise ConfigError(f"timm has no {own.name!r}: export it to onnx")
    options = timm_options(tagged, own.image_size)
    model: Any = timm.create_model(tagged, pretrained=False, num_classes=0, **options)
    fill(model, student, "timm")
    kept = ("first_conv", "classifier", "fixed_input_size")  # without ImageNet's license
    known = {key: value for key, value in model.pretrained_cfg.items() if key in kept}
    described = known | {"architecture": name, "num_classes": 0} | description(student)
    model.pretrained_cfg = described
    model.register_state_dict_post_hook(_apart)
    timm.models.save_for_hf(
        model,
        str(folder),
        model_config={"pretrained_cfg": described},
        model_args=options,
        safe_serialization=True,
    )
    example = EXAMPLE.format(name="local-dir:{folder}", width=own.width)
    return Written(lambda: _read(folder), example, another(student, "timm"))


def _apart(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    """Clone all weights, because safetensors refuses tensors that share memory."""
    state |= {name: weight.clone() for name, weight in state.items()}


def _read(folder: Path) -> Callable[[Tensor], Tensor]:
    """Return the model, loaded by timm, preceded by the preprocessing from its configuration.

    It normalises as a student does: by another order of the operations, the last bit of the input
    would differ, which some models amplify beyond the tolerance.
    """
    import timm
    from timm.data.config import resolve_model_data_config

    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    data = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    size = data["input_size"][-1]
    prepare = Preprocess(size, size, data["interpolation"], data["mean"], data["std"])
    return lambda images: model(prepare(images))
