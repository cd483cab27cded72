"""The documents say what is so: their commands, links and Python are tried."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from lamina import __version__
from lamina.cli import DATA_COMMANDS
from support.commands import run_lamina

ROOT = Path(__file__).parents[2]
WRITTEN_BY_MAKE_DOCS = ("api", "chapters", "repository")
PAGES = [
    file
    for file in ROOT.glob("docs/**/*.md")
    if file.relative_to(ROOT / "docs").parts[0] not in WRITTEN_BY_MAKE_DOCS
]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *PAGES, *ROOT.glob("benchmarks/**/*.md")])


def is_written_by_make_docs(page: Path) -> bool:
    """Whether a page exists only in the site; ``make docs`` checks the links to it."""
    folders = [ROOT / "docs" / folder for folder in WRITTEN_BY_MAKE_DOCS]
    return any(folder in page.resolve().parents for folder in folders)


def read_blocks(document: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```",
        document.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )


def find_commands(document: Path) -> list[list[str]]:
    """All of a document's command lines that begin with ``lamina``, in blocks and in the text."""
    text = document.read_text(encoding="utf-8")
    indented = re.findall(r"^ {4}(lamina .*)$", text, re.MULTILINE)
    quoted = re.findall(r"`(lamina\s[^`]+)`", text)
    fenced = [
        line
        for block in read_blocks(document, "sh")
        for line in block.splitlines()
        if line.startswith("lamina ")
    ]
    return [shlex.split(line, comments=True) for line in (*indented, *quoted, *fenced)]


@cache
def read_help(*command: str) -> str:
    return run_lamina(*command, "--help-all" if command else "--help").stdout


def test_the_readme_shows_how_to_install_and_the_makefile_knows_its_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert readme.index("source .venv/bin/activate") < readme.index("lamina train")
    assert "`make demo`" in readme
    assert re.search(r"^demo:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_their_flags_exist(document: Path) -> None:
    for _, command, *arguments in find_commands(document):
        if command.startswith("-"):
            assert command in read_help()
            continue
        words = [command]
        if command == "data" and arguments[:1] and arguments[0] in DATA_COMMANDS:
            words.append(arguments[0])
        flags = [argument for argument in arguments if argument.startswith("--")]
        missing = [flag for flag in flags if not re.search(rf"{flag}\b", read_help(*words))]
        assert missing == [], f"lamina {command} has no {missing}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(document: Path) -> None:
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    missing = [
        target
        for target in targets
        if not re.match(r"\w+:", target)
        and not is_written_by_make_docs(document.parent / target)
        and not (document.parent / target).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_paths_exist(document: Path) -> None:
    named = re.findall(
        r"`((?:src|tests|docs|benchmarks)/[\w/.-]+)`", document.read_text(encoding="utf-8")
    )
    assert [path for path in named if "NAME" not in path and not (ROOT / path).exists()] == []


def test_the_changelog_and_the_citation_name_the_version() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[([^\]]+)\]", changes, re.MULTILINE)
    assert versions[0] == __version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == [__version__]
