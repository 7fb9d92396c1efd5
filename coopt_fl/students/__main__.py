"""``python -m coopt_fl.students JOB``: a training in a process that may start others.

Several GPUs train in as many processes, for each of which Fabric starts the running command again.
A run must not be started again, so it gives its training to this command, as a JSON file.
"""

import sys
from pathlib import Path

from coopt_fl.config.load import from_tree
from coopt_fl.core.errors import CooptError
from coopt_fl.core.files import read_json
from coopt_fl.core.progress import console_progress
from coopt_fl.optimized.read import load
from coopt_fl.students import train_student


def main(job: Path) -> None:
    """Train as the file ``job`` says: ``dataset``, ``out``, and a run's ``config``."""
    said = read_json(job)
    config = from_tree(said["config"], [], str(job))
    with console_progress() as progress:
        train_student(
            load(said["dataset"], mmap=True),
            config.data,
            config.student,
            config.runtime,
            Path(said["out"]),
            config.seed,
            progress=lambda point, epochs: progress.show(
                "student", point.epoch, epochs, "epochs", f"loss {point.loss:.4f}"
            ),
        )


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except CooptError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
