"""Changed code of own functions and modules is noticed, and equal code is equal."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lamina import Parts
from lamina.nets import Flatten, Layer, Net, Output
from lamina.runs.start import as_net_choice, find_net
from lamina.studies.own_code import NAME_ALONE, describe_code, digest_code, warn_of_names

GAMMA = 2.0


def halve(value):
    return value / 2


def scaled(factor):
    def loss(logits, targets):
        return factor * cross_entropy(logits, targets)

    return loss


def focal(logits, targets):
    losses = cross_entropy(logits, targets, reduction="none")
    return halve((1 - (-losses).exp()) ** GAMMA * losses).mean()


class Head(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.rows = nn.Linear(width, 2)

    def forward(self, features):
        return halve(self.rows(features))


def test_lambdas_in_one_line_differ_by_their_bodies_alone():
    # fmt: off
    first, second, third = (lambda done: 1 - done), (lambda done: 1 + done), (lambda done: 1 - done)
    # fmt: on
    digests = [digest_code(function) for function in (first, second, third)]
    assert digests[0] != digests[1]
    assert digests[0] == digests[2]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (scaled(1), scaled(2)),
        (scaled([1, 2]), scaled([1, 3])),
        (scaled(torch.ones(2)), scaled(torch.zeros(2))),
        (functools.partial(focal, targets=1), functools.partial(focal, targets=2)),
        (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)),
        (nn.CrossEntropyLoss(torch.ones(2)), nn.CrossEntropyLoss(torch.zeros(2))),
        (scaled(halve), scaled(focal)),
        (scaled(1), focal),
    ],
)
def test_the_values_that_a_function_uses_count(first, second):
    assert digest_code(first) == digest_code(first)
    assert digest_code(first) != digest_code(second)


def test_equal_functions_have_equal_digests():
    assert digest_code(scaled(1)) == digest_code(scaled(1))
    assert digest_code(nn.CrossEntropyLoss()) == digest_code(nn.CrossEntropyLoss())
    assert digest_code(scaled({"b", "a"})) == digest_code(scaled({"a", "b"}))


def test_globals_and_functions_that_are_called_count(monkeypatch):
    before = digest_code(focal)
    monkeypatch.setitem(globals(), "GAMMA", 3.0)
    assert digest_code(focal) != before
    monkeypatch.undo()
    assert digest_code(focal) == before
    monkeypatch.setitem(globals(), "halve", lambda value: value / 3)
    assert digest_code(focal) != before


def test_the_class_that_a_function_makes_counts(monkeypatch):
    def make():
        return Head(3)

    before = describe_code(as_net_choice(make), Parts())
    assert list(before) == ["net"]
    monkeypatch.setitem(globals(), "halve", focal)  # which a method of the class calls
    assert describe_code(as_net_choice(make), Parts()) != before
    monkeypatch.undo()
    assert describe_code(as_net_choice(make), Parts()) == before
    monkeypatch.setitem(globals(), "Head", nn.Linear)
    assert describe_code(as_net_choice(make), Parts()) != before


def test_own_layers_count_and_nets_of_lamina_do_not():
    @dataclass(frozen=True, repr=False)
    class Maxout(Layer):
        units: int

        def module(self, in_shape):
            return nn.Linear(in_shape[0], self.units)

    own = as_net_choice(Net(Flatten(), Maxout(2), Output()))
    assert list(describe_code(own, Parts())) == ["net"]
    assert describe_code(find_net("cnn"), Parts()) == {}


def test_metrics_do_not_count():
    assert list(describe_code(None, Parts(loss=focal, metrics=[focal]))) == ["loss"]


def test_code_without_source_is_compared_by_its_name():
    space: dict = {}
    exec("def typed(logits, targets): return logits.sum()", space)
    code = describe_code(None, Parts(loss=space["typed"]))
    assert code == {"loss": NAME_ALONE}
    with pytest.warns(UserWarning, match="The code of loss cannot be read, so the study would not"):
        warn_of_names(code)
