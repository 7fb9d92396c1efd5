"""The report's figures as SVG files of their own, for a README: light or dark as the reader's."""

import re
from collections.abc import Sequence
from importlib import resources

from markupsafe import Markup, escape

OPENING = re.compile(r'<svg viewBox="0 0 ([\d.]+) ([\d.]+)" role="img" aria-label="([^"]*)">')
SPACE, TITLE = 12.0, 20.0


def standalone(figures: Sequence[tuple[str, Markup]]) -> str:
    """Return titles and figures, side by side, as one SVG file that needs nothing else."""
    found = [OPENING.match(figure) for _, figure in figures]
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
