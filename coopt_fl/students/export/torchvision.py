"""``--to torchvision``: a state dict that torchvision's model loads strictly.

The model must first be built without its classifier, as the example does: with an ``Identity`` in
place of its last linear layer. ``config.json`` beside it describes the preprocessing.
"""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from coopt_fl.core.errors import ConfigError
from coopt_fl.core.files import write_json
from coopt_fl.students.checkpoint import LoadedStudent
from coopt_fl.students.export import Written, description
from coopt_fl.students.export.fitting import another, fill
from coopt_fl.students.models import classifier_of

EXAMPLE = """\
import torch; from torchvision import models, transforms as T
model = models.{name}({options}); model.set_submodule({classifier!r}, torch.nn.Identity())
model.load_state_dict(torch.load("{{folder}}/{file}", weights_only=True))
norm = T.Normalize({mean}, {std})
small = T.Compose([T.Resize({size}), T.CenterCrop({size}), T.ToTensor(), norm])
features = model.eval()(small(image.convert("RGB"))[None])  # (1, {width}); image is PIL's"""


def check() -> None:
    """Do nothing: torchvision is always installed."""


def write(student: LoadedStudent, folder: Path) -> Written:
    """Save the state dict, and ``config.json`` beside it.

    Raises:
        ConfigError: torchvision has no such model.
    """
    from torchvision import models

    own = student.model
    if own.name not in models.list_models(module=models):
        raise ConfigError(f"torchvision has no {own.name!r}: export it to timm or onnx")
    sized = {"image_size": own.image_size} if own.name.startswith("vit_") else {}
    model, classifier = _empty(own.name, sized)
    fill(model, student, "torchvision")
    file = f"{own.name}.pth"
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    buffer = io.BytesIO()  # on a full disk, torch.save to a file raises no OSError
    torch.save(weights, buffer)
    (folder / file).write_bytes(buffer.getbuffer())
    described = {"architecture": own.name, "classifier": classifier, **description(student)}
    write_json(folder / "config.json", described)
    example = EXAMPLE.format(
        name=own.name,
        options=", ".join(f"{key}={value}" for key, value in sized.items()),
        classifier=classifier,
        file=file,
        size=own.image_size,
        mean=student.preprocess.mean,
        std=student.preprocess.std,
        width=own.width,
    )
    read = partial(_read, student, sized, folder / file)
    return Written(read, example, another(student, "torchvision"))


def _empty(name: str, sized: dict[str, int]) -> tuple[nn.Module, str]:
    """Return the model without its classifier, and the classifier's path in it."""
    from torchvision import models

    model = models.get_model(name, **sized)
    classifier = classifier_of(model)
    model.set_submodule(classifier, nn.Identity())
    return model, classifier


def _read(student: LoadedStudent, sized: dict[str, int], file: Path) -> Callable[[Tensor], Tensor]:
    """Return the model, loaded as in the example, preceded by its preprocessing."""
    model, _ = _empty(student.model.name, sized)
    model.load_state_dict(torch.load(file, weights_only=True))
    model.eval()
    return lambda images: model(student.preprocess(images))
