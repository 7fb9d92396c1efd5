"""Loading the weights of a student into a model that a library builds."""

from torch import nn

from coopt_fl.core.errors import ConfigError
from coopt_fl.students.checkpoint import LoadedStudent
from coopt_fl.students.models import SMALL_IMAGE

LARGER = 96
"""An image size in pixels at which a student keeps its library's stem."""


def fill(model: nn.Module, student: LoadedStudent, library: str) -> None:
    """Load the weights of ``student`` strictly; raise ConfigError with an alternative otherwise."""
    try:
        model.load_state_dict(student.model.backbone.state_dict())
    except RuntimeError:
        raise ConfigError(another(student, library)) from None


def another(student: LoadedStudent, library: str) -> str:
    """Return an error message: why the student is not a model of ``library``, and what to do."""
    own = student.model
    if own.image_size <= SMALL_IMAGE:
        reason = (
            f"has the stem for images up to {SMALL_IMAGE} pixels, which {library} does not have: "
            f"export it to onnx, or train it with student.image_size={LARGER}"
        )
    else:
        reason = f"is another model than {library}'s of that name: export it to onnx"
    return f"this student ({own.name}, {own.image_size} px) {reason}"
