"""A parsed page: tags, text, and tables by their captions."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input", "hr"}
Rows = list[list[str]]


@dataclass
class Page(HTMLParser):
    """What was found.

    Attributes:
        tags: every opening tag with its attributes.
        words: all text but styles.
        tables: caption, and the text of every cell, row by row.
        open: tags that are open.
    """

    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    tables: list[tuple[list[str], Rows]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append(([], []))
        if tag == "tr":
            self.tables[-1][1].append([])
        if tag in ("td", "th"):
            self.tables[-1][1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.words.append(data)
        if "caption" in self.open:
            self.tables[-1][0].append(data)
        elif "tr" in self.open and self.tables[-1][1][-1]:
            cells = self.tables[-1][1][-1]
            cells[-1] = " ".join(f"{cells[-1]} {data}".split())

    @property
    def text(self) -> str:
        """All words, with single spaces."""
        return " ".join(" ".join(self.words).split())

    def table(self, words: str, number: int = 0) -> Rows:
        """Return the rows, without the heading, of a table whose caption contains ``words``."""
        found = [rows for caption, rows in self.tables if words in " ".join(caption)]
        return found[number][1:]

    def all(self, tag: str) -> list[dict[str, str]]:
        """Return the attributes of every tag of this name."""
        return [attributes for name, attributes in self.tags if name == tag]


def read(html: str) -> Page:
    """Parse a page, and assert that every tag is closed."""
    page = Page()
    page.feed(html)
    page.close()
    assert page.open == []
    return page
