"""The studio's results, compared with values computed here with numpy, and invalid images."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina import Preparation, Recipe, load_data, load_run, start_run, train
from lamina.data import Images
from lamina.deploy.studio import results, run_views
from lamina.deploy.studio.data_folder import DataFolder
from lamina.deploy.studio.disagreements import find_differing
from lamina.errors import LaminaError
from lamina.nets import Flatten, Linear, Net, Output, ReLU, parse_net
from lamina.runs.record import Considered
from lamina.runs.run import Run
from lamina.studies.judging import judge_runs
from support.runs import DATA, begin_run, change_record, edit_json
from support.servers import HOSTILE_FILES

NET = "Flatten(), Linear(20), ReLU(), Output()"
LINEAR = Net(Flatten(), Output())
RECIPE = Recipe(epochs=1, batch_size=100, seed=3)


def place(run: Run) -> tuple[DataFolder, str]:
    """The folder of a studio that has a run, and the name of the run there."""
    return DataFolder(run.path.parent, run.path.parent), run.path.name


@pytest.fixture(scope="module")
def runs_of_every_kind(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A run per kind of target, two kinds with two nets; the images of ``binary`` are deleted."""
    folder = tmp_path_factory.mktemp("runs")

    def make(name: str, data: str, net: str = NET) -> Run:
        # val, so that predictions are calibrated
        dataset = load_data(data, Preparation(val_fraction=0.1))
        return train(dataset, net=net, recipe=RECIPE, name=name, runs_dir=folder, progress=False)

    made = {
        "single": make("single", "shapes"),
        "linear": make("linear", "shapes", "Flatten(), Output()"),
        "labels": make("labels", "shapes-attributes"),
        "labels-linear": make("labels-linear", "shapes-attributes", "Flatten(), Output()"),
        "numbers": make("numbers", "shapes-pose"),
        "numbers-linear": make("numbers-linear", "shapes-pose", "Flatten(), Output()"),
    }
    targets = np.random.default_rng(1).random(12) < 0.5
    parts = {
        split: Images(getattr(DATA, split).pixels, targets, ("striped",), DATA.train.names, split)
        for split in ("train", "test")
    }
    data = dataclasses.replace(DATA, **parts)
    net = Net(Flatten(), Linear(4), ReLU(), Output())
    made["binary"] = begin_run(net, data, RECIPE, net_name="tiny", name="binary", runs_dir=folder)
    made["binary"].train(data=data, progress=False)
    return {name: load_run(run.path) for name, run in made.items()}


def open_folder(runs_dir: Path) -> DataFolder:
    return DataFolder(runs_dir, runs_dir)


def count_cells(truth: np.ndarray, predicted: np.ndarray) -> dict[tuple[int, int], int]:
    pairs = np.stack([truth, predicted], axis=1)
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    return {
        (int(row), int(column)): int(count)
        for (row, column), count in zip(found, counts, strict=True)
    }


def measure_losses(run: Run) -> np.ndarray:
    """The loss of each test image in float64, of the shown probabilities."""
    outputs = run.outputs["test"]
    logits, targets = outputs.logits.astype(np.float64), outputs.targets
    if run.task.kind.name == "single-label":
        logits = logits / run.calibration.temperatures[0]
        return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), targets]
    return (((logits - targets) / run.task.standard_deviations) ** 2).mean(axis=1)


def test_confusions_of_classes_are_those_of_numpy(runs_of_every_kind):
    outputs = runs_of_every_kind["single"].outputs["test"]
    ((names, cells),) = results.show_report(*place(runs_of_every_kind["single"]))["confusions"]
    assert names == load_data("shapes").test.target_names
    assert {(row, column): count for row, column, count in cells} == count_cells(
        outputs.targets, outputs.logits.argmax(axis=1)
    )


@pytest.mark.parametrize("name", ["labels", "binary"])
def test_confusions_of_labels_and_yes_or_no_are_those_of_numpy(runs_of_every_kind, name):
    outputs = runs_of_every_kind[name].outputs["test"]
    found = results.show_report(*place(runs_of_every_kind[name]))["confusions"]
    columns = zip(outputs.targets.reshape(len(outputs.names), -1).T, outputs.logits.T, strict=True)
    for (_, cells), (truth, logits) in zip(found, columns, strict=True):
        assert {(row, column): count for row, column, count in cells} == count_cells(
            truth.astype(int), (logits > 0).astype(int)
        )


