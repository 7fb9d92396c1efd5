"""The exceptions that a user can meet, each with its own exit code."""

from typing import TypeVar


class CooptError(Exception):
    """Base of every error that is reported as one sentence instead of a traceback."""

    exit_code = 1

    public = ""
    """Published instead of a message that quotes another host, and so may contain its paths."""


class VerificationError(CooptError):
    """An optimized dataset is not what its provenance says."""


class ConfigError(CooptError):
    """The configuration or the command line cannot be used as it is."""

    exit_code = 2


class DataError(CooptError):
    """A data source is missing, empty, unreadable or not the one that was expected."""

    exit_code = 3


class PriorError(CooptError):
    """A prior cannot be loaded or gives features that cannot be used."""

    exit_code = 4


class ParticipantError(CooptError):
    """A participant failed, vanished, or answered something that cannot be accepted."""

    exit_code = 5


class OutputError(CooptError):
    """The output directory cannot be used, or the disk is full or failing."""

    exit_code = 6


INTERRUPTED = 130
"""Exit code after Ctrl-C, the shells' convention."""


E = TypeVar("E", bound=CooptError)


def quoting(error: E, public: str) -> E:
    """Return ``error``, whose message quotes another host, with the ``public`` message set."""
    error.public = public
    return error


def kind_of(error: CooptError) -> str:
    """Return the name under which ``error`` crosses a process or a network."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _kinds())


def error_named(name: str, message: str) -> CooptError:
    """Rebuild an error that crossed a process or a network by its name."""
    return _kinds().get(name, ParticipantError)(message)


def _kinds() -> dict[str, type[CooptError]]:
    kinds: list[type[CooptError]] = [CooptError, *CooptError.__subclasses__()]
    return {kind.__name__: kind for kind in kinds}
