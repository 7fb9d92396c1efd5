"""Another environment, with the dependencies of this one but not the package, to install it into.

In each, a foreign package ``strategies`` comes first on PYTHONPATH.
"""

import site
import sys
import venv
from pathlib import Path

from tests.e2e.conftest import ROOT, Shell


def build(shell: Shell) -> Path:
    """Build the wheel."""
    wheels = shell.folder / "wheels"
    command = ("pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(ROOT))
    uv = Path(sys.executable).parent / "uv"
    if uv.exists():
        command = ("uv", "build", "--quiet", "--wheel", "--out-dir", str(wheels), str(ROOT))
    done = shell.run(*command)
    assert done.returncode == 0, done.stderr
    (wheel,) = wheels.glob("*.whl")
    return wheel


def install(shell: Shell, *what: str) -> str:
    """Install that into another environment; return its Python."""
    python = environment(shell)
    done = shell.run("uv", "pip", "install", "--python", python, "--no-deps", "--quiet", *what)
    assert done.returncode == 0, done.stderr
    return python


def environment(shell: Shell) -> str:
    """Make the environment; return its Python."""
    package = shell.folder / "foreign" / "strategies"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('not ours')")
    shell.extra["PYTHONPATH"] = str(package.parent)
    folder = shell.folder / "other"
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    for number, shared in enumerate(site.getsitepackages()):
        links = packages / f"shared{number}"
        links.mkdir()
        for entry in Path(shared).iterdir():
            if "coopt_fl" not in entry.name and entry.suffix != ".pth":
                (links / entry.name).symlink_to(entry)
        (packages / f"shared{number}.pth").write_text(f"{links}\n")
    return str(folder / "bin" / "python")