def test_a_cell_has_its_images_with_the_largest_loss_first(runs_of_every_kind):
    run, images = runs_of_every_kind["single"], load_data("shapes").test
    outputs = run.outputs["test"]
    predicted = outputs.logits.argmax(axis=1)
    pairs = count_cells(outputs.targets, predicted)
    truth, wrong = max((pair for pair in pairs if pair[0] != pair[1]), key=pairs.__getitem__)
    found = results.show_cell(*place(run), 0, truth, wrong)
    rows = [one["row"] for one in found["images"]]
    expected = np.flatnonzero((outputs.targets == truth) & (predicted == wrong))
    assert set(rows) <= set(expected.tolist()) and len(rows) == min(results.TILES, len(expected))
    losses = measure_losses(run)
    assert np.all(np.diff(losses[rows]) <= 1e-6)
    assert losses[rows[0]] == pytest.approx(losses[expected].max())
    probability = np.exp(outputs.logits[rows[0]].astype(float) / run.calibration.temperatures[0])
    share = probability[wrong] / probability.sum()
    assert found["images"][0]["target"] == images.target_names[truth]
    assert found["images"][0]["predicted"] == f"{images.target_names[wrong]} {100 * share:.1f} %"
    with pytest.raises(LaminaError, match="no such images"):
        results.show_cell(*place(run), 1, 0, 0)


@pytest.mark.parametrize("name", ["single", "numbers"])
def test_the_largest_losses_come_first(runs_of_every_kind, name):
    found = results.show_report(*place(runs_of_every_kind[name]))["largest"]
    outputs, order = (
        runs_of_every_kind[name].outputs["test"],
        np.argsort(-measure_losses(runs_of_every_kind[name]), kind="stable"),
    )
    assert found["are_wrong"] == (name == "single")
    if found["are_wrong"]:
        order = order[(outputs.logits.argmax(axis=1) != outputs.targets)[order]]
    assert [one["row"] for one in found["images"]] == order[: results.TILES].tolist()


def test_missing_images_are_a_sentence_and_the_numbers_stay(runs_of_every_kind):
    found = results.show_report(*place(runs_of_every_kind["binary"]))["largest"]
    assert (
        "The images are not shown." in found["problem"] and "no longer exists" in found["problem"]
    )
    outputs = runs_of_every_kind["binary"].outputs["test"]
    wrong = (outputs.logits > 0).ravel() != outputs.targets.ravel().astype(bool)
    assert len(found["images"]) == wrong.sum() > 0 and found["images"][0]["png"] is None
    assert re.fullmatch(r"(yes|no) \d+\.\d %", found["images"][0]["predicted"])


def test_disagreements_of_classes_are_those_of_numpy(runs_of_every_kind):
    pair = [runs_of_every_kind[name] for name in ("single", "linear")]
    outputs = [run.outputs["test"] for run in pair]
    truth = outputs[0].targets
    a, b = (one.logits.argmax(axis=1) for one in outputs)
    found = find_differing(pair[0].task, outputs[0], pair[1].task, outputs[1])
    assert set(found["a"]) == set(np.flatnonzero((a == truth) & (b != truth)))
    assert set(found["b"]) == set(np.flatnonzero((a != truth) & (b == truth)))
    assert set(found[""]) == set(np.flatnonzero((a != truth) & (b != truth) & (a != b)))
    differences = np.abs(measure_losses(pair[0]) - measure_losses(pair[1]))
    assert all(np.all(np.diff(differences[rows]) <= 1e-6) for rows in found.values())


def test_disagreements_of_labels_need_all_labels_right(runs_of_every_kind):
    pair = [runs_of_every_kind[name] for name in ("labels", "labels-linear")]
    outputs = [run.outputs["test"] for run in pair]
    truth = outputs[0].targets
    a, b = (one.logits > 0 for one in outputs)
    a_right, b_right = (a == truth).all(axis=1), (b == truth).all(axis=1)
    found = find_differing(pair[0].task, outputs[0], pair[1].task, outputs[1])
    assert set(found["a"]) == set(np.flatnonzero(a_right & ~b_right))
    assert set(found[""]) == set(np.flatnonzero(~a_right & ~b_right & (a != b).any(axis=1)))


