"""What README.md and the pages name exists, and their measured values come from one file."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from lamina.cli import COMMANDS, DATA_COMMANDS
from lamina.runs.continuing import CHANGEABLE
from support.commands import run_lamina

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
WRITTEN_BY_MAKE_DOCS = ("api", "chapters", "repository")
PAGES = [
    file
    for file in sorted(DOCS.glob("**/*.md"))
    if file.relative_to(DOCS).parts[0] not in WRITTEN_BY_MAKE_DOCS
]
README = ROOT / "README.md"
DOCUMENTS = [README, *PAGES]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OF_OTHER_PROGRAMS = {
    *("--help", "--help-all", "--version"),
    *("--standalone", "--nnodes", "--nproc-per-node", "--max-restarts"),  # torchrun
    *("--local-addr", "--rdzv-backend", "--rdzv-endpoint", "--rdzv-conf"),
    *("--no-index", "--find-links", "--torch-backend", "--no-cache-dir"),  # pip
    *("--data-binary", "--read-only", "--cap-drop", "--memory", "--create-home"),
    *("--write-data", "--studies"),  # scripts of this repository
}
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def read(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def name(document: Path) -> str:
    return str(document.relative_to(ROOT))


@cache
def find_options() -> frozenset[str]:
    """Every option of every command."""
    commands = [(command,) for command in COMMANDS]
    commands += [("data", command) for command in DATA_COMMANDS]
    helps = (run_lamina(*command, "--help-all").stdout for command in commands)
    return frozenset(re.findall(r"--[a-z][a-z-]*", "".join(helps)))


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_options_in_the_text_exist(document: Path) -> None:
    text = re.sub(r"\(#[^)]*\)", "", read(document))  # links to headings
    named = set(re.findall(r"(?<![\w/!-])--[a-z][a-z-]*[a-z]", text))
    assert sorted(named - find_options() - OF_OTHER_PROGRAMS) == []


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "CONTRIBUTING.md"], ids=name)
def test_commands_in_the_text_exist(document: Path) -> None:
    named = re.findall(r"(?:`|^ {4})lamina ([a-z]+)\b", read(document), re.MULTILINE)
    assert sorted(set(named) - set(COMMANDS)) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_extras_in_the_text_exist(document: Path) -> None:
    installed = re.findall(r"(?:lamina|\.|/src)\[([a-z,]+)\]", read(document))
    named = {extra for extras in installed for extra in extras.split(",")}
    assert sorted(named - set(PROJECT["project"]["optional-dependencies"])) == []


def test_the_readme_names_every_extra() -> None:
    (paragraph,) = re.findall(
        r"^- \*\*Extras\*\*.*?(?=^- )", read(README), re.MULTILINE | re.DOTALL
    )
    named = set(re.findall(r"`([a-z]+)`", paragraph))
    assert named == set(PROJECT["project"]["optional-dependencies"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_environment_variables_in_the_text_exist(document: Path) -> None:
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    code = "".join(map(read, files))
    named = set(re.findall(r"\bLAMINA_[A-Z_0-9]+", read(document)))
    assert sorted(variable for variable in named if variable not in code) == []


def test_pages_that_the_code_names_exist() -> None:
    named = {
        page
        for file in sorted((ROOT / "src").rglob("*.py"))
        for page in re.findall(r"docs/[\w/-]+\.\w+", read(file))
    }
    assert named
    assert [page for page in sorted(named) if not (ROOT / page).exists()] == []


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/explanation/architecture.md"])
def test_packages_are_listed_as_import_linter_checks_them(page: str) -> None:
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    expected = [
        sorted(package.removeprefix("lamina.").strip() for package in layer.split("|"))
        for layer in (each.replace("lamina.", "") for each in reversed(layers))
    ]
    (line,) = re.findall(r"^ {4}(errors →.*\n +→.*)$", read(ROOT / page), re.MULTILINE)
    listed = [sorted(each.strip() for each in layer.split(",")) for layer in line.split("→")]
    assert listed == expected


def test_settings_that_may_change_are_listed() -> None:
    page = read(DOCS / "howto" / "resume.md")
    (lines,) = re.findall(r"These settings may change:\n\n((?:- .*\n)+)", page)
    assert set(re.findall(r"\w+", lines)) == set(CHANGEABLE)


def test_bit_identical_names_all_its_conditions() -> None:
    files = [*DOCUMENTS, *(ROOT / "src").rglob("*.py"), *(ROOT / "src").rglob("*.js")]
    sentences = [
        sentence
        for file in files
        for sentence in re.split(r"[.:] ", " ".join(read(file).split()))
        if "torch version" in sentence
        and re.search("processor( |-)type|type of processor", sentence)
    ]
    assert sentences
    assert [sentence[-200:] for sentence in sentences if "threads" not in sentence] == []


# Measured values


@cache
@cache
def load_numbers() -> dict[str, dict[str, Any]]:
    """The numbers by name, each with its value, unit and the conditions of its measurement."""
    document = tomllib.loads(read(DOCS / "numbers.toml"))
    numbers: dict[str, dict[str, Any]] = {}
    for measurement in document["measurement"]:
        conditions = {key: value for key, value in measurement.items() if key != "numbers"}
        for key, number in measurement["numbers"].items():
            assert key not in numbers
            numbers[key] = {**conditions, **number}
    return numbers


def show(number: dict[str, Any]) -> str:
    """The value with its unit, as pages show it."""
    return f"{number['value']} {number['unit']}".strip()


def test_every_number_has_its_conditions_and_is_in_its_source() -> None:
    for key, number in load_numbers().items():
        assert number["what"], key
        assert number["data"], key
        assert number["hardware"], key
        assert number["date"], key
        text = read(ROOT / number["source"])
        measured = [float(each) for each in NUMBER.findall(text)]
        for value in NUMBER.findall(str(number.get("from", number["value"]))):
            rounding = 0.5 * 10 ** -len(value.partition(".")[2]) + 1e-9
            assert any(abs(each - float(value)) <= rounding for each in measured), (key, value)


def test_the_readme_has_the_numbers_of_the_file() -> None:
    text = " ".join(read(README).split())
    for key, number in load_numbers().items():
        if "readme" in number:
            assert number["readme"].replace("{}", show(number)) in text, key


def test_every_accuracy_and_time_of_the_readme_is_in_the_file() -> None:
    text = read(README)
    known = {show(number) for number in load_numbers().values()}
    written = re.findall(r"\d+\.\d+ (?:%|s\b)", text)
    of_ranges = {f"{value} %" for shown in known for value in NUMBER.findall(shown)}
    assert sorted(set(written) - known - of_ranges) == []


def test_pages_have_the_numbers_of_the_file() -> None:
    named = 0
    for page in PAGES:
        text = " ".join(read(page).split())
        for mark in re.finditer(r"<!--(\w+)-->", text):
            named += 1
            assert text[: mark.start()].endswith(show(load_numbers()[mark[1]])), (page, mark[1])
    assert named >= 40


# Examples

WITH_PYTHON = [
    *("ablate", "comparing", "explain", "load-your-own-format", "resume"),
    *("train-on-a-folder", "use-a-module", "write-a-layer", "write-a-net"),
]
"""How-to pages whose Python runs as it is; tests of their own run the other pages."""


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_PYTHON)
def test_the_python_of_a_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = read(DOCS / "howto" / f"{page}.md")
    namespace: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        file = tmp_path / f"block_{number}.py"  # studies read the code of functions
        file.write_text(block.replace("seconds=20", "seconds=10"), encoding="utf-8")
        exec(compile(read(file), str(file), "exec"), namespace)
