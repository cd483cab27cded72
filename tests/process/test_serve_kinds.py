"""Runs of each kind of target and net predict as ``lamina predict`` does, and write nothing."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from lamina.cli import main
from lamina.data import Preparation, load_data
from lamina.evaluation.calibration import Calibration
from lamina.runs.loading import load_run
from lamina.runs.record import OwnModule
from lamina.training.loop import Training
from lamina.training.pretrained import TimmNet
from support.commands import run_refused
from support.images import encode
from support.runs import DATA, NET, RECIPE, begin_run
from support.servers import Server, fits, open_page, serving

IMAGE = encode(np.random.default_rng(3).integers(0, 256, (40, 32, 3), np.uint8))
ROWS = np.arange(12)
TARGETS = {
    "multi-label": (np.stack([ROWS % 2 > 0, ROWS % 3 > 0], axis=1), ("wet", "old")),
    "binary": (ROWS % 2 > 0, ("a cat?",)),
    "regression": (np.stack([ROWS, 1 / (ROWS + 1)], axis=1).astype(np.float32), ("2020", "2019")),
}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained runs: each kind of target, grey images, a timm net, and with a temperature."""
    folder = tmp_path_factory.mktemp("kinds")
    wide = replace(
        DATA.train, pixels=np.random.default_rng(1).integers(0, 256, (12, 32, 32, 3), np.uint8)
    )
    given = {
        **{
            kind: (NET, replace(DATA.train, targets=found, target_names=names))
            for kind, (found, names) in TARGETS.items()
        },
        "grey": (NET, replace(DATA.train, pixels=DATA.train.pixels[..., :1])),
        "timm": (TimmNet("test_efficientnet.r160_in1k", "none", ""), wide),
        "calibrated": (NET, DATA.train),
    }
    found = {}
    for name, (net, images) in given.items():
        origin = net if isinstance(net, TimmNet) else None
        made = net.module((3, 32, 32), 3) if isinstance(net, TimmNet) else net
        data = replace(DATA, train=images, test=None)
        run = begin_run(
            made,
            data,
            RECIPE,
            net_name=str(name),
            origin=origin,
            name=name,
            runs_dir=folder,
        )
        run.folder.save_model(Training(made, images, RECIPE).model)
        found[name] = run.path
    load_run(found["calibrated"]).folder.save_calibration(Calibration("val", 100, (3.0,)))
    return found


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two runs, one of which overflows on bright images, and their cached images."""
    folder = tmp_path_factory.mktemp("cached")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMINA_CACHE", str(folder / "cache"))
        data = load_data("shapes", Preparation(size_px=8))
    model = Training(NET, data.train, RECIPE).model
    for name in ("sound", "diverged"):
        run = begin_run(NET, data, RECIPE, net_name="tiny", name=name, runs_dir=folder)
        run.folder.save_model(model)
        with torch.no_grad():
            next(model.parameters()).fill_(4e36)
    return folder


def digest(*folders: Path) -> dict[str, object]:
    """Each file and folder with its time and content; what a link names counts as text."""
    found: dict[str, object] = {}
    for path in (path for folder in folders for path in (folder, *folder.rglob("*"))):
        content = sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        # of the last use of a cached copy
        changed = None if path.name == "digest.json" else path.lstat().st_mtime_ns
        found[str(path)] = changed, content, path.is_symlink() and path.readlink()
    return found


@pytest.fixture(scope="module")
def server(
    kinds: dict[str, Path], cached: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Serve all runs, the first by a link, from another folder; no run's folder may change."""
    place = tmp_path_factory.mktemp("place")
    first, *others = kinds.values()
    (place / "link").symlink_to(first)
    (first / "secret").symlink_to("/etc/passwd")
    watched = (*kinds.values(), place, cached)
    before = digest(*watched)
    runs = (*others, cached / "sound", cached / "diverged")
    with serving("link", *runs, cwd=place, LAMINA_CACHE=str(cached / "cache")) as started:
        yield started
    assert digest(*watched) == before