def test_disagreements_of_numbers_go_by_the_error(runs_of_every_kind):
    pair = [runs_of_every_kind[name] for name in ("numbers", "numbers-linear")]
    outputs = [run.outputs["test"] for run in pair]
    a, b = (np.abs(one.logits - one.targets).mean(axis=1) for one in outputs)
    found = find_differing(pair[0].task, outputs[0], pair[1].task, outputs[1])
    assert set(found) == {"a", "b"}
    # A prediction goes through standardized numbers and back, which may round.
    assert len(set(found["a"]) ^ set(np.flatnonzero(a < b))) <= 2


def test_a_comparison_has_a_verdict_and_both_predictions(runs_of_every_kind):
    found = results.compare_with(
        open_folder(runs_of_every_kind["single"].path.parent), "single", ("linear",)
    )
    (judged,) = found["judged"]
    scores = [
        np.mean(run.outputs["test"].logits.argmax(axis=1) == run.outputs["test"].targets)
        for run in (runs_of_every_kind["linear"], runs_of_every_kind["single"])
    ]
    assert (judged["a_score"], judged["b_score"]) == pytest.approx(scores)
    assert "200 images" in judged["words"]
    assert found["differences"]["linear"] == [
        {"what": "Layer 2", "first": "Linear(20)", "second": "Output(units=10)"},
        {"what": "Layer 3", "first": "ReLU()", "second": "–"},
        {"what": "Layer 4", "first": "Output(units=10)", "second": "–"},
        {"what": "Parameters", "first": "61670", "second": "30730"},
    ]
    groups = found["disagreements"]["linear"]
    assert [group["better"] for group in groups] == ["a", "b", ""]
    assert all(one["png"] and one["other"] for group in groups for one in group["images"])


def test_each_pair_is_judged_once(runs_of_every_kind, monkeypatch):
    judged = []

    def judge(runs):
        judged.append(list(runs))
        return judge_runs(runs)

    monkeypatch.setattr(results, "judge_runs", judge)
    folder = open_folder(runs_of_every_kind["single"].path.parent)
    results.compare_with(folder, "single", ("linear",))
    assert judged == [["linear", "single"]]


def test_a_comparison_says_how_trainings_began_and_ended(runs_of_every_kind, tmp_path):
    shutil.copytree(runs_of_every_kind["linear"].path, tmp_path / "linear")
    run = load_run(tmp_path / "linear")
    longer = dataclasses.replace(run.record.recipe, epochs=2)
    start = {"start_from": run.path, "name": "longer", "runs_dir": tmp_path}
    start_run(recipe=longer, **start).train(progress=False)
    planned = dataclasses.asdict(run.record.recipe) | {"epochs": 9}  # ended by a time limit
    edit_json(tmp_path / "linear" / "run.json", recipe=planned)
    found = results.compare_with(open_folder(tmp_path), "longer", ("linear",))["differences"][
        "linear"
    ]
    texts = {one["what"]: (one["first"], one["second"]) for one in found}
    assert texts == {
        "Started from": ("linear", "–"),
        "Epochs": ("2", "9"),
        "Epochs trained": ("2", "1"),
    }


def test_settings_are_compared_in_words_and_never_as_structures(runs_of_every_kind, tmp_path):
    for name in ("single", "linear"):
        shutil.copytree(runs_of_every_kind[name].path, tmp_path / name)
    record = load_run(tmp_path / "linear").record
    recipe = dataclasses.replace(record.recipe, lr=0.003, class_weights=True)
    net = parse_net("Flatten(), " + "Linear(8), GELU(), Dropout(0.25), " * 4 + "Output(10)")
    data = dataclasses.replace(record.data, fingerprint="0" * 64)
    considered = (Considered("timm:tf_efficientnet_lite0.in1k", 96, 2, 31.0, "too slow"),)
    changed = {"recipe": recipe, "net": net, "data": data, "considered": considered}
    change_record(load_run(tmp_path / "linear"), **changed)
    (*_, other) = results.compare_with(open_folder(tmp_path), "single", ("linear",))[
        "differences"
    ].values()
    texts = {item["what"]: (item["first"], item["second"]) for item in other}
    assert texts["Layer 2"] == ("Linear(20)", "Linear(8)")
    assert texts["Learning rate"] == ("0.001", "0.003")
    assert texts["Class weights"] == ("no", "yes")
    assert texts["Version of the images"] == (record.data.fingerprint, "0" * 64)
    assert not [text for pair in texts.values() for text in pair if "{" in text or len(text) > 100]
    (net,) = run_views.describe_run(open_folder(tmp_path), "linear")["considered"]
    assert (net["name"], net["side_px"]) == ("EfficientNet Lite0", 96)
    assert net["verdict"] == "would not finish within the time limit"


