"""The API as an OpenAPI document."""

from __future__ import annotations

from typing import Any

from lamina.deploy.serve.bodies import REQUEST_IMAGES

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
WEIGHTS: Schema = {"type": "string", "description": "digest of the model's weights"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
TRUTH: Schema = {"type": "boolean"}
PNG: Schema = {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"}
BINARY: Schema = {"type": "string", "format": "binary"}


def describe_api() -> Schema:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lamina serve",
            "version": "1",
            "description": (
                "Predictions of image classification and regression models. If the server has a token, requests need "
                "the header Authorization: Bearer TOKEN."
            ),
        },
        "paths": {
            "/v1/predict": _post("Predict images", "Prediction", REQUEST_IMAGES),
            "/v1/explain": _post("Map the pixels that the prediction depends on, and test the map", "Explanation", 1),
            "/v1/similar": _post("Find similar training images; 404 if they are not available", "Similar", 1),
            "/v1/model": _get("List the models", "application/json", _object(models=_list(_refer("Model")))),
            "/healthz": _get("Check that the server runs", "text/plain", TEXT),
            "/readyz": _get("Check that the server can predict; 503 if not", "text/plain", TEXT, 503),
            "/metrics": _get("Get metrics in the text format of Prometheus", "text/plain", TEXT),
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": _describe_schemas(),
        },
        "security": [{}, {"token": []}],
    }


def _describe_schemas() -> Schema:
    predicted = [TEXT, _list(TEXT), {"type": "object", "additionalProperties": NUMBER}]
    probability = {**NUMBER, "minimum": 0, "maximum": 1}
    similar = _object(id=WHOLE, target=TEXT, similarity=NUMBER, image=PNG)
    prediction = _object(
        model=TEXT,
        weights=WEIGHTS,
        predicted={"oneOf": predicted, "description": "the class, the labels, or the numbers by name"},
        predictions=_list({"oneOf": [_refer("ClassProbability"), _refer("Number")]}),
    )
    prediction["properties"]["question"] = {**TEXT, "description": "name of the target, for binary models"}
    return {
        "Error": _object(error=TEXT),
        "Problem": _object(model=TEXT, problem={**TEXT, "description": "why this image has no prediction"}),
        "Prediction": prediction,
        "ClassProbability": _object(**{"class": TEXT, "probability": probability}),
        "Number": _object(name=TEXT, value=NUMBER),
        "Explanation": _object(
            model=TEXT, weights=WEIGHTS, target=TEXT, trusted=TRUTH, reason=TEXT, image=PNG, map=PNG
        ),
        "Similar": _object(model=TEXT, weights=WEIGHTS, searched=WHOLE, images=_list(similar)),
        "Model": _object(
            model=TEXT,
            kind={"enum": ["single-label", "multi-label", "binary", "regression"]},
            classes=_list(TEXT),
            targets=_list(TEXT),
            net=TEXT,
            parameters=WHOLE,
            data=TEXT,
            weights=WEIGHTS,
            score={"type": ["string", "null"]},
            calibrated=TRUTH,
            thresholds={"type": "object", "additionalProperties": NUMBER},
            channels=WHOLE,
            height_px=WHOLE,
            width_px=WHOLE,
            resize={"enum": ["crop", "pad", "stretch"]},
        ),
    }


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _refer(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _respond(description: str, schema: Schema, media: str = "application/json") -> Schema:
    return {"description": description, "content": {media: {"schema": schema}}}


def _fail(*statuses: int) -> Schema:
    return {str(status): _respond("the request failed", _refer("Error")) for status in statuses}


def _post(summary: str, response: str, limit: int) -> Schema:
    several = _object(images={**_list({**TEXT, "contentEncoding": "base64"}), "maxItems": limit})
    bodies = {"image/*": BINARY, "application/octet-stream": BINARY, "application/json": several}
    schema = {"oneOf": [_refer(response), _list({"oneOf": [_refer(response), _refer("Problem")]})]}
    model = {"name": "model", "in": "query", "schema": TEXT, "description": "name of the model; default: the first"}
    responses = {
        "200": _respond("one result, or a list for a list of images", schema),
        "422": _respond("the image cannot be decoded", _refer("Problem")),
        **_fail(400, 401, 403, 404, 408, 413, 421, 500, 503),
    }
    request = {"required": True, "content": {media: {"schema": given} for media, given in bodies.items()}}
    return {"post": {"summary": summary, "parameters": [model], "requestBody": request, "responses": responses}}


def _get(summary: str, media: str, schema: Schema, *others: int) -> Schema:
    given = {str(status): _respond(summary, schema, media) for status in (200, *others)}
    return {"get": {"summary": summary, "responses": given | _fail(401, 421)}}
