"""A run of 12-bit images: all that decodes an image for its model uses the run's depth."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from lamina import load_run
from lamina.deploy.card import build_card
from lamina.deploy.exported_predictor import load_exported
from lamina.deploy.serve import inference
from lamina.deploy.studio import results
from lamina.errors import DataError
from support.commands import events, run_lamina, run_refused, run_well
from support.deep_images import encode_png

ABOVE = "values up to 5,000, but 12 bits hold 4,095"
PLAIN = "more than 8 bits per channel, where 8 are expected; convert it"


def draw_scan(kind: str, number: int, largest: int = 4095) -> np.ndarray:
    """Values (16, 16, 1), below 900 for dark scans."""
    top = 900 if kind == "dark" else largest
    values = np.random.default_rng([number, top]).integers(0, top, (16, 16, 1), np.uint16)
    values[0, 0] = top
    return values


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scans"
    for kind in ("bright", "dark"):
        (folder / kind).mkdir(parents=True)
        for number in range(20):
            values = draw_scan(kind, number)
            if number % 2:
                Image.fromarray(values[..., 0]).save(folder / kind / f"{number}.tif")
            else:
                data = encode_png(values.repeat(3, axis=2))
                (folder / kind / f"{number}.png").write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def deep_run(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    words = ("--data", scans, "--epochs", "2", "--runs-dir", folder, "--name", "deep")
    done = run_well("train", "Flatten(), Output()", *words)
    assert "depth: 12 bits, because the largest value of the images that" in done.stderr
    return folder / "deep"


@pytest.fixture
def new_scans(tmp_path: Path) -> Path:
    """An image of the kind of the training, and one with values above its depth."""
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "scan.png").write_bytes(encode_png(draw_scan("dark", 99)))
    (folder / "over.png").write_bytes(encode_png(draw_scan("bright", 99, largest=5000)))
    return folder


def expected_pixels(values: np.ndarray) -> np.ndarray:
    """By a formula of floats instead of a table."""
    scaled = np.floor(values * (255 / 4095) + 0.5).astype(np.uint8)
    return scaled.repeat(3, axis=2)[None]


def test_a_run_keeps_its_depth_and_predicts_with_it(deep_run, scans, new_scans):
    record = json.loads((deep_run / "run.json").read_text())
    assert record["data"]["preparation"]["bit_depth"] == 12
    run = load_run(deep_run)
    assert "bit_depth=12" in build_card(run).replace("\\", "")
    predictor = run.predictor()
    by_file, over = run.predict([new_scans / "scan.png", new_scans / "over.png"])
    (by_pixels,) = predictor.predict(expected_pixels(draw_scan("dark", 99)))
    (by_pillow,) = predictor.predict(Image.open(new_scans / "scan.png"))
    assert by_file.values == by_pixels.values == by_pillow.values
    assert over.problem == ABOVE
    done = run_lamina("predict", deep_run, new_scans, "--json")
    assert done.returncode == 2
    problem, prediction = sorted(events(done.stdout), key=lambda event: event["event"] != "problem")
    assert (problem["reason"], problem["image"]) == (ABOVE, str(new_scans / "over.png"))
    assert prediction["predicted"] == by_file.predicted


def test_other_data_are_evaluated_with_the_depth_of_the_run(deep_run, tmp_path):
    for kind in ("bright", "dark"):
        (tmp_path / "other" / kind).mkdir(parents=True)
        for number in range(3):
            data = encode_png(draw_scan("dark", 50 + number))  # their own depth is 10 bits
            (tmp_path / "other" / kind / f"{kind}{number}.png").write_bytes(data)
    (tmp_path / "other" / "dark" / "over.png").write_bytes(
        encode_png(draw_scan("bright", 9, largest=5000))
    )
    words = ("evaluate", deep_run, "--data", tmp_path / "other")
    done = run_well(*words, "--json", "--output", tmp_path / "rows.csv")
    assert f"Left out 1 image: dark/over.png ({ABOVE})" in done.stderr
    (report,) = events(done.stdout)
    predicted = load_run(deep_run).predict([tmp_path / "other/bright", tmp_path / "other/dark"])
    right = [one.predicted == Path(one.name).parent.name for one in predicted if not one.problem]
    assert (report["images"], report["accuracy"]) == (6, sum(right) / 6)
    assert "Leave out --bit-depth" in run_refused(*words, "--bit-depth", "10")


def test_a_run_of_8_bits_takes_only_images_of_8_bits(accurate_run, new_scans):
    by_run = load_run(accurate_run).predict(sorted(new_scans.iterdir()))
    assert [one.problem for one in by_run] == [PLAIN, PLAIN]


def test_the_server_uses_the_depth_and_refuses_values_above_it(deep_run, new_scans, monkeypatch):
    served = inference.open_runs({"deep": str(deep_run)}, "cpu", None)
    monkeypatch.setattr(inference, "SERVED", served)
    assert served[0].describe()["bit_depth"] == 12
    images = [(new_scans / name).read_bytes() for name in ("scan.png", "over.png")]
    expected = load_run(deep_run).predict(new_scans / "scan.png")[0]
    for task in ("predict", "explain", "similar"):
        good, over = inference.respond(task, 0, images)
        assert "problem" not in good
        assert (over["problem"], over["status"]) == (ABOVE, 422)
        if task == "predict":
            assert good["predicted"] == expected.predicted


def test_the_studio_uses_the_depth_and_refuses_values_above_it(deep_run, new_scans):
    shown = results.look_at(deep_run, (new_scans / "scan.png").read_bytes())
    (expected,) = load_run(deep_run).predict(new_scans / "scan.png")
    assert dict(shown["values"]) == expected.values
    with pytest.raises(DataError, match=f"^This file cannot be used: {ABOVE}"):
        results.look_at(deep_run, (new_scans / "over.png").read_bytes())


def test_an_exported_file_states_and_uses_the_depth(deep_run, new_scans, workplace):
    run_well("export", deep_run, "deep.onnx")
    assert json.loads(Path("deep.onnx.json").read_text())["bit_depth"] == 12
    metadata = {one.key: one.value for one in onnx.load("deep.onnx").metadata_props}
    assert metadata["bit_depth"] == "12"
    by_file = load_exported(Path("deep.onnx"), threads=1).predict(sorted(new_scans.iterdir()))
    by_run = load_run(deep_run).predict(sorted(new_scans.iterdir()))
    assert by_file[0].problem == by_run[0].problem == ABOVE
    assert by_file[1].values == pytest.approx(by_run[1].values, abs=1e-5)


def test_images_are_explained_and_compared_with_the_depth(deep_run, new_scans, tmp_path):
    words = (deep_run, new_scans / "scan.png", "--output", tmp_path / "maps")
    run_well("explain", *words, "--method", "occlusion")
    assert len(list((tmp_path / "maps").iterdir())) == 2
    done = run_lamina("similar", deep_run, new_scans / "over.png", "--top", "1")
    assert done.returncode == 2
    assert ABOVE in done.stderr


def test_a_run_is_trained_further_with_its_depth(deep_run, scans, tmp_path):
    more = shutil.copytree(scans, tmp_path / "more")
    (more / "bright" / "over.png").write_bytes(
        encode_png(draw_scan("bright", 9, largest=5000).repeat(3, axis=2))
    )
    words = ("--start-from", deep_run, "--data", more, "--runs-dir", tmp_path, "--name", "next")
    done = run_well("train", *words, "--epochs", "1")
    assert f"Left out 1 image: bright/over.png ({ABOVE})" in done.stderr
    refused = run_refused("train", *words[:-1], "another", "--bit-depth", "16")
    assert "which cannot change in further training. Leave out --bit-depth." in refused
    assert load_run(tmp_path / "next").record.data.preparation.bit_depth == 12
