"""Run a function in a child process: ``python -m coopt_fl.core.apart MODULE:FUNCTION JOB``.

This keeps the caller's process untouched: Flower shuts down the Ray session that it finds, and
Fabric starts the running command again for each GPU.
"""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from coopt_fl.core import typed
from coopt_fl.core.errors import INTERRUPTED, CooptError, error_named, kind_of
from coopt_fl.core.files import write_json


def run_apart(function: str, **job: Any) -> None:
    """Call ``MODULE:FUNCTION`` in a child process with the JSON values of ``job``, and wait.

    Raises:
        CooptError: the function raised it, or the process died.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job.json"
        write_json(file, job)
        command = [sys.executable, "-m", __name__, function, str(file)]
        imports = {"PYTHONPATH": os.pathsep.join(sys.path)}
        child = subprocess.run(command, env=os.environ | imports, check=False)
        if child.returncode:
            with suppress(OSError, ValueError):
                reported = json.loads(file.with_name("error.json").read_bytes())
                raise error_named(reported["kind"], reported["message"])
            raise CooptError(f"{function} failed in a process of its own, see above")


def main(function: str, file: str) -> None:
    """Run the job that :func:`run_apart` wrote to ``file``; an error goes to ``error.json``."""
    module, _, name = function.partition(":")
    try:
        getattr(import_module(module), name)(**typed.read(Path(file), dict[str, Any]))
    except CooptError as error:
        reported = {"kind": kind_of(error), "message": str(error)}
        write_json(Path(file).with_name("error.json"), reported)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main(*sys.argv[1:])
