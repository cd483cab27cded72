"""The cards of a net's layers, with their costs and errors."""

from __future__ import annotations

from lamina.deploy.studio.net_cards import list_layers, list_presets, show_net, split_text
from lamina.nets import parse_net
from lamina.nets.costs import summarize_layers


def test_the_cards_of_every_net_have_its_costs():
    shape = (3, 64, 64)
    for preset in list_presets():
        shown = show_net(split_text(preset["text"]), shape, 10)
        assert shown["problem"] is None
        assert shown["text"] == preset["text"]
        net = parse_net(preset["text"]).with_outputs(10)
        expected = summarize_layers(net.layers, shape)
        costs = (shown["parameters"], shown["multiply_adds"])
        assert costs == (expected.parameters, expected.multiply_adds)
        shapes = [tuple(card["shape"]) for card in shown["cards"]]
        assert shapes == list(net.shapes(shape)[1:])


def test_every_layer_can_be_added_and_edited():
    for layer in list_layers():
        (card,) = show_net([layer["text"]], None, None)["cards"]
        assert card["name"] == layer["name"]
        assert layer["meaning"] and not layer["meaning"].endswith(".")
        assert card["meaning"] and "{" not in card["meaning"]
        if card["arguments"] is not None:
            arguments = ", ".join(f"{one['name']}={one['value']}" for one in card["arguments"])
            assert repr(parse_net(f"{card['name']}({arguments})")[0]) == card["text"]


def test_a_card_has_the_meaning_and_role_of_its_layer():
    texts = ["Whiten(2)", "Conv2d(8, (3, 5), stride=2)", "LeakyReLU(0.2)", "Dropout(0.25)"]
    cards = show_net(texts, (3, 32, 32), 10)["cards"]
    assert [card["meaning"] for card in cards] == [
        "fixed filters of 2×2 px",
        "8 filters of 3×5 px, step 2",
        "negatives × 0.2",
        "sets a fraction of 0.25 to 0 at random",
    ]
    assert [card["role"] for card in cards] == ["", "", "activation", "regularization"]


def test_an_error_is_at_the_card_that_causes_it():
    found = show_net(["Conv2d(8, 3)", "Linear(9)", "Output()"], (3, 32, 32), 10)
    assert [("problem" in card) for card in found["cards"]] == [False, True, False]
    assert found["problem"].startswith("layer 2 of 3, Linear(9): expected a vector")
    assert show_net(["Flatten()"], (3, 8, 8), 10)["cards"][-1]["problem"]
    after = show_net(["Flatten()", "Output()", "ReLU()", "Linear(10)"], (3, 8, 8), 10)
    assert [("problem" in card) for card in after["cards"]] == [False, False, True, False]
    assert "ReLU(): Output() must be the last layer" in after["problem"]
    assert (
        show_net([], (3, 8, 8), 10)["problem"]
        == "The net has no layers. Add one, such as Output()."
    )
