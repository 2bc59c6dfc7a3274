"""Sphinx's settings for the documentation site; docs/build.py gathers its pages and runs Sphinx."""

from __future__ import annotations

import re
from typing import Any

project = "proxyflash"
author = copyright = "the proxyflash authors"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "index"
myst_heading_anchors = 4
highlight_language = "none"
html_theme = "furo"
html_title = "proxyflash"
html_static_path = ["static"]
html_css_files = ["site.css"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
# A link to a page's own heading may be GitHub's name for the second of two equal headings.
suppress_warnings = ["misc.highlighting_failure"]


def _as_restructured_text(app: Any, what: str, name: str, subject: object, options: object, lines: list[str]) -> None:
    """Docstrings are plain text with code in backticks: everything else is taken as it stands."""
    pieces = re.split(r"(`[^`]+`)", "\n".join(lines))
    for number, piece in enumerate(pieces):
        if number % 2:
            pieces[number] = f"``{' '.join(piece.strip('`').split())}``\\ "
        else:
            pieces[number] = re.sub(r"([\\*|_])", r"\\\1", piece)
    lines[:] = "".join(pieces).split("\n")


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", _as_restructured_text)
