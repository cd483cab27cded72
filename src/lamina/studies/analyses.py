"""Analyses of a run or a data set in one call, which load what :mod:`lamina.insight` needs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from lamina.data import Dataset, Images
from lamina.data.image_inputs import ImageLike, decode_ahead
from lamina.data.images import Progress
from lamina.data.load import as_dataset, check_learnable
from lamina.errors import DataError, LaminaWarning, RunError
from lamina.evaluation.predictor import Predictor
from lamina.insight import confusions, neighbors, similarity
from lamina.insight.confident_learning import LabelIssues, judge_labels
from lamina.insight.confusions import Confusions
from lamina.insight.explaining import Explanation, choose_methods, explain_pixels, find_output
from lamina.insight.inspected_layers import choose_layers
from lamina.insight.neighbors import SimilarImages
from lamina.insight.probes import Probes, compare_probes
from lamina.insight.similarity import NearDuplicates, group_copies
from lamina.insight.units import LayerUnits, choose_images, inspect_layers
from lamina.runs.run import Run, find_dataset, load_run
from lamina.studies.cross_prediction import (
    CrossValidatedNet,
    choose_nets,
    cross_predict,
    limit_groups,
)
from lamina.training.hooks import find_path
from lamina.training.prediction import predict_logits
from lamina.training.pretrained import find_all_at_hand

RunLike: TypeAlias = Run | str | Path
DataLike: TypeAlias = Dataset | Images | str | Path
NEAR_DUPLICATES_IMAGES = 20_000
"""Up to this many images, near-duplicates are kept in the same fold; beyond it, only identical
images are."""
OTHER_NETS = "nets trained on other images"


def explain(
    run: RunLike,
    image: ImageLike,
    *,
    target: str | None = None,
    method: str | None = None,
    layer: int | str | None = None,
    device: str = "auto",
) -> Explanation:
    """Show which pixels the prediction for an image depends on.

    Args:
        run: A run, or its folder or name.
        image: A path, the bytes of an encoded file, a PIL image, or uint8 pixels (H, W) or
            (H, W, C) of any size.
        target: The class, label or number to explain; by default the most likely class or label,
            or the first number.
        method: ``occlusion``, ``gradients`` (integrated gradients) or ``grad-cam``; by default all
            that the net allows.
        layer: The layer for Grad-CAM, by its number from 1 or its module path; by default the last
            one whose output has height and width.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns:
        The prediction, and for each method a map (H, W) of the size of the model's input, in units
        of the logit, with measurements of its faithfulness.

    Raises:
        LaminaError: The image cannot be read, or there is no such run, target, method or layer.

    >>> import lamina, tempfile
    >>> run = lamina.train("shapes", net="mlp", recipe=lamina.Recipe(epochs=1), progress=False,
    ...     runs_dir=tempfile.mkdtemp())
    >>> explanation = lamina.explain(run, run.dataset.test.pixels[0], method="gradients")
    >>> explanation.maps["gradients"].values.shape
    (32, 32)
    """
    predictor = _open(run).predictor(device=device)
    model = predictor.model
    methods = choose_methods(model, method, layer)
    output = None if target is None else find_output(model.task, target)
    name, pixels = _decode(predictor, image)
    return explain_pixels(model, pixels, methods, target=output, name=name)


def inspect_units(
    run: RunLike,
    layer: int | str,
    *,
    most: int = 24,
    data: DataLike | None = None,
    device: str = "auto",
) -> LayerUnits:
    """Show what excites the units of a layer, and which classes they separate.

    Args:
        run: A run, or its folder or name.
        layer: The layer, by its number from 1 or its module path.
        most: The number of units to show: those that separate a class best.
        data: The run's data set, or its current path; by default the recorded path.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns:
        The units, each with the training patches that excite it most, and the area under the ROC
        curve for each class (0.5 by chance).

    Raises:
        LaminaError: There is no such run or layer, or the data is missing or has changed.

    >>> import lamina, tempfile
    >>> run = lamina.train("shapes", net="mlp", recipe=lamina.Recipe(epochs=1), progress=False,
    ...     runs_dir=tempfile.mkdtemp())
    >>> len(lamina.inspect_units(run, layer=3, most=4).units)
    4
    """
    _check_most(most)
    opened = _open(run)
    model = opened.predictor(device=device).model
    path = find_path(model, layer)
    images = choose_images(model, find_dataset(opened, data))
    (units,) = inspect_layers(model, images.train, [path], most)
    return units


def probe_layers(run: RunLike, *, data: DataLike | None = None, device: str = "auto") -> Probes:
    """Measure how well a linear classifier on each layer's output separates the classes.

    Args:
        run: A run, or its folder or name.
        data: The run's data set, or its current path; by default the recorded path.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns:
        The score of each layer's probe on ``val`` (or ``test``) and, as a control, the score of a
        probe on the same layer with random weights.

    Raises:
        LaminaError: There is no such run, or the data is missing or has changed.

    >>> import lamina, tempfile
    >>> run = lamina.train("shapes", net="Flatten(), Output()", recipe=lamina.Recipe(epochs=1),
    ...     progress=False, runs_dir=tempfile.mkdtemp())
    >>> [probe.name for probe in lamina.probe_layers(run).layers]
    ['image', '2 Output']
    """
    opened = _open(run)
    model = opened.predictor(device=device).model
    images = choose_images(model, find_dataset(opened, data))
    return compare_probes(model, images.fitted, images.held_out, choose_layers(model))


def find_similar(
    run: RunLike,
    image: ImageLike,
    *,
    most: int = 6,
    data: DataLike | None = None,
    device: str = "auto",
) -> SimilarImages:
    """Find the training images that are most similar to an image.

    Args:
        run: A run, or its folder or name.
        image: A path, the bytes of an encoded file, a PIL image, or uint8 pixels (H, W) or
            (H, W, C) of any size.
        most: The number of training images.
        data: The run's data set, or its current path; by default the recorded path.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns:
        The images with the largest cosine similarity of the inputs of the net's last layer: 1 for
        equal images.

    Raises:
        LaminaError: The image cannot be read, there is no such run, or its data is missing or has
            changed.

    >>> import lamina, tempfile
    >>> run = lamina.train("shapes", net="mlp", recipe=lamina.Recipe(epochs=1), progress=False,
    ...     runs_dir=tempfile.mkdtemp())
    >>> nearest = lamina.find_similar(run, run.dataset.train.pixels[5]).neighbors[0]
    >>> nearest.row, round(nearest.similarity, 3)
    (5, 1.0)
    """
    _check_most(most)
    opened = _open(run)
    predictor = opened.predictor(device=device)
    name, pixels = _decode(predictor, image)
    searched = neighbors.embed(predictor.model, find_dataset(opened, data).train)
    (similar,) = neighbors.find_similar(predictor.model, pixels, [name], searched, most)
    return similar


def find_confusions(run: RunLike) -> Confusions:
    """Find the classes that a run confuses, and the images with the largest losses.

    Args:
        run: An evaluated run, or its folder or name; its images are not needed.

    Returns:
        The mistakes on ``test``, or on ``val`` if there is no ``test``.

    Raises:
        RunError: There is no such run, or it has not been evaluated.

    >>> import lamina, tempfile
    >>> run = lamina.train("shapes", net="mlp", recipe=lamina.Recipe(epochs=1), progress=False,
    ...     runs_dir=tempfile.mkdtemp())
    >>> pair = lamina.find_confusions(run).pairs[0]
    >>> pair.target != pair.predicted
    True
    """
    opened = _open(run)
    stored = opened.outputs
    outputs = stored.get("test", stored.get("val"))
    if outputs is None:
        raise RunError(
            f"{opened.path} has not been evaluated. Finish its training, or call run.evaluate()."
        )
    return confusions.find_confusions(opened.task, [outputs])


def find_label_issues(
    source: Run | DataLike, *, pretrained: bool = True, device: str = "auto"
) -> LabelIssues:
    """Find labels that are worth checking.

    For a data set, nets are trained by cross-validation, so that none has seen a label that it
    judges. For a run, its model judges the labels; it may have memorized the labels of ``train``.

    Args:
        source: A data set, or its name or path; or a :class:`Run`.
        pretrained: Whether to use pretrained weights that are already on this machine.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns:
        The labels, the most probably incorrect ones first. Many of them are correct: look at each
        image.

    Raises:
        LaminaError: The targets are numbers, the images are too few, or the data cannot be loaded.

    Warns:
        LaminaWarning: There are too many near-duplicates to keep them in one fold.

    Source: Northcutt, Jiang and Chuang, Confident learning, arXiv 1911.00068.

    >>> import lamina
    >>> few = lamina.load_data("shapes").train.take(range(200))
    >>> lamina.find_label_issues(few, pretrained=False).splits["train"].labels
    200
    """
    if isinstance(source, Run):
        model = source.predictor(device=device).model
        images = find_dataset(source).splits
        probabilities = {}
        for split, part in images.items():
            logits = torch.from_numpy(predict_logits(model, part.pixels))
            probabilities[split] = model.task.probabilities(logits).numpy()
        return judge_labels(images, probabilities)
    dataset = as_dataset(source)
    return check_labels(dataset, choose_checkers(dataset, device=device, pretrained=pretrained))


def find_near_duplicates(data: DataLike) -> NearDuplicates:
    """Find near-duplicates (translated, mirrored, recolored or recompressed copies).

    Args:
        data: A data set, or its name or path.

    Returns:
        The pairs within and across splits, smallest distance first.

    Raises:
        DataError: The data cannot be loaded.

    >>> import lamina
    >>> few = lamina.load_data("shapes").train.take([0, 1, 2, 3, 0])
    >>> (pair,) = lamina.find_near_duplicates(few).pairs
    >>> pair.first, pair.second, pair.distance
    (0, 4, 0.0)
    """
    if isinstance(data, Images):
        return similarity.compare_images([data])
    return similarity.compare_images([*as_dataset(data).splits.values()])


def choose_checkers(
    dataset: Dataset, *, device: str = "auto", pretrained: bool = True
) -> tuple[CrossValidatedNet, ...]:
    """The nets that check the labels of a data set; ``DataError`` if it cannot be checked."""
    weights = next(iter(find_all_at_hand()), None) if pretrained else None
    nets = choose_nets(dataset.train, weights)
    check_learnable(dataset)
    return tuple(replace(net, recipe=replace(net.recipe, device=device)) for net in nets)


def check_labels(
    dataset: Dataset, nets: Sequence[CrossValidatedNet], progress: Progress | None = None
) -> LabelIssues:
    """Judge the labels with nets that were trained on other images."""
    train, *others = dataset.splits.values()
    pairs: tuple[similarity.DuplicatePair, ...] = ()
    if len(train) <= NEAR_DUPLICATES_IMAGES:
        pairs = similarity.find_near_duplicates(train.pixels, progress)
    groups, divided = limit_groups(train, group_copies(train.pixels, pairs, train.groups))
    if divided:
        warnings.warn(
            f"{divided:,} training images are near-duplicates of each other, too many to be in one"
            " fold. lamina keeps only identical images, and images of one group, in the same fold,"
            " and divides even these if there are too many. A net may have been trained on a copy"
            " of an image whose label it checks.",
            LaminaWarning,
            stacklevel=2,
        )
    predicted = cross_predict(nets, train, others, groups=groups, progress=progress)
    probabilities = zip(dataset.splits, (predicted.held_out, *predicted.others), strict=True)
    return judge_labels(dataset.splits, dict(probabilities), OTHER_NETS)


def _check_most(most: int) -> None:
    if not isinstance(most, int) or most < 1:
        raise DataError(f"most is {most!r:.60}; it must be an integer of at least 1. Use most=6.")


def _open(run: RunLike) -> Run:
    return run if isinstance(run, Run) else load_run(run)


def _decode(predictor: Predictor, image: ImageLike) -> tuple[str, np.ndarray]:
    """The name and the pixels (1, H, W, C) of an image, as the model sees it."""
    with closing(decode_ahead([image], predictor.input_format)) as chunks:
        chunk = next(chunks)
    if chunk.reasons[0] is not None:
        raise DataError(f"{chunk.names[0]} could not be read: {chunk.reasons[0]}.")
    return chunk.names[0], chunk.pixels
