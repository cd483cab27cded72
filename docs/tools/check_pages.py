"""Check that what README.md and the pages name exists, and that their numbers were measured.

python -P docs/tools/check_pages.py

Sphinx and check_site.py check the links.
"""

from __future__ import annotations

import ast
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
STATIONS = SOURCE / "lamina" / "deploy" / "studio" / "page" / "stations.js"
FOLDERS_OF_MAKE_DOCS = ("api", "chapters", "repository")
OPTIONS_OF_OTHERS = {
    *("--help", "--help-all", "--version"),
    *("--standalone", "--nnodes", "--nproc-per-node", "--max-restarts"),  # torchrun
    *("--local-addr", "--rdzv-backend", "--rdzv-endpoint", "--rdzv-conf"),
    *("--no-index", "--find-links", "--torch-backend", "--no-cache-dir"),  # pip
    *("--data-binary", "--read-only", "--cap-drop", "--memory", "--create-home"),
    *("--write-data", "--studies"),  # scripts of this repository
}
NUMBER = re.compile(r"\d+(?:\.\d+)?")
LESSONS = 6
FEWEST_NUMBERS = 40
"""Fewer values with a name in all pages mean that :func:`check_numbers_of_page` misses them."""


def main() -> None:
    pages = [ROOT / "README.md", *list_pages()]
    others = [
        *(file for file in sorted(ROOT.glob("*.md")) if file not in pages),
        *sorted(ROOT.glob("benchmarks/**/*.md")),
    ]
    options = list_options()
    numbers = load_numbers()
    named_numbers = 0
    problems: list[str] = []
    for file in (*pages, *others):
        text = read(file)
        found = [*check_paths(text), *check_commands(text, options)]
        if file in pages:
            found += check_options(text, options)
            found += check_extras(text)
            found += check_variables(text)
            found += check_numbers_of_page(text, numbers)
            named_numbers += len(find_named_numbers(text))
        problems += [f"{file.relative_to(ROOT)}: {problem}" for problem in found]
    if named_numbers < FEWEST_NUMBERS:
        problems.append(f"pages name only {named_numbers} values of docs/numbers.toml")
    for file in sorted(DOCS.glob("learn/*.py")):
        problems += [f"{file.name}: {problem}" for problem in check_chapter(file)]
    problems += check_lessons()
    problems += check_readme(numbers)
    problems += check_numbers(numbers)
    problems += check_versions()
    problems += check_packages()
    problems += check_code()
    problems += check_conditions()
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


# Lists that follow the code


def check_readme(numbers: dict[str, dict[str, Any]]) -> Iterator[str]:
    text = read(ROOT / "README.md")
    (paragraph,) = re.findall(r"^- \*\*Extras\*\*.*?(?=^- )", text, re.MULTILINE | re.DOTALL)
    extras = set(load_project()["project"]["optional-dependencies"])
    for extra in sorted(extras ^ set(re.findall(r"`([a-z]+)`", paragraph))):
        yield f"README.md: Extras and pyproject.toml differ in {extra}"
    if text.index("source .venv/bin/activate") > text.index("lamina train"):
        yield "README.md: trains before it installs"
    makefile = read(ROOT / "Makefile")
    for target in re.findall(r"^make (\w+)", text, re.MULTILINE):
        if not re.search(rf"^{target}:", makefile, re.MULTILINE):
            yield f"README.md: there is no make {target}"
    known = {show(number) for number in numbers.values()}
    known |= {f"{value} %" for shown in known for value in NUMBER.findall(shown)}  # of ranges
    for written in sorted(set(re.findall(r"\d+\.\d+ (?:%|s\b)", text)) - known):
        yield f"README.md: {written} is not in docs/numbers.toml"
    flat = " ".join(text.split())
    for name, number in numbers.items():
        expected = number.get("readme", "").replace("{}", show(number))
        if expected not in flat:
            yield f"README.md: {name} of docs/numbers.toml should read: {expected}"


def check_versions() -> Iterator[str]:
    versions = re.findall(r"^## \[([^\]]+)\]", read(ROOT / "CHANGELOG.md"), re.MULTILINE)
    if versions[0] != __version__:
        yield f"CHANGELOG.md: begins with {versions[0]}, not {__version__}"
    if f"\nversion: {__version__}\n" not in read(ROOT / "CITATION.cff"):
        yield f"CITATION.cff: has another version than {__version__}"


