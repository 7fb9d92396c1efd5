"""Labels have one door, and nothing on the way from images to targets goes through it."""

import ast
from pathlib import Path

import coopt_fl
from coopt_fl.config.schema import DataConfig
from coopt_fl.data import batches, open_source
from coopt_fl.data.labels import open_labels
from tests.unit.data.make import encode, parquet, pixels

PACKAGE = Path(coopt_fl.__file__).parent
LOOKERS = {PACKAGE / "students" / "probe.py", PACKAGE / "report" / "pictures.py"}
"""They judge, or show, what is finished; nothing that they find out goes back."""


def imported(path: Path) -> set[str]:
    """Every module, and every name in it, that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def test_only_the_probe_and_the_report_open_the_door() -> None:
    files = [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "strategies").rglob("*.py")]
    assert {path for path in files if "coopt_fl.data.labels" in imported(path)} == LOOKERS


def test_nothing_that_is_read_depends_on_labels(tmp_path: Path) -> None:
    """The same images with other labels give the same batches, attribute by attribute."""
    seen = []
    for name, labels in (("one", [0, 1, 2]), ("other", [2, 0, 1])):
        images = [encode(pixels(k)) for k in range(3)]
        parquet(tmp_path / name / "train.parquet", images, label=labels)
        data = DataConfig(source="parquet", root=str(tmp_path / name))
        assert open_labels(data, "train").tolist() == labels
        source = open_source(data)
        (batch,) = batches(source, [source.ids], 3)
        assert set(vars(batch)) == {"ids", "images", "skipped"}
        assert not any("label" in name or "target" in name for name in vars(source))
        seen.append((batch.ids.tolist(), batch.images.tolist(), batch.skipped))
    assert seen[0] == seen[1]
