"""Pages of the reference that are written from the code, into ``docs/api`` before Sphinx reads."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from tools.commands import list_commands, title, write_commands
from tools.names import ARTICLE_TERMS, GROUPS
from tools.schemas import (
    DRAFT,
    Schema,
    describe_class,
    describe_fields,
    describe_type,
    name_type,
)
from tools.source_links import write_if_changed

import lamina
from lamina import Recipe, load_net, summarize, zoo
from lamina.nets import Conv2d, Flatten, Net, Output
from lamina.nets.layers import KINDS, LAYERS
from lamina.targets import KindName
from lamina.values import read_texts

FOLDER = "api"
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


def setup(app: Any) -> None:
    app.connect("builder-inited", write_pages, priority=100)  # before autosummary
    app.connect("missing-reference", find_public)
    app.connect("autodoc-process-docstring", mark_examples)


def write_pages(app: Any) -> None:
    folder = Path(app.srcdir) / FOLDER
    write_commands(folder / "commands")
    pages = {
        "python.rst": list_names(),
        "layers.md": list_layers(),
        "recipes.md": list_recipes(),
        "events.md": list_events(),
    }
    for name, lines in pages.items():
        write_if_changed(folder / name, "\n".join(lines) + "\n")
    write_files(folder)
    write_http(folder)


# Python


def list_names() -> Iterator[str]:
    listed = {name for names in GROUPS.values() for name in names}
    missing = set(lamina.__all__) - listed
    if missing:
        raise ValueError(f"tools/names.py lacks {', '.join(sorted(missing))}.")
    yield from title("Python")
    yield "``import lamina`` gives every name below; a longer path, such as ``lamina.nets``, is the"
    yield "package to import from. Layers have a :doc:`table of their own <layers>`."
    yield ""
    for group, names in GROUPS.items():
        yield from title(group, "-")
        yield ".. autosummary::"
        yield "   :toctree: python"
        yield "   :nosignatures:"
        yield ""
        for name in names:
            path = name if name.startswith("lamina.") else f"lamina.{name}"
            yield f"   {path}"
        yield ""
    yield from title("Layers", "-")
    yield ".. autosummary::"
    yield "   :toctree: python"
    yield "   :nosignatures:"
    yield ""
    for name in LAYERS:
        yield f"   lamina.nets.{name}"
    yield ""


def public_names() -> dict[str, str]:
    """The documented path of each object, by the path where it is defined."""
    names = {}
    listed = [name for group in GROUPS.values() for name in group]
    for name in (*listed, *(f"lamina.nets.{layer}" for layer in LAYERS)):
        path = name if name.startswith("lamina.") else f"lamina.{name}"
        package, _, last = path.rpartition(".")
        value = getattr(import_module(package), last)
        module = getattr(value, "__module__", "")
        qualified = getattr(value, "__qualname__", last)
        names[f"{module}.{qualified}"] = path
    return names


def find_public(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Link a type to the page of its public name."""
    if node.get("refdomain") != "py":
        return None
    target = node.get("reftarget", "")
    names = public_names()
    by_last = {path.rpartition(".")[2]: path for path in names.values()}
    head, _, member = target.removeprefix("~").rpartition(".")
    candidates = [names.get(target), by_last.get(target)]
    if head:
        owner = names.get(head) or by_last.get(head)
        candidates.append(owner and f"{owner}.{member}")
    domain = env.get_domain("py")
    for candidate in filter(None, candidates):
        if candidate in domain.objects:
            entry = domain.objects[candidate]
            from sphinx.util.nodes import make_refnode

            return make_refnode(
                app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, candidate
            )
    return None


