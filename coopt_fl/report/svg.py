"""Matplotlib figures as SVG that takes its colours and its font from the page around it.

Figures are drawn in placeholder colours, which are replaced by CSS variables. The same figure is
then legible in light and dark mode, and its series have the colours of the tables.
"""

import io
import re
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure

SERIES = 10
"""Number of distinguishable colours; further series are drawn in the colour of "others"."""

INK, MUTED, RULE, PAPER, OTHERS = "#fd00fd", "#fd01fd", "#fd02fd", "#fd03fd", "#fd04fd"

_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    PAPER: "--paper",
    OTHERS: "--others",
    **{f"#fe{index:02x}fe": f"--series-{index}" for index in range(SERIES)},
}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "path.simplify": False,
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": RULE,
    "xtick.labelcolor": MUTED,
    "xtick.labelsize": 8,
    "ytick.left": False,
    "ytick.color": RULE,
    "ytick.labelcolor": MUTED,
    "ytick.labelsize": 8,
}

_OPENING = re.compile(r'<svg viewBox="0 0 ([\d.]+) ([\d.]+)" role="img" aria-label="([^"]*)">')
SPACE, TITLE = 12.0, 20.0


def series(index: int) -> str:
    """Return the placeholder of a series' colour."""
    return f"#fe{index:02x}fe" if 0 <= index < SERIES else OTHERS


def variable(index: int) -> str:
    """Return the CSS variable of a series' colour."""
    return f"var({_VARIABLES[series(index)]})"


def svg(name: str, alt: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> Markup:
    """Return an inline SVG of the figure that ``draw`` fills.

    Args:
        name: prefix of the SVG's ids, unique on the page.
        alt: text alternative for screen readers.
        size: width and height in inches; the page uses only their ratio.
        draw: draws on an empty figure, in the placeholder colours.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size)
        draw(figure)
        figure.savefig(buffer, format="svg", transparent=True)
    text = buffer.getvalue()
    return Markup(_for_page(text[text.index("<svg") :], name, alt))


def _for_page(text: str, name: str, alt: str) -> str:
    """Return SVG without global styles, metadata and comments, and with unique ids."""
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", lambda tag: _tag(tag[0], name), text)
    view = re.search(r'viewBox="[^"]*"', text)
    assert view is not None  # matplotlib always writes one
    opening = f'<svg {view[0]} role="img" aria-label="{escape(alt)}">'
    return re.sub(r"\s*\n\s*", "\n", re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1))


def _tag(text: str, name: str) -> str:
    """Return a tag with prefixed ids, rounded numbers, and the page's font and colours."""
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"(\d\.\d)\d+", r"\1", text)
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)
    for placeholder, css in _VARIABLES.items():
        text = text.replace(placeholder, f"var({css})")
    return text


def standalone(figures: Sequence[tuple[str, Markup]]) -> str:
    """Return titles and figures, side by side, as one self-contained SVG file."""
    found = [_OPENING.match(figure) for _, figure in figures]
    sizes = [(float(one[1]), float(one[2])) for one in found if one]
    parts, x = [], SPACE
    for (title, figure), (width, height) in zip(figures, sizes, strict=True):
        parts.append(f'<text x="{x}" y="{TITLE}" class="title">{escape(title)}</text>')
        place = f'<svg x="{x}" y="{TITLE + SPACE}" width="{width}" height="{height}"'
        parts.append(str(figure).replace("<svg", place, 1))  # Markup would escape it
        x += width + SPACE
    alt = "; ".join(one[3] for one in found if one)
    y = TITLE + SPACE + max(height for _, height in sizes) + SPACE
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {x:g} {y:g}" role="img" aria-label="{alt}">\n<style>\n{_colours()}'
        "text { font-family: system-ui, sans-serif; }\n"
        ".title { font-size: 12px; font-weight: 600; fill: var(--ink); }\n</style>\n"
        '<rect width="100%" height="100%" style="fill: var(--paper)"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _colours() -> str:
    """Return the part of the page's style that defines its colours."""
    style = resources.files("coopt_fl.report").joinpath("templates/style.css").read_text()
    return style[: style.index("* {")]
