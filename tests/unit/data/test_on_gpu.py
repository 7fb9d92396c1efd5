"""Decoding on the GPU, for which torchvision's CPU decoder stands in."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import ConfigError
from coopt_fl.data import Preprocess, Source, batches, on_gpu, open_source
from coopt_fl.data.image import UndecodableError, decode
from coopt_fl.data.on_gpu import decode_on_gpu
from coopt_fl.data.source import CorruptImage
from tests.unit.data import make

JPEG, GREY = (make.encode(make.pixels(k, 20 + k, 24), "JPEG") for k in range(2))
PNG, TORN = make.encode(make.pixels(2, 9, 8)), JPEG[:300]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_gpu, "DEVICE", "cpu")


def by_torchvision(file: bytes) -> Tensor:
    encoded = torch.frombuffer(bytearray(file), dtype=torch.uint8)
    image: Tensor = decode_jpeg(encoded, mode=ImageReadMode.RGB)
    return image


@pytest.mark.parametrize("files", [[], [JPEG, PNG, GREY], [PNG]])
def test_jpeg_is_decoded_there_and_all_else_by_pillow(files: list[bytes]) -> None:
    for file, image in zip(files, decode_on_gpu(files), strict=True):
        assert torch.equal(image, decode(file) if file == PNG else by_torchvision(file))


def test_what_it_refuses_is_left_to_pillow_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow decodes only the refused image; the rest of the batch is not affected."""
    decoded = on_gpu._decoded

    def refusing(jpegs: list[Tensor]) -> list[Tensor]:
        if any(len(one) == len(GREY) for one in jpegs):
            raise RuntimeError("unsupported")
        return decoded(jpegs)

    monkeypatch.setattr(on_gpu, "_decoded", refusing)
    found = decode_on_gpu([JPEG, GREY, PNG])
    expected = [by_torchvision(JPEG), decode(GREY), decode(PNG)]
    assert all(map(torch.equal, found, expected))
    with pytest.raises(UndecodableError, match="Truncated"):
        decode_on_gpu([JPEG, TORN])


def test_too_little_memory_is_not_taken_for_a_bad_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(jpegs: list[Tensor]) -> list[Tensor]:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(on_gpu, "_decoded", full)
    with pytest.raises(torch.OutOfMemoryError):
        decode_on_gpu([JPEG])


def opened(folder: Path, files: list[bytes]) -> Source:
    make.parquet(folder / "train.parquet", files)
    return open_source(DataConfig(source="parquet", root=str(folder), decode="device"))


def test_a_batch_is_read_there_whole_and_fitted_to_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    source = opened(tmp_path, [JPEG, TORN, PNG]).for_edge(8)
    assert not source.encoded, "no worker process reads it"
    fit = Preprocess(8, 8, "bilinear", (0.5,) * 3, (0.5,) * 3).square
    (batch,) = batches(source, [source.ids], 3, "skip", fit=lambda image: fit(image).float() + 0.4)
    assert batch.ids.tolist() == [0, 2] and batch.skipped == (1,)
    for image, file in zip(batch.images, (JPEG, PNG), strict=True):
        whole = decode(file) if file == PNG else by_torchvision(file)
        assert image.dtype == torch.uint8 and torch.equal(image, fit(whole[None])[0])
    with pytest.raises(CorruptImage, match="row 1") as caught:
        list(batches(source, [source.ids], 3))
    assert caught.value.id == 1
    assert source.decoder.startswith("nvJPEG of CUDA")


def test_without_a_gpu_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused when images are read for a model, but not for the report."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    source = opened(tmp_path, [JPEG])
    with pytest.raises(ConfigError, match="needs an NVIDIA GPU") as caught:
        source.for_edge(8)
    assert caught.value.exit_code == 2
    assert torch.equal(source.read(np.array([0]))[0], decode(JPEG))
