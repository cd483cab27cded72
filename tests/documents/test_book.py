"""The site's chapters have their parts, its reference is complete, and its checks find faults.

``make docs`` runs the chapters: they train for a minute.
"""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path

import pytest

import lamina
from lamina.cli.parsing import describe_options
from lamina.cli.train import Options
from support.commands import run_lamina

DOCS = Path(__file__).parents[2] / "docs"
CHAPTERS = sorted(DOCS.glob("learn/*.py"))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_asks_lets_predict_and_ends_with_three_things_to_try(chapter: Path) -> None:
    text = chapter.read_text(encoding="utf-8")
    introduction = ast.get_docstring(ast.parse(text)) or ""
    number = chapter.stem.partition("_")[0]

    assert introduction.startswith(f"{int(number)}. ")
    assert "\n**Question:** " in introduction
    assert text.count("**Predict:**") >= 1
    assert "# What the article says" in text or "says the article" in text or "article says" in text
    tries = text.partition("# Try\n# ---\n")[2]
    assert re.findall(r"^# (\d)\. ", tries, re.MULTILINE) == ["1", "2", "3"]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_every_figure_of_a_chapter_has_a_text(chapter: Path) -> None:
    blocks = re.split(r"^# %%.*\n", chapter.read_text(encoding="utf-8"), flags=re.MULTILINE)
    drawing = [block for block in blocks if "plt.subplots(" in block]

    assert drawing
    assert [block for block in drawing if len(re.findall(r"^# Figure: ", block, re.M)) != 1] == []


def test_warnings_of_chapters_name_no_path() -> None:
    show = runpy.run_path(str(DOCS / "tools" / "chapters.py"))["format_warning"]

    assert show(UserWarning("few images"), UserWarning, "/a/b.py", 3) == "UserWarning: few images\n"


def test_the_reference_lists_every_public_name() -> None:
    groups = runpy.run_path(str(DOCS / "tools" / "names.py"))["GROUPS"]
    listed = [name for names in groups.values() for name in names]

    assert set(lamina.__all__) <= set(listed)
    assert len(listed) == len(set(listed))


def test_the_reference_has_the_options_that_help_shows() -> None:
    parser = describe_options(Options, "train")
    flags = {flag for action in parser._actions for flag in action.option_strings}
    shown = run_lamina("train", "--help-all").stdout

    assert flags <= set(re.findall(r"--?[a-z][a-z-]*", shown))
    assert {"--epochs", "--lr", "--data", "--no-pretrained"} <= flags


def test_faults_of_a_site_are_found(tmp_path: Path) -> None:
    check = runpy.run_path(str(DOCS / "tools" / "check_site.py"))["check"]
    (tmp_path / "other.html").write_text('<h1 id="here">Other</h1>')
    page = tmp_path / "index.html"

    page.write_text('<a href="other.html#here">good</a><img src="other.html" alt="">')
    assert list(check(tmp_path)) == []

    page.write_text(
        '<a href="missing.html">1</a><a href="other.html#there">2</a><a href="#no">3</a>'
        '<script src="https://example.org/x.js"></script><img src="other.html">'
    )
    (tmp_path / "style.css").write_text("@import url(//example.org/font.css);")
    assert sorted(check(tmp_path)) == [
        "index.html: #no has no such anchor",
        "index.html: an image without a text: other.html",
        "index.html: loads https://example.org/x.js",
        "index.html: missing.html does not exist",
        "index.html: other.html#there has no such anchor",
        "style.css: loads //example.org/font.css",
    ]