@pytest.mark.parametrize("name", [*TARGETS, "grey", "timm", "calibrated"])
def test_every_kind_gets_the_prediction_of_lamina_predict(server, kinds, tmp_path, capsys, name):
    (tmp_path / "one.png").write_bytes(IMAGE)
    assert main(["predict", str(kinds[name]), str(tmp_path / "one.png"), "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    values = server.ask(f"/v1/predict?model={name}", IMAGE).values
    document = server.ask("/openapi.json").values
    assert fits(values, document["components"]["schemas"]["Prediction"], document)
    assert values["model"] == name
    assert values.get("question") == expected.get("question")
    if name == "regression":
        rows = {row["name"]: row["value"] for row in values["predictions"]}
        assert rows == values["predicted"] == pytest.approx(expected["predicted"], rel=1e-5)
    else:
        assert values["predicted"] == expected["predicted"]
        rows = {row["class"]: row["probability"] for row in values["predictions"]}
        assert rows == pytest.approx(expected["probabilities"], rel=1e-5)
    (model,) = (
        model for model in server.ask("/v1/model").values["models"] if model["model"] == name
    )
    assert model["kind"] == (name if name in TARGETS else "single-label")
    assert model["calibrated"] == (name == "calibrated")
    assert model["channels"] == (1 if name == "grey" else 3)
    assert fits(model, document["components"]["schemas"]["Model"], document)
    given = server.ask(f"/v1/explain?model={name}", IMAGE).values
    assert fits(given, document["components"]["schemas"]["Explanation"], document)
    assert given["target"] in ("cat", "dog", "hen", *TARGETS.get(name, ((), ()))[1])
    assert base64.b64decode(given["map"]).startswith(b"\x89PNG")
    assert server.ask(f"/v1/similar?model={name}", IMAGE).status == 404


def test_of_a_model_that_diverged_nothing_is_shown(server):
    bright = encode(np.full((8, 8, 3), 255, np.uint8))
    for task in ("predict", "explain", "similar"):
        assert server.ask(f"/v1/{task}?model=sound", bright).status == 200
        predicted = server.ask(f"/v1/{task}?model=diverged", bright)
        assert predicted.status == 500
        assert predicted.values == {
            "error": (
                "The model's logits are NaN or infinite: training diverged. "
                "Train again with a lower lr, or with gradient_clip=1."
            )
        }


@pytest.mark.parametrize("path", ["/secret", "/multi-label/secret", "/link", "/v1/model/secret"])
def test_links_lead_nowhere(server, path):
    assert server.ask(path).status == 404


def test_the_page_shows_every_kind(server, browser):
    from playwright.sync_api import expect

    with open_page(browser, server.url) as page:
        page.locator("#file").set_input_files(
            {"name": "one.png", "mimeType": "image/png", "buffer": IMAGE}
        )
        for name in (*TARGETS, "grey", "timm", "calibrated"):
            predicted = server.ask(f"/v1/predict?model={name}", IMAGE).values
            card = page.get_by_role("region", name=name)
            said = predicted["predicted"]
            if name == "multi-label":
                said = ", ".join(said) or "no label"
            elif name == "binary":
                said = f"a cat?: {said}"
            elif name == "regression":
                said = ", ".join(f"{key} {float(f'{value:.6g}'):g}" for key, value in said.items())
            expect(card.locator(".predicted")).to_have_text(said)
            expect(card.get_by_role("row")).to_have_count(1 + len(predicted["predictions"]))
            expect(card.get_by_role("columnheader").first).to_have_text(
                {"multi-label": "label", "regression": "name"}.get(name, "class")
            )
            note = "calibrated on 100 val images" if name == "calibrated" else "not calibrated"
            expect(card.get_by_text(note)).to_have_count(0 if name == "regression" else 1)


def test_what_a_server_lacks_is_said_in_one_message(tmp_path, monkeypatch):
    run = begin_run(
        TimmNet("test_efficientnet.r160_in1k", "none", "").module((3, 6, 6), 3),
        DATA,
        RECIPE,
        net_name="mine",
        origin=OwnModule("mine.py", ""),
        runs_dir=tmp_path,
    )
    assert run_refused("serve", run.path, "--port", "0") == (
        f"lamina: {run.path} uses a custom module, and lamina never runs code that a run names. "
        "Serve runs of lamina's or timm's nets.\n"
    )
    for name in ("starlette", "uvicorn"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            assert run_refused("serve", run.path, "--port", "0") == (
                f"lamina: lamina serve requires {name}, which is not installed. Run pip install"
                " 'lamina[serve]'\n"
            )
