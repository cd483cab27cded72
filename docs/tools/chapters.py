"""Chapters of ``docs/learn``: each is a script that becomes a page and a notebook.

sphinx-gallery runs a chapter again when its text has changed, and ``make clean`` lets it run all of
them again.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

RESULTS = "chapters"
"""Folder of the generated pages, in ``docs``."""
COLAB = "https://colab.research.google.com"
ZIPPED = re.compile(r"^ *\.\. container:: .*download-zip\n\n.*\n", re.MULTILINE)


def settings(docs: Path) -> dict[str, Any]:
    return {
        "examples_dirs": "learn",
        "gallery_dirs": RESULTS,
        "filename_pattern": r"/\d\d_",
        "ignore_pattern": r"__init__\.py",
        "within_subsection_order": "FileNameSortKey",
        "download_all_examples": False,
        "remove_config_comments": True,
        "capture_repr": ("_repr_html_",),
        "show_memory": False,
        "show_signature": False,
        "min_reported_time": 10**6,
        "write_computation_times": False,
        "abort_on_example_error": True,
        "image_srcset": ["2x"],
        "image_scrapers": ("tools.chapters.draw_described",),
        "reset_modules": ("tools.chapters.prepare",),
        "first_notebook_cell": first_cell(),
        "backreferences_dir": None,
    }


def first_cell() -> str:
    """The first cell of a notebook: it installs lamina in Colab, and does nothing elsewhere."""
    address = os.environ.get("READTHEDOCS_GIT_CLONE_URL", "")
    source = os.environ.get("LAMINA_INSTALL") or (f"git+{address}" if address else "")
    comment = "# Colab: install lamina. Elsewhere, this cell does nothing."
    install = f"%pip install --quiet 'lamina[export,serve] @ {source}'"
    if not source:
        comment = "# Colab: say where to get lamina. Elsewhere, this cell does nothing."
        install = "raise SystemExit('Install lamina first: %pip install ADDRESS_OF_LAMINA')"
    return f"""{comment}
import sys

if "google.colab" in sys.modules:
    {install}"""


def list_links(name: str) -> str:
    """The links at the top of a chapter, to its notebook and to Colab, in reStructuredText.

    Colab opens a notebook only from a repository. ``LAMINA_NOTEBOOKS`` names the branch that the
    notebooks are published to, as ``OWNER/REPOSITORY/blob/BRANCH``.
    """
    branch = os.environ.get("LAMINA_NOTEBOOKS", "")
    colab = f"`Upload it to Colab <{COLAB}>`__"
    if branch:
        colab = f"`Open in Colab <{COLAB}/github/{branch}/{name}.ipynb>`__"
    return f"""
.. rst-class:: notebook-links

:download:`Download the notebook <{name}.ipynb>` · {colab}
"""


def add_links(_: Any, page: str, source: list[str]) -> None:
    """Add the links below the title of a chapter, and remove the link to the zipped notebook."""
    if re.fullmatch(rf"{RESULTS}/\d\d_\w+", page):
        links = list_links(page.partition("/")[2])
        title = re.compile(r"^={3,}\n", re.MULTILINE)
        text = title.sub(lambda line: line[0] + links, source[0], count=1)
        source[0] = ZIPPED.sub("", text)


def prepare(_: dict[str, Any], __: str) -> None:
    """Set what could differ between chapters and machines: figures, seeds and warnings."""
    import matplotlib.pyplot as plt
    import torch

    plt.rcdefaults()
    plt.rcParams |= {
        "figure.dpi": 100,
        "figure.constrained_layout.use": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.size": 10,
    }
    torch.manual_seed(0)
    # A comparison would show the result of an earlier build if it found one.
    shutil.rmtree(Path(__file__).parents[1] / "learn" / "runs", ignore_errors=True)
    warnings.formatwarning = format_warning


def format_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> str:
    """A warning as a page shows it: without the path of the chapter, which differs by machine."""
    return f"{category.__name__}: {message}\n"


def draw_described(block: Any, *rest: Any, **options: Any) -> str:
    """The figures of a block, with the text of its comment ``# Figure: …`` for screen readers."""
    from sphinx_gallery.scrapers import matplotlib_scraper

    page: str = matplotlib_scraper(block, *rest, **options)
    comment = re.search(r"^# Figure: (.*(?:\n# .*)*)", block.content, re.MULTILINE)
    if not page.strip():
        return page
    if comment is None:
        raise ValueError(f"The figure of line {block.lineno} needs a comment '# Figure: …'.")
    text = " ".join(comment[1].replace("\n# ", " ").split())
    return re.sub(r":alt: .*", lambda _: f":alt: {text}", page)


def tidy_notebooks(app: Any) -> None:
    """Replace what only Sphinx understands in the texts of notebooks: links to other pages."""
    for file in (Path(app.srcdir) / RESULTS).glob("*.ipynb"):
        text = file.read_text(encoding="utf-8")
        tidy = re.sub(r":doc:`([^`<]+?)(?:\s|\\n)*<[^`>]+>`", r"\1", text)
        if tidy != text:
            file.write_text(tidy, encoding="utf-8")


def setup(app: Any) -> None:
    app.connect("builder-inited", tidy_notebooks, priority=900)  # after sphinx-gallery
    app.connect("source-read", add_links)