def test_runs_that_cannot_be_compared_say_why(runs_of_every_kind):
    found = results.compare_with(
        open_folder(runs_of_every_kind["single"].path.parent), "single", ("numbers",)
    )
    (problem,) = found["problems"]
    assert problem.startswith("numbers cannot be compared with single: These scores cannot be")
    assert not found["judged"]


def test_other_test_images_do_not_hide_the_verdict_on_others(runs_of_every_kind):
    folder = runs_of_every_kind["single"].path.parent
    found = results.compare_with(open_folder(folder), "single", ("numbers", "linear"))
    (problem,) = found["problems"]
    assert problem.startswith("numbers cannot be compared with single")
    assert [judged["a"] for judged in found["judged"]] == ["linear"]
    assert list(found["disagreements"]) == ["linear"]


def test_runs_on_different_images_show_where_they_disagree_on_shared_ones(
    runs_of_every_kind, tmp_path
):
    shutil.copytree(runs_of_every_kind["single"].path, tmp_path / "single")
    shapes = load_data("shapes", Preparation(val_fraction=0.1))
    order = np.random.default_rng(2).permutation(len(shapes.test))[:150]
    part = shapes.test.take(order)
    names = tuple(f"new/{name}" for name in part.names)
    targets = (part.targets + (np.arange(len(part)) < 30)) % len(part.target_names)  # corrected
    renamed = dataclasses.replace(part, names=names, targets=targets)
    data = dataclasses.replace(shapes, test=renamed, fingerprint="other", source="")
    train(data, net=LINEAR, recipe=RECIPE, name="part", runs_dir=tmp_path, progress=False)
    found = results.compare_with(open_folder(tmp_path), "single", ("part",))
    (judged,) = found["judged"]
    assert (judged["images"], found["problems"]) == (150, [])
    assert judged["remarks"][2] == (
        f"B has {len(shapes.test) - 150} other images: accuracy"
        f" {100 * judged['sharing']['b']['score']:.2f} %"
    )
    corrected = "B has 30 labels that were corrected in newer data; the newer labels count"
    assert corrected in judged["remarks"]
    stored = load_run(tmp_path / "single").outputs["test"]
    chosen = dict(zip(stored.names, stored.logits.argmax(axis=1).tolist(), strict=True))
    reverse = results.compare_with(open_folder(tmp_path), "part", ("single",))
    for groups, key, winner in (
        (found["disagreements"]["part"], "other", "b"),
        (reverse["disagreements"]["single"], "predicted", "a"),
    ):
        assert {group["run"] for group in groups} == {"part"}  # the newer one
        shown = [(group["better"], image) for group in groups for image in group["images"]]
        assert len(shown) > 2
        for better, image in shown:
            assert renamed.names[image["row"]] == image["name"]
            assert image["target"] == shapes.test.target_names[targets[image["row"]]]
            predicted = shapes.test.target_names[chosen[image["name"].removeprefix("new/")]]
            assert image[key].startswith(f"{predicted} ")
            assert (predicted == image["target"]) == (better == winner)


def test_a_run_without_report_says_how_to_get_it(runs_of_every_kind, tmp_path):
    run = begin_run(
        LINEAR, load_data("shapes"), RECIPE, net_name="tiny", name="paused", runs_dir=tmp_path
    )
    events = run.iter_train()
    next(event for event in events if type(event).__name__ == "Epoch")
    events.close()
    found = results.show_report(*place(run))
    assert "Continue resumes it" in found["missing"]
    assert found["layers"] == [["body.1", "2 Output"]]
    for name in ("single", "linear"):
        (tmp_path / name).symlink_to(runs_of_every_kind[name].path)
    compared = results.compare_with(open_folder(tmp_path), "single", ("linear", "paused"))
    assert compared["problems"] == [
        "paused has not been evaluated yet; only its settings are compared."
    ]
    assert [one["a"] for one in compared["judged"]] == ["linear"] and compared["differences"][
        "paused"
    ]
    (run.path / "model.safetensors").unlink(missing_ok=True)  # as in the first epochs
    assert results.look_at(*place(run), ("", 0)) == {"problem": "paused has no saved weights yet."}


