"""Comments in the YAML do not change any value."""

import yaml
from hypothesis import given
from hypothesis import strategies as st

from coopt_fl.config.commented import COLUMNS, commented

VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
NAMES = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True).filter(
    lambda name: name not in ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
)
ITEMS = st.lists(st.dictionaries(NAMES, VALUES, max_size=3), max_size=3)
SECTIONS = st.dictionaries(NAMES, VALUES | ITEMS, max_size=4)
TREES = st.dictionaries(NAMES, VALUES | ITEMS | SECTIONS, min_size=1, max_size=4)


@given(TREES, st.text(), st.text())
def test_what_is_read_back_is_what_was_written(
    tree: dict[str, object], why: str, head: str
) -> None:
    reasons = dict.fromkeys(tree, why) | {
        f"{name}.{below}": why
        for name, section in tree.items()
        if isinstance(section, dict)
        for below in section
    }
    assert yaml.safe_load(commented(tree, reasons, head)) == tree


def test_each_comment_is_above_its_key_and_no_line_is_long() -> None:
    text = commented({"a": {"b": 1}, "c": [{"d": "x"}]}, {"a.b": "why " * 60, "c": "so"}, "top")
    lines = text.splitlines()
    assert lines[0] == "# top" and lines[-3:] == ["# so", "c:", "  - {d: x}"]
    assert lines[1] == "a:" and all(line.startswith("  # why") for line in lines[2:-4])
    assert max(map(len, lines)) <= COLUMNS
