"""Hints for missing packages use names that pip finds on an index."""

import shlex
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from coopt_fl.core import extras
from coopt_fl.core.extras import install_hint
from coopt_fl.priors.schemes.bundled import PACKAGES


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        ("s3", {"s3fs"}),
        ("privacy", {"dp-accounting"}),
        ("baselines", {"lightly"}),
        ("report", {"opentsne", "jinja2", "matplotlib"}),
        ("export", {"onnx", "onnxscript", "onnxruntime"}),
    ],
)
def test_the_packages_of_an_extra_are_named_with_their_versions(
    extra: str, names: set[str]
) -> None:
    pip, install, *wanted = shlex.split(install_hint(extra))
    assert (pip, install) == ("pip", "install")
    found = [Requirement(one) for one in wanted]
    assert {one.name.lower() for one in found} == names
    assert all(one.specifier.contains(metadata.version(one.name)) for one in found)


def test_requirements_of_other_platforms_and_of_everyone_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listed = [
        "numpy>=2",
        "torch>=2; python_version > '3'",
        "a>=1; extra == 'x'",
        "b[c]<3,>=2; python_version > '3' and extra == 'x'",
        "d; python_version < '3' and extra == 'x'",
        "e; extra == 'y'",
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: listed)
    assert shlex.split(install_hint("x")) == ["pip", "install", "a>=1", "b[c]<3,>=2"]


def test_what_was_never_installed_is_installed_from_its_checkout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extras, "DISTRIBUTION", "not-installed-at-all")
    assert install_hint("report").startswith("pip install -e '.[report]'")


def test_bundled_priors_name_packages_that_this_project_needs_anyway() -> None:
    needed = {Requirement(one).name for one in metadata.requires("coopt-fl") or ()}
    assert {package.replace("_", "-") for package in PACKAGES.values()} <= needed