def mark_examples(app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Put a blank line before the first example, and a heading."""
    for place, line in enumerate(lines):
        if line.startswith(">>>"):
            lines[place:place] = [".. rubric:: Example", ""]
            return


# Layers and recipes


def list_layers() -> Iterator[str]:
    yield "# Layers"
    yield ""
    yield "Layers have the names and arguments of `torch.nn`, without the input sizes, which lamina"
    yield "infers. Import them from `lamina.nets`. In a command, write them as text:"
    yield ""
    yield "    lamina train \"Conv2d(16, 3), ReLU(), Flatten(), Output()\" --data shapes"
    yield ""
    yield "The examples get an image of 32 channels and 8×8 pixels, or a vector of 1,024 numbers."
    yield ""
    yield ":::{div} wide"
    for kind in KINDS:
        yield ""
        yield f"## {kind.__name__.rpartition('.')[2].capitalize()}"
        yield ""
        yield "| layer | what it does | example | output | parameters | the article, Keras |"
        yield "|---|---|---|---|---|---|"
        for name in kind.__all__:
            yield row(describe_layer(name))
    yield ""
    yield ":::"
    yield ""
    yield "[Your own layers](../extend.md) are dataclasses of the same form."


def describe_layer(name: str) -> list[str]:
    kind = LAYERS[name]
    (layer,) = lamina.parse_net(kind.example or f"{name}()").layers
    text = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
    for shape in ((32, 8, 8), (1024,)):
        try:
            if name == "Output":
                layer = Output(10)
            out = layer.out_shape(shape)
            break
        except lamina.LaminaError:
            continue
    output = "×".join(map(str, out))
    link = f"[`{name}`](python/lamina.nets.{name})"
    return [
        link,
        code_spans(text),
        f"`{kind.example}`",
        output,
        f"{layer.parameter_count(shape):,}",
        ARTICLE_TERMS.get(name, ""),
    ]


def list_recipes() -> Iterator[str]:
    yield "# Nets and recipes"
    yield ""
    yield "## Nets"
    yield ""
    yield "Costs are for images of 3×32×32 (photo nets: 3×96×96) and ten classes."
    yield ""
    yield "| net | what it is | parameters | multiply-adds | recipes, the default first |"
    yield "|---|---|---|---|---|"
    for name in zoo.NAMES:
        module = import_module(f"lamina.zoo.{name.replace('-', '_')}")
        side = 96 if name.startswith("photo") else 32
        costs = summarize(load_net(name), (3, side, side), 10)
        text = (inspect.getdoc(module) or "").split("\n\n")[0]
        recipes = ", ".join(f"`{recipe}`" for recipe in module.RECIPES)
        yield row(
            [
                f"`{name}`",
                " ".join(text.split()),
                f"{costs.parameters:,}",
                f"{costs.multiply_adds:,}",
                recipes,
            ]
        )
    yield ""
    yield "## Recipes"
    yield ""
    yield "Settings that differ from the defaults of `Recipe`. lamina adapts them to a data set, except"
    yield "`article`."
    yield ""
    yield "| net, recipe | settings |"
    yield "|---|---|"
    for name in zoo.NAMES:
        module = import_module(f"lamina.zoo.{name.replace('-', '_')}")
        for recipe_name, recipe in module.RECIPES.items():
            settings = ", ".join(f"{key} {value}" for key, value in recipe.changes().items())
            yield row([f"`{name}`, `{recipe_name}`", settings])
    yield ""
    yield "## Settings"
    yield ""
    yield "The fields of [`Recipe`](python/lamina.Recipe). Each is an option of `lamina train`."
    yield ""
    yield "| setting | values | default | meaning | the article, Keras |"
    yield "|---|---|---|---|---|"
    texts = read_texts(Recipe)
    schema = describe_fields(Recipe, {})
    for field in dataclasses.fields(Recipe):
        part = schema["properties"][field.name]
        default = "" if field.default is None else f"`{field.default}`"
        values = f"{name_type(part)}{name_limits(part)}"
        term = ARTICLE_TERMS.get(field.name, "")
        yield row([f"`{field.name}`", values, default, code_spans(texts[field.name]), term])


def name_limits(schema: Schema) -> str:
    words = {
        "minimum": "from",
        "exclusiveMinimum": "above",
        "maximum": "to",
        "exclusiveMaximum": "below",
    }
    limits = [f"{word} {schema[name]:g}" for name, word in words.items() if name in schema]
    return f" {' '.join(limits)}" if limits else ""


# Events


def list_events() -> Iterator[str]:
    yield "# Events"
    yield ""
    yield "A training is an iterator of events: in Python, `Run.iter_train` and `Training` yield them;"
    yield "with `--json`, commands print each as one JSON object in a line on stdout. The field `event`"
    yield "has its name. An error is an event, too: `{\"event\": \"error\", \"error\": \"…\"}`."
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
                    keys = {key.value: value for key, value in pairs if isinstance(key, ast.Constant)}
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


# Files


def write_files(folder: Path) -> None:
    from lamina.data import cache
    from lamina.evaluation.calibration import Calibration
    from lamina.evaluation.reports import ClassReport, LabelReport, NumberReport
    from lamina.runs.record import FORMAT, RunRecord
    from lamina.training.checkpoint import Standing
    from lamina.training.events import Cooldown, EarlyEnd, Epoch, Rewind

    record = describe_class(RunRecord, "run.json")
    record["properties"] = {"format": {"const": FORMAT}, **record["properties"]}
    record["required"] = ["format", *record["required"]]
    parts: dict[str, Schema] = {}
    reports = {
        report.__name__: describe_fields(report, parts)
        for report in (ClassReport, LabelReport, NumberReport)
    }
    for kind, report in reports.items():
        report["properties"] = {"kind": describe_type(KindName, {}), **report["properties"]}
    report = {
        "$schema": DRAFT,
        "title": "report.json",
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in reports],
        "$defs": {**reports, **parts},
    }
    schemas = {
        "run": record,
        "report": report,
        "calibration": describe_class(Calibration, "calibration.json"),
        "checkpoint": describe_class(Standing, "metadata of state.safetensors"),
    }
    for name, schema in schemas.items():
        text = json.dumps(schema, indent=2, ensure_ascii=False)
        write_if_changed(folder / "schemas" / f"{name}.schema.json", text + "\n")
    lines = list(describe_files(schemas, FORMAT, cache))
    write_if_changed(folder / "files.md", "\n".join(lines) + "\n")


def describe_files(schemas: dict[str, Schema], version: int, cache: Any) -> Iterator[str]:
    yield "# Files"
    yield ""
    yield "## A run"
    yield ""
    yield f"A run is a folder of plain files, format {version}. lamina writes each file under another"
    yield "name and renames it, so that no file is incomplete. It pickles nothing and executes nothing"
    yield "that a run contains."
    yield ""
    yield "| file | format | contents | schema |"
    yield "|---|---|---|---|"
    for name, form, contents, schema in RUN_FILES:
        link = ""
        if schema:
            link = f"{{download}}`JSON Schema <schemas/{schema}.schema.json>`"
        yield row([f"`{name}`", form, contents, link])
    for name, heading in (
        ("run", "run.json"),
        ("calibration", "calibration.json"),
        ("checkpoint", "Metadata of state.safetensors"),
    ):
        schema = schemas[name]
        yield ""
        yield f"### {heading}"
        yield ""
        yield from table_of(schema)
        for part, inner in schema["$defs"].items():
            yield ""
            yield f"**{part}**: {code_spans(inner.get('description', ''))}"
            yield ""
            yield from table_of(inner)
    yield ""
    yield "### report.json"
    yield ""
    yield "A `ClassReport`, `LabelReport` or `NumberReport`. `kind` has the kind of target."
    for part, inner in schemas["report"]["$defs"].items():
        yield ""
        yield f"**{part}**: {code_spans(inner.get('description', ''))}"
        yield ""
        yield from table_of(inner)
    yield ""
    yield "### history.jsonl"
    yield ""
    yield "One [event](events.md) in each line: `epoch`, `rewind` or `early_end`."
    yield ""
    yield "## The cache of decoded data"
    yield ""
    yield f"Format {cache.FORMAT}. `LAMINA_CACHE` names another folder. lamina checks the digests"
    yield "before it uses a copy, and makes damaged copies again."
    yield ""
    yield "```text"
    yield (cache.__doc__ or "").partition("\n\n")[2].strip()
    yield "```"


RUN_FILES = (
    ("run.json", "JSON", "net, recipe, task, data, seed, versions, machine, command", "run"),
    ("history.jsonl", "JSON lines", "one event for each epoch, rewind and early end", ""),
    ("model.safetensors", "safetensors", "the trained weights, fp32", ""),
    (
        "state.safetensors",
        "safetensors",
        "the checkpoint: weights, initial weights, optimizer state; the position as metadata",
        "checkpoint",
    ),
    ("report.json", "JSON", "the evaluation of the weights on test, or on val", "report"),
    (
        "logits.npz",
        "NumPy",
        "for `test` and `val`: logits (N, K) fp32, targets, names of the images",
        "",
    ),
    ("calibration.json", "JSON", "temperatures and thresholds", "calibration"),
    ("splits.json", "JSON", "the rule of the splits, and the split of each file, if drawn", ""),
    ("initial.safetensors", "safetensors", "the weights that the run started from, if any", ""),
    ("curves.png", "PNG", "score and loss by epoch", ""),
    (".lock, .owner", "", "held while the run trains; the process that holds it", ""),
)


# HTTP


def write_http(folder: Path) -> None:
    from starlette.routing import Route

    from lamina.deploy.serve.api import RESULTS, describe_api

    async def answer(request: Any) -> None:
        """Stand in for the server's functions, of which the description needs none."""

    posted = {"/v1/predict", "/v1/explain", "/v1/similar"}
    routes = [
        Route(path, answer, methods=["POST" if path in posted else "GET"]) for path in RESULTS
    ]
    document = describe_api(routes)
    write_if_changed(folder / "openapi.json", json.dumps(document, indent=2) + "\n")
    write_if_changed(folder / "http.md", "\n".join(describe_http(document)) + "\n")


def describe_http(document: Schema) -> Iterator[str]:
    yield "# HTTP"
    yield ""
    yield "`lamina serve RUN` answers these requests. [Serving](../serving.md) shows how to use them."
    yield "The server sends its description (OpenAPI 3.1) at `/openapi.json`; here it is as a"
    yield "{download}`file <openapi.json>`."
    yield ""
    yield "| request | body | response |"
    yield "|---|---|---|"
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            response = operation["responses"]["200"]["content"]
            schema = next(iter(response.values()))["schema"]
            body = " or ".join(
                f"`{kind}`" for kind in operation.get("requestBody", {}).get("content", {})
            )
            yield row([f"`{method.upper()} {path}`", body, name_type(schema)])
    yield ""
    yield "`POST` requests accept `?model=NAME`, by default the first model. An image as the body, or"
    yield "several in a form with fields `image`. Errors are JSON: `{\"error\": \"…\"}`."
    for name, schema in document["components"]["schemas"].items():
        yield ""
        yield f"## {name}"
        yield ""
        yield code_spans(" ".join(schema["description"].split()))
        yield ""
        yield from table_of(schema)


# Tables


def table_of(schema: Schema) -> Iterator[str]:
    yield "| field | type | meaning |"
    yield "|---|---|---|"
    for name, part in schema["properties"].items():
        optional = "" if name in schema.get("required", ()) else " (optional)"
        text = code_spans(part.get("description", ""))
        yield row([f"`{name}`", f"{name_type(part)}{optional}", text])


def row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def code_spans(text: str) -> str:
    """A docstring's text as Markdown."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`").replace("*", "\\*")
