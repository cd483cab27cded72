"""Check that the paths, commands, options, extras and variables that pages name exist.

python -P docs/tools/check_pages.py

Sphinx checks the links.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lamina import __version__
from lamina.cli import COMMANDS, DATA_COMMANDS
from lamina.cli.options import OPTIONS
from lamina.cli.parsing import describe_options

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src"
FOLDERS_OF_MAKE_DOCS = ("api", "chapters", "repository")
OPTIONS_OF_OTHERS = {
    *("--help", "--help-all", "--version"),
    *("--standalone", "--nnodes", "--nproc-per-node", "--max-restarts"),  # torchrun
    *("--local-addr", "--rdzv-backend", "--rdzv-endpoint", "--rdzv-conf"),
    *("--no-index", "--find-links", "--torch-backend", "--no-cache-dir"),  # pip
    *("--data-binary", "--read-only", "--cap-drop", "--memory", "--create-home"),
    "--studies",  # a benchmark
}


def main() -> None:
    pages = [ROOT / "README.md", *list_pages()]
    others = [file for file in sorted(ROOT.glob("*.md")) if file not in pages]
    options = list_options()
    problems: list[str] = []
    for file in (*pages, *others, *sorted(ROOT.glob("benchmarks/**/*.md"))):
        text = read(file)
        faults = [*check_paths(text), *check_commands(text, options)]
        if file in pages:
            faults += check_options(text, options)
            faults += check_extras(text)
            faults += check_variables(text)
        problems += [f"{file.relative_to(ROOT)}: {fault}" for fault in faults]
    problems += check_code()
    problems += check_versions()
    for problem in problems:
        print(problem)
    if problems:
        raise SystemExit(f"{len(problems)} problems in the pages")


def read(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def list_pages() -> list[Path]:
    """The pages in ``docs`` that people write."""
    return [
        file
        for file in sorted(DOCS.glob("**/*.md"))
        if file.relative_to(DOCS).parts[0] not in FOLDERS_OF_MAKE_DOCS
    ]


def load_project() -> dict[str, Any]:
    return tomllib.loads(read(ROOT / "pyproject.toml"))


# What a text names


def check_paths(text: str) -> Iterator[str]:
    for path in re.findall(r"`((?:src|tests|docs|benchmarks)/[\w/.-]+)`", text):
        if "NAME" not in path and not (ROOT / path).exists():
            yield f"{path} does not exist"


def list_options() -> dict[str, set[str]]:
    """The options of each command."""
    options = {}
    for command, kind in OPTIONS.items():
        parser = describe_options(kind, command)
        options[command] = {flag for action in parser._actions for flag in action.option_strings}
    return options


def find_commands(text: str) -> list[str]:
    """The command lines of a text that begin with ``lamina``, in blocks and between words."""
    indented = re.findall(r"^ {4}(lamina .*)$", text, re.MULTILINE)
    quoted = re.findall(r"`(lamina\s[^`]+)`", text)
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    fenced = [line for block in blocks for line in block.splitlines()]
    return [*indented, *quoted, *(line for line in fenced if line.startswith("lamina "))]


def check_commands(text: str, options: dict[str, set[str]]) -> Iterator[str]:
    for line in find_commands(text):
        command, *words = shlex.split(line, comments=True)[1:]
        if not re.fullmatch("[a-z]+", command):  # as in `lamina --help` and `lamina COMMAND`
            continue
        if command not in COMMANDS:
            yield f"there is no command lamina {command}"
            continue
        if command == "data" and words and words[0] in DATA_COMMANDS:
            command = f"data {words[0]}"
        flags = {word.partition("=")[0] for word in words if word.startswith("--")}
        for flag in sorted(flags - options[command] - OPTIONS_OF_OTHERS):
            yield f"lamina {command} has no option {flag}"


def check_options(text: str, options: dict[str, set[str]]) -> Iterator[str]:
    text = re.sub(r"\(#[^)]*\)", "", text)  # links to headings
    named = set(re.findall(r"(?<![\w/!-])--[a-z][a-z-]*[a-z]", text))
    for flag in sorted(named.difference(OPTIONS_OF_OTHERS, *options.values())):
        yield f"no command has the option {flag}"


def check_extras(text: str) -> Iterator[str]:
    for extras in re.findall(r"(?:lamina|\.|/src)\[([a-z,]+)\]", text):
        for extra in extras.split(","):
            if extra not in load_project()["project"]["optional-dependencies"]:
                yield f"there is no extra {extra}"


def check_variables(text: str) -> Iterator[str]:
    code = "".join(map(read, [*SOURCE.rglob("*.py"), ROOT / "setup.py"]))
    for variable in sorted(set(re.findall(r"\bLAMINA_[A-Z_0-9]+", text))):
        if variable not in code:
            yield f"nothing reads {variable}"


def check_code() -> Iterator[str]:
    """Check the pages that messages and docstrings name."""
    for file in sorted(SOURCE.rglob("*.py")):
        for page in re.findall(r"docs/[\w/-]+\.\w+", read(file)):
            if not (ROOT / page).exists():
                yield f"{file.relative_to(ROOT)}: {page} does not exist"


def check_versions() -> Iterator[str]:
    versions = re.findall(r"^## \[([^\]]+)\]", read(ROOT / "CHANGELOG.md"), re.MULTILINE)
    if versions[0] != __version__:
        yield f"CHANGELOG.md: begins with {versions[0]}, not {__version__}"
    if f"\nversion: {__version__}\n" not in read(ROOT / "CITATION.cff"):
        yield f"CITATION.cff: has another version than {__version__}"


if __name__ == "__main__":
    main()
