"""Open an image file with Pillow by its content, whatever its name, size or text chunks."""

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
"""First bytes that occur in image files alone."""

PNG = FAMOUS[1]
TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
"""Chunks of a PNG file without influence on the pixels as they are read here."""

PROGRAMS = ("EPS",)
"""Formats whose files are programs, for which Pillow would start an interpreter (Ghostscript)."""

_UNLIMITED = threading.Lock()
"""Held while Pillow's global limit of pixels, which all threads share, is off."""


def looks_like_image(head: bytes) -> bool:
    """Tell whether a file that begins with ``head`` is certainly an image."""
    inside = head[8:12] == b"WEBP" if head.startswith(b"RIFF") else head[4:12] == b"ftypavif"
    return head.startswith(FAMOUS) or inside


def opened(encoded: bytes, most_pixels: int) -> Image.Image:
    """Open the image in a file's bytes without decoding its pixels.

    Raises:
        Image.DecompressionBombError: it has more than ``most_pixels``.
        Exception: any other error of Pillow.
    """
    with _UNLIMITED, _unlimited():
        Image.init()  # registers all formats
        formats = [name for name in Image.ID if name not in PROGRAMS]
        image = Image.open(io.BytesIO(encoded), formats=formats)
    if image.width * image.height > most_pixels:
        raise Image.DecompressionBombError
    return image


def without_texts(encoded: bytes) -> bytes:
    """Return a PNG file without its text chunks, whose size Pillow limits.

    A file is a signature followed by chunks: a length of 4 bytes, a type of 4, the data, and a
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
    """Switch off Pillow's limit of pixels, and its warning, until the block ends."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
