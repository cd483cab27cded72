"""Export a model with its preprocessing as an ONNX file, and compare the file with the model.

The input is ``images``, uint8 (N, H, W, C) at the model's input size. The outputs are
``probabilities`` (N, M), for regression the numbers, and ``logits`` (N, K).
"""

from __future__ import annotations

import copy
import json
import warnings
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from lamina.data import Images
from lamina.errors import NetError
from lamina.evaluation.predictions import check_finite
from lamina.evaluation.predictor import Predictor
from lamina.targets import BINARY
from lamina.training.model import Model
from lamina.training.prediction import fold_model, predict_logits

OPSET = 20  # ONNX operator set
IMAGES = 256  # compared at most, evenly spread over the split
NOISE_IMAGES = 64  # compared if the data are not on this machine
BATCHES = (1, 2, 7)  # sizes, in turn, to detect a fixed batch size
TOLERANCE = 1e-4  # of an output, relative to the largest output, or to 1
LAYOUT = "images: uint8 (N, height, width, channels), 0 to 255; channels: gray, or red, green, blue"


class Exported(nn.Module):
    """The computation of an exported file."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, images: UInt8[Tensor, "n h w c"]
    ) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n k"]]:
        logits = self.model(images)
        task = self.model.task
        return task.expand(task.probabilities(logits)), logits


def describe_model(predictor: Predictor) -> dict[str, Any]:
    """What a program must know to use the file; the metadata of the file."""
    task = predictor.task
    question = ""
    if task.kind is BINARY:
        (question,) = task.target_names
    return {
        "layout": LAYOUT,
        "kind": task.kind.name,
        "names": list(task.kind.name_values(task.target_names)),
        "question": question,
        "thresholds": list(task.cutoffs),
        "calibrated": bool(getattr(task, "temperatures", ())),
        "in_shape": list(predictor.input_format.shape),
        "resize": predictor.input_format.resize,
    }


def export_onnx(predictor: Predictor) -> bytes:
    """The content of an ONNX file with the model, its preprocessing and its metadata."""
    model = predictor.model
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise NetError(
            "onnx or onnxscript is not installed; the export needs both. Use pip install"
            " 'lamina[export]'"
        ) from error
    # two example images, because one would fix the batch size
    channels, height, width = model.in_shape
    examples = torch.zeros(2, height, width, channels, dtype=torch.uint8)
    exported = Exported(fold_model(copy.deepcopy(model).cpu())).eval()
    with warnings.catch_warnings(action="ignore"):  # torch warns about its own deprecated functions
        try:
            program = torch.onnx.export(
                exported,
                (examples,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("n")},),
                input_names=["images"],
                output_names=["probabilities", "logits"],
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # exporters fail in many ways
            raise _cannot_export(error) from error
    if program is None:
        raise NetError("torch.onnx returned no program for this net. Update torch and onnxscript.")
    proto = program.model_proto
    for key, value in describe_model(predictor).items():
        entry = proto.metadata_props.add()
        entry.key = key
        entry.value = value if isinstance(value, str) else json.dumps(value)
    return cast(bytes, proto.SerializeToString())


def _cannot_export(error: Exception) -> NetError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = next(
        (line for line in lines if "Error" in line or "not support" in line), (lines or [""])[0]
    )
    return NetError(
        f"The net cannot be exported ({type(error).__name__}: {reason:.200}). The exporter traces"
        " the forward pass once; write it without control flow that depends on the images."
    )


@dataclass(frozen=True)
class ParityCheck:
    """The numerical parity check of an exported file, which passed.

    Attributes:
        images: the number of compared images, without the black and the white image.
        split: where they are from; ``synthetic`` for noise.
        difference: the largest difference of a logit.
        limit: the largest difference of a logit that passes.
    """

    images: int
    split: str
    difference: float
    limit: float

    def __str__(self) -> str:
        return (
            f"matches the run on {self.images:,} {self.split} images, a black image and a white"
            f" image: logits differ by at most {self.difference:.1e} (limit {self.limit:.1e})"
        )


def check_parity(content: bytes, model: Model, images: Images | None) -> ParityCheck:
    """Compare an ONNX file with the model, in batches of several sizes.

    Args:
        content: the file.
        model: the model that was exported.
        images: images of which up to 256 are compared; ``None`` compares noise.

    Raises:
        NetError: logits or probabilities differ by more than 1e-4 of the largest, or of 1.
        NotFiniteError: the model's logits contain NaN or infinity.
    """
    if images is None:
        channels, height, width = model.in_shape
        size = (NOISE_IMAGES, height, width, channels)
        compared = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    else:
        compared = images.take_evenly(IMAGES).pixels
    black, white = np.zeros_like(compared[:1]), np.full_like(compared[:1], 255)
    pixels = np.concatenate([compared, black, white])
    if len(pixels) < sum(BATCHES):  # repeated, so that each size occurs
        pixels = np.resize(pixels, (sum(BATCHES), *pixels.shape[1:]))
    logits = predict_logits(model, pixels)
    check_finite(logits)
    with torch.inference_mode():
        outputs = model.task.probabilities(torch.from_numpy(logits))
        probabilities = model.task.expand(outputs).numpy()
    exported_probabilities, exported_logits = _run_in_batches(content, pixels)
    difference, limit = _measure_difference(exported_logits, logits)
    apart, most = _measure_difference(exported_probabilities, probabilities)
    if not (difference <= limit and apart <= most):
        raise NetError(
            f"The exported file does not match the run: logits differ by up to {difference:.2g}"
            f" (limit {limit:.2g}), probabilities by {apart:.2g} (limit {most:.2g}). The file was"
            " not written."
        )
    split = "synthetic" if images is None else str(images.split)
    return ParityCheck(len(compared), split, difference, limit)


def _measure_difference(
    exported: Float32[np.ndarray, "n m"], expected: Float32[np.ndarray, "n m"]
) -> tuple[float, float]:
    """The largest difference, and its limit."""
    if exported.shape != expected.shape:
        raise NetError(
            f"The exported file returns an output of shape {exported.shape}; expected"
            f" {expected.shape}. The file was not written."
        )
    limit = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    return float(np.abs(exported - expected).max()), limit


def _run_in_batches(
    content: bytes, pixels: UInt8[np.ndarray, "n h w c"]
) -> tuple[Float32[np.ndarray, "n m"], Float32[np.ndarray, "n k"]]:
    """The probabilities and logits of the file, by onnxruntime on the CPU."""
    try:
        import onnxruntime
    except ImportError as error:
        raise NetError(
            "onnxruntime is not installed; the check of the exported file needs it. Use pip install"
            " 'lamina[export]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    outputs: list[list[np.ndarray]] = []
    start = 0
    while start < len(pixels):
        size = BATCHES[len(outputs) % len(BATCHES)]
        outputs.append(session.run(None, {"images": pixels[start : start + size]}))
        start += size
    probabilities, logits = map(np.concatenate, zip(*outputs, strict=True))
    return probabilities, logits
