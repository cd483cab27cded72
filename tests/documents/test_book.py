"""The reference of the site is complete, and the checks of its pages find faults.

``make docs`` runs the chapters: they train for a minute.
"""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

import lamina
from lamina.cli.options import Train
from lamina.cli.parsing import describe_options
from support.commands import run_lamina

DOCS = Path(__file__).parents[2] / "docs"


def test_warnings_of_chapters_name_no_path() -> None:
    show = runpy.run_path(str(DOCS / "tools" / "chapters.py"))["format_warning"]

    assert show(UserWarning("few images"), UserWarning, "/a/b.py", 3) == "UserWarning: few images\n"


def test_the_reference_lists_every_public_name() -> None:
    page = (DOCS / "reference" / "python.rst").read_text(encoding="utf-8")
    listed = re.findall(r"^   lamina\.(\S+)$", page, re.MULTILINE)

    assert set(lamina.__all__) <= set(listed)
    assert len(listed) == len(set(listed))


def test_the_reference_has_the_options_that_help_shows() -> None:
    parser = describe_options(Train, "train")
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


def test_faults_of_a_page_are_found() -> None:
    check = runpy.run_path(str(DOCS / "tools" / "check_pages.py"))
    options = {"train": {"--epochs"}, "data labels": {"--output"}}
    good = """
    lamina train --epochs 3
    `lamina data labels photos --output issues.csv`, `src/lamina`
    pip install "lamina[serve]"; LAMINA_OFFLINE=1
    """
    bad = """
    lamina train --output 3
    `lamina trane --epochs 3`, `src/lamin`, --epoch
    pip install "lamina[serves]"; LAMINA_OFLINE=1
    """

    def find_faults(text: str) -> list[str]:
        return [
            *check["check_paths"](text),
            *check["check_commands"](text, options),
            *check["check_options"](text, options),
            *check["check_extras"](text),
            *check["check_variables"](text),
        ]

    assert find_faults(good) == []
    assert find_faults(bad) == [
        "src/lamin does not exist",
        "lamina train has no option --output",
        "there is no command lamina trane",
        "no command has the option --epoch",
        "there is no extra serves",
        "nothing reads LAMINA_OFLINE",
    ]


def test_a_notebook_begins_with_a_cell_that_runs_only_in_colab(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chapters = runpy.run_path(str(DOCS / "tools" / "chapters.py"))
    monkeypatch.delenv("READTHEDOCS_GIT_CLONE_URL", raising=False)
    for source in ("", "git+https://example.org/lamina@main"):
        monkeypatch.setenv("LAMINA_INSTALL", source)
        *lines, command = chapters["first_cell"]().splitlines()
        assert lines[-1] == 'if "google.colab" in sys.modules:'
        install = f"    %pip install --quiet 'lamina[export,serve] @ {source}'"
        assert command.startswith(install if source else "    raise ")


def test_a_chapter_links_to_its_notebook_and_to_colab(monkeypatch: pytest.MonkeyPatch) -> None:
    add_links = runpy.run_path(str(DOCS / "tools" / "chapters.py"))["add_links"]
    page = ".. _label:\n\n1. Pixels\n=========\n\nText.\n\nPart\n====\n"

    monkeypatch.setenv("LAMINA_NOTEBOOKS", "me/lamina/blob/notebooks")
    for name, count in (("chapters/01_pixels", 1), ("howto/tuning", 0)):
        source = [page]
        add_links(None, name, source)
        assert source[0].count(":download:`Download the notebook <01_pixels.ipynb>`") == count
        address = "https://colab.research.google.com/github/me/lamina/blob/notebooks"
        assert source[0].count(f"`Open in Colab <{address}/01_pixels.ipynb>`__") == count
    monkeypatch.delenv("LAMINA_NOTEBOOKS")
    source = [page]
    add_links(None, "chapters/01_pixels", source)
    assert source[0].startswith(
        ".. _label:\n\n1. Pixels\n=========\n\n.. rst-class:: notebook-links\n"
    )
    assert "Open in Colab" not in source[0]


def test_the_page_of_events_has_every_event_that_commands_print() -> None:
    text = (DOCS / "reference" / "events.md").read_text(encoding="utf-8")
    printed = set()
    for file in (DOCS.parent / "src" / "lamina" / "cli").glob("*.py"):
        code = file.read_text(encoding="utf-8")
        printed |= set(re.findall(r'(?:emit\(\s*|"event": )"(\w+)"', code))

    assert len(printed) > 20
    assert {name for name in printed if f"`{name}`: " not in text} == {"error"}
    assert '{"event": "error"' in text
