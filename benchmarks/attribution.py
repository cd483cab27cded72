"""How faithful attribution maps are, how faithful incorrect maps are, and the pointing game.

The benchmark trains a net and explains its predictions for images of ``val`` with each method.
Incorrect maps are the same maps moved by half the image, or with their signs turned. The built-in
shapes have known masks, so the pointing game is played on their test images, compared with an
untrained net, the image center and the area of the shapes.

    python benchmarks/attribution.py --data shapes --epochs 3 --json maps.json
"""

from __future__ import annotations

import json as json_format
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import tyro
from shape_masks import mask_shapes

from lamina import Preparation, Training, load_data, load_net, load_recipe
from lamina.insight.explaining import choose_methods, compute_map, measure_faithfulness
from lamina.training.model import build_model
from lamina.training.prediction import predict_logits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamina.insight.explaining import Faithfulness


def main(
    data: str = "shapes",
    net: str = "cnn-s",
    epochs: int = 3,
    images: int = 30,
    pointed: int = 150,
    json: Path | None = None,
) -> None:
    """Train a net, explain its predictions, and print how faithful the maps are.

    Args:
        data: single-label data set.
        net: net of the zoo with convolutions.
        epochs: number of epochs.
        images: number of images of val to explain.
        pointed: number of test images for the pointing game, with `shapes` only.
        json: file for the results.
    """
    dataset = load_data(data, Preparation(val_fraction=0.1))
    recipe = replace(load_recipe(net), epochs=epochs, device="cpu")
    training = Training(load_net(net), dataset.train, recipe)
    for _ in training:
        pass
    model, sample = training.model, dataset.val.take_evenly(images)
    predicted = predict_logits(model, sample.pixels).argmax(axis=1)
    height, width = sample.pixels.shape[1:3]
    methods = choose_methods(model)
    results: dict[str, object] = {"data": data, "net": net, "epochs": epochs, "images": images}
    print("method      lead    moved  turned  seconds per image: map, measurements")
    for name in methods.items():
        began = time.perf_counter()
        maps = _explain(model, sample.pixels, predicted, name)
        explained = time.perf_counter()
        own = _measure(model, sample.pixels, predicted, maps)
        seconds = [(explained - began) / images, (time.perf_counter() - explained) / images]
        moved, turned = np.roll(maps, (height // 2, width // 2), axis=(1, 2)), -maps
        others = [_measure(model, sample.pixels, predicted, one) for one in (moved, turned)]
        leads = [_find_lead(found) for found in (own, *others)]
        results[name] = {"leads": leads, "seconds": seconds}
        shown = "".join(f"{100 * lead:6.0f} %" for lead in leads)
        print(f"{name:10}{shown}", *np.round(seconds, 2), flush=True)
    if data == "shapes":
        results["pointing game"] = _play(model, net, methods, pointed)
    if json is not None:
        json.write_text(json_format.dumps(results, indent=2))


def _explain(model, pixels: np.ndarray, targets: np.ndarray, method: str) -> np.ndarray:
    layer = choose_methods(model)[method]
    maps = []
    for row, target in enumerate(targets):
        maps.append(compute_map(model, pixels[row : row + 1], target, method, layer))
    return np.stack(maps)


def _measure(
    model, pixels: np.ndarray, targets: np.ndarray, maps: np.ndarray
) -> list[Faithfulness]:
    measured = []
    for row, target in enumerate(targets):
        measured.append(measure_faithfulness(model, pixels[row : row + 1], target, maps[row]))
    return measured


def _find_lead(found: list[Faithfulness]) -> float:
    """Median of the additional fall of the probability in the map's order over a random one."""
    return float(np.median([one.by_random_map - one.by_map for one in found]))


def _point(maps: np.ndarray, masks: np.ndarray) -> float:
    """Share of the maps whose largest value lies inside the mask."""
    largest = maps.reshape(len(maps), -1).argmax(axis=1)
    return float(masks.reshape(len(masks), -1)[np.arange(len(maps)), largest].mean())


def _play(model, net: str, methods: Iterable[str], pointed: int) -> dict[str, object]:
    test, masks = load_data("shapes").test, mask_shapes("shapes", "test", pointed)
    pixels, targets = test.pixels[:pointed], test.targets[:pointed]
    torch.manual_seed(0)
    untrained = build_model(load_net(net), test, load_recipe(net))
    results: dict[str, object] = {
        "area": float(masks.mean()),
        "center": float(masks[:, 15:17, 15:17].mean()),
    }
    print(f"pointing game: area {results['area']:.3f}, center {results['center']:.3f}")
    for name in methods.items():
        trained, random = (
            _point(_explain(each, pixels, targets, name), masks) for each in (model, untrained)
        )
        results[name] = {"trained": trained, "untrained": random}
        print(f"{name:10} {trained:.3f}, untrained {random:.3f}", flush=True)
    return results


if __name__ == "__main__":
    tyro.cli(main)
