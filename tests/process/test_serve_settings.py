"""Options of ``lamina serve``: names, prediction sets, similar images; and the runs' thresholds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from lamina import Recipe, load_data, load_run, start_run
from lamina.cli import main
from lamina.cli.serve import name_runs
from lamina.data import Preparation
from lamina.deploy.confidence_rule import ConfidenceRule
from lamina.deploy.serve import inference
from lamina.errors import DataError
from lamina.evaluation.calibration import Calibration, Threshold
from lamina.evaluation.outputs import Outputs
from lamina.training.loop import Training
from support.images import encode
from support.runs import DATA, NET, RECIPE, begin_run
from support.servers import Server, fits, open_page, serving

IMAGES = [encode(np.full((6, 6, 3), level, np.uint8)) for level in (0, 90, 180, 255)]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A binary run with a low threshold and a regression run, with predictions for val images."""
    folder, found = tmp_path_factory.mktemp("parts"), {}
    rows, random = np.arange(12), np.random.default_rng(5)
    for name, targets in (
        ("alarm", rows % 2 > 0),
        ("size", np.stack([rows, -rows], axis=1).astype(np.float32)),
    ):
        names = ("scratch?",) if name == "alarm" else ("width", "height")
        train = replace(DATA.train, targets=targets, target_names=names)
        data = replace(DATA, train=train, test=None)
        run = begin_run(NET, data, RECIPE, net_name="tiny", name=name, runs_dir=folder)
        run.folder.save_model(Training(NET, train, RECIPE).model)
        logits = random.normal(size=(200, len(names))).astype(np.float32)
        truth = (
            random.random(200) < 0.5
            if name == "alarm"
            else logits + random.normal(size=logits.shape)
        )
        truth = truth if name == "alarm" else truth.astype(np.float32)
        run.folder.save_outputs([Outputs("val", logits, truth, tuple(map(str, range(200))))])
        found[name] = run.path
    limit = (
        load_run(found["alarm"]).predictor(device="cpu").probabilities(DATA.train.pixels[:1]).item()
    )
    threshold = Threshold("scratch?", limit / 2, 40, 90, 39)
    calibration = Calibration("train", 100, (1.0,), "recall=0.95", (threshold,))
    load_run(found["alarm"]).folder.save_calibration(calibration)
    return found


@pytest.fixture(scope="module")
def chosen(parts: dict[str, Path]) -> Iterator[Server]:
    with serving(
        f"parts={parts['alarm']}", parts["size"], "--coverage", "0.8", "--no-similar"
    ) as started:
        yield started


