"""The training loop, as an iterator: forward, loss, backward, step."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from itertools import pairwise

import torch
from torch import Tensor, nn

from lamina.data import Images
from lamina.errors import DataError, NotFiniteError, RecipeError
from lamina.nets import Net
from lamina.training.allocator import keep_freed_memory
from lamina.training.augment import draw_choices, gather_batch, shrink_batch
from lamina.training.checkpoint import Checkpoint, Standing, collect_tensors, name_tensors, restore_tensors
from lamina.training.compilation import Forward, choose_compilation
from lamina.training.device import choose_device
from lamina.training.events import Epoch, Step, Tally
from lamina.training.finite import choose_watched, find_unsound, is_finite, trace_not_finite
from lamina.training.freezing import Features, can_remember, find_trunk
from lamina.training.model import Model, build_model, check_growing
from lamina.training.optim import build_optimizer
from lamina.training.precision import Precision, arrange_layers, choose_precision, take_probe
from lamina.training.randomness import derive_generator, derive_seed, seeded
from lamina.training.recipe import Recipe
from lamina.training.schedule import lr_factor, size_fraction, sizes_shown
from lamina.training.task import Regression


class Training:
    """A training under way: iterate to train, and look at :attr:`model` whenever you like.

    It sees the training images alone. Leaving the loop is safe, and iterating again goes on with the next step. From
    here on the process keeps the memory that its steps free (allocator.py).

    Args:
        net: a net, or a module of your own from normalized float images (N, C, H, W) to logits, trained in place.
        images: what to learn from.
        recipe: how.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: the choice that a run recorded, to go on in the same; by default it follows from the recipe.
        steps_per_record: steps between Step records.

    Raises:
        NetError: the net does not take these images or does not give one output a target.
        RecipeError: the recipe does not fit the images, or the device is not there.
        NotFiniteError: while iterating, the loss or a gradient is no longer a number, and the weights are as they were
            before that step; or, at the end of an epoch, a weight or what the optimizer remembers of it is none.
        DataError: there is no image.

    >>> from lamina import Net, load_data
    >>> from lamina.nets import Flatten, Output
    >>> training = Training(Net(Flatten(), Output()), load_data("shapes").train, Recipe(epochs=1))
    >>> [event.epoch for event in training if isinstance(event, Epoch)]
    [1]
    """

    def __init__(
        self,
        net: Net | nn.Module,
        images: Images,
        recipe: Recipe | None = None,
        *,
        device: str = "auto",
        precision: Precision | None = None,
        steps_per_record: int = 10,
    ) -> None:
        self.recipe = recipe = recipe or Recipe()
        _check_images(recipe, images)
        self.device = choose_device(device)
        self._device = torch.device(self.device.value)
        with seeded(derive_seed(recipe.seed, "weights"), torch.device("cpu")):
            self._live = build_model(net, images, recipe).to(self._device)
        _check_model(recipe, len(images), self._live)
        check_growing(self._live, recipe)
        self._pixels = torch.from_numpy(images.pixels).to(self._device)
        self._targets = torch.from_numpy(images.targets).to(self._device)
        # They follow from the targets alone, so that nobody has to keep them for a training that goes on.
        weights = self._live.task.weigh(torch.from_numpy(images.targets)) if recipe.balance == "on" else None
        self._weights = None if weights is None else weights.to(self._device)
        keep_freed_memory()
        self._steps_done = 0
        probe = take_probe(self._live, images, recipe.batch_size).to(self._device)
        self.precision = precision or choose_precision(recipe.precision, self._live, probe)
        self._autocasts = arrange_layers(self._live, self.precision)
        self._trunk = find_trunk(self._live.body) if recipe.freeze else None
        self._features: Features | None = None
        if self._trunk is not None and can_remember(recipe, self._live, self._trunk, probe[:2]):
            self._features = Features(self._live, self._trunk.heads[0], len(images))
        self._batches = _divide(len(images), recipe.batch_size)
        self._compute, self.compilation = choose_compilation(
            recipe.compile,
            self._live,
            self._try_step,
            steps=recipe.epochs * len(self._batches),
            is_growing=len(sizes_shown(recipe)) > 1,
        )
        # What was found holds for a training that goes on elsewhere too.
        self.recipe = recipe = dataclasses.replace(recipe, compile=self.compilation.value)
        self._averaged = deepcopy(self._live) if recipe.ema_decay else None
        self._optimizer = build_optimizer(self._live, recipe, self.precision.value)
        self._watched = choose_watched(self._live)
        self._steps_per_record = steps_per_record
        self._rewinds = 0
        self._tally = Tally()
        # A module of a user's own may hold infinities on purpose, as a mask does.
        self._meant = frozenset(find_unsound(name_tensors(self._models, self._optimizer)))

    @property
    def model(self) -> Model:
        """The model to judge: the averaged one where the recipe keeps an average."""
        return self._live if self._averaged is None else self._averaged

    @property
    def images(self) -> int:
        """How many images an epoch has."""
        return len(self._pixels)

    @property
    def steps_done(self) -> int:
        """Steps since the beginning."""
        return self._steps_done

    @property
    def epochs_done(self) -> int:
        """Whole epochs since the beginning."""
        return self._steps_done // len(self._batches)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch."""
        return len(self._batches)

    @property
    def is_finished(self) -> bool:
        """Whether there is no step left."""
        return self.epochs_done >= self.recipe.epochs

    def checkpoint(self) -> Checkpoint:
        """All that an exact continuation needs, as things stand between two records.

        Raises:
            NotFiniteError: a weight, or what the optimizer remembers of it, is no number, so that nothing good could
                follow.
        """
        self._check_sound()
        tally = self._tally
        standing = Standing(
            steps_done=self._steps_done,
            rewinds=self._rewinds,
            images=tally.images,
            loss=float(tally.loss),
            correct=None if tally.correct is None else float(tally.correct),
            seconds=tally.seconds,
        )
        return Checkpoint(collect_tensors(self._models, self._optimizer), standing)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint; a loop that is under way must be left, and a new one begun.

        Raises:
            RunError: the checkpoint's weights are not those of this net; nothing has been changed. That it came of the
                same recipe, seed and images is the caller's to see to.
        """
        restore_tensors(checkpoint.tensors, self._models, self._optimizer)
        standing = checkpoint.standing
        self._steps_done, self._rewinds = standing.steps_done, standing.rewinds
        self._tally = Tally(standing.images, standing.loss, standing.correct, standing.seconds)

    @property
    def rewinds(self) -> int:
        """How often it went back to a checkpoint with half the learning rate."""
        return self._rewinds

    @property
    def lr(self) -> float:
        """The learning rate at its peak: the recipe's, or half of it after each return to a checkpoint."""
        return self.recipe.lr * 0.5**self._rewinds

    @property
    def _models(self) -> dict[str, Model]:
        return {"live": self._live} | ({} if self._averaged is None else {"averaged": self._averaged})

    def __iter__(self) -> Iterator[Step | Epoch]:
        while not self.is_finished:
            yield from self._train_epoch()

    def _train_epoch(self) -> Iterator[Step | Epoch]:
        recipe, model, optimizer, tally = self.recipe, self._live, self._optimizer, self._tally
        epoch, first = divmod(self._steps_done, len(self._batches))
        clock = time.perf_counter()
        order = self._draw_order(epoch)
        choices = draw_choices(recipe, epoch, self._pixels)
        self._set_mode(epoch)
        features, fraction = self._find_features(epoch), size_fraction(recipe, epoch)

        for step, batch in enumerate(self._batches[first:], start=first + 1):
            indices = order[batch]
            images = shrink_batch(gather_batch(self._pixels, indices, choices, recipe.cutout_px), fraction)
            targets = self._targets.index_select(0, indices)
            weights = None if self._weights is None else self._weights[indices]
            lr = self._set_lr()
            is_last = step == len(self._batches)
            is_told = is_last or step % self._steps_per_record == 0

            with self._arithmetic():
                if features is not None and epoch == 0:
                    features.find(step - 1, indices, images)
                logits = self._compute(images) if features is None else features.logits(indices)
            loss = model.task.loss(logits, targets, recipe.label_smoothing, weights)

            optimizer.zero_grad()
            loss.backward()
            # Before the step, so that the weights stay good; a GPU would wait for every answer, and is asked seldom.
            if (is_told or self._device.type == "cpu") and not is_finite(loss, self._watched):
                raise self._explain(loss, images, targets, weights)
            if recipe.gradient_clip:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
            optimizer.step()

            self._average()
            self._steps_done += 1
            tally.add(loss, model.task.correct(logits.detach(), targets), len(indices))
            if is_told:
                batch_loss = loss.item()
                tally.seconds += time.perf_counter() - clock
                if is_last:
                    self._tally = Tally()
                    self._check_sound()  # before anybody judges or keeps the model
                    yield self._summarize(tally, lr)
                else:
                    yield Step(epoch + 1, step, len(self._batches), batch_loss)
                clock = time.perf_counter()
                self._set_mode(epoch)  # The caller may have looked at the model, or at a part of it, as it predicts.

    def _try_step(self, forward: Forward) -> None:
        """A forward and a backward pass on the first batch, after which all is as it was."""
        buffers = [buffer.clone() for buffer in self._live.buffers()]
        batch = self._batches[0]
        try:
            with self._arithmetic():
                logits = forward(self._pixels[batch])
            self._live.task.loss(logits, self._targets[batch]).backward()
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)  # so that a clock outside tells of the step
        finally:
            self._live.zero_grad()
            for buffer, before in zip(self._live.buffers(), buffers, strict=True):
                buffer.copy_(before)

    def _summarize(self, tally: Tally, lr: float) -> Epoch:
        return Epoch(
            epoch=self._steps_done // len(self._batches),
            epochs=self.recipe.epochs,
            train_loss=float(tally.loss) / tally.images,
            train_accuracy=None if tally.correct is None else float(tally.correct) / tally.images,
            train_seconds=tally.seconds,
            images_per_second=tally.images / tally.seconds,
            lr=lr,
        )

    def _explain(self, loss: Tensor, images: Tensor, targets: Tensor, weights: Tensor | None) -> NotFiniteError:
        """The step is taken again, with an eye on every layer."""
        model, recipe = self._live, self.recipe

        def take_step() -> Tensor:
            with self._arithmetic():
                logits = model(images)
            return model.task.loss(logits, targets, recipe.label_smoothing, weights)

        epoch, step = divmod(self._steps_done, len(self._batches))
        value = loss.item()
        what = "A gradient became infinite or no number" if math.isfinite(value) else f"The loss became {value}"
        return NotFiniteError(
            f"{what} at step {step + 1} of epoch {epoch + 1}. First not finite: {trace_not_finite(model, take_step)}. "
            f"What usually helps: a lower lr (it is {self.lr:g}), gradient_clip 1, or BatchNorm() in the net."
        )

    def _check_sound(self) -> None:
        found = find_unsound(name_tensors(self._models, self._optimizer))
        if unsound := next((name for name in found if name not in self._meant), None):
            kind, _, name = unsound.partition(".")
            whose = {"live": "the model", "averaged": "the averaged model", "optimizer": "the optimizer's memory"}[kind]
            raise NotFiniteError(
                f"{name} of {whose} is no longer all numbers, and no checkpoint is made of it. Lower lr "
                f"(it is {self.lr:g}), or set gradient_clip to 1."
            )

    def _draw_order(self, epoch: int) -> Tensor:
        generator = derive_generator(self.recipe.seed, "order", epoch)
        return torch.randperm(len(self._pixels), generator=generator).to(self._device)

    def _find_features(self, epoch: int) -> Features | None:
        """What stands for the images while the trunk rests: the first epoch finds it, and others what that missed."""
        features = self._features if epoch < self.recipe.freeze else None
        if features is not None and epoch > 0:
            order = self._draw_order(0)
            for number, batch in enumerate(self._batches):
                if not features.has(number):
                    with self._arithmetic():
                        features.find(number, order[batch], self._pixels[order[batch]])
        return features

    def _set_mode(self, epoch: int) -> None:
        """All layers learn, or in the first epochs of some recipes the head alone."""
        self._live.train()
        if self._trunk is not None:
            if epoch < self.recipe.freeze:
                self._trunk.rest()
            else:
                self._trunk.wake()

    def _set_lr(self) -> float:
        factor = lr_factor(self.recipe, self._steps_done, self.recipe.epochs * len(self._batches))
        for group in self._optimizer.param_groups:
            group["lr"] = self.lr * factor
        return self.lr * factor

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """The forward pass's number format, and for dropout random numbers that are this step's own."""
        with seeded(derive_seed(self.recipe.seed, "dropout", self._steps_done), self._device):
            if not self._autocasts:
                yield
            else:
                with torch.autocast(self._device.type, torch.bfloat16):
                    yield

    @torch.no_grad()
    def _average(self) -> None:
        if self._averaged is None:
            return
        averaged, live = tuple(self._averaged.parameters()), tuple(self._live.parameters())
        torch._foreach_lerp_(averaged, live, 1 - self.recipe.ema_decay)
        for kept, buffer in zip(self._averaged.buffers(), self._live.buffers(), strict=True):
            kept.copy_(buffer)


