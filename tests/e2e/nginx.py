"""An nginx to test with: the host's own, or Debian's package unpacked into a temporary folder."""

import atexit
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

SECONDS = 120

IMPATIENT = ("-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=20")
"""Where there is no network, apt must say so soon."""


@lru_cache(maxsize=1)
def find_nginx() -> str | None:
    """Return the path of an nginx that runs here; None if there is none to be had."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    return found or _unpacked()


def _unpacked() -> str | None:
    """Unpack Debian's nginx; the system, and its lists of packages, stay as they are."""
    folder = Path(tempfile.mkdtemp(prefix="coopt-nginx-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for place in ("lists/partial", "cache/archives/partial"):
        (folder / place).mkdir(parents=True)
    own = ("-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache")
    program = folder / "root" / "usr" / "sbin" / "nginx"
    for command in (
        ("apt-get", *IMPATIENT, *own, "update"),
        ("apt-get", *IMPATIENT, *own, "download", "nginx"),
        ("sh", "-c", "dpkg -x nginx_*.deb root"),
        (str(program), "-v"),
    ):
        if not _works(folder, command):
            return None
    return str(program)


def _works(folder: Path, command: tuple[str, ...]) -> bool:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, timeout=SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
