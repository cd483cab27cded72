"""Lanes: parts of a batch, whose sums do not depend on the number of processes or their order."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lamina import Epoch, Images, Recipe, Training, load_data
from lamina.nets import BatchNorm, Conv2d, Dropout, Flatten, Net, Output, ReLU
from lamina.training.batches import LEAST_IN_LANE, divide_lanes
from lamina.training.checkpoint import digest_tensors
from lamina.training.group import deal, interrupt
from lamina.training.lanes import Block, add_up, append, list_blocks, sum_lanes
from support.trainings import finish

COUNTS = st.integers(1, 20)


@given(lanes=COUNTS, active=COUNTS, size=COUNTS)
def test_however_lanes_are_dealt_their_sum_has_the_same_bits(lanes, active, size):
    active, size = min(active, lanes), min(size, lanes)
    vectors = torch.randn(active, 3, generator=torch.Generator().manual_seed(active))
    leaves = [Block(lane, 1, vector) for lane, vector in enumerate(vectors)]
    dealt = [deal(lanes, size, rank) for rank in range(size)]
    of_processes = []
    for part in dealt:
        blocks: list[Block] = []
        for leaf in leaves[part.start : part.stop]:
            append(blocks, leaf)
        planned = list_blocks(range(part.start, min(part.stop, active)))
        assert [(block.start, block.size) for block in blocks] == [
            (block.start, block.size) for block in planned
        ]
        assert len(blocks) <= 2 * active.bit_length()
        of_processes += blocks
    covered = [
        lane for block in of_processes for lane in range(block.start, block.start + block.size)
    ]
    assert covered == list(range(active))  # every lane once, in order
    alone = add_up(leaves)
    assert torch.equal(add_up(of_processes), alone)
    assert torch.equal(sum_lanes(leaves, active, lanes, vectors[0]), alone)
    torch.testing.assert_close(alone, vectors.double().sum(0).float())


def test_five_lanes_are_added_as_a_binary_tree():
    a, b, c, d, e = vectors = torch.tensor([1e8, -1e8, 3.0, 1e8, 0.3])[:, None]
    expected = ((a + b) + (c + d)) + e
    assert torch.equal(add_up(Block(lane, 1, v) for lane, v in enumerate(vectors)), expected)


@given(start=st.integers(0, 100), count=st.integers(1, 100), lanes=COUNTS)
def test_a_batch_is_divided_into_nearly_equal_parts(start, count, lanes):
    parts = divide_lanes(slice(start, start + count), lanes)
    rows = [row for part in parts for row in range(part.start, part.stop)]
    sizes = [part.stop - part.start for part in parts]
    assert rows == list(range(start, start + count))
    assert max(sizes) - min(sizes) <= 1
    assert len(parts) <= lanes
    assert count < LEAST_IN_LANE or min(sizes) >= LEAST_IN_LANE


def few_shapes(count: int = 23) -> Images:
    return load_data("shapes").train.take(range(count))


def train_on_shapes(recipe: Recipe, net: Net) -> Training:
    return finish(Training(net, few_shapes(), recipe))


PLAIN = Net(Conv2d(4, kernel_size=3), ReLU(), Flatten(), Output())
NORMED = Net(Conv2d(4, kernel_size=3), BatchNorm(), ReLU(), Flatten(), Output())


def test_without_norms_and_dropout_lanes_only_round_differently():
    one, four = (
        train_on_shapes(Recipe(epochs=2, batch_size=23, lanes=lanes, optimizer="sgd"), PLAIN)
        for lanes in (1, 4)
    )
    for name, weight in one.model.state_dict().items():
        torch.testing.assert_close(four.model.state_dict()[name], weight, rtol=1e-4, atol=1e-6)


def test_the_statistics_of_a_batch_norm_are_means_over_lanes():
    recipe = Recipe(epochs=1, batch_size=23, lanes=3, optimizer="sgd", lr=0.0)
    before = Training(NORMED, few_shapes(), replace(recipe, lanes=1))
    convolution = before.model.body[0]
    order = next(before._batches.epoch(0)).gather(0).indices.numpy()
    pixels = torch.from_numpy(np.ascontiguousarray(few_shapes().pixels[order]))
    inputs = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        outputs = convolution(inputs)
    parts = [outputs[0:7], outputs[7:15], outputs[15:23]]
    mean = sum(len(part) / 23 * 0.1 * part.mean((0, 2, 3)) for part in parts)
    variance = 0.9 + sum(
        len(part) / 23 * 0.1 * part.transpose(0, 1).flatten(1).var(1) for part in parts
    )
    norm = train_on_shapes(recipe, NORMED).model.body[1]
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, variance, rtol=1e-4, atol=1e-5)
    assert norm.num_batches_tracked == 1


def test_statistics_that_nothing_changes_keep_their_bits():
    """Shares such as 7/23 add up to nearly 1 only."""
    training = Training(NORMED, few_shapes(), Recipe(epochs=3, batch_size=23, lanes=3))
    norm = training.model.body[1]
    norm.running_mean.copy_(torch.randn(4))
    before = norm.running_mean.clone()
    norm.train = lambda _mode=True: norm  # it stays in eval mode, as below a head that learns alone
    norm.eval()
    for _ in training:
        pass
    assert torch.equal(norm.running_mean, before)


def test_loss_and_correct_predictions_are_those_of_all_lanes():
    recipe = Recipe(epochs=1, batch_size=23, optimizer="sgd", lr=0.0)
    epochs = [
        next(
            event
            for event in Training(PLAIN, few_shapes(), replace(recipe, lanes=lanes))
            if isinstance(event, Epoch)
        )
        for lanes in (1, 5)
    ]
    assert epochs[0].train_loss == pytest.approx(epochs[1].train_loss, rel=1e-5)
    assert epochs[0].train_accuracy == epochs[1].train_accuracy


def test_lanes_stopped_anywhere_continue_to_the_same_bits():
    recipe = Recipe(
        epochs=2, batch_size=8, lanes=3, optimizer="muon", lr=0.02, initial_fraction=0.5
    )
    net = Net(*NORMED.layers[:-1], Dropout(0.3), Output())
    straight = digest_tensors(train_on_shapes(recipe, net).checkpoint().tensors)
    for stop in (1, 4):
        first = Training(net, few_shapes(), recipe, steps_per_record=1)
        for _ in itertools.islice(first, stop):
            pass
        second = Training(net, few_shapes(), recipe)
        second.restore(first.checkpoint())
        for _ in second:
            pass
        assert digest_tensors(second.checkpoint().tensors) == straight


class Unused(nn.Module):
    """A module with a layer that its forward pass leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten, self.last, self.spare = nn.Flatten(), nn.Linear(3072, 10), nn.Linear(3, 3)

    def forward(self, x):
        return self.last(self.flatten(x))


def test_a_weight_that_no_lane_uses_is_left_alone():
    found = {}
    for lanes in (1, 3):
        module = Unused()
        before = {name: weight.clone() for name, weight in module.spare.named_parameters()}
        recipe = Recipe(epochs=2, batch_size=8, lanes=lanes, optimizer="adamw", weight_decay=0.5)
        training = Training(module, few_shapes(), recipe)
        list(training)
        assert all(
            torch.equal(weight, before[name]) for name, weight in module.spare.named_parameters()
        )
        found[lanes] = training.checkpoint().tensors.keys()
    assert found[1] == found[3]


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_an_interrupt_is_seen_at_the_next_step_or_epoch(stop):
    training = Training(
        PLAIN, few_shapes(), Recipe(epochs=2, batch_size=8, lanes=2), steps_per_record=1
    )
    records = iter(training)
    for _ in range(stop - 1):
        next(records)
        assert not training.is_interrupted
    interrupt()
    record = next(records)
    assert isinstance(record, Epoch) == (stop == 3)
    assert training.is_interrupted
    next(records)
    assert not training.is_interrupted
