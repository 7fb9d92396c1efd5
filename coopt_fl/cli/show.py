"""Print a command's result, for people or for machines, or its error."""

import errno
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from rich.console import Console

from coopt_fl.core.errors import CooptError, OutputError
from coopt_fl.core.log import log_of
from coopt_fl.report.terminal import PIPE_WIDTH

OF_THE_HOST = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO),
    *(errno.ELOOP, errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE, errno.ESTALE),
)
"""Errors of the file system that the user can fix, and that no code reports more precisely."""

WORDS = 300
"""Most characters shown of an unforeseen error's message."""


def tell_error(error: Exception) -> int:
    """Say in one sentence what went wrong, and return the exit code."""
    if isinstance(error, CooptError):
        sentence, code = f"error: {error}", error.exit_code
    elif isinstance(error, OSError) and error.filename and error.errno in OF_THE_HOST:
        place, file = log_of(error), os.fsdecode(error.filename)
        where = f" (its traceback is in {place})" if place else ""
        sentence, code = (
            f"error: {file} cannot be used: {error.strerror}; mend that, then run the same command "
            f"again{where}",
            OutputError.exit_code,
        )
    else:
        from coopt_fl.core.typed import plain_words  # imports numpy

        place, message = log_of(error), plain_words(str(error))[:WORDS]
        shown = f"{type(error).__name__}: {message}" if message else type(error).__name__
        where = f"its traceback is in {place}" if place else "--verbose shows its traceback"
        sentence, code = f"error: this was not foreseen: {shown}; {where}", 1
    with suppress(OSError):  # if nothing can be printed, the exit code has to do
        Console(stderr=True).print(sentence, markup=False, highlight=False, soft_wrap=True)
    return code


def print_result(
    value: dict[str, Any], render: Callable[[dict[str, Any]], Any], as_json: bool
) -> None:
    """Print tables for people, or one line of JSON for machines (then the tables go to stderr).

    Raises:
        OutputError: it cannot be printed, as on a full disk.
    """
    try:
        _print(value, render, as_json)
    except BrokenPipeError:  # the reader, such as head, has read enough
        raise
    except OSError as error:
        raise OutputError(
            f"all is done, but the result cannot be printed ({error.strerror}): print it elsewhere"
        ) from error


def _print(value: dict[str, Any], render: Callable[[dict[str, Any]], Any], as_json: bool) -> None:
    console = Console(stderr=as_json)
    if not console.file.isatty():
        console.width = PIPE_WIDTH
    console.print(render(value), crop=False)  # a cropped command could not be copied
    if as_json and sys.stdout is not None:  # None if it was closed
        utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        print(json.dumps(value, ensure_ascii=not utf8), flush=True)
