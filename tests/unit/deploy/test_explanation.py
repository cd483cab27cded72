"""Maps of predictions that would take too long to compute."""

from __future__ import annotations

import base64

import pytest

from lamina.deploy.studio import explanation
from lamina.errors import NetError
from lamina.training.loop import Training
from support.runs import DATA, NET, RECIPE


@pytest.fixture(scope="module")
def untrained_model():
    return Training(NET, DATA.train, RECIPE).model


def test_a_map_whose_faithfulness_would_take_too_long_has_none(untrained_model, monkeypatch):
    monkeypatch.setattr(explanation, "FAITHFULNESS_SECONDS", 0.0)
    explained = explanation.explain_image(untrained_model, DATA.test.pixels[:1])
    assert explained["faithfulness"] is None
    assert base64.b64decode(explained["map"]).startswith(b"\x89PNG")


def test_a_map_that_would_take_too_long_is_refused(untrained_model, monkeypatch):
    monkeypatch.setattr(explanation, "MAP_SECONDS", 0.0)
    message = r"A map would take about .* s on this machine; the limit is 0 s"
    with pytest.raises(NetError, match=message):
        explanation.explain_image(untrained_model, DATA.test.pixels[:1])
