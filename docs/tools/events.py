"""The page of events: what trainings and studies yield, and what commands print as JSON."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import lamina
from tools.commands import list_commands
from tools.markdown import code_spans, row, table_of
from tools.schemas import describe_fields

EVENT_MODULES = (
    "training.events",
    "evaluation.paired_comparison",
    "studies.choose",
    "studies.study",
    "studies.experiment",
    "studies.seeds",
    "studies.cross_validation",
    "studies.search",
    "studies.finals",
)


def list_events() -> Iterator[str]:
    yield "# Events"
    yield ""
    yield "A training is an iterator of events. In Python, `Run.iter_train` and `Training` yield"
    yield "them. With `--json`, commands print each event as one JSON object in a line on stdout;"
    yield "the field `event` has its name. An error is an event, too:"
    yield '`{"event": "error", "error": "…"}`.'
    yield ""
    yield "NaN and infinity become `null`."
    yield ""
    yield "## Events of trainings and studies"
    for kind in find_events():
        schema = describe_fields(kind, {})
        name, text = describe_json(kind)
        yield ""
        yield f"### {name}"
        yield ""
        yield code_spans(schema["description"])
        yield f"Python: `{kind.__module__}.{kind.__name__}`. {text}"
        yield ""
        yield from table_of(schema)
    yield ""
    yield "## Results of commands"
    yield ""
    yield "| event | command | fields |"
    yield "|---|---|---|"
    for name, command, fields in find_emitted():
        yield row([f"`{name}`", command, ", ".join(f"`{field}`" for field in fields)])


def describe_json(kind: Any) -> tuple[str, str]:
    """The name of an event in JSON, and how its JSON differs from its fields."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
    own = vars(kind).get("to_json")
    if own is None:
        return name, ""
    if own.__doc__:
        return name, code_spans(" ".join(own.__doc__.split()))
    tree = ast.parse(textwrap.dedent(inspect.getsource(own)))
    keys: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Return):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Dict):
                    pairs = zip(inner.keys, inner.values, strict=True)
                    keys = {
                        key.value: value for key, value in pairs if isinstance(key, ast.Constant)
                    }
                    break
    event = keys.pop("event", None)
    if isinstance(event, ast.Constant):
        name = str(event.value)
    listed = ", ".join(f"`{key}`" for key in keys)
    adds = "also has" if "super()" in inspect.getsource(own) else "has"
    return name, f"In JSON, it {adds} {listed}." if listed else ""


def find_emitted() -> list[tuple[str, str, list[str]]]:
    """The events that commands print as their results: name, command and fields."""
    folder = Path(inspect.getfile(lamina)).parent / "cli"
    names = {name.replace(" ", "_"): name for name in list_commands()}
    found: dict[tuple[str, str], list[str]] = {}
    for file in sorted(folder.glob("*.py")):
        if file.stem not in names:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="emit"), args=[ast.Constant(value=str(name)), *_]
                ):
                    fields = found.setdefault((name, names[file.stem]), [])
                    fields += [word.arg for word in node.keywords if word.arg]
    return sorted(
        (name, f"`lamina {command}`", list(dict.fromkeys(fields)))
        for (name, command), fields in found.items()
    )


def find_events() -> Iterator[type]:
    from lamina.training.events import Event

    for name in EVENT_MODULES:
        module = import_module(f"lamina.{name}")
        for value in vars(module).values():
            is_event = inspect.isclass(value) and issubclass(value, Event) and value is not Event
            if is_event and value.__module__ == module.__name__:
                yield value
