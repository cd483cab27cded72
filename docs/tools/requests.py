"""The page of HTTP requests, from the description that the server sends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.markdown import code_spans, row, table_of
from tools.schemas import Schema, name_type
from tools.source_links import write_if_changed


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
    yield "`POST` requests accept `?model=NAME`, by default the first model. The body is an image,"
    yield 'or a form with several fields `image`. Errors are JSON: `{"error": "…"}`.'
    for name, schema in document["components"]["schemas"].items():
        yield ""
        yield f"## {name}"
        yield ""
        yield code_spans(" ".join(schema["description"].split()))
        yield ""
        yield from table_of(schema)
