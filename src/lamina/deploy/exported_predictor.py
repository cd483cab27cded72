"""Predict with an exported ONNX file, by onnxruntime and without torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from jaxtyping import Float32

from lamina.data.arrays import Pixels
from lamina.data.decoding import InputFormat
from lamina.data.preparation import Resize
from lamina.errors import NetError, RunError
from lamina.evaluation.image_predictor import ImagePredictor
from lamina.evaluation.predictions import check_finite
from lamina.files import read_bytes
from lamina.targets import BINARY, MULTI_LABEL, Kind, KindName, find_kind
from lamina.values import Range, fields_to_json, from_json_values

if TYPE_CHECKING:
    import onnxruntime

LARGEST_SIDE_PX = 4096
BATCH_IMAGES = 16  # more at once are not faster, and need more memory
LAYOUT = "images: uint8 (N, height, width, channels), 0 to 255; channels: gray, or red, green, blue"
OUTPUTS = ("probabilities", "logits")
TEXTS = ("kind", "question", "resize")  # metadata that are not JSON


@dataclass(frozen=True)
class Description:
    """The metadata of an exported file.

    Attributes:
        kind: the kind of target.
        names: the names of the columns of ``probabilities``.
        question: the yes-or-no question; otherwise empty.
        thresholds: of labels or yes, in float32; otherwise empty.
        calibrated: whether the file divides the logits by temperatures.
        in_shape: channels, height and width of the input.
        resize: how to fit images of a different size.
    """

    kind: KindName
    names: tuple[str, ...]
    question: str
    thresholds: tuple[Annotated[float, Range(0, 1)], ...]
    calibrated: bool
    in_shape: tuple[Annotated[int, Range(1, LARGEST_SIDE_PX)], ...]
    resize: Resize

    def to_json(self) -> dict[str, Any]:
        return {"layout": LAYOUT, **fields_to_json(self)}

    def to_metadata(self) -> dict[str, str]:
        """Text as it is, other values as JSON."""
        metadata = {}
        for name, value in self.to_json().items():
            metadata[name] = value if isinstance(value, str) else json.dumps(value)
        return metadata

    @staticmethod
    def from_metadata(metadata: Mapping[str, str]) -> Description:
        """The description that :meth:`to_metadata` wrote; ``KeyError`` or ``ValueError``."""
        values: dict[str, Any] = {}
        for field in dataclasses.fields(Description):
            text = metadata[field.name]
            values[field.name] = text if field.name in TEXTS else json.loads(text)
        return from_json_values(Description, values, "metadata")


@dataclass(frozen=True)
class ExportedTask:
    """The :class:`Decision` of an exported file."""

    kind: Kind
    target_names: tuple[str, ...]
    cutoffs: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class ExportedPredictor(ImagePredictor):
    """An exported file, loaded by onnxruntime. Its probabilities include the temperatures."""

    session: onnxruntime.InferenceSession
    description: Description

    @property
    def input_format(self) -> InputFormat:
        described = self.description
        return InputFormat(described.in_shape, described.resize)

    @cached_property
    def task(self) -> ExportedTask:
        described = self.description
        names = described.names
        if described.kind == "binary":
            names = (described.question,)
        return ExportedTask(find_kind(described.kind), names, described.thresholds)

    def _compute(self, pixels: Pixels) -> Float32[np.ndarray, "n k"]:
        outputs = len(self.task.target_names)
        parts = [np.empty((0, outputs), np.float32)]
        for start in range(0, len(pixels), BATCH_IMAGES):
            batch = np.ascontiguousarray(pixels[start : start + BATCH_IMAGES])
            probabilities, logits = self._run(batch)
            check_finite(logits)
            check_finite(probabilities)
            parts.append(probabilities[:, -outputs:])  # of yes alone, as a task's
        return np.concatenate(parts)

    def _run(self, batch: Pixels) -> tuple[np.ndarray, np.ndarray]:
        try:
            probabilities, logits = self.session.run(OUTPUTS, {"images": batch})
        except Exception as error:  # onnxruntime's errors have no common class
            raise RunError(
                "onnxruntime cannot compute this exported file:"
                f" {str(error).splitlines()[0]:.200}. Export the run again."
            ) from error
        if len(probabilities) != len(batch) or len(logits) != len(batch):
            raise RunError(
                f"The exported file returns {len(logits):,} rows for {len(batch):,} images. Export"
                " the run again."
            )
        return probabilities, logits


def load_exported(file: Path, *, threads: int) -> ExportedPredictor:
    """Load a file that ``lamina export`` wrote; ``RunError`` if it is another file, or damaged."""
    session = open_session(read_bytes(file), str(file), threads)
    try:
        description = Description.from_metadata(session.get_modelmeta().custom_metadata_map)
        predictor = ExportedPredictor(session, description)
        _check_graph(predictor)
    except (KeyError, ValueError, RecursionError) as error:
        raise RunError(
            f"{file} was not exported by this version of lamina: its metadata are missing or do not"
            " fit its net. Export the run again."
        ) from error
    return predictor


def _check_graph(predictor: ExportedPredictor) -> None:
    """Raise ``ValueError`` unless the metadata fit the graph."""
    described = predictor.description
    channels, height, width = described.in_shape
    (images,) = predictor.session.get_inputs()
    outputs = predictor.session.get_outputs()
    shapes = {output.name: output.shape[1:] for output in outputs}
    types = {images.type, *(output.type for output in outputs)}
    names = described.names
    logits = len(predictor.task.target_names)
    thresholds = 0
    if predictor.task.kind in (BINARY, MULTI_LABEL):
        thresholds = logits
    fits = (
        (images.name, images.shape[1:]) == ("images", [height, width, channels])
        and shapes == {"probabilities": [len(described.names)], "logits": [logits]}
        and len(described.thresholds) == thresholds
        and types == {"tensor(uint8)", "tensor(float)"}
        and images.type == "tensor(uint8)"
        and 0 < len(names) == len(set(names))
    )
    if not fits:
        raise ValueError("the metadata do not fit the graph")


def open_session(content: bytes, what: str, threads: int) -> onnxruntime.InferenceSession:
    """An onnxruntime session for an ONNX file, on the CPU; ``what`` names the file in errors."""
    try:
        import onnxruntime
    except ImportError as error:
        raise NetError(
            "onnxruntime is not installed; ONNX files need it. Use pip install 'lamina[export]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class
        raise RunError(
            f"onnxruntime cannot load {what}: {str(error).splitlines()[0]:.200}. Use a run, or an"
            " ONNX file from lamina export."
        ) from error
