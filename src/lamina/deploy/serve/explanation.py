"""What an image's answer rests on, as a map to lay over the image, with the result of the map's own tests."""

from __future__ import annotations

import base64
import io
import time
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from lamina.errors import NetError
from lamina.insight.attribution import STEPS, TRUST_STEPS, choose_target, integrated_gradients, measure_strength
from lamina.insight.trust import judge
from lamina.training.features import predict_logits
from lamina.training.model import Model

MAP_SECONDS = 40.0  # time limit of a map, estimated from one step; a net that is slower gets none
# Time limit of the map's tests, which take two to four times as long as the map: of timm's resnet50 at 224 px with one
# thread of an EPYC 45 s after 12 s, of efficientnet_lite0 6 s after 2 s. The worker's own limit is for both.
TEST_SECONDS = 30.0
FOR, AGAINST = (178, 24, 43), (33, 102, 172)  # red and blue


def explain_image(model: Model, pixels: UInt8[np.ndarray, "1 h w c"]) -> dict[str, Any]:
    """Integrated gradients of the most likely class or label, or of the first number, and whether they are trusted."""
    task = model.task
    target = choose_target(task, predict_logits(model, pixels)[0])
    targets = np.array([target])
    for _ in range(2):  # a process's first takes longer
        began = time.monotonic()
        integrated_gradients(model, pixels, targets, steps=1)
        seconds = STEPS * (time.monotonic() - began)
        if seconds < MAP_SECONDS or seconds > STEPS * MAP_SECONDS / 4:
            break
    if seconds > MAP_SECONDS:
        raise NetError(f"A map of this net would take about {seconds:.0f} seconds on this machine, which is too long.")
    began = time.monotonic()
    maps = integrated_gradients(model, pixels, targets, steps=STEPS)
    is_trusted, reason = False, "it was not tested, as this would take too long on this machine"
    if 3 * (time.monotonic() - began) < TEST_SECONDS:
        (trust,) = judge(model, pixels, targets, maps, partial(integrated_gradients, steps=TRUST_STEPS))
        is_trusted, reason = trust.is_trusted, trust.reason
    return {
        "target": task.target_names[target],
        "trusted": is_trusted,
        "reason": reason,
        "image": encode_png(pixels[0]),
        "map": encode_png(paint_map(maps[0])),
    }


def paint_map(values: Float32[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 4"]:
    """A map as colours, the more opaque the stronger: red for the answer, blue against it.

    >>> paint_map(np.array([[1.0, 0.0, -1.0]], np.float32))[0].tolist()
    [[178, 24, 43, 230], [178, 24, 43, 0], [33, 102, 172, 230]]
    """
    painted = np.empty((*values.shape, 4), np.uint8)
    painted[..., :3] = np.where(values[..., None] >= 0, FOR, AGAINST)
    painted[..., 3] = np.rint(measure_strength(values)[0] * 230)
    return painted


def encode_png(pixels: UInt8[np.ndarray, "h w c"]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