def predict(
    run: Path, image: bytes, folder: Path, capsys: pytest.CaptureFixture[str], *words: str
) -> dict:
    (folder / "one.png").write_bytes(image)
    assert main(["predict", str(run), str(folder / "one.png"), "--json", *words]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_answers_have_prediction_sets_and_use_the_thresholds_of_the_run(
    chosen, parts, tmp_path, capsys
):
    (threshold,) = load_run(parts["alarm"]).task.cutoffs
    document = chosen.ask("/openapi.json").values
    schema = document["components"]["schemas"]["Prediction"]
    for image in IMAGES:
        answer = chosen.ask("/v1/predict?model=parts", image).values
        assert fits(answer, schema, document)
        expected = predict(parts["alarm"], image, tmp_path, capsys, "--coverage", "0.8")
        assert (answer["predicted"], answer["set"]) == (expected["predicted"], expected["set"])
        rows = {row["class"]: row for row in answer["predictions"]}
        assert rows["yes"]["threshold"] == pytest.approx(threshold, rel=1e-6)
        assert "threshold" not in rows["no"]
        assert answer["predicted"] == ("yes" if rows["yes"]["probability"] > threshold else "no")
        numbers = chosen.ask("/v1/predict?model=size", image).values
        assert fits(numbers, schema, document)
        expected = predict(parts["size"], image, tmp_path, capsys, "--coverage", "0.8")
        assert {row["name"]: row["half_width"] for row in numbers["predictions"]} == expected[
            "half_widths"
        ]


def test_predict_rejects_no_alarm_and_says_so(parts, tmp_path, capsys):
    (tmp_path / "one.png").write_bytes(IMAGES[0])
    assert (
        main(
            [
                "predict",
                str(parts["alarm"]),
                str(tmp_path / "one.png"),
                "--confidence-threshold",
                "0.99",
            ]
        )
        == 0
    )
    printed = capsys.readouterr()
    (threshold,) = load_run(parts["alarm"]).task.cutoffs
    assert printed.out.splitlines()[1].split("\t")[1].startswith("yes ")
    assert (
        f"yes is never rejected, because the threshold of {100 * threshold:.2f} % for yes was"
        " chosen" in printed.err
    )


def test_the_server_says_what_it_was_told(chosen):
    given = chosen.ask("/v1/model").values
    assert (given["coverage"], given["tasks"], given["limit_bytes"]) == (
        0.8,
        ["predict", "explain"],
        10_000_000,
    )
    alarm, size = given["models"]
    assert [alarm["model"], size["model"]] == ["parts", "size"]
    assert (alarm["aim"], alarm["calibrated_on"]) == (
        "recall=0.95",
        "out-of-fold predictions of 100 train images",
    )
    assert alarm["thresholds_on"] == alarm["calibrated_on"]
    assert (size["aim"], size["calibrated_on"], size["thresholds_on"]) == ("", None, None)
    # the coverage of 200 images (Vovk, 2012)
    low, high = scipy.stats.beta(161, 40).ppf([0.025, 0.975])
    assert (
        alarm["coverage_interval"]
        == size["coverage_interval"]
        == pytest.approx([low, high], abs=0.005)
    )
    document = chosen.ask("/openapi.json").values
    schema = document["components"]["schemas"]["Model"]
    assert all(fits(model, schema, document) for model in (alarm, size))
    assert "/v1/similar" not in document["paths"]
    assert chosen.ask("/v1/similar", IMAGES[0]).status == 404


def test_the_page_shows_thresholds_and_intervals_and_no_button_without_a_task(chosen, browser):
    from playwright.sync_api import expect

    with open_page(browser, chosen.url) as page:
        page.locator("#file").set_input_files(
            {"name": "one.png", "mimeType": "image/png", "buffer": IMAGES[0]}
        )
        alarm, size = (page.get_by_role("region", name=name) for name in ("parts", "size"))
        expect(alarm).to_contain_text("calibrated on out-of-fold predictions of 100 train images")
        expect(alarm).to_contain_text("threshold")
        expect(alarm).to_contain_text("chosen for recall=0.95")
        expect(alarm).to_contain_text("Prediction set: ")
        expect(alarm).to_contain_text("of new images (95 % interval; the aim is 80.0 %)")
        expect(size).to_contain_text(" ± ")
        expect(page.get_by_role("button", name="Similar training images")).to_have_count(0)
        expect(page.get_by_role("button", name="Explain this prediction")).to_have_count(2)


def test_training_images_that_are_loaded_later_are_found_without_a_restart(tmp_path, monkeypatch):
    for place in range(20):
        folder = tmp_path / "photos" / ("cat" if place % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (12 * place, 0, 0)).save(folder / f"{place}.png")
    data = load_data(tmp_path / "photos", Preparation(size_px=8))
    run = start_run(data, NET, Recipe(epochs=1, batch_size=2), runs_dir=tmp_path)
    for _ in run.iter_train(data=data):
        pass
    run = load_run(run.path)
    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path / "empty"))
    served = inference.Served("pets", run, run.predictor(device="cpu"), ConfidenceRule())
    monkeypatch.setattr(inference, "SERVED", [served])
    file = tmp_path / "photos/cat/1.png"
    (answer,) = inference.respond("similar", 0, [file.read_bytes()])
    assert answer["status"] == 404
    assert answer["problem"].endswith("Load them there with lamina similar RUN IMAGE.")
    assert main(["similar", str(run.path), str(file)]) == 0  # as the message says
    (answer,) = inference.respond("similar", 0, [file.read_bytes()])
    assert answer["searched"] == len(data.train)


def test_a_run_without_a_coverage_is_named_and_others_keep_theirs(parts, tmp_path):
    run = load_run(parts["alarm"])
    few = replace(
        DATA,
        train=replace(DATA.train, targets=run.outputs["val"].targets[:12], target_names=("a?",)),
        test=None,
    )
    small = begin_run(NET, few, RECIPE, net_name="tiny", name="small", runs_dir=tmp_path)
    small.folder.save_model(Training(NET, few.train, RECIPE).model)
    val = run.outputs["val"]
    small.folder.save_outputs([Outputs("val", val.logits[:12], val.targets[:12], val.names[:12])])
    aimed = Calibration("val", 12, (), "recall=0.95", (Threshold("a?", 0.4, 6, 6, 6),))
    small.folder.save_calibration(aimed)
    labels = replace(DATA.train, targets=np.ones((12, 2), bool), target_names=("wet", "old"))
    labels.targets[::2] = False
    data = replace(DATA, train=labels, test=None)
    several = begin_run(NET, data, RECIPE, net_name="tiny", name="labels", runs_dir=tmp_path)
    several.folder.save_model(Training(NET, labels, RECIPE).model)
    paths = {
        name: str(path) for name, path in {"small": small.path, "labels": several.path}.items()
    }
    served = inference.open_runs(paths, "cpu", 0.8)
    (warned, fitted), (without,) = (value.remarks for value in served)
    assert warned.startswith(
        f"{small.path}: warning: --coverage is 80 %, but val has only 12 images, so as few as"
    )
    assert fitted.startswith(f"{small.path}: coverage: 80 %, fitted to 12 val images")
    assert without.startswith(
        f"{several.path} is multi-label; lamina serves it without prediction sets"
    )
    first, second = (value.describe() for value in served)
    assert first["coverage_interval"][0] < 0.7
    assert second["coverage_interval"] is None
    assert (first["calibrated"], first["calibrated_on"], first["thresholds_on"]) == (
        False,
        None,
        "12 val images",
    )
    with pytest.raises(
        DataError, match=re.escape(f"--coverage is 0.99, but {small.path} has only 12 val images")
    ):
        inference.open_runs(paths, "cpu", 0.99)


def test_a_name_is_necessary_before_an_equals_sign():
    with pytest.raises(DataError) as raised:
        name_runs([Path("=runs/a")])
    assert (
        str(raised.value) == "NAME is missing before = in =runs/a. Use a name, as in pets=runs/a."
    )
