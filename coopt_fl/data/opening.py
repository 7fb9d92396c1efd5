"""Opening an image file with Pillow: by its content, whatever its name, size or texts."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

HEAD = 16
"""Bytes of a file that tell whether it is an image."""

TIFF = (b"II*\0", b"MM\0*")
FAMOUS = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    *TIFF,
    b"\0\0\0\x0cjP  \r\n\x87\n",  # JPEG 2000
)
"""How image files begin whose first bytes nothing else has."""

PNG = FAMOUS[1]
TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
"""Parts of a PNG file that do not change its pixels as they are read here."""

PROGRAMS = ("EPS",)
"""Formats whose files are programs, which Pillow has others run, such as Ghostscript."""

_UNLIMITED = threading.Lock()
"""Held while Pillow's own limit, which all threads share, is off."""


def looks_like_image(head: bytes) -> bool:
    """Tell whether a file that begins with ``head`` is certainly an image."""
    inside = head[8:12] == b"WEBP" if head.startswith(b"RIFF") else head[4:12] == b"ftypavif"
    return head.startswith(FAMOUS) or inside


def opened(encoded: bytes, most_pixels: int) -> Image.Image:
    """Return the image in a file's bytes, whose pixels are not decoded yet.

    Raises:
        Image.DecompressionBombError: it has more than ``most_pixels``.
        Exception: whatever Pillow raises.
    """
    with _UNLIMITED, _unlimited():
        Image.init()  # so that all formats are known
        formats = [name for name in Image.ID if name not in PROGRAMS]
        image = Image.open(io.BytesIO(encoded), formats=formats)
    if image.width * image.height > most_pixels:
        raise Image.DecompressionBombError
    return image


def without_texts(encoded: bytes) -> bytes:
    """Return a PNG file without its texts, of which Pillow takes so many only.

    A file is a signature and then chunks: a length of 4 bytes, a type of 4, the data, and a
    checksum of 4 (https://www.w3.org/TR/png-3/#5Chunk-layout).
    """
    kept, start = [encoded[: len(PNG)]], len(PNG)
    while start < len(encoded):
        end = start + 12 + int.from_bytes(encoded[start : start + 4])
        if encoded[start + 4 : start + 8] not in TEXTS:
            kept.append(encoded[start:end])
        start = end
    return b"".join(kept)


@contextmanager
def _unlimited() -> Iterator[None]:
    """Let Pillow open images of any size until the block ends, without a warning of its own."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
