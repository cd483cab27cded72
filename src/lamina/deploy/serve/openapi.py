"""The API as an OpenAPI document."""

from __future__ import annotations

from typing import Any

from lamina.deploy.serve.bodies import REQUEST_PICTURES

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
PNG: Schema = {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"}
BINARY: Schema = {"type": "string", "format": "binary"}
ERROR: Schema = {
    "description": "why not",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}


def describe_api() -> Schema:
    """The document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lamina serve",
            "version": "1",
            "description": "Answers of image classifiers. A server with a token needs Authorization: Bearer TOKEN.",
        },
        "paths": {
            "/v1/predict": _post("What is in a picture", "Answer", REQUEST_PICTURES),
            "/v1/explain": _post("What the answer is based on, as a map, and whether it is trusted", "Explanation", 1),
            "/v1/similar": _post("The training pictures most like it; 404 where they are not at hand", "Similar", 1),
            "/v1/model": _get("The models", "application/json", _object(models=_list(_refer("Model")))),
            "/healthz": _get("Whether the server runs", "text/plain", TEXT),
            "/readyz": _get("Whether pictures are answered; 503 where not", "text/plain", TEXT, 503),
            "/metrics": _get("Counts in the text format of Prometheus", "text/plain", TEXT),
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Error": _object(error=TEXT),
                "Problem": _object(model=TEXT, problem={**TEXT, "description": "why this picture has no answer"}),
                "Answer": _object(
                    model=TEXT,
                    answer={
                        "oneOf": [TEXT, _list(TEXT), {"type": "object", "additionalProperties": {"type": "number"}}]
                    },
                    question={**TEXT, "description": "of yes or no"},
                    predictions=_list({"oneOf": [_refer("ClassProbability"), _refer("Number")]}),
                )
                | {"required": ["model", "answer", "predictions"]},
                "ClassProbability": _object(
                    **{"class": TEXT, "probability": {"type": "number", "minimum": 0, "maximum": 1}}
                ),
                "Number": _object(name=TEXT, value={"type": "number"}),
                "Explanation": _object(
                    model=TEXT, target=TEXT, trusted={"type": "boolean"}, reason=TEXT, picture=PNG, map=PNG
                ),
                "Similar": _object(
                    model=TEXT,
                    searched={"type": "integer"},
                    pictures=_list(
                        _object(id={"type": "integer"}, target=TEXT, similarity={"type": "number"}, picture=PNG)
                    ),
                ),
                "Model": _object(
                    model=TEXT,
                    kind={"enum": ["single-label", "multi-label", "binary", "regression"]},
                    classes=_list(TEXT),
                    targets=_list(TEXT),
                    net=TEXT,
                    parameters={"type": "integer"},
                    data=TEXT,
                    score={"type": ["string", "null"]},
                    calibrated={"type": "boolean"},
                    channels={"type": "integer"},
                    height_px={"type": "integer"},
                    width_px={"type": "integer"},
                    resize={"enum": ["crop", "pad", "stretch"]},
                ),
            },
        },
        "security": [{}, {"token": []}],
    }


def _object(**properties: Schema) -> Schema:
    """An object that has all of these."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _refer(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _post(summary: str, answer: str, limit: int) -> Schema:
    several = _object(pictures={**_list({**TEXT, "contentEncoding": "base64"}), "maxItems": limit})
    bodies = {"image/*": BINARY, "application/octet-stream": BINARY, "application/json": several}
    schema = {"oneOf": [_refer(answer), _list({"oneOf": [_refer(answer), _refer("Problem")]})]}
    model = {"name": "model", "in": "query", "schema": TEXT, "description": "its name; by default the first"}
    responses = {
        "200": {"description": "for one picture, or a list", "content": {"application/json": {"schema": schema}}},
        "422": {
            "description": "the picture cannot be read",
            "content": {"application/json": {"schema": _refer("Problem")}},
        },
        **dict.fromkeys(("400", "401", "403", "404", "408", "413", "421", "500", "503"), ERROR),
    }
    content = {media: {"schema": given} for media, given in bodies.items()}
    request = {"required": True, "content": content}
    return {"post": {"summary": summary, "parameters": [model], "requestBody": request, "responses": responses}}


def _get(summary: str, media: str, schema: Schema, *others: int) -> Schema:
    given = {"description": summary, "content": {media: {"schema": schema}}}
    responses = {**{str(status): given for status in (200, *others)}, **dict.fromkeys(("401", "421"), ERROR)}
    return {"get": {"summary": summary, "responses": responses}}
