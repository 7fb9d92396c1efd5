"""CIFAR and Fashion-MNIST in their own formats on disk, and the errors without them.

The files are tiny; torchvision's sums of the real ones are replaced by theirs.
"""

import gzip
import hashlib
import pickle
import socket
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision import datasets

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import DataError
from coopt_fl.data import open_source
from coopt_fl.data.labels import open_labels
from coopt_fl.data.sources.downloads import address, present
from tests.unit.data.make import write

ROWS = 4


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError(socket.gaierror(-3, "Temporary failure in name resolution"))

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def planes(seed: int) -> NDArray[np.uint8]:
    """CIFAR's rows: (R, 3072), a red plane, then green, then blue."""
    return np.random.default_rng(seed).integers(0, 256, (ROWS, 3072), dtype=np.uint8)


def cifar(root: Path, kind: type, label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the batches of CIFAR-10 or -100, batch k holding ``planes(k)``."""
    folder, lists = root / kind.base_folder, [kind.train_list, kind.test_list]
    sums, number = [], 0
    for entries in lists:
        sums.append([])
        for name, _ in entries:
            entry = {"data": planes(number), label: [(number + k) % 10 for k in range(ROWS)]}
            path = write(folder / name, pickle.dumps(entry))
            sums[-1].append([name, hashlib.md5(path.read_bytes()).hexdigest()])
            number += 1
    meta = write(folder / kind.meta["filename"], pickle.dumps({kind.meta["key"]: ["x"] * 10}))
    digest = hashlib.md5(meta.read_bytes()).hexdigest()
    monkeypatch.setattr(kind, "train_list", sums[0])
    monkeypatch.setattr(kind, "test_list", sums[1])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": digest})


@pytest.mark.parametrize(
    ("source", "kind", "label", "batches"),
    [("cifar10", datasets.CIFAR10, "labels", 5), ("cifar100", datasets.CIFAR100, "fine_labels", 1)],
)
def test_cifar(
    source: str,
    kind: type,
    label: str,
    batches: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cifar(tmp_path, kind, label, monkeypatch)
    data = DataConfig(source=source, root=str(tmp_path))
    expected = np.concatenate([planes(k) for k in range(batches)]).reshape(-1, 3, 32, 32)
    train, test = open_source(data), open_source(data, "test")
    assert np.array_equal(torch.stack(train.read(train.ids)), expected)
    assert np.array_equal(torch.stack(test.read(test.ids)), planes(batches).reshape(-1, 3, 32, 32))
    wanted = [(b + k) % 10 for b in range(batches) for k in range(ROWS)]
    assert open_labels(data, "train").tolist() == wanted
    assert present(data)
    data.limit = 3
    assert (len(open_source(data)), open_labels(data, "train").tolist()) == (3, wanted[:3])


def idx(array: NDArray[np.uint8]) -> bytes:
    """MNIST's format: magic (type 8 = uint8, dimensions), sizes big-endian, then the bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


@pytest.mark.parametrize("packed", [False, True])
def test_fashion_mnist(packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The four files as they are fetched by hand (.gz), or unpacked."""
    grey = np.random.default_rng(0).integers(0, 256, (ROWS, 28, 28), dtype=np.uint8)
    raw, resources = tmp_path / "FashionMNIST/raw", []
    for split in ("train", "t10k"):
        for kind, array in (("images-idx3", grey), ("labels-idx1", np.arange(ROWS, dtype="u1"))):
            name, content = f"{split}-{kind}-ubyte", idx(array)
            resources.append(
                (f"{name}.gz", hashlib.md5(gzip.compress(content, mtime=0)).hexdigest())
            )
            if packed:
                write(raw / f"{name}.gz", gzip.compress(content, mtime=0))
            else:
                write(raw / name, content)
    monkeypatch.setattr(datasets.FashionMNIST, "resources", resources)
    data = DataConfig(source="fashion_mnist", root=str(tmp_path))
    images = torch.stack(open_source(data, "test").read(np.arange(ROWS)))
    assert np.array_equal(images, grey[:, None].repeat(3, axis=1))
    assert open_labels(data, "test").tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("source", ["cifar10", "cifar100", "fashion_mnist"])
def test_offline_says_what_to_fetch_and_where_to_put_it(
    source: str, tmp_path: Path, own_cache: Path
) -> None:
    places = {str(tmp_path / "mine"): tmp_path / "mine", None: own_cache}
    below = "FashionMNIST/raw" if source == "fashion_mnist" else ""
    for root, folder in places.items():
        assert not present(DataConfig(source=source, root=root))
        with pytest.raises(DataError, match=r"fetch .* by hand, put it into") as caught:
            open_source(DataConfig(source=source, root=root))
        assert str(folder / below) in str(caught.value)
        assert "https://" in str(caught.value) and "name resolution" in str(caught.value)


def test_damaged_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar(tmp_path, datasets.CIFAR10, "labels", monkeypatch)
    write(tmp_path / "cifar-10-batches-py/data_batch_3", b"torn")
    with pytest.raises(DataError, match="cifar10 is not in"):
        open_source(DataConfig(source="cifar10", root=str(tmp_path)))


@pytest.mark.parametrize("source", ["cifar10", "cifar100", "fashion_mnist"])
def test_address_is_where_a_download_begins(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuse(request: urllib.request.Request, *_: object, **__: object) -> None:
        asked.append(request.full_url)
        raise urllib.error.URLError("refused")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(DataError):
        open_source(DataConfig(source=source, root=str(tmp_path)))
    assert asked and asked[0].startswith(address(source))
