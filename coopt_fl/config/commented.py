"""A configuration as YAML with a comment above each key that has a reason."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

COLUMNS = 100


def commented(tree: Mapping[str, Any], reasons: Mapping[str, str], head: str) -> str:
    """Return ``tree`` as YAML text.

    Args:
        tree: keys and values; dictionaries become sections, each item of a list one line.
        reasons: the comment above each key, by dotted key.
        head: the comment at the top; its line breaks are kept.
    """
    lines = [line for part in head.splitlines() for line in _comment(part, "")]
    return "\n".join([*lines, *_section(tree, reasons, "", "")]) + "\n"


def _section(
    tree: Mapping[str, Any], reasons: Mapping[str, str], prefix: str, indent: str
) -> Iterator[str]:
    for name, value in tree.items():
        key = f"{prefix}{name}"
        yield from _comment(reasons.get(key, ""), indent)
        if isinstance(value, dict) and value:
            yield f"{indent}{name}:"
            yield from _section(value, reasons, f"{key}.", f"{indent}  ")
        elif isinstance(value, list) and value:
            yield f"{indent}{name}:"
            yield from (f"{indent}  - {_inline(item)}" for item in value)
        else:
            yield f"{indent}{name}: {_inline(value)}"


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        "".join(letter if letter.isprintable() else " " for letter in text),
        COLUMNS,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _inline(value: Any) -> str:
    """Return a value as YAML on one line."""
    import yaml  # slow to import, and most commands do not need it

    dumped = yaml.safe_dump([value], default_flow_style=True, width=1 << 20, sort_keys=False)
    return str(dumped).strip()[1:-1]
