"""Pairs of image and target in a plain DataLoader, for any image sizes and number of workers."""

import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset
from torchvision.transforms import v2

import coopt_fl
from coopt_fl.config.schema import Config, DataConfig, TargetsConfig
from coopt_fl.core.errors import VerificationError
from coopt_fl.data import Source, open_source
from coopt_fl.optimized.block import Block
from coopt_fl.optimized.provenance import draft
from coopt_fl.optimized.read import OptimizedDataset, PairedDataset
from coopt_fl.optimized.write import publish
from tests.fenced import python_in
from tests.unit.data import make as images
from tests.unit.data.pack import PACKED
from tests.unit.optimized import make

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[3]
SIDE, COUNT = 8, 23


Targets = NDArray[np.float16]


def dataset_of(
    source: Source,
    folder: Path,
    dim: int = make.DIM,
    target: Callable[..., Targets] = make.target,
) -> None:
    """Publish a target of every image of ``source``, out of order, in two blocks."""
    order = np.random.default_rng(0).permutation(source.ids)
    blocks = [np.sort(half) for half in np.array_split(order, 2)]
    made = draft(
        config=Config(targets=TargetsConfig(dim=dim)),
        source={"name": source.name, "fingerprint": source.fingerprint, "rows": len(source)},
        contributors=make.contributors(),
        reference="ann",
    )

    def block(index: int) -> Block:
        ids, none = blocks[index], np.array([], np.int64)
        return Block(ids, target(ids, dim), np.zeros(len(ids), np.int16), none, 0.0)

    publish(folder / "dataset", made, [len(one) for one in blocks], block, lambda rows: None)


def files(kind: str, folder: Path) -> DataConfig:
    """Write images of many sizes; the array source has only one."""
    if kind == "synthetic":
        return DataConfig(kind, limit=COUNT)
    encoded = [images.encode(images.pixels(k, 5 + k, 30 - k)) for k in range(COUNT)]
    for k, image in enumerate(encoded if kind == "imagefolder" else []):
        images.write(folder / f"train/c/{k}.png", image)
    if kind == "parquet":
        images.parquet(folder / "train.parquet", encoded)
    if kind in PACKED:
        return PACKED[kind](folder, {"train": (encoded, ["a"] * COUNT)})
    return DataConfig(kind, root=str(folder))


SOURCES = ("synthetic", "imagefolder", "parquet", "saved", "shards")


def opened(kind: str, folder: Path) -> Source:
    """Open the images of a kind, with a dataset of them in ``folder``."""
    found = open_source(files(kind, folder / "images"))
    dataset_of(found, folder)
    return found


def pairs_of(source: Source, folder: Path, mmap: bool) -> PairedDataset:
    return coopt_fl.load(folder, mmap=mmap).pair(source, v2.Resize((SIDE, SIDE)))


def through(
    start: str, pairs: Dataset[tuple[Tensor, Tensor]], workers: int = 2
) -> list[tuple[Tensor, Tensor]]:
    """Return the pairs of a DataLoader with workers."""
    loader = DataLoader(pairs, batch_size=5, num_workers=workers, multiprocessing_context=start)
    return [pair for batch in loader for pair in zip(*batch, strict=True)]


def assert_read_directly(found: list[tuple[Tensor, Tensor]], source: Source, folder: Path) -> None:
    ids = coopt_fl.load(folder).ids
    assert len(found) == len(ids) == COUNT
    for (image, target), id in zip(found, ids.tolist(), strict=True):
        (as_stored,) = source.read(np.array([id]))
        resized = v2.functional.resize(as_stored, [SIDE, SIDE])
        assert image.dtype == torch.uint8 and torch.equal(image, resized)
        assert target.dtype == torch.float32
        assert target.tolist() == make.target(np.array([id]))[0].tolist()


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("kind", SOURCES)
def test_workers_give_the_pairs_that_are_read_directly(
    kind: str, mmap: bool, tmp_path: Path
) -> None:
    source = opened(kind, tmp_path)
    assert_read_directly(through("fork", pairs_of(source, tmp_path, mmap)), source, tmp_path)


@pytest.mark.whole
def test_and_so_does_a_worker_that_starts_from_nothing(tmp_path: Path) -> None:
    """One spawned worker serves all kinds, because starting it takes seconds."""
    folders = {(kind, mmap): tmp_path / f"{kind} {mmap}" for kind in SOURCES for mmap in (0, 1)}
    sources = {case: opened(case[0], folder) for case, folder in folders.items()}
    pairs = [pairs_of(sources[case], folders[case], bool(case[1])) for case in folders]
    found = through("spawn", ConcatDataset(pairs), workers=1)
    for number, (case, folder) in enumerate(folders.items()):
        part = found[number * COUNT : (number + 1) * COUNT]
        assert_read_directly(part, sources[case], folder)


def test_images_of_several_sizes_need_a_transform(tmp_path: Path) -> None:
    source = open_source(files("imagefolder", tmp_path / "images"))
    dataset_of(source, tmp_path)
    plain = coopt_fl.load(tmp_path).pair(source)
    assert len({plain[row][0].shape for row in range(COUNT)}) == COUNT
    with pytest.raises(RuntimeError, match="equal size"):
        next(iter(DataLoader(plain, batch_size=2)))


