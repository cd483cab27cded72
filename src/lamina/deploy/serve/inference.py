"""The runs that ``lamina serve`` serves, and the responses of their models."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from lamina.errors import LaminaError, RunError
from lamina.evaluation.calibration import Calibration
from lamina.evaluation.predictions import Prediction
from lamina.evaluation.predictor import Predictor
from lamina.runs.run import Run, load_run
from lamina.targets import BINARY, REGRESSION
from lamina.training.prediction import fold_model


@dataclass(frozen=True)
class Served:
    """A served run, with its name in requests."""

    name: str
    run: Run
    predictor: Predictor

    @cached_property
    def weights(self) -> str:
        """A digest of the weights; it changes if another model takes the name."""
        with self.run.folder.weights_file.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """The run's entry in ``GET /v1/model``."""
        record = self.run.record
        task = self.predictor.task
        channels, height, width = record.in_shape
        score = None
        if self.run.report is not None:
            score = f"{self.run.report.split} {self.run.report.score}"
        return {
            "model": self.name,
            "kind": task.kind.name,
            "classes": task.kind.class_names(task.target_names),
            "targets": task.target_names,
            "net": record.net_name,
            "parameters": record.parameters,
            "data": record.data.name,
            "score": score,
            "weights": self.weights,
            "thresholds": dict(zip(task.target_names, task.cutoffs, strict=False)),
            "channels": channels,
            "height_px": height,
            "width_px": width,
            "resize": self.predictor.resize,
            **describe_calibration(self.run.calibration),
        }


def describe_calibration(calibration: Calibration | None) -> dict[str, Any]:
    aim = ""
    calibrated_on = None
    thresholds_on = None
    if calibration is not None:
        aim = calibration.aim
        if calibration.temperatures:
            calibrated_on = calibration.source
        if calibration.thresholds:
            thresholds_on = calibration.source
    return {
        "calibrated": calibrated_on is not None,
        "calibrated_on": calibrated_on,
        "aim": aim,
        "thresholds_on": thresholds_on,
    }


def format_prediction(served: Served, prediction: Prediction) -> dict[str, Any]:
    """A prediction as a response: classes by decreasing probability, numbers in target order."""
    if prediction.problem is not None:
        return {"model": served.name, "problem": prediction.problem, "status": 422}
    task = served.predictor.task
    values = list(prediction.values.items())
    rows: list[dict[str, Any]]
    response: dict[str, Any] = {
        "model": served.name,
        "weights": served.weights,
        "predicted": prediction.predicted,
    }
    if task.kind is REGRESSION:
        rows = [{"name": name, "value": value} for name, value in values]
        return {**response, "predictions": rows}
    names: Sequence[str] = task.target_names
    if task.kind is BINARY:
        response["question"] = names[0]
        names = ("yes",)
    cutoffs = dict(zip(names, task.cutoffs, strict=False))
    ranked = sorted(values, key=lambda pair: -pair[1])
    rows = [{"class": name, "probability": value} for name, value in ranked]
    for row in rows:
        if row["class"] in cutoffs:  # rounded as the probabilities are
            row["threshold"] = float(f"{cutoffs[row['class']]:.7g}")
    return {**response, "predictions": rows}


def respond(served: Served, images: Sequence[bytes]) -> list[dict[str, Any]]:
    """A response for each image; failures have a ``problem`` and an HTTP ``status``."""
    try:
        predictions = list(served.predictor.iter_predict(images))
    except Exception as error:
        if len(images) > 1:
            # The images may come from several clients, and only one of them may be at fault.
            return [respond(served, [image])[0] for image in images]
        reason = str(error)
        if not isinstance(error, LaminaError):
            traceback.print_exc()
            reason = f"The prediction failed ({type(error).__name__}). See the server's output."
        return [{"problem": reason, "status": 500}]
    return [format_prediction(served, prediction) for prediction in predictions]


def open_runs(runs: Mapping[str, str], device: str) -> list[Served]:
    """Load the runs and predict once with each, so that the first request does not wait."""
    # The server needs a core too: on two cores, a second thread would only wait.
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))
    served = []
    for name, path in runs.items():
        run = load_run(path)
        if run.record.own_module is not None:
            raise RunError(
                f"{path} uses a custom module, and lamina never runs code that a run names. "
                "Serve runs of lamina's or timm's nets."
            )
        predictor = run.predictor(device=device)
        predictor = replace(predictor, model=fold_model(predictor.model))
        channels, height, width = predictor.model.in_shape
        predictor.predict(np.zeros((1, height, width, channels), np.uint8))
        served.append(Served(name, run, predictor))
    return served
