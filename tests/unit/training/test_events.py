"""Events say the same to programs and to people."""

import json

import pytest

from lamina.targets import Score
from lamina.training.events import (
    Diagnosis,
    EarlyEnd,
    Epoch,
    Event,
    LayerStatistics,
    Resumed,
    Step,
)

LAYERS = LayerStatistics(("2 Linear",), (0.5,), (1.0,), (None,), (0.0,), (1.0,), (None,))
DEAD = Diagnosis(
    "dying-relu", 3, "layer 2", {"dead_fraction": 0.75}, "Units are dead.", "Try lr 0.01."
)
EPOCH = Epoch(3, 10, 0.1234, 0.97, 1.2, 8123.0, 0.05)

CASES: list[tuple[Event, dict[str, object], str]] = [
    (
        Step(1, 10, 79, 2.25),
        {"event": "step", "epoch": 1, "step": 10, "steps": 79, "loss": 2.25},
        "epoch 1  step 10/79  train loss 2.2500",
    ),
    (
        EPOCH,
        {
            "event": "epoch",
            "epoch": 3,
            "epochs": 10,
            "train_loss": 0.1234,
            "train_accuracy": 0.97,
            "train_seconds": 1.2,
            "images_per_second": 8123.0,
            "lr": 0.05,
        },
        "epoch 3/10  train loss 0.1234  train accuracy 97.00 %  1.2 s  8,123 images/s",
    ),
    (
        Epoch(
            3,
            10,
            float("nan"),
            None,
            1.2,
            8123.0,
            0.05,
            LAYERS,
            (DEAD,),
            Score("accuracy", 0.932),
            {"val_accuracy": 0.932, "val_loss": float("inf")},
            "d1",
        ),
        {
            "event": "epoch",
            "epoch": 3,
            "epochs": 10,
            "train_loss": None,
            "train_accuracy": None,
            "train_seconds": 1.2,
            "images_per_second": 8123.0,
            "lr": 0.05,
            "val_accuracy": 0.932,
            "val_loss": None,
            "weights": "d1",
            "layers": {
                "names": ["2 Linear"],
                "gradient_norms": [0.5],
                "weight_norms": [1.0],
                "update_norms": [None],
                "input_means": [0.0],
                "input_standard_deviations": [1.0],
                "dead_fractions": [None],
            },
            "diagnoses": [
                {
                    "kind": "dying-relu",
                    "epoch": 3,
                    "layer": "layer 2",
                    "evidence": {"dead_fraction": 0.75},
                    "finding": "Units are dead.",
                    "advice": "Try lr 0.01.",
                    "change": {},
                }
            ],
        },
        "epoch 3/10  train loss nan  val accuracy 93.20 %  1.2 s  8,123 images/s",
    ),
    (
        DEAD,
        {
            "event": "diagnosis",
            "kind": "dying-relu",
            "epoch": 3,
            "layer": "layer 2",
            "evidence": {"dead_fraction": 0.75},
            "finding": "Units are dead.",
            "advice": "Try lr 0.01.",
            "change": {},
        },
        "diagnosis: dying-relu: Units are dead. Try lr 0.01.",
    ),
    (
        Resumed(4, 1, 2),
        {"event": "resumed", "steps_done": 4, "epochs_done": 1, "epochs": 2},
        "resuming after step 4, with 1 of 2 epochs done",
    ),
    (
        Resumed(8, 2, 2),
        {"event": "resumed", "steps_done": 8, "epochs_done": 2, "epochs": 2},
        "all 2 epochs are done; evaluating the model",
    ),
    (
        EarlyEnd(3, "time limit"),
        {"event": "early_end", "epoch": 3, "reason": "time limit"},
        "ended after epoch 3: time limit",
    ),
]


@pytest.mark.parametrize(("event", "values", "line"), CASES)
def test_an_event_as_json_and_as_a_line(event, values, line):
    assert list(event.to_json().items()) == list(values.items())
    assert json.loads(json.dumps(event.to_json(), allow_nan=False)) == values
    assert str(event) == line
