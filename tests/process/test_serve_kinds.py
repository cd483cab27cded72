"""Runs of several kinds of target and net predict as ``lamina predict``, and write nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from lamina.cli import main
from lamina.data import Preparation, load_data
from lamina.training.loop import Training
from support.images import encode, noise
from support.runs import NET, RECIPE, begin_run
from support.servers import KINDS, Server, fits, serving

PIXELS = noise(40, 32, seed=3)


@pytest.fixture(scope="module")
def runs_of_cached_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
def server_of_each_kind(
    runs_of_each_kind: dict[str, Path],
    runs_of_cached_data: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """Serve all runs, the first by a link, from another folder; no run's folder may change."""
    place = tmp_path_factory.mktemp("place")
    first, *others = runs_of_each_kind.values()
    (place / "link").symlink_to(first)
    secret = first / "secret"
    secret.symlink_to("/etc/passwd")
    watched = (*runs_of_each_kind.values(), place, runs_of_cached_data)
    before = digest(*watched)
    runs = (*others, runs_of_cached_data / "sound", runs_of_cached_data / "diverged")
    cache = str(runs_of_cached_data / "cache")
    with serving("link", *runs, cwd=place, LAMINA_CACHE=cache) as started:
        yield started
    assert digest(*watched) == before
    secret.unlink()


@pytest.mark.parametrize("name", ["regression", "multi-label", "gray", "timm"])
def test_each_kind_gets_the_prediction_of_lamina_predict(
    server_of_each_kind, runs_of_each_kind, tmp_path, capsys, name
):
    server = server_of_each_kind
    image = encode(PIXELS, "JPEG" if name == "gray" else "PNG")
    (tmp_path / "one").write_bytes(image)
    assert main(["predict", str(runs_of_each_kind[name]), str(tmp_path / "one"), "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    values = server.ask(f"/v1/predict?model={name}", image).values
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
        assert list(rows.values()) == sorted(rows.values(), reverse=True)
    (model,) = (
        model for model in server.ask("/v1/model").values["models"] if model["model"] == name
    )
    assert model["kind"] == (name if name in KINDS else "single-label")
    assert model["calibrated"] == (name == "gray")
    assert model["channels"] == (1 if name == "gray" else 3)
    assert fits(model, document["components"]["schemas"]["Model"], document)


def test_of_a_model_that_diverged_nothing_is_shown(server_of_each_kind):
    bright = encode(np.full((8, 8, 3), 255, np.uint8))
    assert server_of_each_kind.ask("/v1/predict?model=sound", bright).status == 200
    predicted = server_of_each_kind.ask("/v1/predict?model=diverged", bright)
    assert predicted.status == 500
    assert predicted.values == {
        "error": (
            "The model's logits are NaN or infinite: training diverged. "
            "Train again with a lower lr, or with gradient_clip=1."
        )
    }


def test_links_lead_nowhere(server_of_each_kind):
    for path in ("/secret", "/multi-label/secret", "/link", "/v1/model/secret"):
        assert server_of_each_kind.ask(path).status == 404
