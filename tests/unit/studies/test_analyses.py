"""Analyses of a run or a data set in one call equal what is computed from its parts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score
from sklearn.neighbors import NearestNeighbors

import lamina
from lamina.data import Dataset, Images
from lamina.errors import DataError, NetError, RunError
from lamina.runs.run import Run
from lamina.training.hooks import activations
from lamina.training.prediction import features, predict_logits

NET = "Conv2d(4, 3), ReLU(), GlobalAvgPool(), Output()"


def draw_images(count: int, split: str) -> Images:
    """Bands at the top or at the bottom, with noise."""
    random = np.random.default_rng(count)
    targets = np.arange(count) % 2
    pixels = random.integers(0, 120, (count, 12, 12, 3), dtype=np.uint8)
    for row, target in enumerate(targets):
        pixels[row, 6 * target : 6 * target + 6, :, target] += 90
    names = tuple(f"{split}/{row}.png" for row in range(count))
    return Images(pixels, targets, ("top", "bottom"), names, split)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    images = [draw_images(*split) for split in ((120, "train"), (40, "val"), (50, "test"))]
    dataset = Dataset.from_images(*images)
    recipe = lamina.Recipe(epochs=2, batch_size=20, device="cpu")
    folder = tmp_path_factory.mktemp("analyses")
    return lamina.train(dataset, NET, recipe, runs_dir=folder, progress=False)


def test_an_explanation_is_of_the_prediction(run):
    image = run.dataset.test.pixels[3]
    explanation = lamina.explain(run, image)
    assert explanation.prediction == run.predictor().predict(image)[0]
    assert explanation.target == explanation.prediction.predicted
    assert list(explanation.maps) == ["occlusion", "gradients", "grad-cam"]
    # integrated gradients sum to the difference of the logit from the mean image
    model = run.load_model()
    row = run.task.target_names.index(explanation.target)
    mean = np.broadcast_to(np.array(model.mean), (1, 12, 12, 3))
    blank = np.round(mean).astype(np.uint8)
    difference = (predict_logits(model, image[None]) - predict_logits(model, blank))[0, row]
    total = explanation.maps["gradients"].values.sum()
    assert total == pytest.approx(difference, rel=0.05, abs=0.02)
    values = json.loads(json.dumps(explanation.to_json()))
    _, rows = explanation.table()
    assert [method for method, _ in rows] == [*values["maps"]]
    measured = explanation.maps["grad-cam"].faithfulness
    assert values["maps"]["grad-cam"]["by_map"] == measured.by_map
    assert "evidence for" in str(explanation)
    assert explanation._repr_html_().count("<img ") == 4
    (name,) = lamina.explain(run, image, target="top", method="grad-cam", layer=1).maps
    assert name == "grad-cam"


def test_the_units_of_a_layer_are_those_of_its_outputs(run):
    units = lamina.inspect_units(run, layer=2, most=2)
    assert (units.layer, units.count, len(units.units)) == ("body.1", 4, 2)
    train = run.dataset.train
    outputs = activations(run.load_model(), train.pixels, [2])[2].amax(dim=(2, 3)).numpy()
    for unit in units.units:
        area = roc_auc_score(train.targets == 0, outputs[:, unit.number])
        assert unit.aucs["top"] == pytest.approx(area)
        if unit.patches:
            assert unit.patches[0].strength == pytest.approx(outputs[:, unit.number].max())
    json.dumps(units.to_json())


def test_similar_images_are_scikit_learns(run):
    train = run.dataset.train
    model = run.load_model()
    reference = NearestNeighbors(n_neighbors=4, metric="cosine")
    reference.fit(features(model, train.pixels).numpy())
    image = run.dataset.test.pixels[8]
    distances, rows = reference.kneighbors(features(model, image[None]).numpy())
    similar = lamina.find_similar(run, image, most=4)
    similarities = [neighbor.similarity for neighbor in similar.neighbors]
    assert similarities == pytest.approx(1 - distances[0], abs=1e-3)
    assert similar.neighbors[0].image == train.names[rows[0, 0]]
    assert similar.to_json()["similar"][0]["target"] in ("top", "bottom")
    with pytest.raises(DataError, match="most is 0; it must be an integer of at least 1"):
        lamina.find_similar(run, image, most=0)
    with pytest.raises(DataError, match="most is -1; it must be an integer of at least 1"):
        lamina.inspect_units(run, 2, most=-1)


def test_confusions_are_those_of_the_test_images(run):
    found = lamina.find_confusions(run)
    outputs = run.outputs["test"]
    matrix = confusion_matrix(outputs.targets, outputs.logits.argmax(axis=1), labels=[0, 1])
    (table,) = found.tables
    for truth, predicted in np.ndindex(2, 2):
        assert len(table.rows(truth, predicted)) == matrix[truth, predicted]
    assert found.losses.mean() == pytest.approx(
        -np.log(run.predictor().probabilities(run.dataset.test.pixels))[
            np.arange(50), outputs.targets
        ].mean(),
        abs=1e-3,
    )


def test_probes_are_fitted_to_all_layers(run):
    probes = lamina.probe_layers(run)
    assert [probe.layer for probe in probes.layers] == ["", "body.1", "body.3"]
    assert (probes.fitted, probes.scored, probes.split) == (120, 40, "val")


def test_the_model_of_a_run_judges_the_labels_of_its_images(run):
    by_model = lamina.find_label_issues(run)
    assert by_model.judge == "the model"
    assert by_model.splits.keys() == {"train", "val", "test"}


def test_near_duplicates_of_a_data_set_have_names(run):
    test = draw_images(50, "test")
    test.pixels[4] = run.dataset.train.pixels[9, :, ::-1]  # mirrored
    found = lamina.find_near_duplicates(Dataset.from_images(run.dataset.train, test=test))
    pair = found.pairs[0]
    assert (found.names[pair.first], found.names[pair.second]) == ("train/9.png", "test/4.png")
    assert found.near_train["test"] >= 1


def test_what_cannot_be_analysed_is_said(run, tmp_path):
    image = run.dataset.test.pixels[0]
    with pytest.raises(NetError, match=r"There is no method 'gradient'\. Did you mean gradients"):
        lamina.explain(run, image, method="gradient")
    with pytest.raises(NetError, match="There is no layer 9; the net has layers 1 to 4"):
        lamina.inspect_units(run, layer=9)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match=r"text\.png could not be read: not an image"):
        lamina.explain(run, tmp_path / "text.png")
    new = lamina.start_run(run.dataset, NET, runs_dir=tmp_path)
    with pytest.raises(RunError, match="has not been evaluated"):
        lamina.find_confusions(new)
