from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from served import MARKUP, Server, serving

from lamina.data import load_data
from lamina.evaluation.evaluating import evaluate
from lamina.nets import Flatten, Linear, Net, Output, ReLU
from lamina.training.loop import Training
from lamina.training.recipe import Recipe
from small_runs import DATA, RECIPE, begin_run


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs on the shapes: one with cached data, one with markup as class names, a faulty one.

    The last has a name that is not UTF-8, overflows on bright images, and names data that lies
    where nobody can look.
    """
    if sys.platform == "win32":
        pytest.skip("the tests look into /proc and send signals")
    folder = tmp_path_factory.mktemp("runs")
    net = Net(Flatten(), Linear(60), ReLU(), Output())
    data = load_data("shapes")
    training = Training(net, data.train, Recipe(epochs=1), device="cpu")
    for _ in training:
        pass
    shapes = begin_run(
        net, data, None, net_name="mlp", name="shapes", device="cpu", runs_dir=folder
    )
    shapes.folder.save_model(training.model)
    shapes.folder.save_report(evaluate(training.model, data.test.take_evenly(200)))
    train, test = (replace(images, target_names=MARKUP) for images in (DATA.train, DATA.test))
    data = replace(DATA, train=train, test=test)
    training = Training(net, train, RECIPE, device="cpu")
    hostile = begin_run(
        net, data, RECIPE, net_name="<b>tiny</b>", name="hostile", device="cpu", runs_dir=folder
    )
    hostile.folder.save_model(training.model)
    with torch.no_grad():
        next(training.model.parameters()).fill_(4e36)
    faulty = begin_run(
        net,
        replace(data, source="/" + "x" * 300),
        RECIPE,
        net_name="tiny",
        name="faulty",
        device="cpu",
        runs_dir=folder,
    )
    faulty.folder.save_model(training.model)
    return {
        "shapes": shapes.path,
        "hostile": hostile.path,
        "faulty": faulty.path.rename(folder / "faulty\udce9"),
    }


@pytest.fixture(scope="session")
def server(runs: dict[str, Path]) -> Iterator[Server]:
    """All of them behind one server, as it is by default."""
    with serving(*runs.values()) as started:
        yield started
