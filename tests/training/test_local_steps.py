"""Local SGD: lanes that take several steps by themselves, and the mean of their weights."""

import itertools
from copy import deepcopy

import pytest
import torch
from torch import nn

from lamina import Epoch, Images, Recipe, Step, Training, load_data, load_net
from lamina.errors import NotFiniteError, RecipeError
from lamina.nets import BatchNorm, Conv2d, Flatten, Net, Output, ReLU
from lamina.training.batches import Batches
from lamina.training.group import Group
from lamina.training.tensors import digest_tensors

NORMED = Net(BatchNorm(), Conv2d(4, kernel_size=3), ReLU(), Flatten(), Output())


def images(count: int = 23) -> Images:
    return load_data("shapes").train.take(range(count))


def train(training: Training) -> Training:
    for _ in training:
        pass
    return training


@pytest.mark.parametrize(("optimizer", "lr", "make"), [
    ("sgd", 0.002, lambda weights: torch.optim.SGD(weights, lr=0.002, momentum=0.9, nesterov=True)),
    ("adam", 1e-4, lambda weights: torch.optim.Adam(weights, lr=1e-4)),
])  # fmt: skip
def test_two_blocks_are_the_means_of_what_torch_makes_of_each_lane(optimizer, lr, make):
    recipe = Recipe(epochs=2, batch_size=8, lanes=2, sync_every=9, optimizer=optimizer, lr=lr)
    training = Training(NORMED, images(), recipe, device="cpu")
    body = deepcopy(training.model.body).train()
    weights, state = dict(body.state_dict()), None
    batches = Batches(images(), recipe, torch.device("cpu"))
    for epoch in range(2):
        found = []
        for lane in range(2):
            copy = deepcopy(body)
            copy.load_state_dict(weights)
            trainer = make(copy.parameters())
            if state is not None:
                trainer.load_state_dict(deepcopy(state))
            seen = 0
            for divided in batches.epoch(epoch):
                batch = divided.gather(lane)
                trainer.zero_grad()
                inputs = batch.pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
                nn.functional.cross_entropy(copy(inputs), batch.targets).backward()
                trainer.step()
                seen += len(batch.indices)
            found.append((seen / 23, copy.state_dict(), trainer.state_dict()))
        weights = {name: sum(share * values[name] for share, values, _ in found) for name in weights}
        state = found[0][2]
        for place, values in state["state"].items():
            for key in values:
                if key != "step":
                    values[key] = sum(share * states["state"][place][key] for share, _, states in found)
    trained = train(training).model.body.state_dict()
    for name in weights:
        torch.testing.assert_close(trained[name].float(), weights[name].float(), rtol=1e-4, atol=1e-5)


def test_a_training_stopped_between_two_blocks_continues_to_the_same_bits():
    recipe = Recipe(
        epochs=2, batch_size=8, lanes=3, sync_every=2, optimizer="muon", lr=0.02, ema_decay=0.9, dropout=0.3,
        schedule="cosine",
    )  # fmt: skip
    net, pictures = load_net("cnn"), images(29)
    straight = Training(net, pictures, recipe, device="cpu", steps_per_record=1)
    records = list(straight)
    # The last batch, of 5 images, would have two lanes only, and joins the block before.
    assert [(record.epoch, record.step) if isinstance(record, Step) else record.epoch for record in records] == [
        (1, 2), 1, (2, 2), 2,
    ]  # fmt: skip
    assert straight.steps_done == 8
    for stop in (1, 2, 3):
        first = Training(net, pictures, recipe, device="cpu", steps_per_record=1)
        for _ in itertools.islice(first, stop):
            pass
        second = Training(net, pictures, recipe, device="cpu")
        second.restore(first.checkpoint())
        assert digest_tensors(train(second).checkpoint().tensors) == digest_tensors(straight.checkpoint().tensors)


def test_the_records_are_those_of_all_lanes():
    still = Recipe(epochs=1, batch_size=8, optimizer="sgd", lr=0.0)
    alone, local = (
        next(event for event in Training(Net(Flatten(), Output()), images(), recipe, device="cpu")
             if isinstance(event, Epoch))
        for recipe in (still, Recipe(**{**still.changes(), "lanes": 3, "sync_every": 2}))
    )  # fmt: skip
    assert local.train_loss == pytest.approx(alone.train_loss, rel=1e-5)
    assert local.train_accuracy == alone.train_accuracy


class Poisoned(nn.Module):
    """Gives NaN in one pass."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.linear, self.passes, self.at = nn.Linear(3 * 32 * 32, 10), 0, at

    def forward(self, inputs):
        self.passes += self.training
        outputs = self.linear(inputs.flatten(1))
        return outputs * float("nan") if self.passes >= self.at else outputs


def test_a_nan_in_one_lane_leaves_the_weights_as_they_were_before_the_block():
    recipe = Recipe(epochs=1, batch_size=4, lanes=2, sync_every=3, optimizer="sgd", lr=0.05)
    training = Training(Poisoned(9), images(24), recipe, device="cpu", steps_per_record=1)
    events = iter(training)
    assert next(events).step == 3
    before = digest_tensors(training.checkpoint().tensors)
    with pytest.raises(
        NotFiniteError, match=r"^The loss became NaN at step 6 of epoch 1. First not finite: the loss, or"
    ):
        next(events)
    assert digest_tensors(training.checkpoint().tensors) == before


def test_a_nan_in_the_first_step_of_all_is_found_too():
    training = Training(Poisoned(1), images(24), Recipe(batch_size=4, lanes=2, sync_every=3), device="cpu")
    before = digest_tensors(training.checkpoint().tensors)
    with pytest.raises(NotFiniteError, match=r"^The loss became NaN at step 1 of epoch 1."):
        next(iter(training))
    assert {name: tensor for name, tensor in training.checkpoint().tensors.items() if name.startswith("live")}
    training._optimizer.state.clear()
    assert digest_tensors(training.checkpoint().tensors) == before


@pytest.mark.parametrize("recipe", [
    Recipe(epochs=1, batch_size=8, lanes=3),
    Recipe(epochs=1, batch_size=8, lanes=3, sync_every=2),
])  # fmt: skip
def test_an_interrupt_makes_a_record_after_the_present_step(recipe):
    group = Group()
    training = Training(NORMED, images(), recipe, device="cpu", group=group, steps_per_record=100)
    group.interrupt()
    assert next(iter(training)).step == recipe.sync_every
    assert isinstance(next(iter(training)), Epoch)


@pytest.mark.parametrize(("recipe", "expected"), [
    (Recipe(sync_every=4), "^sync_every was 4, but lanes was 1: the weights of several lanes are averaged."),
    (Recipe(sync_every=4, lanes=8, batch_size=9), "needs 2 images for each of 8 lanes in a batch, but a batch has 9."),
    (Recipe(sync_every=4, lanes=12), "a batch has 23. Set lanes to 11 or fewer, or sync_every to 1.$"),
])  # fmt: skip
def test_local_steps_need_images_in_every_lane(recipe, expected):
    with pytest.raises(RecipeError, match=expected):
        Training(NORMED, images(), recipe, device="cpu")
