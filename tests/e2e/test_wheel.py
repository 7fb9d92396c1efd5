"""The package elsewhere: as a wheel, as an editable install, and in Flower's bundle."""

import shutil
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.e2e.conftest import ROOT, Made, Shell, checkout
from tests.e2e.elsewhere import environment, install

pytestmark = pytest.mark.xdist_group("ray")

WHERE = """
import sys
sys.path[:0] = sys.argv[1:]
import coopt_fl.federation.client_app, coopt_fl.federation.server_app
from coopt_fl.config.load import config_names
from coopt_fl.strategies import platform
print(coopt_fl.__file__, platform.__file__, *config_names())
"""


def test_the_wheel_works_elsewhere(made: Made) -> None:
    """Its main job, which starts the strategy, participants and Ray, is ``made``."""
    names = ZipFile(made.wheel).namelist()
    (information,) = {name.partition("/")[0] for name in names} - {"coopt_fl"}
    assert information.endswith(".dist-info")
    assert f"{information}/licenses/LICENSE" in names

    package, platform, *configs = made.shell.run(made.python, "-c", WHERE).stdout.split()
    assert package.startswith(str(made.shell.folder / "other"))
    assert Path(platform).parent == Path(package).parent / "strategies"
    assert "cifar10" in configs

    measured = made.shell.run(made.python, "-m", "coopt_fl", "bench", "imports", "--json")
    assert '"name": "imports/help"' in measured.stdout, measured.stderr


def test_an_editable_install_works_elsewhere(shell: Shell) -> None:
    python = install(shell, "--editable", str(ROOT))
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

    found = shell.run(environment(shell), "-P", "-c", WHERE, str(unzipped))
    assert found.returncode == 0, found.stderr
    package, platform, *configs = found.stdout.split()
    assert Path(package).parents[1] == Path(platform).parents[1] == unzipped
    assert configs == sorted(path.stem for path in (ROOT / "conf").glob("*.yaml"))
