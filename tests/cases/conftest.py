"""The command line of the unit tests, for these, too."""

from tests.unit.conftest import coopt

__all__ = ["coopt"]
