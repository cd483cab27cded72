"""lamina inspect: sheets, tables and JSON of what a net has learned."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.commands import events, run_well

NET = "Conv2d(4, 3), BatchNorm(), ReLU(), GlobalAvgPool(), Output()"


@pytest.fixture(scope="module")
def runs(tmp_path_factory, image_set) -> Path:
    """A run of the bright and dark squares."""
    folder = tmp_path_factory.mktemp("inspect")
    words = ("--epochs", "30", "--lr", "0.03", "--name", "one")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_well("train", NET, "--data", image_set, *words)
    return folder / "runs"


def test_each_layer_gets_a_sheet_and_a_row(runs, workplace):
    done = run_well("inspect", runs / "one", "--output", "found")
    assert re.search(
        r"images: \d+ of \d+ in train for patches, \d+ of \d+ in (val|test) for scores\n",
        done.stderr,
    )
    assert "fitting probes to 2 layers, with trained and with random weights\n" in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split("\t") == [
        "layer",
        "units",
        "receptive field",
        "probe accuracy",
        "random weights",
    ]
    assert [line.split("\t")[:3] for line in lines[1:4]] == [
        ["image", "", ""],
        ["3 Conv2d, ReLU", "4", "3×3 px"],
        ["5 Output", "2", "the whole image"],
    ]
    assert lines[5].startswith("A probe is a linear classifier")
    assert sorted(file.name for file in Path("found").iterdir()) == [
        "layer-03-conv2d-relu.png",
        "layer-05-output.png",
        "probes.png",
    ]
    for file in Path("found").iterdir():
        with Image.open(file) as sheet:
            assert sheet.width > 300


def test_json_has_layers_and_units(runs, workplace):
    done = run_well("inspect", runs / "one", "--json", "--output", "found")
    printed = events(done.stdout)
    layers = [event for event in printed if event["event"] == "layer"]
    assert [(value["layer"], value["units"], value["sees_px"]) for value in layers] == [
        ("body.2", 4, [3, 3]),
        ("body.4", 2, None),
    ]
    assert layers[-1]["probe"] == 1.0  # bright and dark
    units = [event for event in printed if event["event"] == "unit"]
    assert sorted((value["layer"], value["unit"]) for value in units) == [
        *(("body.2", unit) for unit in range(1, 5)),
        *(("body.4", unit) for unit in range(1, 3)),
    ]
    last = next(value for value in units if value["layer"] == "body.4" and value["unit"] == 1)
    assert last["auc"] == {"bright": 1.0, "dark": 0.0}
    assert [patch["image"].split("/")[-2] for patch in last["patches"]] == ["bright"] * 9
    assert last["patches"][0]["box_px"] == [0, 0, 12, 12]


def test_one_layer(runs, workplace):
    done = run_well("inspect", runs / "one", "--layer", "1", "--output", "found")
    first, head, *rows, last = done.stdout.splitlines()
    assert first == "layer 1 Conv2d: 4 units, receptive field 3×3 px"
    assert head.split("\t") == ["unit", "separates best (AUC)"]
    assert sorted(row.split("\t")[0] for row in rows) == ["1", "2", "3", "4"]
    assert last == "figure: found/layer-01-conv2d.png"
    with Image.open("found/layer-01-conv2d.png") as sheet:
        assert np.asarray(sheet.convert("L")).std() > 10