def check_packages() -> Iterator[str]:
    """Check that packages are listed in the order that import-linter checks."""
    contracts = load_project()["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    expected = [split(layer.replace("lamina.", ""), "|") for layer in reversed(layers)]
    for page in ("CONTRIBUTING.md", "docs/explanation/architecture.md"):
        (line,) = re.findall(r"^ {4}(errors →.*\n +→.*)$", read(ROOT / page), re.MULTILINE)
        if [split(layer, ",") for layer in line.split("→")] != expected:
            yield f"{page}: lists other packages than pyproject.toml"


def split(text: str, separator: str) -> list[str]:
    return sorted(part.strip() for part in text.split(separator))


def check_conditions() -> Iterator[str]:
    """Check that sentences about identical bits name all conditions."""
    files = [ROOT / "README.md", *list_pages(), *SOURCE.rglob("*.py"), *SOURCE.rglob("*.js")]
    sentences = 0
    for file in files:
        for sentence in re.split(r"[.:] ", " ".join(read(file).split())):
            names_processor = re.search("processor( |-)type|type of processor", sentence)
            if not (names_processor and "torch version" in sentence):
                continue
            sentences += 1
            if "threads" not in sentence:
                yield f"{file.relative_to(ROOT)}: omits the number of threads: {sentence[-200:]}"
    if not sentences:
        yield "no page names the conditions of identical bits"


# Chapters


def check_chapter(file: Path) -> Iterator[str]:
    text = read(file)
    introduction = ast.get_docstring(ast.parse(text)) or ""
    if not introduction.startswith(f"{int(file.stem[:2])}. "):
        yield "the title does not begin with the number of the chapter"
    if "\n**Question:** " not in introduction:
        yield "the introduction asks no question"
    if "**Predict:**" not in text:
        yield "the reader is not asked to predict anything"
    if not re.search("[Ww]hat the article says|says the article|article says", text):
        yield "the article is not quoted"
    tries = text.partition("# Try\n# ---\n")[2]
    if re.findall(r"^# (\d)\. ", tries, re.MULTILINE) != ["1", "2", "3"]:
        yield "the end does not name three things to try"


def check_lessons() -> Iterator[str]:
    """Check that lessons of the studio and chapters name each other."""
    lessons = re.findall(
        r'^ {4}title: "(.*)",\n {4}chapter: \["(.*)", "(.*)"\],$', read(STATIONS), re.MULTILINE
    )
    if len(lessons) != LESSONS:
        yield f"{STATIONS.name}: {len(lessons)} of {LESSONS} lessons name a chapter"
    for number, (lesson, chapter, title) in enumerate(lessons, start=1):
        words = " ".join(read(DOCS / "learn" / f"{chapter}.py").replace("\n# ", " ").split())
        if f"{int(chapter[:2])}. {title} =" not in words:
            yield f"{STATIONS.name}: {chapter} has another title than {title}"
        if f"Lesson {number} of the :doc:`studio </howto/studio>`, *{lesson}*" not in words:
            yield f"{chapter}.py: does not name lesson {number}, {lesson}"


# Measured values


def load_numbers() -> dict[str, dict[str, Any]]:
    """The numbers by name, each with its value, unit and the conditions of its measurement."""
    numbers: dict[str, dict[str, Any]] = {}
    for measurement in tomllib.loads(read(DOCS / "numbers.toml"))["measurement"]:
        conditions = {key: value for key, value in measurement.items() if key != "numbers"}
        for name, number in measurement["numbers"].items():
            if name in numbers:
                raise SystemExit(f"docs/numbers.toml: {name} is there twice")
            numbers[name] = {**conditions, **number}
    return numbers


def show(number: dict[str, Any]) -> str:
    """The value with its unit, as pages show it."""
    return f"{number['value']} {number['unit']}".strip()


def check_numbers(numbers: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Check that each number has its conditions and is in its source, perhaps with more digits."""
    for name, number in numbers.items():
        for condition in ("what", "data", "hardware", "date", "source"):
            if not number.get(condition):
                yield f"docs/numbers.toml: {name} has no {condition}"
        measured = {float(each) for each in NUMBER.findall(read(ROOT / number["source"]))}
        for value in NUMBER.findall(str(number.get("from", number["value"]))):
            rounding = 0.5 * 10 ** -len(value.partition(".")[2]) + 1e-9
            if not any(abs(each - float(value)) <= rounding for each in measured):
                yield f"docs/numbers.toml: {name}: {value} is not in {number['source']}"


def find_named_numbers(text: str) -> list[tuple[str, str]]:
    """The names in comments of a text, each with the words before it."""
    flat = " ".join(text.split())
    return [(mark[1], flat[: mark.start()]) for mark in re.finditer(r"<!--(\w+)-->", flat)]


def check_numbers_of_page(text: str, numbers: dict[str, dict[str, Any]]) -> Iterator[str]:
    for name, before in find_named_numbers(text):
        if name not in numbers:
            yield f"docs/numbers.toml has no {name}"
        elif not before.endswith(show(numbers[name])):
            yield f"{name} is {show(numbers[name])}, not …{before[-20:]}"


if __name__ == "__main__":
    main()
