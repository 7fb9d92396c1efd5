"""The site: ``make docs``. Pages are Markdown; the reference is made from the code."""

import importlib.metadata
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import reference

project = "CoOpt-FL"
author = "The authors of CoOpt-FL"
release = importlib.metadata.version("coopt-fl")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["deployment"]
html_theme = "furo"
html_show_copyright = False
html_title = f"CoOpt-FL {release}"

myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # a page may begin its sections where it likes

autodoc_typehints = "description"
autodoc_member_order = "bysource"


def setup(app):
    """Let the reference be written before Sphinx looks for pages."""
    app.connect("config-inited", lambda *_: reference.write(Path(__file__).with_name("reference")))
