"""CoOpt-FL: participants with pretrained priors turn unlabeled images into an optimized dataset."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coopt_fl import data, register
    from coopt_fl.api import (
        Result,
        centralized,
        embed,
        evaluate,
        export,
        inspect,
        pretrain,
        probe,
        run,
        train,
        write_report,
    )
    from coopt_fl.config.load import load_config
    from coopt_fl.config.schema import Config, DataConfig
    from coopt_fl.core.errors import CooptError, DataError
    from coopt_fl.data.image import Preprocess
    from coopt_fl.optimized.read import load
    from coopt_fl.priors.prior import Prior
    from coopt_fl.students.checkpoint import load_student

__version__ = "0.1.0"

_WHERE = {
    "Config": "config.schema",
    "CooptError": "core.errors",
    "DataConfig": "config.schema",
    "DataError": "core.errors",
    "Preprocess": "data.image",
    "Prior": "priors.prior",
    "Result": "api",
    "centralized": "api",
    "embed": "api",
    "evaluate": "api",
    "export": "api",
    "inspect": "api",
    "load": "optimized.read",
    "load_config": "config.load",
    "load_student": "students.checkpoint",
    "pretrain": "api",
    "probe": "api",
    "run": "api",
    "train": "api",
    "write_report": "api",
}
_MODULES = ("data", "register")
__all__ = [
    "Config",
    "CooptError",
    "DataConfig",
    "DataError",
    "Preprocess",
    "Prior",
    "Result",
    "centralized",
    "data",
    "embed",
    "evaluate",
    "export",
    "inspect",
    "load",
    "load_config",
    "load_student",
    "pretrain",
    "probe",
    "register",
    "run",
    "train",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: some imports take seconds."""
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names, for help and completion."""
    return __all__
