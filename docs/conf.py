"""How Sphinx builds the site: ``make docs``, or ``sphinx-build docs build/docs``."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

from tools import chapters, pages, reference, source_links  # noqa: E402

import lamina  # noqa: E402

project = "lamina"
author = "the lamina authors"
version = release = lamina.__version__
project_copyright = "the lamina authors, MIT license"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["learn", "tools", "notebook.ipynb"]
templates_path = ["templates"]
suppress_warnings = ["config.cache"]  # chapters.py gives sphinx-gallery functions

# Text
myst_enable_extensions = ["colon_fence", "deflist", "attrs_block", "attrs_inline"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
default_role = "code"

# Reference
autosummary_generate = ["reference/python.rst", "api/layers.md"]
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
maximum_signature_line_length = 80
add_module_names = False
python_use_unqualified_type_names = True
python_display_short_literal_types = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = [("Shape", "notes_style"), ("Yields", "returns_style")]

# Chapters
sphinx_gallery_conf = chapters.settings(HERE)

# Pages
html_theme = "pydata_sphinx_theme"
html_title = "lamina"
html_static_path = ["static"]
html_css_files = ["book.css"]
html_search_scorer = str(HERE / "tools" / "scorer.js")
html_baseurl = os.environ.get("READTHEDOCS_CANONICAL_URL", "")
html_copy_source = False
html_show_sourcelink = False
html_sidebars = {"index": [], "gallery": []}
html_context = {"default_mode": "auto"}
html_theme_options = {
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 6,
    "show_prev_next": True,
    "show_toc_level": 2,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
    "footer_start": ["copyright"],
    "footer_end": [],
    "back_to_top_button": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def setup(app):
    # A change of the tools may change every page.
    tools = b"".join(file.read_bytes() for file in sorted(HERE.glob("tools/*.py")))
    app.add_config_value("tools", hashlib.sha256(tools).hexdigest(), "env")
    chapters.setup(app)
    reference.setup(app)
    source_links.setup(app)
    pages.setup(app)
