"""The package as a wheel in another environment, outside of the checkout."""

import site
import sys
import venv
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, TINY, Shell

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("ray")]


def test_the_wheel_works_elsewhere(shell: Shell, tiny: str) -> None:
    wheels = shell.folder / "wheels"
    build = ("pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(ROOT))
    uv = Path(sys.executable).parent / "uv"
    if uv.exists():
        build = ("uv", "build", "--quiet", "--wheel", "--out-dir", str(wheels), str(ROOT))
    done = shell.run(*build)
    assert done.returncode == 0, done.stderr
    (wheel,) = wheels.glob("*.whl")

    python = _environment(shell.folder / "other")
    installer = ("uv", "pip", "install", "--python", python, "--no-deps", "--quiet", str(wheel))
    done = shell.run(*installer)
    assert done.returncode == 0, done.stderr
    where = shell.run(python, "-c", "import coopt_fl; print(coopt_fl.__file__)").stdout
    assert str(shell.folder / "other") in where

    coopt = str(Path(python).parent / "coopt")
    config = shell.run(coopt, "config", "cifar10", "--json")
    assert "open_clip:RN50/openai" in config.stdout
    measured = shell.run(coopt, "bench", "imports", "--json")
    assert '"name": "imports/help"' in measured.stdout, measured.stderr
    ran = shell.run(coopt, "run", tiny, "--out", str(shell.folder / "run"))
    assert ran.returncode == 0, ran.stderr
    assert f"{TINY['data']['limit']} x {TINY['targets']['dim']}" in ran.stdout


def _environment(folder: Path) -> str:
    """Make an environment that shares this one's dependencies, but not the package itself."""
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
