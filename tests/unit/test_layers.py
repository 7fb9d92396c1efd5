"""Importers of the strategy, and public names; import-linter checks the layers."""

import ast
import importlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "coopt_fl"
MAY = {"federation/simulation.py", "federation/server_app.py"}


def test_only_what_starts_runs_imports_the_strategy() -> None:
    importers = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if any(name.startswith(("strategies", "coopt_fl.strategies")) for name in imported(path))
    }
    assert importers == MAY


def imported(path: Path) -> Iterator[str]:
    """Yield the names that a file imports, including imports in functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports here are absolute"
            yield from (f"{node.module}.{one.name}" for one in node.names)


def test_no_two_modules_have_one_name() -> None:
    """Module names are unique, except that a scheme's module has the scheme's name."""
    folders = [PACKAGE, PACKAGE.parent / "strategies"]
    paths = [path for folder in folders for path in folder.rglob("*.py")]
    names = Counter(path.name for path in paths if path.parent.name != "schemes")
    twice = {name for name, count in names.items() if count > 1}
    assert twice <= {"__init__.py", "__main__.py"}


PUBLIC = {
    "coopt_fl": "load load_config Config DataConfig CooptError DataError",
    "coopt_fl.data": "open_source open_labels split_labels decode",
    "coopt_fl.priors": "load_prior",
    "coopt_fl.students": "load_student fit_probe",
    "coopt_fl.targets": "uniformity fit_alignment Alignment",
}


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names_stay(package: str) -> None:
    module, names = importlib.import_module(package), PUBLIC[package].split()
    assert set(names) <= set(module.__all__)
    assert all(getattr(module, name) for name in names)
