"""Export a model with its preprocessing as an ONNX file.

The input is ``images``, uint8 (N, H, W, C) at the model's input size. The outputs are
``probabilities`` (N, M), for regression the numbers, and ``logits`` (N, K).
"""

from __future__ import annotations

import copy
import warnings
from typing import cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lamina.deploy.exported_predictor import Description
from lamina.errors import NetError
from lamina.evaluation.predictor import Predictor
from lamina.targets import BINARY
from lamina.training.model import Model
from lamina.training.prediction import fold_model

OPSET = 20  # ONNX operator set


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


def describe_model(predictor: Predictor) -> Description:
    task = predictor.task
    question = ""
    if task.kind is BINARY:
        (question,) = task.target_names
    return Description(
        kind=task.kind.name,
        names=task.kind.name_values(task.target_names),
        question=question,
        thresholds=task.cutoffs,
        calibrated=bool(getattr(task, "temperatures", ())),
        in_shape=predictor.input_format.shape,
        resize=predictor.input_format.resize,
    )


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
    for key, value in describe_model(predictor).to_metadata().items():
        entry = proto.metadata_props.add()
        entry.key = key
        entry.value = value
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
