"""Linear probes of a trained net, compared with nets with random weights.

The benchmark trains a net on data with classes or attributes. For each layer it prints the score of
a linear probe, and its range over nets with random weights.

    python benchmarks/inside.py --data shapes-attributes --json inside.json
"""

from __future__ import annotations

import json as json_format
from dataclasses import replace
from pathlib import Path

import tyro

from lamina import Preparation, Training, load_data, load_net, load_recipe
from lamina.insight.inspected_layers import choose_layers, name_stage
from lamina.insight.probes import probe_layers, untrain


def main(
    data: str = "shapes-attributes",
    net: str = "cnn-s",
    epochs: int = 3,
    nets: int = 3,
    images: int = 4000,
    json: Path | None = None,
) -> None:
    """Train a net, fit probes to it and to nets with random weights, and print their scores.

    Args:
        data: data set with classes or attributes.
        net: net of the zoo.
        epochs: number of epochs.
        nets: number of nets with random weights.
        images: number of training images to fit probes to.
        json: file for the results.
    """
    dataset = load_data(data, Preparation(val_fraction=0.1))
    recipe = replace(load_recipe(net), epochs=epochs, device="cpu")
    training = Training(load_net(net), dataset.train, recipe)
    for _ in training:
        pass
    model = training.model
    layers = choose_layers(model)
    fitted = dataset.train.take_evenly(images)
    trained = probe_layers(model, fitted, dataset.val, ["", *layers])
    random = [
        probe_layers(untrain(model, dataset.train, seed), fitted, dataset.val, layers)
        for seed in range(nets)
    ]
    rows = []
    print(f"{data}, {net} after {epochs} epochs; {nets} nets with random weights")
    print("layer                probe  random weights")
    print(f"{'image':<20} {trained[''].value:.3f}")
    for layer in layers:
        score = trained[layer].value
        random_scores = [scores[layer].value for scores in random]
        print(
            f"{name_stage(model, layer):<20} {score:.3f}  {min(random_scores):.3f} to"
            f" {max(random_scores):.3f}"
        )
        rows.append(
            {"data": data, "net": net, "layer": layer, "probe": score, "random": random_scores}
        )
    if json is not None:
        json.write_text("".join(json_format.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
