"""The plan of a training run, and the outputs of an untrained net, as JSON values.

They run in the threads of the studio.
"""

from __future__ import annotations

from typing import Any

from lamina import zoo
from lamina.data.load import check_learnable
from lamina.deploy.studio.arguments import Side, Texts
from lamina.deploy.studio.data_folder import DataFolder
from lamina.deploy.studio.data_views import count_images, load_source
from lamina.deploy.studio.explanation import encode_png
from lamina.deploy.studio.net_cards import read_net
from lamina.deploy.studio.recipe_fields import name_field, read_fields, read_form, read_seconds
from lamina.deploy.studio.run_views import draw_units
from lamina.deploy.studio.untrained import run_untrained
from lamina.errors import LaminaError
from lamina.nets import parse_net
from lamina.runs.start import find_net
from lamina.studies.experiment import Request
from lamina.studies.train_net import check_trainable, plan_named

OPEN_EPOCHS = "as many as fit"


def plan_training(
    folder: DataFolder,
    source: str,
    size_px: Side | None = None,
    val: str = "",
    net: str = "",
    fields: Texts = None,
) -> dict[str, Any]:
    """The recipe and the splits that ``lamina train`` would choose."""
    plan: dict[str, Any] = {"fields": {}, "reason": "", "images": {}, "problem": None}
    try:
        texts, time_limit, recipe = read_form(fields or {})
        read_seconds(time_limit)
        settings = read_fields(texts)
        net = read_net(net)
        if recipe == zoo.PUBLISHED and not val:
            val = "0"
        dataset = load_source(folder, source, size_px, val)
        plan["images"] = count_images(dataset)
        check_learnable(dataset)
        if not net:
            return plan
        request = Request(find_net(net), recipe or None, settings)
        candidate, decisions = plan_named(dataset, request, is_timed=bool(time_limit))
        check_trainable(candidate)
        plan["fields"] = {name: str(value) for name, value in vars(candidate.recipe).items()}
        if time_limit:
            plan["fields"]["epochs"] = OPEN_EPOCHS
        fits = (made.what for made in decisions if made.what.startswith("fitted"))
        plan["reason"] = "".join(fits)
    except LaminaError as error:
        plan |= {"problem": name_field(error.problem, error.field), "field": error.field}
    return plan


def show_untrained(
    folder: DataFolder,
    source: str,
    text: str,
    size_px: Side | None = None,
    val: str = "",
    row: int = 0,
) -> dict[str, Any]:
    """The output of each layer of the net for a training image before the first step."""
    train = load_source(folder, source, size_px, val).train
    row %= len(train)
    outputs = run_untrained(parse_net(read_net(text)), train, row)
    return {
        "image": encode_png(train.pixels[row]),
        "target": train.kind.format(train.targets[row], train.target_names),
        "layers": [None if output is None else draw_units(output) for output in outputs],
    }
