"""The description of the HTTP API (OpenAPI), made from the routes and from types of responses."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from types import NoneType
from typing import Any, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

from starlette.routing import BaseRoute, Route


class Error(TypedDict):
    """Why a request failed."""

    error: str


class Number(TypedDict):
    """A predicted number."""

    name: str
    value: float


ClassProbability = TypedDict("ClassProbability", {"class": str, "probability": float})


class ClassRow(ClassProbability, total=False):
    """A class or label, yes or no; labels and yes are predicted above the threshold."""

    threshold: float


class Predicted(TypedDict):
    """A prediction."""

    model: str
    weights: str
    predicted: str | list[str] | dict[str, float]
    predictions: list[ClassRow | Number]


class Prediction(Predicted, total=False):
    """The prediction for an image: a class, labels, or numbers by name.

    ``weights`` is a digest of the model's weights, ``question`` the target of a binary model.
    """

    question: str


class Problem(TypedDict):
    """Why an image has no result."""

    model: str
    problem: str


class Faithfulness(TypedDict):
    """How much the prediction changes when marked pixels are covered."""

    before: float
    by_map: float
    by_random_map: float
    is_against: bool
    is_number: bool


class Explanation(TypedDict):
    """The pixels that a prediction depends on; images are PNG in base64.

    The faithfulness is null if it would take too long.
    """

    model: str
    weights: str
    target: str
    faithfulness: Faithfulness | None
    image: str
    map: str


class TrainingImage(TypedDict):
    """A training image (PNG in base64), and its cosine similarity."""

    id: int
    target: str
    similarity: float
    image: str


class Similar(TypedDict):
    """The most similar training images."""

    model: str
    weights: str
    searched: int
    images: list[TrainingImage]


class Model(TypedDict):
    """A model of the server: single-label, multi-label, binary or regression.

    Gray images with more than 8 bits per channel are rejected.
    """

    model: str
    kind: str
    classes: list[str]
    targets: list[str]
    net: str
    parameters: int
    data: str
    weights: str
    score: str | None
    calibrated: bool
    calibrated_on: str | None
    aim: str
    thresholds_on: str | None
    thresholds: dict[str, float]
    channels: int
    height_px: int
    width_px: int
    resize: str


class Models(TypedDict):
    """The models and the settings of the server."""

    models: list[Model]
    tasks: list[str]
    limit_bytes: int


# what each path returns; other paths return text
RESULTS: dict[str, Any] = {
    "/v1/model": Models,
    "/v1/predict": Prediction | list[Prediction | Problem],
    "/v1/explain": Explanation,
    "/v1/similar": Similar,
    "/healthz": str,
    "/readyz": str,
}
SCHEMAS = (
    Error, Problem, Prediction, ClassRow, Number, Explanation, Faithfulness, Similar,
    TrainingImage, Model, Models,
)  # fmt: skip
TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}
BINARY = {"type": "string", "format": "binary"}
FORM = {"type": "object", "properties": {"image": {"type": "array", "items": BINARY}}}
BODY = {"content": {"image/*": {"schema": BINARY}, "multipart/form-data": {"schema": FORM}}}
# name of the model; by default the first
PARAMETER = {"name": "model", "in": "query", "schema": {"type": "string"}}
# if the server has a token
TOKEN = {"type": "http", "scheme": "bearer"}


def describe_api(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """The OpenAPI document of the routes that are not assets of the page."""
    paths: dict[str, Any] = {}
    for route in routes:
        if isinstance(route, Route) and route.path in RESULTS:
            responses = {
                "200": describe_response(RESULTS[route.path]),
                "default": describe_response(Error),
            }
            paths[route.path] = {"get": {"responses": responses}}
            if "POST" in (route.methods or ()):
                responses["422"] = describe_response(Problem)
                request = {"parameters": [PARAMETER], "requestBody": BODY}
                paths[route.path] = {"post": {**request, "responses": responses}}
    schemas = {kind.__name__: describe_fields(kind) for kind in SCHEMAS}
    return {
        "openapi": "3.1.0",
        "info": {"title": "lamina serve", "version": "1"},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"token": TOKEN}},
        "security": [{}, {"token": []}],
    }


def describe_response(kind: Any) -> dict[str, Any]:
    media_type = "text/plain" if kind is str else "application/json"
    return {"description": "see schema", "content": {media_type: {"schema": describe_type(kind)}}}


def describe_fields(kind: Any) -> dict[str, Any]:
    """The JSON Schema of an object by the fields of a ``TypedDict``."""
    properties = {name: describe_type(part) for name, part in get_type_hints(kind).items()}
    required = sorted(kind.__required_keys__)
    text = inspect.cleandoc(kind.__doc__)
    return {"type": "object", "description": text, "properties": properties, "required": required}


def describe_type(kind: Any) -> dict[str, Any]:
    """The JSON Schema of a type of a field."""
    if is_typeddict(kind):
        return {"$ref": f"#/components/schemas/{kind.__name__}"}
    if kind in TYPES:
        return {"type": TYPES[kind]}
    options = [describe_type(option) for option in get_args(kind)]
    if get_origin(kind) is list:
        return {"type": "array", "items": options[0]}
    if get_origin(kind) is dict:
        return {"type": "object", "additionalProperties": options[1]}
    return {"oneOf": options}
