"""Linear probes and concepts of a trained net, compared with nets with random weights.

The benchmark trains a net on data with classes or attributes. For each layer it prints the score of
a linear probe with its range over nets with random weights, and the number of concepts found in the
trained net. Each net with random weights is also inspected as if it were trained: the highest gain
of its units over the controls, as a share of what the controls leave to an overlap of 1, must stay
below the limit from which lamina reports a concept.

    python benchmarks/inside.py --data shapes-attributes --json inside.json
"""

from __future__ import annotations

import json as json_format
from dataclasses import replace
from pathlib import Path

import tyro

from lamina import Preparation, Training, load_data, load_net, load_recipe
from lamina.insight.concepts import LEAST_GAIN, Concept, find_concepts
from lamina.insight.inspected_layers import choose_layers, name_stage
from lamina.insight.probes import probe_layers, untrain
from lamina.insight.units import measure_responses

CONTROLS = 5


def main(
    data: str = "shapes-attributes",
    net: str = "cnn-s",
    epochs: int = 3,
    nets: int = 10,
    images: int = 1000,
    json: Path | None = None,
) -> None:
    """Train a net, inspect it and nets with random weights, and print the differences.

    Args:
        data: data set with classes or attributes.
        net: net of the zoo.
        epochs: number of epochs.
        nets: number of nets with random weights, in addition to the five controls.
        images: number of images to search for concepts; probes use four times as many.
        json: file for the results.
    """
    dataset = load_data(data, Preparation(val_fraction=0.1))
    training = Training(
        load_net(net), dataset.train, replace(load_recipe(net), epochs=epochs, device="cpu")
    )
    for _ in training:
        pass
    model = training.model
    layers = choose_layers(model)
    some, fitted, val = (
        dataset.train.take_evenly(images),
        dataset.train.take_evenly(4 * images),
        dataset.val,
    )
    untrained = [untrain(model, dataset.train, seed) for seed in range(CONTROLS + nets)]
    responses = [measure_responses(one, some.pixels, layers) for one in (model, *untrained)]
    probes = [
        probe_layers(one, fitted, val, layers)
        for one in (model, *untrained[CONTROLS : CONTROLS + 3])
    ]
    rows = []
    print(f"{data}, {net} after {epochs} epochs; {nets} nets with random weights")
    print(
        "layer                probe  random (3 nets)  concepts  highest gain of random weights "
        " limit"
    )
    print(f"{'image':<20} {probes[0][0].score.value:.3f}")
    for place, layer in enumerate(layers, start=1):
        own, *others = (one[layer].strengths for one in responses)
        controls = others[:CONTROLS]
        found = find_concepts(own, controls, some)
        gains = [
            _gain(concept)
            for other in others[CONTROLS:]
            for concept in find_concepts(other, controls, some)
        ]
        random = [one[place].score.value for one in probes[1:]]
        concepts = f"{sum(concept.is_found for concept in found)} of {len(found)}"
        print(
            f"{name_stage(model, layer):<20} {probes[0][place].score.value:.3f}  {min(random):.3f}"
            f" to {max(random):.3f}   {concepts:<8}  {max(gains):.3f}                          "
            f" {LEAST_GAIN}",
            flush=True,
        )
        row = {
            "data": data,
            "net": net,
            "layer": layer,
            "probe": probes[0][place].score.value,
            "probe_random": random,
        }
        row["concepts"], row["highest_gain_random"] = (
            sum(concept.is_found for concept in found),
            max(gains),
        )
        rows.append(row)
    if json is not None:
        json.write_text("".join(json_format.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _gain(concept: Concept) -> float:
    """The gain of an overlap over its controls, as a share of what they leave to 1."""
    reached = max(concept.shuffled, concept.untrained)
    return (concept.overlap - reached) / (1 - reached) if reached < 1 else 0.0


if __name__ == "__main__":
    tyro.cli(main)
