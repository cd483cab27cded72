"""The page of HTTP requests, from the description that the server sends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from tools.markdown import code_spans, row, table_of
from tools.schemas import Schema, name_type
from tools.source_links import write_if_changed


def write_http(folder: Path) -> None:
    text = files("lamina.deploy.serve").joinpath("openapi.json").read_text("utf-8")
    write_if_changed(folder / "openapi.json", text)
    write_if_changed(folder / "http.md", "\n".join(describe_http(json.loads(text))) + "\n")


def describe_http(document: Schema) -> Iterator[str]:
    yield "# HTTP"
    yield ""
    yield "`lamina serve RUN` answers these requests. [Serving](../howto/serve.md) shows how to use"
    yield "them. The server sends its description (OpenAPI 3.1) at `/openapi.json`; here it is as a"
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
    yield "`POST` requests accept `?model=NAME`, by default the first model. The body is an image."
    yield 'Errors are JSON: `{"error": "…"}`.'
    for name, schema in document["components"]["schemas"].items():
        yield ""
        yield f"## {name}"
        yield ""
        yield code_spans(" ".join(schema["description"].split()))
        yield ""
        yield from table_of(schema)