@pytest.mark.parametrize("damaged", ["single", "linear"])
def test_lost_weights_are_a_sentence_of_a_comparison(runs_of_every_kind, tmp_path, damaged):
    for name in ("single", "linear", "third"):
        shutil.copytree(
            runs_of_every_kind["single" if name == "single" else "linear"].path, tmp_path / name
        )
    weights = tmp_path / damaged / "model.safetensors"
    weights.unlink() if damaged == "single" else weights.write_bytes(b"{")
    found = results.compare_with(open_folder(tmp_path), "single", ("linear", "third"))
    assert list(found["differences"]) == ["linear", "third"] and len(found["problems"]) == 1
    assert str(weights) in found["problems"][0]
    assert [one["a"] for one in found["judged"]] == (["third"] if damaged == "linear" else [])


def test_a_run_is_loaded_again_after_each_epoch_but_not_its_data(runs_of_every_kind):
    path = runs_of_every_kind["labels"].path
    first = results.open_run(path)
    dataset = first.dataset
    os.utime(path / "model.safetensors", ns=(1, 1))
    assert results.open_run(path) is not first and results.open_run(path).dataset is dataset


def test_a_closer_look_at_an_image_of_the_data_and_at_its_file(runs_of_every_kind):
    run, images = runs_of_every_kind["single"], load_data("shapes").test
    found = results.look_at(*place(run), ("test", 5))
    logits = run.outputs["test"].logits[5].astype(float) / run.calibration.temperatures[0]
    shares = np.exp(logits) / np.exp(logits).sum()
    assert [value for _, value in found["values"]] == pytest.approx(np.sort(shares)[::-1], abs=1e-5)
    assert found["target"] == images.target_names[images.targets[5]]
    assert [layer["name"] for layer in found["layers"]] == ["3 Linear, ReLU"]
    file = io.BytesIO()
    Image.fromarray(images.pixels[5]).save(file, "PNG")
    assert results.look_at(*place(run), file.getvalue()) == {**found, "target": None}
    assert results.explain(*place(run), ("test", 5))["target"] == found["values"][0][0]
    similar = results.find_similar(*place(run), ("train", 7))
    assert (similar["searched"], similar["images"][0]["id"]) == (720, 7)
    assert similar["images"][0]["similarity"] == pytest.approx(1)


def test_patches_are_of_the_layer_that_was_asked_for(runs_of_every_kind):
    found = results.show_units(*place(runs_of_every_kind["single"]), "body.2")
    assert (found["searched"], found["units"], len(found["shown"])) == (500, 20, results.UNITS)
    with pytest.raises(LaminaError, match=r"single has no layer 'body\.9'"):
        results.show_units(*place(runs_of_every_kind["single"]), "body.9")


@pytest.mark.parametrize("kind", HOSTILE_FILES)
def test_bytes_that_are_no_image_get_one_sentence(runs_of_every_kind, kind):
    message = r"^This file cannot be used: .+\. Choose an image, such as a JPEG or PNG\.$"
    with pytest.raises(LaminaError, match=message):
        results.look_at(*place(runs_of_every_kind["single"]), HOSTILE_FILES[kind])


def test_a_command_is_repeated_without_the_place_of_the_run():
    words = (
        "lamina",
        "train",
        "mlp",
        "--name",
        "one",
        "--epochs=2",
        "--runs-dir=runs",
        "--data=a b",
        "--json",
    )
    assert run_views.write_command(words) == "lamina train mlp --epochs=2 '--data=a b'"


@pytest.mark.parametrize(
    "words", [("sh", "-c", "x"), ("lamina", "studio"), ("lamina", "train", "a\x1b[2Jb")]
)
def test_a_command_that_lamina_does_not_know_is_withheld(words):
    assert run_views.write_command(words) == ""


def test_threads_have_models_of_their_own(runs_of_every_kind):
    path = runs_of_every_kind["single"].path
    with ThreadPoolExecutor(1) as thread:
        other = thread.submit(results.open_run, path).result()
        assert thread.submit(results.open_run, path).result() is other
    assert results.open_run(path).predictor.model is not other.predictor.model
