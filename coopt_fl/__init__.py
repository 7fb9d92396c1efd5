"""CoOpt-FL: participants with pretrained priors turn unlabeled images into an optimized dataset."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coopt_fl.config.load import load_config
    from coopt_fl.config.schema import Config, DataConfig
    from coopt_fl.core.errors import CooptError, DataError
    from coopt_fl.optimized.read import load

__version__ = "0.1.0"
__all__ = ["Config", "CooptError", "DataConfig", "DataError", "load", "load_config"]

_WHERE = {
    "Config": "config.schema",
    "CooptError": "core.errors",
    "DataConfig": "config.schema",
    "DataError": "core.errors",
    "load": "optimized.read",
    "load_config": "config.load",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: some take seconds."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
