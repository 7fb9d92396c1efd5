"""One seed per operation, so that the order of operations never changes a result."""

import hashlib


def derive_seed(seed: int, *words: str | int) -> int:
    """Return a 63-bit seed for the operation named by ``words`` within the run ``seed``."""
    text = "\x1f".join(str(word) for word in (seed, *words))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
