"""A Chromium to look with: the host's own, or Debian's package unpacked into a temporary folder."""

import atexit
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from tests.e2e.nginx import IMPATIENT

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 240

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""For any user, root included, and without a word to anybody."""


@dataclass(frozen=True)
class Chromium:
    """A program that runs here, with what its environment needs."""

    program: str
    env: dict[str, str] = field(default_factory=dict)

    def works(self) -> bool:
        command = (self.program, "--headless", *QUIET, "--dump-dom", "about:blank")
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            return _works(Path(profile), (*command, f"--user-data-dir={profile}"), self.env)


@lru_cache(maxsize=1)
def find_chromium() -> Chromium | None:
    """Return a Chromium that runs here; None if there is none to be had."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    chromium = Chromium(found) if found else _unpacked()
    return chromium if chromium and chromium.works() else None


def _unpacked() -> Chromium | None:
    """Unpack Debian's Chromium, and what it needs that is not here; the system stays as it is."""
    folder = Path(tempfile.mkdtemp(prefix="coopt-chromium-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for place in ("lists/partial", "archives/partial"):
        (folder / place).mkdir(parents=True)
    options = (f"Dir::State::Lists={folder}/lists", f"Dir::Cache={folder}", "Debug::NoLocking=1")
    own = [word for option in options for word in ("-o", option)]
    needed = ("--yes", "--download-only", "--no-install-recommends", "install", "chromium")
    for command in (
        ("apt-get", *IMPATIENT, *own, "update"),
        ("apt-get", *IMPATIENT, *own, *needed),
        ("sh", "-c", "for file in archives/*.deb; do dpkg -x $file root; done"),
    ):
        if not _works(folder, command, {}):
            return None
    root = folder / "root"
    usual = list((root / "usr" / "lib").glob("*-linux-gnu*"))
    libraries = [str(path) for folder in usual for path in (folder, folder / "pulseaudio")]
    env = {"LD_LIBRARY_PATH": os.pathsep.join(libraries)}
    if (root / "etc" / "fonts").is_dir():
        env["FONTCONFIG_SYSROOT"] = str(root)
    return Chromium(str(root / "usr" / "lib" / "chromium" / "chromium"), env)


def _works(folder: Path, command: tuple[str, ...], env: dict[str, str]) -> bool:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **env},
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
