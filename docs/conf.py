"""The documentation as a site: `make docs` builds docs/_build/html, without a network, with warnings as errors.

Sphinx reads the Markdown through MyST; the theme is Furo. Reference pages are the same as in the checkout, where
docs/generated.py wrote them from the code, but that public names come with their docstrings in full.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import blocks  # noqa: E402
import docstrings  # noqa: E402
import generated  # noqa: E402
import loads  # noqa: E402
from sphinx.util import logging  # noqa: E402

project = "bart"
author = "The bart authors"
copyright = "the bart authors, Apache-2.0"
version = release = generated.version()

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
highlight_language = "text"
nitpicky = False  # types of numpy and pyarrow have no pages here

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_inherit_docstrings = False  # not those of torch
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
_ALIASES = ("Floats", "Floats32", "Ints", "Bools", "Strings", "Dates", "Pins", "RecordBatch", "Progress")
autodoc_type_aliases = {name: name for name in _ALIASES}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
add_module_names = False

html_theme = "furo"
html_title = "bart"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#8a3b12",
        "color-brand-content": "#8a3b12",
        "font-stack": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif",
        "font-stack--monospace": "ui-monospace, 'SF Mono', Menlo, Consolas, 'Liberation Mono', monospace",
    },
    "dark_css_variables": {"color-brand-primary": "#f0a070", "color-brand-content": "#f0a070"},
}


def setup(app):  # type: ignore[no-untyped-def]
    """Registers what is done to each page before it is read."""
    app.connect("source-read", _source)
    app.connect("autodoc-process-docstring", docstrings.process)
    app.connect("autodoc-process-signature", docstrings.signature)
    app.connect("build-finished", _finished)


def _source(app, name, source):  # type: ignore[no-untyped-def]
    del app, name
    source[0] = blocks.for_site(generated.for_site(source[0]))


def _finished(app, error):  # type: ignore[no-untyped-def]
    if error is None:
        for found in loads.from_elsewhere(Path(app.outdir)):
            logging.getLogger(__name__).warning("loaded over the network: %s", found)
