"""The fenced blocks of code in a page of documentation."""

import re

FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.M | re.S)


def fenced(page: str, *languages: str) -> list[tuple[str, str]]:
    """Return language and text of the blocks in ``languages``, or of all blocks, in order."""
    return [block for block in FENCE.findall(page) if not languages or block[0] in languages]


def python_in(page: str) -> list[str]:
    """Return the text of each block of Python, in order."""
    return [text for _, text in fenced(page, "python")]
