"""Counts and durations in words."""


def noun(count: float, one: str) -> str:
    """Return the singular ``one`` if ``count`` is 1, else its plural."""
    return one if count == 1 or not one else f"{one}s"


def plural(count: int, one: str) -> str:
    """Return a count with its word: "1 epoch", "1,437 samples"."""
    return f"{count:,} {noun(count, one)}".rstrip()


def about(seconds: float) -> str:
    """Return a rough duration: "about 40 s", "about 2 h 10 min"."""
    if seconds < 90:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"about {minutes} min"
    return f"about {minutes // 60} h {minutes % 60} min"
