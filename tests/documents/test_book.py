"""The site's chapters have their parts, its reference is complete, and its checks find faults.

``make docs`` runs the chapters: they train for a minute.
"""

from __future__ import annotations

import ast
import json
import re
import runpy
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from safetensors import safe_open

import lamina
from lamina import Preparation, Recipe, load_data
from lamina.cli.parsing import describe_options
from lamina.cli.train import Options
from support.commands import run_lamina
from support.images import write_images

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


def test_lessons_of_the_studio_and_chapters_name_each_other() -> None:
    stations = DOCS.parent / "src" / "lamina" / "deploy" / "studio" / "page" / "stations.js"
    lessons = re.findall(
        r'^ {4}title: "(.*)",\n {4}chapter: \["(.*)", "(.*)"\],$',
        stations.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(lessons) == 6
    for number, (lesson, chapter, title) in enumerate(lessons, start=1):
        text = (DOCS / "learn" / f"{chapter}.py").read_text(encoding="utf-8")
        words = " ".join(text.replace("\n# ", " ").split())
        assert (ast.get_docstring(ast.parse(text)) or "").startswith(
            f"{int(chapter[:2])}. {title}\n"
        )
        assert f"Lesson {number} of the :doc:`studio </howto/studio>`, *{lesson}*" in words


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


@pytest.mark.slow
def test_the_schemas_accept_the_files_that_lamina_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(DOCS)
    from tools.files import describe_schemas

    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path / "cache"))
    write_images(tmp_path / "images", 160)
    data = load_data(tmp_path / "images", Preparation(val_fraction=0.2))
    run = lamina.train(data, "mlp", Recipe(epochs=1), runs_dir=tmp_path, progress=False)
    metadata = safe_open(run.path / "state.safetensors", framework="numpy").metadata()
    (copy,) = tmp_path.glob("cache/*/dataset.json")
    written = {
        "run": run.path / "run.json",
        "report": run.path / "report.json",
        "calibration": run.path / "calibration.json",
        "splits": run.path / "splits.json",
        "cache": copy,
    }
    values = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in written.items()}
    values["checkpoint"] = json.loads(json.loads(metadata["lamina"])["values"])
    schemas = describe_schemas()
    assert values.keys() == schemas.keys()
    for name, value in values.items():
        validator = Draft202012Validator(schemas[name])
        assert [error.message for error in validator.iter_errors(value)] == []
        assert not validator.is_valid(value | {"unknown": 1})


def test_the_page_of_events_has_every_event_that_commands_print(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(DOCS)
    from tools.events import list_events

    text = "\n".join(list_events())
    folder = DOCS.parent / "src" / "lamina" / "cli"
    printed = set()
    for file in folder.glob("*.py"):
        code = file.read_text(encoding="utf-8")
        printed |= set(re.findall(r'(?:emit\(\s*|"event": )"(\w+)"', code))

    assert len(printed) > 20
    assert {name for name in printed if f"| `{name}` |" not in text} == {"error"}
    assert '{"event": "error"' in text
