"""The package elsewhere: as a wheel, as an editable install, and in Flower's bundle.

In each of them, a foreign package ``strategies`` comes first on PYTHONPATH.
"""

import shutil
import site
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.e2e.conftest import ROOT, TINY, Shell, checkout

pytestmark = pytest.mark.xdist_group("ray")

WHERE = """
import sys
sys.path[:0] = sys.argv[1:]
import coopt_fl.federation.client_app, coopt_fl.federation.server_app
from coopt_fl.config.load import config_names
from coopt_fl.strategies import platform
print(coopt_fl.__file__, platform.__file__, *config_names())
"""


@pytest.fixture(autouse=True)
def foreign(shell: Shell) -> None:
    """Put a package on PYTHONPATH that has the name of ours in the repository."""
    package = shell.folder / "foreign" / "strategies"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('not ours')")
    shell.extra["PYTHONPATH"] = str(package.parent)


def test_the_wheel_works_elsewhere(shell: Shell, tiny: str) -> None:
    wheels = shell.folder / "wheels"
    build = ("pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(ROOT))
    uv = Path(sys.executable).parent / "uv"
    if uv.exists():
        build = ("uv", "build", "--quiet", "--wheel", "--out-dir", str(wheels), str(ROOT))
    done = shell.run(*build)
    assert done.returncode == 0, done.stderr
    (wheel,) = wheels.glob("*.whl")
    names = ZipFile(wheel).namelist()
    (information,) = {name.partition("/")[0] for name in names} - {"coopt_fl"}
    assert information.endswith(".dist-info")
    assert f"{information}/licenses/LICENSE" in names

    python = _installed(shell, str(wheel))
    package, platform, *configs = shell.run(python, "-c", WHERE).stdout.split()
    assert package.startswith(str(shell.folder / "other"))
    assert Path(platform).parent == Path(package).parent / "strategies"
    assert "cifar10" in configs

    coopt = str(Path(python).parent / "coopt")
    measured = shell.run(coopt, "bench", "imports", "--json")
    assert '"name": "imports/help"' in measured.stdout, measured.stderr
    _runs(shell, coopt, tiny)


def test_an_editable_install_works_elsewhere(shell: Shell) -> None:
    python = _installed(shell, "--editable", str(ROOT))
    package, platform, *configs = shell.run(python, "-c", WHERE).stdout.split()
    assert Path(package).parents[1] == Path(platform).parents[1] == ROOT
    assert "cifar10" in configs


def test_flowers_bundle_needs_nothing_but_itself(shell: Shell) -> None:
    app = checkout(shell.folder / "checkout")
    done = shell.run("flwr", "build", "--app", str(app))
    assert done.returncode == 0, done.stdout + done.stderr
    (bundle,) = shell.folder.glob("*.fab")
    unzipped = shell.folder / "unzipped"
    with ZipFile(bundle) as file:
        file.extractall(unzipped)
    shutil.rmtree(app)

    python = _environment(shell.folder / "other")
    found = shell.run(python, "-P", "-c", WHERE, str(unzipped))
    assert found.returncode == 0, found.stderr
    package, platform, *configs = found.stdout.split()
    assert Path(package).parents[1] == Path(platform).parents[1] == unzipped
    assert configs == sorted(path.stem for path in (ROOT / "conf").glob("*.yaml"))


def _installed(shell: Shell, *what: str) -> str:
    """Return the Python of another environment, where that is installed."""
    python = _environment(shell.folder / "other")
    done = shell.run("uv", "pip", "install", "--python", python, "--no-deps", "--quiet", *what)
    assert done.returncode == 0, done.stderr
    return python


def _runs(shell: Shell, coopt: str, tiny: str) -> None:
    """Do the main job, which starts the strategy, participants and Ray."""
    out = str(shell.folder / "run")
    ran = shell.run(coopt, "run", tiny, "simulation.actors=1", "--out", out)
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
