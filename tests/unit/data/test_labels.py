"""Labels can only be read through one module, which nothing between images and targets uses."""

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

import coopt_fl
from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.data import batches, open_labels, open_source, split_labels
from coopt_fl.data.source import NoSplitError
from tests.unit.data.make import encode, parquet, pixels, tree, write

PACKAGE = Path(coopt_fl.__file__).parent
LOOKERS = {
    PACKAGE / "students" / "probe.py",
    PACKAGE / "students" / "embed.py",
    PACKAGE / "report" / "neighbours.py",
    PACKAGE / "data" / "partition.py",
}
"""Modules that may use labels, for judging, reports or partitions: no target depends on them."""

DOOR = {PACKAGE / "data" / name for name in ("__init__.py", "labels.py", "own.py")}
"""Modules that export ``open_labels`` and ``split_labels``, or accept labels from a program."""


def asked_for(path: Path) -> set[str]:
    """Return the parts of all names that a file imports, and all attributes that it uses."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr != "labels":  # such as those of an axis
            found.add(node.attr)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            names = [module, *(alias.name for alias in node.names)]
            found |= {part for name in names for part in name.split(".")}
    return found


def test_only_the_probe_and_the_report_open_the_door() -> None:
    """No other module uses its two functions, the module itself, or a source's method behind it."""
    files = [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "strategies").rglob("*.py")]
    ways = {"open_labels", "split_labels", "labels", "given_labels"}
    assert {path for path in files if ways & asked_for(path)} == LOOKERS | DOOR


def folder(root: Path) -> DataConfig:
    tree(root, ["train/a/0.png", "train/b/1.png"])
    return DataConfig(source="imagefolder", root=str(root))


def table(root: Path) -> DataConfig:
    parquet(root / "train.parquet", [encode(pixels(k)) for k in range(2)], label=[0, 1])
    return DataConfig(source="parquet", root=str(root))


def tiny(root: Path) -> DataConfig:
    for wnid in ("n1", "n2"):
        write(root / f"train/{wnid}/images/0.JPEG", encode(pixels(0, 64, 64), "JPEG"))
    return DataConfig(source="tiny_imagenet", root=str(root))


@pytest.mark.parametrize("make", [folder, table, tiny])
def test_only_a_split_that_does_not_exist_has_no_labels(
    make: Callable[[Path], DataConfig], tmp_path: Path
) -> None:
    data = make(tmp_path)
    assert sorted(split_labels(data, "train").tolist()) == [0, 1]
    assert split_labels(data, "test") is None
    for open_it in (open_labels, open_source):
        with pytest.raises(NoSplitError):
            open_it(data, "test")
    missing = DataConfig(source=data.source, root=str(tmp_path / "nowhere"))
    for split in ("train", "test"):
        with pytest.raises(DataError) as caught:
            split_labels(missing, split)
        assert not isinstance(caught.value, NoSplitError)


def test_labels_that_cannot_be_read_are_an_error_and_not_none(tmp_path: Path) -> None:
    """If the probe just said "no labels", a truncated file would go unnoticed."""
    images = [encode(pixels(0))]
    for name, says in (
        ("torn", "cannot be read as Parquet"),
        ("text", "label is text in .*test.parquet, but not in .*train.parquet"),
    ):
        data = table(tmp_path / name)
        if name == "torn":
            write(tmp_path / name / "test.parquet", b"PAR1 torn")
        else:
            parquet(tmp_path / name / "test.parquet", images, label=["cat"])
        with pytest.raises(DataError, match=says):
            split_labels(data, "test")
    data = folder(tmp_path / "empty")
    (tmp_path / "empty" / "val").mkdir()
    with pytest.raises(DataError, match="val holds no images"):
        split_labels(data, "test")
    data = tiny(tmp_path / "tiny")
    write(tmp_path / "tiny/val/images/0.JPEG", b"")
    with pytest.raises(DataError, match=r"val_annotations\.txt cannot be read"):
        split_labels(data, "test")


def test_nothing_that_is_read_depends_on_labels(tmp_path: Path) -> None:
    """With other labels, the same images give the same batches in every attribute."""
    seen = []
    for name, labels in (("one", [0, 1, 2]), ("other", [2, 0, 1])):
        images = [encode(pixels(k)) for k in range(3)]
        parquet(tmp_path / name / "train.parquet", images, label=labels)
        data = DataConfig(source="parquet", root=str(tmp_path / name))
        assert open_labels(data, "train").tolist() == labels
        source = open_source(data)
        (batch,) = batches(source, [source.ids], 3)
        assert set(vars(batch)) == {"ids", "pixels", "sizes", "skipped"}
        assert not any("label" in name or "target" in name for name in vars(source))
        seen.append((batch.ids.tolist(), batch.images.tolist(), batch.skipped))
    assert seen[0] == seen[1]
