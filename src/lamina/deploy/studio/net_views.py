"""What Train would do, and what a net does before it is trained, as JSON values.

These functions run in the torch process.
"""

from __future__ import annotations

import math
import time
from typing import Any, TypeAlias, cast

import numpy as np
import torch

from lamina import zoo
from lamina.data.load import check_learnable
from lamina.deploy.studio.data_views import count_images, load_source
from lamina.deploy.studio.net_cards import read_net
from lamina.deploy.studio.page_words import reword
from lamina.deploy.studio.recipe_fields import read_fields, read_form
from lamina.deploy.studio.run_views import draw_units
from lamina.deploy.web.explanation import encode_png
from lamina.errors import LaminaError, NetError
from lamina.nets import Net, Shape, parse_net
from lamina.nets.costs import summarize_layers
from lamina.runs.nets_by_name import find_net
from lamina.runs.start import check_val
from lamina.studies.candidates import fit_experiment
from lamina.studies.experiment import Candidate, open_end
from lamina.targets import REGRESSION
from lamina.training.batches import check_images
from lamina.training.hooks import module_paths, record_calls
from lamina.training.model import build_model
from lamina.training.randomness import derive_seed, seeded
from lamina.training.recipe import Recipe
from lamina.training.task import task_of

Source: TypeAlias = tuple[str, int | None, str, str]
"""The arguments of :func:`load_source`."""
TIMED_IMAGES = 64
TURNS = 3
# of a net that is edited: a gigabyte, seconds
MOST_VALUES = 10**8
MOST_MULTIPLY_ADDS = 64 * 10**8
OPEN_EPOCHS = "as many as fit"
SAME = 1e-3  # relative difference of inputs and outputs that look the same


def plan_training(source: Source, net: str, form: dict[str, str]) -> dict[str, Any]:
    """The recipe and the splits of a training, as ``lamina train`` would choose them."""
    plan: dict[str, Any] = {"fields": {}, "reason": "", "images": {}, "problem": None}
    try:
        texts, time_limit, recipe = read_form(form)
        settings = read_fields(texts)
        net = read_net(net)
        if recipe == zoo.PUBLISHED and not source[2]:
            source = (*source[:2], "0", source[3])
        dataset = load_source(*source)
        train = dataset.train
        plan["images"] = count_images(dataset)
        check_learnable(dataset)
        if not net:
            return plan
        choice = find_net(net)
        experiment, decisions = fit_experiment(choice, dataset, recipe or None, settings)
        candidate = Candidate.of(experiment)
        if time_limit and recipe != zoo.PUBLISHED:
            candidate = open_end(candidate, settings)
        used = candidate.recipe
        outputs = task_of(train).outputs
        is_regression = train.kind is REGRESSION
        cast(Net, choice.net).check(train.shape, outputs, predicts_numbers=is_regression)
        check_images(train, used)
        used.find_metric(train.kind)
        used.find_aim(train.kind)
        check_val(used, dataset)
        plan["fields"] = {name: str(value) for name, value in vars(used).items()}
        if time_limit:
            plan["fields"]["epochs"] = OPEN_EPOCHS
        fits = [made.what for made in decisions if made.what.startswith("fitted")]
        plan["reason"] = "".join(fits)
    except LaminaError as error:
        plan["problem"] = reword(str(error))
    return plan


def show_untrained(source: Source, net: str, row: int) -> dict[str, Any]:
    """What each layer of the net makes of a training image before the first step.

    ``None`` for a layer whose output looks like its input.
    """
    train = load_source(*source).train
    row %= len(train)
    layers = parse_net(read_net(net)).check(train.shape, task_of(train).outputs)
    check_size(layers, train.shape, 1)
    with seeded(derive_seed(0, "weights"), torch.device("cpu")):
        model = build_model(layers, train, Recipe())
    pixels = np.ascontiguousarray(train.pixels[row : row + 1])
    calls = record_calls(model, torch.from_numpy(pixels), module_paths(model))
    drawn: list[dict[str, Any] | None] = []
    for path in module_paths(model):
        before, after = (values.flatten() for values in calls[path])
        is_same = len(before) == len(after) and torch.allclose(before, after, rtol=SAME)
        output = calls[path].output[0].float().numpy()
        drawn.append(None if is_same else draw_units(output))
    target = train.kind.format(train.targets[row], train.target_names)
    return {"image": encode_png(pixels[0]), "target": target, "layers": drawn}


def check_size(net: Net, shape: Shape, images: int) -> int:
    """The images of ``shape`` that the net can be tried on while it is edited, up to ``images``.

    ``NetError`` if it is too large.
    """
    summary = summarize_layers(net.layers, shape)
    values = (
        summary.parameters
        + 2 * math.prod(shape)
        + sum(math.prod(row.out_shape) for row in summary.rows)
    )
    affordable = min(
        images, MOST_MULTIPLY_ADDS // max(1, summary.multiply_adds), MOST_VALUES // values
    )
    if not affordable:
        raise NetError("The net is too large to be tried while it is edited.")
    return affordable


def time_layers(layers: str, shape: Shape, outputs: int) -> list[float]:
    """Milliseconds of each layer for 64 images, forward and backward, on one core, after a warmup.

    Large nets get fewer images, and their times are scaled.
    """
    net = parse_net(layers).check(shape, outputs)
    images = check_size(net, shape, TIMED_IMAGES)
    x = torch.randn(images, *shape).contiguous(memory_format=torch.channels_last)
    durations_ms = []
    for module in net.module(shape):
        times = []
        for _ in range(TURNS + 1):
            inputs = x.detach().requires_grad_()
            began = time.perf_counter()
            y = module(inputs)
            y.backward(torch.ones_like(y))
            times.append(time.perf_counter() - began)
        durations_ms.append(round(1000 * min(times[1:]) * TIMED_IMAGES / images, 3))
        x = y.detach()
    return durations_ms