def test_a_transform_gets_the_image_and_never_the_target(run: Path) -> None:
    source, seen = open_source(make.DATA), list[Tensor]()

    def transform(image: Tensor) -> Tensor:
        seen.append(image)
        return image[:, :2].float()

    dataset = coopt_fl.load(run)
    image, target = dataset.pair(source, transform)[3]
    (as_stored,) = source.read(dataset.ids[3:4])
    assert torch.equal(seen[0], as_stored) and torch.equal(image, as_stored[:, :2].float())
    assert target.tolist() == make.target(dataset.ids[3:4])[0].tolist()


def same(one: OptimizedDataset, other: OptimizedDataset) -> bool:
    arrays = ("ids", "targets", "participants")
    equal = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)
    return equal and one.provenance == other.provenance and one.parts == other.parts


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Path]:
    """A dataset whose targets take more than a megabyte."""
    source = open_source(DataConfig("synthetic", limit=1000))
    dataset_of(source, tmp_path / "large", dim=640)
    yield tmp_path / "large"


def test_mapped_targets_are_opened_anew_by_another_process(large: Path, own_cache: Path) -> None:
    dataset = replace(coopt_fl.load(large, mmap=True), parts=(600, 40))
    sent = pickle.dumps(dataset)
    assert len(sent) < 100_000 < dataset.targets.nbytes
    again = pickle.loads(sent)
    assert isinstance(again.targets, np.memmap) and same(again, dataset)
    shutil.rmtree(own_cache)
    assert same(pickle.loads(sent), dataset), "the map is made again where it was deleted"
    shutil.rmtree(own_cache)
    make.edit(large / "dataset", lambda provenance: provenance["files"].clear())
    assert same(pickle.loads(sent), dataset), "by the provenance that was read first"
    shutil.rmtree(own_cache)
    next((large / "dataset/data").glob("*.parquet")).write_bytes(b"another")
    with pytest.raises(VerificationError):
        pickle.loads(sent)


@pytest.mark.parametrize("change", ["rows", "order", "another map"])
def test_other_targets_than_the_whole_map_are_sent_as_they_are(
    change: str, large: Path, tmp_path: Path
) -> None:
    dataset = coopt_fl.load(large, mmap=True)
    if change == "rows":
        dataset = replace(dataset, ids=dataset.ids[:7], targets=dataset.targets[:7])
    elif change == "order":
        dataset = replace(dataset, ids=dataset.ids[::-1], targets=dataset.targets[::-1])
    else:
        np.save(tmp_path / "targets.npy", np.zeros_like(dataset.targets))
        mapped: Any = np.load(tmp_path / "targets.npy", mmap_mode="r")
        dataset = replace(dataset, targets=mapped)
    assert same(pickle.loads(pickle.dumps(dataset)), dataset)


@pytest.fixture
def quartered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """The digits, and in ``runs/digits`` of the working folder each quarter's brightness.

    The targets are relative to the mean, and can be learned.
    """
    digits = open_source(DataConfig("digits"))

    def quarters(ids: NDArray[np.int64], dim: int) -> Targets:
        grey = torch.stack(digits.read(ids))[:, 0].float()
        mean = torch.nn.functional.adaptive_avg_pool2d(grey, 2).flatten(1)
        assert mean.shape[1] == dim
        return (mean - mean.mean(dim=1, keepdim=True)).numpy().astype(np.float16)

    dataset_of(digits, tmp_path / "runs/digits", 4, quarters)
    monkeypatch.chdir(tmp_path)
    return digits


def executed(page: Path) -> dict[str, Any]:
    """Execute the only block of Python of a page, and return its names."""
    (code,) = python_in(page.read_text())
    names: dict[str, Any] = {}
    exec(compile(code, str(page), "exec"), names)
    return names


def test_the_readme_s_lines_read_the_images_with_their_targets(
    quartered: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = SimpleNamespace(summary={"student": {}}, dataset=coopt_fl.load("runs/digits"))
    calls = []
    monkeypatch.setattr(
        coopt_fl, "run", lambda *how, **more: calls.append((how, more)) or done, raising=False
    )
    names = executed(ROOT / "README.md")
    assert calls == [(("digits", {"student.epochs": 2}), {"out": "runs/mine"})]
    assert names["image"].dtype == torch.uint8 and names["target"].shape[1:] == (4,)


@pytest.mark.whole
def test_the_training_loop_of_the_docs(quartered: Source) -> None:
    torch.manual_seed(0)
    names = executed(ROOT / "docs" / "how-to" / "students.md")
    model, pairs = names["model"].eval(), names["pairs"]
    images, targets = next(iter(DataLoader(pairs, batch_size=1000)))
    assert len(pairs) == len(quartered)
    assert images.dtype == torch.float32 and images.shape[1:] == (3, 32, 32)
    with torch.inference_mode():
        cosine = torch.nn.functional.cosine_similarity(model(images), targets).mean()
    assert cosine > 0.5
