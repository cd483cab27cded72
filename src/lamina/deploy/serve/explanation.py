"""``/v1/explain``: an attribution map of the prediction for an image, with the result of the map's tests."""

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

MAP_SECONDS = 40.0  # time limit of a map, estimated from one step; slower nets get no map
# Time limit of the map's tests, which take two to four times as long as the map. With one thread of an EPYC at 224 px:
# timm's resnet50 12 s + 45 s, efficientnet_lite0 2 s + 6 s. The worker's limit covers both.
TEST_SECONDS = 30.0
FOR, AGAINST = (178, 24, 43), (33, 102, 172)  # red and blue


def explain_image(model: Model, pixels: UInt8[np.ndarray, "1 h w c"]) -> dict[str, Any]:
    """Integrated gradients of the most likely class or label, or of the first number, and their tests."""
    task = model.task
    target = choose_target(task, predict_logits(model, pixels)[0])
    targets = np.array([target])
    for _ in range(2):  # the first call in a process takes longer
        began = time.monotonic()
        integrated_gradients(model, pixels, targets, steps=1)
        seconds = STEPS * (time.monotonic() - began)
        if seconds < MAP_SECONDS or seconds > STEPS * MAP_SECONDS / 4:
            break
    if seconds > MAP_SECONDS:
        raise NetError(
            f"A map would take about {seconds:.0f} s on this machine; the limit is {MAP_SECONDS:.0f} s. "
            "Use lamina explain, which has no limit."
        )
    began = time.monotonic()
    maps = integrated_gradients(model, pixels, targets, steps=STEPS)
    is_trusted, reason = False, "it was not tested, because the tests would take too long on this machine"
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
    """A map as RGBA pixels: red is evidence for the prediction, blue evidence against it; stronger is more opaque."""
    painted = np.empty((*values.shape, 4), np.uint8)
    painted[..., :3] = np.where(values[..., None] >= 0, FOR, AGAINST)
    painted[..., 3] = np.rint(measure_strength(values)[0] * 230)
    return painted


def encode_png(pixels: UInt8[np.ndarray, "h w c"]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
