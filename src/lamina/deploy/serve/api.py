"""The description of the HTTP API (OpenAPI), made from the routes and from types of responses."""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    TypedDict,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from starlette.routing import BaseRoute, Route

Digest = Annotated[str, "digest of the model's weights"]
Png = Annotated[str, "a PNG image in base64"]

ClassProbability = TypedDict(
    "ClassProbability",
    {
        "class": str,
        "probability": float,
        "threshold": NotRequired[
            Annotated[float, "predicted above this probability: labels, and yes"]
        ],
    },
)


class Error(TypedDict):
    """Why a request failed."""

    error: str


class Number(TypedDict):
    """A predicted number."""

    name: str
    value: float
    half_width: NotRequired[Annotated[float, "of the prediction interval, with --coverage"]]


class Prediction(TypedDict):
    """The prediction for an image."""

    model: str
    weights: Digest
    predicted: Annotated[
        str | list[str] | dict[str, float], "the class, the labels, or the numbers by name"
    ]
    predictions: list[ClassProbability | Number]
    question: NotRequired[Annotated[str, "name of the target, for binary models"]]
    set: NotRequired[Annotated[list[str], "the prediction set, with --coverage"]]


class Problem(TypedDict):
    """Why an image has no result."""

    model: str
    problem: str


class Faithfulness(TypedDict):
    """How much the prediction changes when marked pixels are covered."""

    correlations: list[float]
    before: float
    by_map: float
    by_random_map: float
    by_center: float
    is_against: bool
    is_number: bool


class Explanation(TypedDict):
    """The pixels that a prediction depends on."""

    model: str
    weights: Digest
    target: str
    faithfulness: Annotated[Faithfulness | None, "null if it would take too long"]
    image: Png
    map: Png


class TrainingImage(TypedDict):
    """A training image, and its cosine similarity."""

    id: int
    target: str
    similarity: float
    image: Png


class Similar(TypedDict):
    """The most similar training images."""

    model: str
    weights: Digest
    searched: int
    images: list[TrainingImage]


class Model(TypedDict):
    """A model of the server."""

    model: str
    kind: Literal["single-label", "multi-label", "binary", "regression"]
    classes: list[str]
    targets: list[str]
    net: str
    parameters: int
    data: str
    weights: Digest
    score: str | None
    calibrated: bool
    calibrated_on: str | None
    aim: str
    thresholds_on: Annotated[str | None, "the images that the thresholds were chosen on"]
    thresholds: dict[str, float]
    channels: int
    height_px: int
    width_px: int
    resize: Literal["crop", "pad", "stretch"]
    bit_depth: Annotated[
        int | None, "of images with more than 8 bits per channel; null: they are refused"
    ]
    coverage_interval: Annotated[
        list[float] | None, "95 % interval of the fraction of new images that --coverage covers"
    ]


class Models(TypedDict):
    """The models and the settings of the server."""

    models: list[Model]
    tasks: list[str]
    limit_bytes: int
    coverage: float | None


# what each path returns; other paths return text
RESULTS: dict[str, Any] = {
    "/v1/model": Models,
    "/v1/predict": Prediction | list[Prediction | Problem],
    "/v1/explain": Explanation,
    "/v1/similar": Similar,
}
SCHEMAS = (
    Error, Problem, Prediction, ClassProbability, Number, Explanation, Faithfulness, Similar,
    TrainingImage, Model, Models,
)  # fmt: skip
TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}
BINARY = {"type": "string", "format": "binary"}
FORM = {"type": "object", "properties": {"image": {"type": "array", "items": BINARY}}}
BODY = {
    "required": True,
    "content": {
        "image/*": {"schema": BINARY},
        "application/octet-stream": {"schema": BINARY},
        "multipart/form-data": {"schema": FORM},
    },
}
PARAMETER = {
    "name": "model",
    "in": "query",
    "schema": {"type": "string"},
    "description": "name of the model; default: the first",
}
INFO = {
    "title": "lamina serve",
    "version": "1",
    "description": (
        "Predictions of image models. If the server has a token, requests need the header"
        " Authorization: Bearer TOKEN."
    ),
}


def describe_api(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """The OpenAPI document of those routes that are no assets of the page."""
    paths = {}
    for route in routes:
        if isinstance(route, Route) and (route.path in RESULTS or route.path.endswith("z")):
            method = "post" if "POST" in (route.methods or ()) else "get"
            paths[route.path] = {method: describe_route(route.path, method)}
    schemas = {kind.__name__: describe_fields(kind) for kind in SCHEMAS}
    security = {"token": {"type": "http", "scheme": "bearer"}}
    components = {"schemas": schemas, "securitySchemes": security}
    document = {"openapi": "3.1.0", "info": INFO, "paths": paths, "components": components}
    return document | {"security": [{}, {"token": []}]}


def describe_route(path: str, method: str) -> dict[str, Any]:
    responses = {"default": describe_response("the request failed", Error)}
    if path in RESULTS:
        responses["200"] = describe_response("the result", RESULTS[path])
    else:
        content = {"text/plain": {"schema": {"type": "string"}}}
        responses["200"] = {"description": "a text", "content": content}
        responses["503"] = {"description": "not ready", "content": content}
    if method == "get":
        return {"responses": responses}
    responses["422"] = describe_response("the image cannot be decoded", Problem)
    return {"parameters": [PARAMETER], "requestBody": BODY, "responses": responses}


def describe_response(text: str, kind: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": describe_type(kind)}}
    return {"description": text, "content": content}


def describe_fields(kind: Any) -> dict[str, Any]:
    """The JSON Schema of an object by the fields of a ``TypedDict``."""
    fields = get_type_hints(kind, include_extras=True)
    properties = {name: describe_type(part) for name, part in fields.items()}
    # Python does not see NotRequired in annotations that are not evaluated, as in this file.
    required = [name for name, part in fields.items() if get_origin(part) is not NotRequired]
    return {"type": "object", "properties": properties, "required": required}


def describe_type(kind: Any) -> dict[str, Any]:
    """The JSON Schema of a type of a field."""
    origin = get_origin(kind)
    arguments = get_args(kind)
    if is_typeddict(kind):
        return {"$ref": f"#/components/schemas/{kind.__name__}"}
    if origin is NotRequired:
        return describe_type(arguments[0])
    if origin is Annotated:
        return describe_type(arguments[0]) | {"description": arguments[1]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is list:
        return {"type": "array", "items": describe_type(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": describe_type(arguments[1])}
    if origin in (Union, UnionType):
        return {"oneOf": [describe_type(option) for option in arguments]}
    return {"type": TYPES[kind]}
