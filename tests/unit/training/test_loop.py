import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lamina.data import Images, load_data
from lamina.errors import DataError, RecipeError
from lamina.nets import (
    BatchNorm,
    Conv2d,
    Flatten,
    Linear,
    Net,
    Output,
    ReLU,
)
from lamina.training.events import Step
from lamina.training.loop import Training
from lamina.training.randomness import derive_generator, derive_seed
from lamina.training.recipe import Recipe
from lamina.zoo import load_net
from support.trainings import SMALL, follow, random_images, same, weights


class ArticleCNN(nn.Module):
    """The article's class, as it stands there."""

    def __init__(self, num_classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, kernel_size=3, stride=1, padding=1)
        self.bn1 = nn.BatchNorm2d(32)
        self.relu1 = nn.LeakyReLU()
        self.conv2 = nn.Conv2d(32, 32, kernel_size=3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(32)
        self.relu2 = nn.LeakyReLU()
        self.conv3 = nn.Conv2d(32, 64, kernel_size=3, stride=1, padding=1)
        self.bn3 = nn.BatchNorm2d(64)
        self.relu3 = nn.LeakyReLU()
        self.conv4 = nn.Conv2d(64, 64, kernel_size=3, stride=2, padding=1)
        self.bn4 = nn.BatchNorm2d(64)
        self.relu4 = nn.LeakyReLU()
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(64 * 8 * 8, 128)
        self.bn5 = nn.BatchNorm1d(128)
        self.relu5 = nn.LeakyReLU()
        self.dropout = nn.Dropout(0.5)
        self.fc2 = nn.Linear(128, num_classes)

    def forward(self, x):
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        x = self.relu3(self.bn3(self.conv3(x)))
        x = self.relu4(self.bn4(self.conv4(x)))
        x = self.flatten(x)
        x = self.relu5(self.bn5(self.fc1(x)))
        x = self.dropout(x)
        return self.fc2(x)


@pytest.fixture
def float64():
    """Arithmetic in which Adam cannot amplify rounding errors: differences are real."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("float64")
def test_the_articles_cnn_gives_the_same_logits_and_losses():
    images = load_data("shapes").train.take(range(60))
    training = Training(
        load_net("cnn"), images, Recipe(batch_size=10, precision="fp32"), steps_per_record=1
    )
    by_hand = ArticleCNN(10)
    ours = training.model.body.state_dict()
    by_hand.load_state_dict(dict(zip(by_hand.state_dict(), ours.values(), strict=True)))

    floats = (
        torch.from_numpy(images.pixels).permute(0, 3, 1, 2).contiguous().double() / 255 - 0.5
    ) / 0.5
    targets = torch.from_numpy(images.targets)
    with torch.no_grad():
        by_hand.eval()
        training.model.eval()
        logits = training.model(torch.from_numpy(images.pixels[:20]))
        assert torch.allclose(logits, by_hand(floats[:20]), atol=1e-10)

    optimizer = torch.optim.Adam(by_hand.parameters(), lr=1e-3)
    order = torch.randperm(60, generator=derive_generator(0, "order", 0))
    by_hand.train()
    losses = []
    for step in range(5):
        batch = order[10 * step : 10 * (step + 1)]
        torch.manual_seed(derive_seed(0, "dropout", step))
        loss = nn.functional.cross_entropy(by_hand(floats[batch]), targets[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    steps = (event for event in training if isinstance(event, Step))
    assert [next(steps).loss for _ in range(5)] == pytest.approx(losses, rel=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop", "sgd", "muon"])
def test_the_same_seed_gives_the_same_weights_to_the_bit(optimizer):
    recipe = Recipe(
        epochs=2,
        batch_size=16,
        optimizer=optimizer,
        flip="random",
        translate_px=2,
        cutout_px=3,
        initial_fraction=0.5,
        gradient_clip=1.0,
        schedule="cosine",
        seed=3,
    )
    first, second = (Training(SMALL, random_images(), recipe) for _ in range(2))
    for event in first:
        torch.rand(3)  # What the caller draws between records changes nothing.
        assert event.epoch in (1, 2)
    follow(second)
    assert same(weights(first), weights(second))
    other = Training(SMALL, random_images(), dataclasses.replace(recipe, seed=4))
    follow(other)
    assert not same(weights(first), weights(other))


def test_leaving_the_loop_and_coming_back_changes_nothing():
    recipe = Recipe(epochs=2, batch_size=10)
    straight, broken = (
        Training(SMALL, random_images(), recipe, steps_per_record=1) for _ in range(2)
    )
    whole = follow(straight)
    for event in broken:
        if isinstance(event, Step) and event.step == 3:
            break
    rest = follow(broken)
    assert same(weights(straight), weights(broken))
    assert [epoch.train_loss for epoch in rest] == [epoch.train_loss for epoch in whole]
    assert follow(broken) == []


def test_each_step_and_epoch_has_one_record():
    training = Training(
        SMALL, random_images(count=60), Recipe(epochs=2, batch_size=10), steps_per_record=2
    )
    seen = [(event.epoch, event.step if isinstance(event, Step) else "end") for event in training]
    assert seen == [(1, 2), (1, 4), (1, "end"), (2, 2), (2, 4), (2, "end")]


def test_epochs_see_every_image_once_and_report_their_means():
    images = random_images(count=51)
    recipe = Recipe(epochs=1, batch_size=10, lr=0.0, precision="fp32")
    training = Training(Net(Flatten(), Output()), images, recipe, steps_per_record=1)
    with torch.no_grad():
        logits = training.model(torch.from_numpy(images.pixels))
    targets = torch.from_numpy(images.targets)
    (epoch,) = follow(training)
    assert epoch.train_loss == pytest.approx(
        nn.functional.cross_entropy(logits, targets).item(), rel=1e-5
    )
    assert epoch.train_accuracy == pytest.approx(
        (logits.argmax(1) == targets).float().mean().item()
    )
    assert epoch.images_per_second == pytest.approx(51 / epoch.train_seconds)


def test_a_last_batch_of_one_image_joins_the_one_before():
    # BatchNorm refuses to norm a single value, so this fails unless the image joins.
    training = Training(
        Net(Flatten(), Linear(5), BatchNorm(), Output()), random_images(41), Recipe(batch_size=20)
    )
    assert len(follow(training)) == 10


def test_a_clipped_gradient_moves_no_farther_than_the_clip():
    recipe = Recipe(
        epochs=1, batch_size=60, optimizer="sgd", momentum=0.0, lr=1.0, gradient_clip=0.01
    )
    training = Training(SMALL, random_images(), recipe)
    before = torch.cat(
        [weight.detach().clone().flatten() for weight in training.model.parameters()]
    )
    follow(training)
    after = torch.cat([weight.detach().flatten() for weight in training.model.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_bf16_trains_to_about_the_same_losses():
    losses = {}
    for precision in ("fp32", "bf16"):
        recipe = Recipe(epochs=3, batch_size=20, precision=precision)
        losses[precision] = [
            epoch.train_loss for epoch in follow(Training(SMALL, random_images(), recipe))
        ]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
    assert losses["bf16"] != losses["fp32"]


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        (np.random.default_rng(0).random((60, 2)) < 0.5, ("a", "b")),
        (np.random.default_rng(0).random(60) < 0.5, ("is it?",)),
        (np.random.default_rng(0).normal(50, 9, (60, 2)).astype(np.float32), ("x", "y")),
    ],
    ids=["multi-label", "binary", "numbers"],
)
def test_every_task_is_learned_by_heart(targets, names):
    images = random_images()
    images = Images(images.pixels, targets, names, images.names, "train")
    net = Net(Flatten(), Linear(64), ReLU(), Output())
    epochs = follow(Training(net, images, Recipe(epochs=30, batch_size=20, lr=3e-3)))
    assert epochs[-1].train_loss < 0.1 * epochs[0].train_loss


def rare_images():
    """Sixty images, of which three are of the second class and none of the third."""
    images = random_images()
    return dataclasses.replace(
        images, targets=(np.arange(60) % 20 == 7).astype(np.int64), target_names=tuple("abc")
    )


def test_class_weights_let_each_class_count_alike_in_the_loss():
    recipe = Recipe(epochs=1, batch_size=10, lr=0.0, precision="fp32", class_weights=True)
    training = Training(Net(Flatten(), Output()), rare_images(), recipe)
    with torch.no_grad():
        logits = training.model(torch.from_numpy(rare_images().pixels))
    losses = nn.functional.cross_entropy(
        logits, torch.from_numpy(rare_images().targets), reduction="none"
    )
    is_rare = torch.from_numpy(rare_images().targets == 1)
    (epoch,) = follow(training)
    assert epoch.train_loss == pytest.approx(
        (losses[is_rare].mean() + losses[~is_rare].mean()).item() / 2, rel=1e-5
    )


@pytest.mark.parametrize("initial_fraction", [0.0, 0.5])
@pytest.mark.parametrize("is_own", [False, True])
def test_the_callers_model_is_in_eval_mode_and_may_be_used(initial_fraction, is_own):
    def start():
        torch.manual_seed(0)
        net = SMALL.with_outputs(3).module((3, 8, 8)) if is_own else SMALL
        return Training(
            net,
            random_images(),
            Recipe(epochs=2, batch_size=20, initial_fraction=initial_fraction),
            steps_per_record=1,
        )

    def look(training):
        assert not any(layer.training for layer in training.model.modules())
        with torch.no_grad():
            twice = [training.model(torch.from_numpy(random_images().pixels)) for _ in range(2)]
        assert torch.equal(*twice)

    straight, looked_at = start(), start()
    follow(straight)
    look(looked_at)
    for _ in looked_at:
        look(looked_at)
    look(looked_at)
    assert same(weights(straight), weights(looked_at))


def test_a_model_is_in_eval_mode_after_an_error_too():
    training = Training(
        SMALL.without(BatchNorm), random_images(), Recipe(optimizer="sgd", lr=1e30, batch_size=10)
    )
    with pytest.raises(RecipeError):
        follow(training)
    assert not any(layer.training for layer in training.model.modules())


VECTORS = Net(Flatten(), Linear(5), BatchNorm(), Output())
GROUPS = nn.Sequential(nn.Conv2d(3, 5, 8), nn.GroupNorm(5, 5), nn.Flatten(), nn.Linear(5, 3))


@pytest.mark.parametrize(
    ("net", "count", "batch_size"),
    [(VECTORS, 60, 1), (VECTORS, 1, 100), (GROUPS, 60, 1)],
    ids=["batches of one", "one image", "groups"],
)
def test_a_batch_that_cannot_be_normalized_is_rejected(net, count, batch_size):
    with pytest.raises(RecipeError) as rejected:
        Training(net, random_images(count), Recipe(batch_size=batch_size))
    text = str(rejected.value)
    assert "one image per step: Expected more than 1 value per channel when training" in text
    assert text.endswith("Use a batch_size of 2 or more, and as many images.")


def test_a_batch_of_one_image_trains_if_channels_have_pixels():
    net = Net(Conv2d(5, 3), BatchNorm(), Flatten(), Output())
    training = Training(net, random_images(3), Recipe(epochs=1, batch_size=1))
    list(training)
    assert all(weight.isfinite().all() for weight in training.model.state_dict().values())


def test_numbers_refuse_label_smoothing_before_training():
    images = random_images()
    numbers = Images(images.pixels, np.ones((60, 2), np.float32), ("x", "y"), images.names, "train")
    with pytest.raises(RecipeError) as rejected:
        Training(Net(Flatten(), Output()), numbers, Recipe(label_smoothing=0.1))
    assert (
        str(rejected.value)
        == "label_smoothing is 0.1, but the targets are numbers, not classes. Set it to 0."
    )


def test_a_translation_farther_than_the_images_is_rejected():
    with pytest.raises(RecipeError) as rejected:
        Training(SMALL, random_images(side_px=8), Recipe(translate_px=8))
    assert (
        str(rejected.value)
        == "translate_px is 8; it must be less than the image side, 8 px. Use 1."
    )


def test_no_images_are_rejected():
    with pytest.raises(DataError) as rejected:
        Training(SMALL, random_images(count=0), Recipe())
    assert (
        str(rejected.value)
        == "The train split is empty; training needs at least one image. Add images to it."
    )


def test_a_caller_that_leaves_the_model_in_eval_changes_nothing():
    images, recipe = random_images(), Recipe(epochs=2, batch_size=20)
    plain, watched = (Training(SMALL, images, recipe, steps_per_record=steps) for steps in (10, 1))
    follow(plain)
    for step, _ in enumerate(watched):
        (watched.model if step % 2 else watched.model.body).eval()
    assert same(weights(plain), weights(watched))


class Counting(nn.Module):
    """Puts another tensor in its buffer's place at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten, self.linear = nn.Flatten(), nn.LazyLinear(3)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.steps = self.steps + 1
        return self.linear(self.flatten(images))


def test_the_mean_with_the_start_has_the_newest_buffers():
    recipe = Recipe(epochs=1, batch_size=20, initial_fraction=0.5)
    training = Training(Counting(), random_images(), recipe)
    list(training)
    assert training.model.body.steps == training.steps_per_epoch
