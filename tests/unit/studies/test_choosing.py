"""Which net, image size and number of epochs are chosen, on a clock that the tests move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import lamina
from lamina import Dataset, Images, LaminaError, Recipe, load_data, zoo
from lamina.errors import LaminaWarning
from lamina.nets import parse_net
from lamina.runs.start import NetChoice, find_net
from lamina.studies import choosing, experiment, train_net
from lamina.studies.choosing import ConsideredNets, ScratchTrial, iter_choice, propose
from lamina.studies.experiment import (
    Candidate,
    Deadline,
    Decision,
    Experiment,
    Request,
    describe_settings,
    fit_settings,
)
from lamina.studies.image_sizes import find_sides
from lamina.training.events import Trying
from lamina.training.pretrained import PACKAGED, TimmNet
from lamina.training.timing import Pace

SMALL = parse_net("Flatten(), Output()")
BODIES = (TimmNet("lite0", PACKAGED, "a"), TimmNet("lite2", PACKAGED, "b"))
WORK = {"timm:lite0": 1.0, "timm:lite2": 1.8, "cnn-s": 0.14, "cnn-m": 0.7, "cnn-l": 2.8}
EVALUATION_SECONDS = 1.8e-3  # of an image of 96 px with lite0
TIMING_SECONDS = {True: 1.5, False: 0.4}  # of a pretrained net, of another


def noise_images(side: int, count: int = 20, height: int | None = None) -> Images:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (min(count, 50), height or side, side, 3), np.uint8)
    return Images.from_arrays(pixels[np.arange(count) % len(pixels)], np.arange(count) % 2)


def noise_dataset(
    side: int, count: int = 20, sizes: int | None = None, height: int | None = None
) -> Dataset:
    images = noise_images(side, count, height)
    if sizes is None:
        return Dataset.from_images(images, test=replace(images, pixels=255 - images.pixels))
    originals = np.full((count, 2), sizes, np.int32)
    images = replace(images, original_sizes_px=originals)
    return Dataset("photos", "abc", images, size_px=side)


@pytest.mark.parametrize(
    ("dataset", "sides"),
    [
        (noise_dataset(8), (16,)),
        (noise_dataset(32, height=8), (16,)),
        (noise_dataset(60, height=40), (40,)),
        (noise_dataset(240, height=180), (96, 128, 160)),
        (noise_dataset(32), (32,)),
        (noise_dataset(40), (32, 40)),
        (noise_dataset(80), (32, 48, 64, 80)),
        (noise_dataset(96), (96,)),
        (noise_dataset(200), (96, 128, 160, 192)),
        (noise_dataset(64, sizes=375), (96, 128, 160, 192, 224)),
        (noise_dataset(64, sizes=50), (32, 48, 50)),
    ],
    ids=str,
)
def test_no_side_is_larger_than_the_images_were(dataset, sides):
    assert find_sides(dataset) == sides


def test_enlarged_images_are_taken_at_the_size_that_holds_their_detail():
    images = load_data("shapes").train.take_evenly(30)
    pixels = images.pixels.repeat(3, axis=1).repeat(3, axis=2)
    blurred = (
        sum(
            np.roll(pixels, (down, right), (1, 2)).astype(int)
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
        )
        // 9
    )
    enlarged = Images.from_arrays(blurred.astype(np.uint8), images.targets % 2)
    assert find_sides(Dataset.from_images(enlarged)) == (32,)


@pytest.mark.parametrize(
    ("sides", "ladder"), [((32, 48, 64), zoo.LADDER), ((96, 128, 160), zoo.PHOTO_LADDER)]
)
def test_candidates_cost_more_and_more_and_what_is_given_stays(sides, ladder, monkeypatch):
    monkeypatch.setattr(choosing, "find_sides", lambda dataset: sides)
    candidates = propose(noise_dataset(96), {"lr": 0.5})
    costs = [candidate.make().multiply_adds(candidate.shape) for candidate in candidates]
    assert costs == sorted(costs)
    assert {candidate.net_name for candidate in candidates} == set(ladder)
    assert {candidate.side_px for candidate in candidates} == set(sides)
    assert all(candidate.recipe.lr == 0.5 for candidate in candidates)
    assert all(candidate.recipe.batch_size == 16 for candidate in candidates)  # fitted to 20 images


class Clock:
    """A clock that only moves when something is timed or tried."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """A clock, two pretrained nets, and paces as on two free cores."""
    moved = Clock()

    def time(candidate: Candidate) -> Candidate:
        is_pretrained = candidate.net_name.startswith("timm:")
        moved.now += TIMING_SECONDS[is_pretrained]
        area = (candidate.side_px / (96 if is_pretrained else 32)) ** 2
        seconds = EVALUATION_SECONDS * WORK[candidate.net_name] * area
        return replace(candidate, pace=Pace(4 * seconds, seconds, 0.3, 0.4))

    monkeypatch.setattr(experiment, "time", moved)
    monkeypatch.setattr(Candidate, "time", time)
    monkeypatch.setattr(Candidate, "resize", lambda candidate, progress: candidate)
    monkeypatch.setattr(choosing, "find_all_at_hand", lambda: BODIES)
    monkeypatch.setattr(choosing, "count_work", lambda body: WORK[body.net_name])
    monkeypatch.setattr(choosing, "compare_trials", lambda *_: pytest.fail("a trial"))
    return moved


def photographs(count: int = 450, side: int = 32) -> Dataset:
    """Images with noise, and 1,050 to evaluate."""
    images = noise_images(side, count)
    held = noise_images(side, 1_050)
    return Dataset("photos", "abc", images, test=replace(held, split="test"))


def drawings() -> Dataset:
    """Images with large areas of a color."""
    dataset = photographs()
    pixels = dataset.train.pixels[:, ::16, ::16].repeat(16, axis=1).repeat(16, axis=2)
    return replace(dataset, train=replace(dataset.train, pixels=pixels))


def choose(clock: Clock, dataset: Dataset, began: float, seconds: float, **request: object):
    """The choice after ``began`` seconds of a limit, its considered nets, and its reason."""
    clock.now = began
    events = iter_choice(dataset, Request(**request), Deadline(0.0, seconds))
    seen = []
    while True:
        try:
            seen.append(next(events))
        except StopIteration as end:
            chosen, considered = end.value
            break
    assert [event.candidates for event in seen if isinstance(event, ConsideredNets)] == [considered]
    assert isinstance(seen[0], Trying)
    (decision,) = [event for event in seen if getattr(event, "what", "") == "chosen"]
    return chosen, considered, decision.reason


@pytest.mark.parametrize("began", [3.0, 6.0], ids=["warm", "cold"])
def test_a_pretrained_net_is_chosen_for_few_photographs_cold_and_warm(clock, began):
    chosen, considered, reason = choose(clock, photographs(), began, 20.0)
    assert chosen.net_name in ("timm:lite0", "timm:lite2")
    assert chosen.side_px >= 96
    assert reason == "usual for such images; there is no time for a trial"
    assert considered[-1].verdict == "chosen"


def test_the_plan_is_what_is_trained(clock):
    chosen, considered, _ = choose(clock, photographs(), 4.0, 60.0, pretrained=True)
    left = chosen.left_to_train(Deadline(0.0, 60.0))
    assert considered[-1].epochs == chosen.recipe.epochs > 1
    assert considered[-1].seconds == pytest.approx(left, abs=0.1)
    assert (
        chosen.total_seconds()
        <= left
        < chosen.with_epochs(2 * chosen.recipe.epochs).total_seconds()
    )


def test_more_time_pays_for_larger_images_and_nets(clock):
    kinds = []
    dataset = photographs(side=96)
    for seconds in (20.0, 60.0, 180.0):
        chosen, *_ = choose(clock, dataset, 4.0, seconds, pretrained=True)
        kinds.append((chosen.side_px, chosen.net_name))
    assert kinds == sorted(kinds)
    assert len(set(kinds)) == 3


def test_many_images_do_not_exclude_pretrained_nets(clock):
    chosen, *_ = choose(clock, photographs(25_000), 20.0, 300.0, pretrained=True)
    assert chosen.net_name.startswith("timm:")


def test_without_time_for_a_head_random_weights_are_trained_and_the_reason_has_numbers(clock):
    chosen, considered, reason = choose(clock, photographs(25_000), 20.0, 60.0)
    assert chosen.net_name == "cnn-s"
    assert reason.startswith("a head for Lite0 at 96 px and its evaluation take ")
    assert reason.endswith(" s, and 38.5 s are left")
    assert (considered[0].net_name, considered[0].verdict) == ("timm:lite0", "too slow")
    with pytest.warns(
        LaminaWarning, match=r"^No pretrained net is trained: a head for Lite0 at 64"
    ):
        choose(clock, photographs(25_000), 20.0, 30.0, pretrained=True)


@pytest.mark.parametrize("began", [20.0, 25.0])
def test_without_any_time_the_smallest_net_is_trained(clock, began):
    chosen, considered, reason = choose(clock, photographs(), began, 20.0)
    assert (chosen.net_name, chosen.side_px, chosen.recipe.epochs) == ("cnn-s", 32, 1)
    assert reason == "pretrained nets are not considered with less than 10 s"
    assert [net.verdict for net in considered] == ["chosen"]


def test_without_time_for_a_hundred_steps_the_images_are_shrunk(clock):
    chosen, considered, _ = choose(clock, photographs(25_000), 20.0, 20.0)
    assert (chosen.net_name, chosen.side_px, chosen.recipe.epochs) == ("cnn-s", 16, 1)
    assert [net.verdict for net in considered] == ["too slow", "chosen"]


def test_missing_weights_are_named_and_an_error_if_they_are_requested(clock, monkeypatch):
    for module in (choosing, train_net):
        monkeypatch.setattr(module, "find_all_at_hand", tuple)
    chosen, _, reason = choose(clock, photographs(), 4.0, 20.0)
    assert not chosen.net_name.startswith("timm:")
    assert reason.startswith("there are no pretrained weights; pip install")
    with pytest.raises(
        LaminaError, match=r"^There are no pretrained weights on this machine\. Run"
    ):
        lamina.train("shapes", pretrained=True)
    with pytest.raises(LaminaError, match=r"but the epochs are given\. Leave out epochs"):
        train_net.check_weights(Request(given={"epochs": 3}, pretrained=True))


@pytest.mark.parametrize(("loss", "expected"), [(0.1, "cnn"), (0.9, "timm:lite")])
def test_the_trial_decides_if_there_is_time_for_it(clock, monkeypatch, loss, expected):
    def compare(pretrained: Candidate, scratch: Candidate, seconds: float) -> ScratchTrial:
        clock.now += 2 * seconds
        return ScratchTrial(scratch.net_name, scratch.side_px, 150, loss, 300, 1.0)

    monkeypatch.setattr(choosing, "compare_trials", compare)
    for dataset in (photographs(), drawings()):
        chosen, _, reason = choose(clock, dataset, 4.0, 60.0)
        assert chosen.net_name.startswith(expected)
        assert reason == "better in the trial"


def test_without_a_trial_random_weights_are_usual_for_drawings_and_numbers(clock):
    numbers = photographs()
    brightness = np.linspace(0, 1, len(numbers.train), dtype=np.float32)[:, None]
    train = replace(numbers.train, targets=brightness, target_names=("brightness",))
    for dataset, seconds in (
        (drawings(), 20.0),
        (drawings(), 32.0),
        (replace(numbers, train=train, test=None), 20.0),
    ):
        chosen, _, reason = choose(clock, dataset, 4.0, seconds)
        assert chosen.net_name.startswith("cnn-")
        assert reason.startswith("usual for numbers, drawings and gray images")


def test_what_is_given_is_kept(clock):
    settings = {"schedule": "cosine", "initial_fraction": 0.2}
    dataset = photographs(side=48)
    dataset = replace(dataset, preparation=replace(dataset.preparation, size_px=48))
    chosen, *_ = choose(clock, dataset, 4.0, 60.0, pretrained=True, given=settings)
    assert (chosen.side_px, chosen.is_open) == (48, False)
    assert (chosen.recipe.schedule, chosen.recipe.initial_fraction) == ("cosine", 0.2)
    chosen, considered, reason = choose(clock, dataset, 1010.0, 10.0, given={"epochs": 7})
    assert (chosen.net_name, chosen.recipe.epochs) == ("cnn-s", 7)
    assert reason == "pretrained nets are not considered if the epochs are given"
    assert [net.verdict for net in considered] == ["chosen"]


def test_the_largest_net_with_time_for_most_of_its_recipe_is_trained(clock):
    names = []
    for seconds in (20.0, 120.0, 1_000.0):
        chosen, considered, reason = choose(clock, photographs(), 3.0, seconds, pretrained=False)
        assert reason == "random weights, as requested"
        assert chosen.is_open
        names.append(chosen.net_name)
        verdicts = [net.verdict for net in considered]
        assert verdicts[-1] == "chosen"
        assert set(verdicts[:-1]) <= {"fits", "too slow"}
    assert names == list(zoo.LADDER)


def candidate(recipe: Recipe, dataset: Dataset | None = None, **others: object) -> Candidate:
    """A net for images of 32 px."""
    net = NetChoice("net", SMALL, {"default": recipe})
    return Candidate(Experiment(net, recipe, dataset or load_data("shapes")), 32, **others)


def test_too_short_a_time_says_how_much_more_would_do(clock):
    slow = candidate(Recipe(), pace=Pace(1e-3, 1e-3))
    assert list(choosing.iter_spending(slow, Deadline(0.0, 1000.0))) == []
    (warning,) = choosing.iter_spending(slow, Deadline(0.0, 0.5))
    assert isinstance(warning, Decision)
    assert str(warning).startswith("warning: net takes 0.8 s ")
    assert "only 0.5 s are left. lamina trains for fewer steps. Increase --time" in str(warning)


def test_runs_share_the_time_that_is_left(clock):
    deadline = Deadline(-20.0, 100, runs=4)
    assert deadline.seconds == 25
    assert deadline.seconds_left() == 20


def test_settings_that_are_given_are_not_called_fitted():
    net = find_net("mlp")
    dataset = blank(8_000)

    def fit(settings: dict[str, object]) -> tuple[Recipe, str]:
        recipe = fit_settings(net, dataset, settings, 32)
        (decision,) = describe_settings(Experiment(net, recipe, dataset), 32)
        return recipe, decision.value

    assert "lr 0.001 → 0.00063" in fit({})[1]
    recipe, changes = fit({"lr": 0.01, "epochs": 3})
    assert changes == "batch_size 100 → 40"
    assert (recipe.lr, recipe.epochs, recipe.batch_size) == (0.01, 3, 40)


def blank(train: int, val: int = 0, test: int = 0) -> Dataset:
    """So many images of a pixel each."""

    def images(count: int) -> Images | None:
        pixels = np.zeros((count, 1, 1, 1), np.uint8)
        return Images.from_arrays(pixels, np.arange(count) % 2, ("no", "yes")) if count else None

    return Dataset("blank", "abc", images(train), images(val), images(test))


def test_the_time_after_the_last_epoch_includes_val():
    pace = Pace(1e-3, 0.5)
    alone, tested, both = (
        candidate(Recipe(), blank(1000, val, test), pace=pace).ending_seconds()
        for val, test in ((0, 0), (0, 10), (20, 10))
    )
    assert tested - alone == pytest.approx(1.1 * 10 * 0.5)
    assert both - tested == pytest.approx(1.1 * 20 * 0.5)


@pytest.mark.parametrize("epochs", [1, 30])
@pytest.mark.parametrize("test", [0, 5_000])
@pytest.mark.parametrize("images", [1, 300, 100_000])
@pytest.mark.parametrize("seconds", [10.0, 300.0])
def test_a_training_that_fits_ends_in_time(clock, seconds, images, test, epochs):
    pace = Pace(1e-4, 1e-4, 0.5)
    planned = candidate(Recipe(epochs=epochs), blank(images, 0, test), pace=pace)
    fitted = planned.spend(Deadline(0.0, seconds))
    whole = fitted.total_seconds() + planned.ending_seconds()
    assert fitted.recipe.epochs == 1 or whole <= 0.97 * seconds
