import gc
import os
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.unit import s3

if TYPE_CHECKING:
    from tests.unit.report.runs import Runs

pytest_plugins = ("tests.tiers",)
NUMBERS = count()

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for torch here, and for all that tests start

settings.register_profile("patient", deadline=None, print_blob=True)
settings.load_profile("patient")  # a host may be slow; a failure says how to repeat it


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect no garbage while everything is imported, which would take half of the time.

    From then on, leave out what was imported whenever garbage is collected.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    """Leave nothing out at the end, or libraries report what was imported as leaks."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def unflushed() -> Iterator[None]:
    """Flush no file: nothing here need outlive a power cut, and a slow disk takes minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session")
def s3_server() -> Iterator[dict[str, str]]:
    """The environment of one S3 server for all tests."""
    with s3.running() as environment:
        yield environment


@pytest.fixture
def bucket(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket that this test alone uses."""
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    return s3.make_bucket(f"bucket-{next(NUMBERS)}")


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> "Runs":
    """A few finished runs, which no test may change."""
    from tests.unit.report.runs import make_runs  # needs torch and Flower, and a test may not

    return make_runs(tmp_path_factory.mktemp("runs"))
