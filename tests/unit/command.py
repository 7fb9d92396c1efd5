"""The command line, called in this process on a configuration that takes a second."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from coopt_fl.cli.main import main

TINY: dict[str, Any] = {
    "data": {"source": "synthetic", "limit": 120},
    "participants": [
        {"name": "alpha", "prior": "trivial:24"},
        {"name": "beta", "prior": "trivial:20"},
    ],
    "shared": {"size": 40},
    "targets": {"dim": 8},
    "optimize": {"block_rows": 20, "batch_size": 10},
    "student": {"model": "convnet:2", "epochs": 1},
}


class Coopt:
    """Calls the command line as a shell would, in this process."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
    ) -> None:
        self._patch, self._capsys, self.folder = monkeypatch, capsys, folder
        self.tiny = str(folder / "tiny.yaml")
        Path(self.tiny).write_text(yaml.safe_dump(TINY))

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Return exit code, stdout and stderr."""
        self._patch.setattr("sys.argv", ["coopt", *arguments])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = self._capsys.readouterr()
        return code, out, err

    def centralized(self, *changes: str) -> tuple[int, str, str]:
        """Run the smallest job that makes a dataset and a student."""
        out = str(self.folder / "run")
        return self("centralized", self.tiny, "--prior", "alpha", "--out", out, *changes, "--json")
