"""A function in a process of its own: ``python -m coopt_fl.core.apart MODULE:FUNCTION JOB``.

For what must not happen in the caller's process: Flower ends the Ray session that it finds, and
Fabric starts the running command again for each GPU.
"""

import os
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from coopt_fl.core import typed
from coopt_fl.core.errors import CooptError, error_coded
from coopt_fl.core.files import write_json


def run_apart(function: str, **job: Any) -> None:
    """Call ``MODULE:FUNCTION`` with the plain values of ``job``, and wait for its end.

    Raises:
        CooptError: of the kind that the function raised; its sentence is on standard error.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job.json"
        write_json(file, job)
        command = [sys.executable, "-m", __name__, function, str(file)]
        imports = {"PYTHONPATH": os.pathsep.join(sys.path)}
        child = subprocess.run(command, env=os.environ | imports, check=False)
    if child.returncode:
        raise error_coded(child.returncode, f"{function} failed in its own process, see above")


def main(function: str, file: str) -> None:
    """Do what :func:`run_apart` asked for."""
    module, _, name = function.partition(":")
    try:
        getattr(import_module(module), name)(**typed.read(Path(file), dict[str, Any]))
    except CooptError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(*sys.argv[1:])
