"""Export a model with its preprocessing as an ONNX file, and use such files as models.

The input is ``images``, uint8 (N, H, W, C) at the model's input size. The outputs are
``probabilities`` (N, M), for regression the numbers, and ``logits`` (N, K).
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lamina.errors import LaminaError, NetError, RunError
from lamina.evaluation.predictor import Predictor, check_bit_depth, check_resize
from lamina.files import read_bytes
from lamina.training.model import Model
from lamina.training.prediction import fold_model
from lamina.training.task import Task

if TYPE_CHECKING:
    import onnxruntime

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


def describe_model(predictor: Predictor) -> dict[str, Any]:
    task = predictor.task
    return {
        "task": task.to_json(),
        "kind": task.kind.name,
        "names": list(task.kind.class_names(task.target_names) or task.target_names),
        "thresholds": list(task.cutoffs),
        "in_shape": list(predictor.model.in_shape),
        "layout": (
            "images: uint8 (N, height, width, channels), 0 to 255; channels: gray, or red, green,"
            " blue"
        ),
        "resize": predictor.resize,
        "bit_depth": predictor.bit_depth,
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


class OnnxModel(Model):
    """An exported ONNX file used as a model. It has no layers or weights, and cannot be trained."""

    def __init__(
        self, session: onnxruntime.InferenceSession, task: Task, in_shape: tuple[int, int, int]
    ) -> None:
        channels = in_shape[0]
        super().__init__(
            nn.Identity(),
            net=None,
            task=task,
            in_shape=in_shape,
            mean=(0.0,) * channels,
            std=(1.0,) * channels,
        )
        self._session = session

    def forward(self, images: UInt8[Tensor, "n h w c"]) -> Float[Tensor, "n k"]:
        (logits,) = self._session.run(["logits"], {"images": images.numpy()})
        return torch.from_numpy(logits)

    def __copy__(self) -> OnnxModel:
        return OnnxModel(self._session, self.task, cast(tuple[int, int, int], self.in_shape))


def open_session(content: bytes, what: str) -> onnxruntime.InferenceSession:
    """An onnxruntime session for an ONNX file, on the CPU; ``what`` names the file in errors."""
    try:
        import onnxruntime
    except ImportError as error:
        raise NetError(
            "onnxruntime is not installed; ONNX files need it. Use pip install 'lamina[export]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class
        raise RunError(
            f"onnxruntime cannot load {what}: {str(error).splitlines()[0]:.200}. Use a run, or an"
            " ONNX file from lamina export."
        ) from error


def open_onnx(file: Path) -> Predictor:
    session = open_session(read_bytes(file), str(file))
    metadata: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
    try:
        task = Task.from_json(json.loads(metadata["task"]))
        channels, height, width = (int(size) for size in json.loads(metadata["in_shape"]))
        resize = metadata["resize"]
        bit_depth = json.loads(metadata["bit_depth"])
        check_resize(resize)
        check_bit_depth(bit_depth)
        (images,) = session.get_inputs()
        (logits,) = (output for output in session.get_outputs() if output.name == "logits")
        shapes = [*images.shape[1:], *logits.shape[1:]]
        if shapes != [height, width, channels, task.outputs]:
            raise ValueError("the metadata differ from the file")
    except (KeyError, ValueError, TypeError, IndexError, LaminaError) as error:
        raise RunError(
            f"{file} was not exported by lamina: it must have the metadata task, in_shape,"
            " resize and bit_depth. Export the run again."
        ) from error
    model = OnnxModel(session, task, (channels, height, width))
    return Predictor(model, resize, bit_depth)