def _check_model(recipe: Recipe, count: int, model: Model) -> None:
    if recipe.label_smoothing and isinstance(model.task, Regression):
        raise RecipeError(
            f"label_smoothing was {recipe.label_smoothing:g}, but numbers have no labels to smooth. Set it to 0."
        )
    smallest = min(recipe.batch_size, count)
    if smallest == 1 and any(isinstance(module, nn.BatchNorm1d) for module in model.modules()):
        what = "batch_size was 1" if recipe.batch_size == 1 else "there is 1 image to train on"
        raise RecipeError(f"{what}, but BatchNorm() on a vector norms over the images of a batch. Give it 2 or more.")


def _check_images(recipe: Recipe, images: Images) -> None:
    if not len(images):
        raise DataError(f"Expected images to train on, but the {images.split} split is empty.")
    _, height, width = images.shape
    side = min(height, width)
    if recipe.translate_px >= side:
        raise RecipeError(
            f"translate_px was {recipe.translate_px}, but must be less than the side of the images, {side} px."
        )


def _divide(count: int, batch_size: int) -> list[slice]:
    """The batches of an epoch; a last one of a single image joins the one before: BatchNorm cannot norm one image."""
    starts = list(range(0, count, batch_size))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return [slice(start, stop) for start, stop in pairwise([*starts, count])]
