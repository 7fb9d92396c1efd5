"""Images as cameras, scanners and microscopes write them: right, or refused with what to do."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from coopt_fl.config.schema import DataConfig
from coopt_fl.core.errors import ConfigError
from coopt_fl.data import from_dataset, open_source
from coopt_fl.data.image import UndecodableError, decode
from coopt_fl.data.opening import PNG
from coopt_fl.data.source import CorruptImage
from tests.unit.data.make import as_tensor, encode, pixels, write

Turn = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
SEEN: dict[int, Turn] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}
"""What people see of an image by the orientation in its EXIF data (CIPA DC-008, 4.6.4 A)."""


def saved(image: Image.Image, kind: str, **more: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


@pytest.mark.parametrize("orientation", SEEN)
def test_an_image_is_turned_as_people_see_it(orientation: int) -> None:
    image, tag = pixels(0, 4, 7), Image.Exif()
    tag[0x112] = orientation
    wanted = as_tensor(np.ascontiguousarray(SEEN[orientation](image)))
    for kind in ("PNG", "TIFF", "WEBP"):
        more = {"lossless": True} if kind == "WEBP" else {}
        assert torch.equal(decode(saved(Image.fromarray(image), kind, exif=tag, **more)), wanted)


def test_what_a_program_gives_is_turned_too() -> None:
    tag = Image.Exif()
    tag[0x112] = 6
    photo = Image.open(io.BytesIO(saved(Image.fromarray(pixels(0, 4, 7)), "PNG", exif=tag)))
    (image,) = from_dataset([(photo, 0)]).read(np.array([0]))
    assert torch.equal(image, as_tensor(np.rot90(pixels(0, 4, 7), -1).copy()))


def test_16_bits_are_turned_too() -> None:
    deep, tag = np.arange(6, dtype=np.uint16).reshape(2, 3) << 8, Image.Exif()
    tag[0x112] = 6
    image = decode(saved(Image.fromarray(deep), "PNG", exif=tag))
    assert image[0].tolist() == np.rot90(deep >> 8, -1).tolist()


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_grey_without_a_known_white_is_refused_by_name(
    kind: type[np.generic], tmp_path: Path
) -> None:
    ramp = (np.linspace(0, 1, 64).reshape(8, 8) * 255).astype(kind)
    write(tmp_path / "train/x.tiff", saved(Image.fromarray(ramp), "TIFF"))
    source = open_source(DataConfig(source="imagefolder", root=str(tmp_path)))
    with pytest.raises(CorruptImage, match=r"x\.tiff .* is not read: .*32-bit .*; convert it to 8"):
        source.read(source.ids)
    with pytest.raises(ConfigError, match=r"image 0 of the dataset: .*32-bit"):
        from_dataset([(Image.fromarray(ramp), 0)])


def tiff(grey: NDArray[np.generic], bits: int, kind: int = 1, white_is_zero: bool = False) -> bytes:
    """A little-endian TIFF of one strip, as TIFF 6.0 has it; two values of 12 bits are 3 bytes."""
    height, width = grey.shape
    content = grey.tobytes()
    if bits == 12:
        pairs = grey.reshape(-1, 2).astype(int).tolist()
        content = b"".join((high << 12 | low).to_bytes(3) for high, low in pairs)
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1 - white_is_zero, 273: 8}
    tags |= {277: 1, 278: height, 279: len(content), 339: kind}
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = struct.pack("<2sHI", b"II", 42, 8 + len(content))
    return head + content + struct.pack("<H", len(tags)) + fields + bytes(4)


RAMP = np.arange(0, 256, 4, np.uint16).reshape(8, 8)


@pytest.mark.parametrize(
    ("encoded", "wanted"),
    [
        (tiff(RAMP << 8 | 200, 16), RAMP),
        (tiff(RAMP << 8 | 200, 16, white_is_zero=True), 255 - RAMP),
        (tiff(RAMP.astype(np.uint8), 8, white_is_zero=True), 255 - RAMP),
        (tiff(RAMP << 4 | 9, 12), RAMP),
    ],
    ids=["16 bits", "16 bits, white is 0", "8 bits, white is 0", "12 bits"],
)
def test_a_tiff_is_as_bright_as_its_tags_say(encoded: bytes, wanted: NDArray[np.uint16]) -> None:
    assert decode(encoded)[1].tolist() == wanted.tolist()


@pytest.mark.parametrize(
    ("encoded", "said"),
    [
        (tiff(RAMP.astype(np.int16), 16, 2), "16-bit signed numbers"),
        (tiff(RAMP.astype(np.int8), 8, 2), "8-bit signed numbers"),
        (tiff(RAMP.astype(np.float16), 16, 3), "a TIFF file of an unknown kind"),
        (tiff(RAMP.astype(np.float64), 64, 3), "a TIFF file of an unknown kind"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "no known image"),
    ],
    ids=["16 bits, signed", "8 bits, signed", "float16", "float64", "a program for Ghostscript"],
)
def test_what_is_no_grey_is_refused_by_name(encoded: bytes, said: str) -> None:
    with pytest.raises(UndecodableError, match=said) as error:
        decode(encoded)
    assert not encoded.startswith(b"II") or error.value.advice == "convert it to 8 or 16 bits"


@pytest.mark.parametrize("after", [False, True])
def test_a_png_with_much_text_is_read(after: bool) -> None:
    """Before its pixels, where opening it fails, or after them, where decoding it does."""
    image, text = pixels(0, 6, 5), PngImagePlugin.PngInfo()
    for key in ("one", "other"):
        text.add(b"zTXt", key.encode() + b"\0\0" + zlib.compress(bytes(2_000_000)), after)
    encoded = saved(Image.fromarray(image), "PNG", pnginfo=text)
    with pytest.raises(ValueError, match="MAX_TEXT"):
        Image.open(io.BytesIO(encoded)).load()
    assert torch.equal(decode(encoded), as_tensor(image))


def test_a_key_allows_larger_images(tmp_path: Path) -> None:
    write(tmp_path / "train/scan.png", encode(pixels(0, 10, 10)))
    data = DataConfig(source="imagefolder", root=str(tmp_path), max_pixels=99)
    source, before = open_source(data), Image.MAX_IMAGE_PIXELS
    with pytest.raises(CorruptImage, match=r"not read: .*data\.max_pixels=99; set data\.max_pixel"):
        source.read(source.ids)
    data.max_pixels = 100
    assert len(open_source(data).read(source.ids)) == 1
    assert before == Image.MAX_IMAGE_PIXELS


def huge(width: int, height: int) -> bytes:
    """A grey PNG of one bit a pixel, all black, of 24 kB for 196 megapixels."""
    rows = zlib.compressobj()
    row = bytes(1 + -(-width // 8))
    data = b"".join(rows.compress(row) for _ in range(height)) + rows.flush()
    head = width.to_bytes(4) + height.to_bytes(4) + bytes([1, 0, 0, 0, 0])
    return PNG + b"".join(_chunk(*part) for part in ((b"IHDR", head), (b"IDAT", data), (b"IEND",)))


def _chunk(kind: bytes, data: bytes = b"") -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def test_beyond_what_pillow_opens_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's own limit is lowered, so that nothing large is decoded here."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UndecodableError, match=r"more pixels than data\.max_pixels=300"):
        decode(huge(20, 16), None, 300)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow's, which begins at 100 pixels, beside our limit
        assert decode(huge(20, 16), None, 320).shape == (3, 16, 20)
        with pytest.raises(UndecodableError, match=r"more pixels than data\.max_pixels=120"):
            decode(huge(16, 10), None, 120)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize("torn", [False, True])
def test_damaged_exif_data_leave_the_image_as_it_is(torn: bool) -> None:
    """No viewer minds them; what is torn is refused with them, too."""
    encoded = encode(pixels(0))
    damaged = encoded[:33] + _chunk(b"eXIf", b"no TIFF at all") + encoded[33:]
    with pytest.raises(SyntaxError, match="not a TIFF file"):
        Image.open(io.BytesIO(damaged)).getexif()
    if torn:
        with pytest.raises(UndecodableError, match="truncated"):
            decode(damaged[:-40])
    else:
        assert torch.equal(decode(damaged), as_tensor(pixels(0)))
