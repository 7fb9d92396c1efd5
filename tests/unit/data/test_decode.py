"""Decoding file bytes to RGB, and reasons for failure."""

import io
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from coopt_fl.config.schema import DataConfig
from coopt_fl.data import open_source
from coopt_fl.data.image import UndecodableError, decode
from tests.unit.data.make import as_tensor, encode, pixels, write


def saved(image: Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def test_lossless_colour_is_exact() -> None:
    image = pixels(0, 7, 9)
    for kind in ("PNG", "BMP", "PPM", "TIFF"):
        assert torch.equal(decode(encode(image, kind)), as_tensor(image))


def test_jpeg_is_pillows() -> None:
    encoded = encode(pixels(1, 16, 16), "JPEG")
    reference = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    assert torch.equal(decode(encoded), as_tensor(reference))


@pytest.mark.parametrize(
    ("edge", "size"), [(400, (304, 400)), (153, (304, 400)), (152, (152, 200)), (38, (38, 50))]
)
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_is_large_enough(
    edge: int, size: tuple[int, int]
) -> None:
    """At that scale its pixels are nearly averages of the full image's pixels."""
    soft = Image.fromarray(pixels(1, 6, 8)).resize((400, 304), Image.Resampling.BICUBIC)
    encoded = saved(soft, "JPEG")
    image = decode(encoded, edge)
    assert image.shape == (3, *size)
    expected = Image.fromarray(decode(encoded).permute(1, 2, 0).numpy())
    expected = expected.resize(size[::-1], Image.Resampling.BOX)
    distance = (image.float() - as_tensor(np.asarray(expected)).float()).abs()
    assert distance.mean() < 2 and distance.max() < 20


def test_other_files_have_no_smaller_scale() -> None:
    image = pixels(2, 64, 64)
    assert torch.equal(decode(encode(image, "PNG"), 8), as_tensor(image))


def test_only_who_asks_for_it_reads_at_a_smaller_scale(tmp_path: Path) -> None:
    """Only the reader that asks for it gets the smaller scale; the shared source is not changed."""
    write(tmp_path / "train" / "0.jpg", encode(pixels(1, 64, 80), "JPEG"))
    shapes = {}
    for how in ("exact", "reduced"):
        data = DataConfig(source="imagefolder", root=str(tmp_path), decode=how)
        source = open_source(data)
        for name, one in {"small": source.for_edge(20), "whole": source}.items():
            shapes[how, name] = tuple(one.read(one.ids)[0].shape)
    whole, half = (3, 64, 80), (3, 32, 40)
    assert shapes == {
        ("exact", "small"): whole,
        ("exact", "whole"): whole,
        ("reduced", "small"): half,
        ("reduced", "whole"): whole,
    }
    assert source.decoder.startswith(f"Pillow {PIL.__version__}")
    assert open_source(DataConfig(source="digits", limit=9)).decoder == ""


def test_grey_is_repeated() -> None:
    grey = pixels(2)[..., 0]
    image = decode(saved(Image.fromarray(grey)))
    assert torch.equal(image, torch.from_numpy(grey.copy()).expand(3, -1, -1))


def test_16_bit_grey_keeps_its_upper_bits() -> None:
    deep = np.array([[0, 255, 256], [0x1234, 0x8000, 0xFFFF]], np.uint16)
    expected = torch.tensor([[0, 0, 1], [0x12, 0x80, 0xFF]], dtype=torch.uint8)
    for kind in ("PNG", "TIFF"):
        assert torch.equal(decode(saved(Image.fromarray(deep), kind))[1], expected)


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "LA", "1", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.fromarray(pixels(3)).convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    expected = as_tensor(np.asarray(image.convert("RGB")))
    assert torch.equal(decode(saved(image, kind)), expected)


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "holds no bytes"),
        (b"<html>not found</html>", "no known image format"),
        (encode(pixels(0, 64, 64), "JPEG")[:900], "truncated"),
    ],
)
def test_unusable_bytes_have_a_reason(encoded: bytes, reason: str) -> None:
    with pytest.raises(UndecodableError, match=reason):
        decode(encoded)


WHOLE = [encode(pixels(4), kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")]


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it repairs
@settings(max_examples=150)
@given(st.sampled_from(WHOLE), st.data())
def test_damage_never_raises_anything_else(whole: bytes, data: st.DataObject) -> None:
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(0, len(whole))) :]
    try:
        image = decode(bytes(damaged))
    except UndecodableError as error:
        assert str(error)
    else:
        assert image.dtype == torch.uint8 and image.shape[0] == 3
