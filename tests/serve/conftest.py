from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from served import Server, serving

from lamina.data import load_data
from lamina.evaluation.evaluating import evaluate
from lamina.nets import Flatten, Linear, Net, Output, ReLU
from lamina.runs.start import begin_run
from lamina.training.loop import Training
from lamina.training.recipe import Recipe
from small_runs import DATA, RECIPE

MARKUP = ("<img src=x onerror=\"document.title='owned'\">", "<script>alert(1)</script>", "{{7*7}}\u202egnp.exe\n")
"""Classes whose names a page would obey, were they more than text to it."""


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run trained on the shapes, whose data is in the cache, and one whose classes are named as markup."""
    if sys.platform == "win32":
        pytest.skip("the tests look into /proc and send signals")
    folder = tmp_path_factory.mktemp("runs")
    net = Net(Flatten(), Linear(60), ReLU(), Output())
    data = load_data("shapes")
    training = Training(net, data.train, Recipe(epochs=1), device="cpu")
    for _ in training:
        pass
    shapes = begin_run(net, data, None, net_name="mlp", name="shapes", device="cpu", runs_dir=folder)
    shapes.save_model(training.model)
    shapes.save_report(evaluate(training.model, data.test.take_evenly(200)))
    train, test = (replace(images, target_names=MARKUP) for images in (DATA.train, DATA.test))
    data = replace(DATA, train=train, test=test)
    training = Training(net, train, RECIPE, device="cpu")
    hostile = begin_run(net, data, RECIPE, net_name="<b>tiny</b>", name="hostile", device="cpu", runs_dir=folder)
    hostile.save_model(training.model)
    return {"shapes": shapes.path, "hostile": hostile.path}


@pytest.fixture(scope="session")
def server(runs: dict[str, Path]) -> Iterator[Server]:
    """Both runs behind one server, as it is by default."""
    with serving(*runs.values()) as started:
        yield started
