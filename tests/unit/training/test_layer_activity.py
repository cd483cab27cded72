"""What the look at the fixed images counts as dead: the units of each call, and those of tokens."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lamina import load_data
from lamina.training.layer_statistics import measure_activity
from lamina.training.model import build_model
from lamina.training.recipe import Recipe


class Own(nn.Module):
    """An activation for 6 tokens of 5 units, two of them dead, and for 10 units, one dead."""

    def __init__(self) -> None:
        super().__init__()
        self.relu, self.head = nn.ReLU(), nn.Linear(10, 10)
        self.register_buffer("shift", torch.tensor([1.0, 1.0, 1.0, -99.0, -99.0]))

    def forward(self, images):
        """Logits."""
        tokens = images.flatten(1)[:, :30].view(-1, 6, 5)
        tokens = self.relu(tokens.abs() + self.shift).mean(dim=1)
        features = torch.cat(
            [tokens[:, :3], tokens[:, :3], tokens[:, :3], tokens[:, :1] - 99], dim=1
        )
        return self.head(self.relu(features))


def test_dead_units_are_counted_by_call_and_along_the_units():
    images = load_data("shapes").test.take_evenly(20)
    model = build_model(Own(), images, Recipe())
    # 2 of 5 and 1 of 10: 3 of 15.
    measured = measure_activity(model, images)
    assert measured["body.relu"] == {"dead_fractions": pytest.approx(3 / 15)}
