"""The training loop, as an iterator: forward, loss, backward, step."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lamina.data import Images
from lamina.errors import check_type
from lamina.kernels.library import find_kernels
from lamina.nets import Net
from lamina.training import group
from lamina.training.batches import Batch, Batches, DividedBatch, check_images
from lamina.training.checkpoint import (
    Checkpoint,
    Standing,
    collect_numbers,
    digest_tensors,
    name_tensors,
    restore_checkpoint,
)
from lamina.training.custom import NO_PARTS, Parts, check_parts, compute_own_loss
from lamina.training.device import Choice, choose_device, keep_freed_memory
from lamina.training.diagnosis import Start
from lamina.training.events import Epoch, FeatureProgress, HeadFit, LayerStatistics, Step
from lamina.training.guard import check_loss, check_model, check_tensors, find_not_finite
from lamina.training.head import find_linear_head, fit_model_head
from lamina.training.lanes import LaneSums, deal_lanes
from lamina.training.layer_statistics import (
    choose_measured,
    find_trained,
    measure_layers,
    measure_norm,
)
from lamina.training.model import Initial, MeanWithStart, Model, build_model
from lamina.training.optim import build_optimizer, set_lr
from lamina.training.precision import choose_precision, use_kernels
from lamina.training.prediction import predict_logits
from lamina.training.randomness import derive_seed, drawing_weights, seeded
from lamina.training.recipe import Recipe
from lamina.training.schedule import Schedule
from lamina.training.task import Logits, LogitsArray, Pixels, Scalar

AnyNet: TypeAlias = Net | nn.Module


class Training:
    """Training as an iterator of events; iterating again resumes with the next step.

    Args:
        net: A net, or your own module from normalized float images (N, C, H, W) to logits (N, K);
            trained in place.
        images: Training images.
        recipe: Settings of the training, by default ``Recipe()``.
        precision: Number format, by default as the recipe says.
        steps_per_record: Number of steps between two ``Step`` events.
        parts: Your own loss, optimizer and other functions.
        initial: Weights to start from, by default random.

    Attributes:
        recipe: The settings of the training.
        device: The device in use, after ``auto`` was resolved.
        precision: The number format in use, after ``auto`` was resolved.
        images: Number of training images.
        steps_per_epoch: Number of steps in an epoch.
        steps_done: Number of steps so far.
        schedule: Learning rate, image size and last step; with ``trapezoid``, the last step can be
            decided late.
        is_interrupted: Whether a process of the group was interrupted before the last event.

    Raises:
        NetError: The net does not accept these images or does not return one logit per target.
        RecipeError: The recipe does not fit the images or the net, or the device is missing.
        DataError: There are no images.
        NotFiniteError: The loss, a weight or the optimizer state is not finite.

    >>> from lamina import load_data, load_net
    >>> training = Training(load_net("mlp"), load_data("shapes").train, Recipe(epochs=1))
    >>> [event.epoch for event in training if isinstance(event, Epoch)]
    [1]
    """

    _sum_of_losses: Tensor | float
    _correct: Tensor | float  # predictions; NaN where they are not counted
    _seconds: float

    def __init__(
        self,
        net: AnyNet,
        images: Images,
        recipe: Recipe | None = None,
        *,
        precision: Choice | None = None,
        steps_per_record: int = 10,
        parts: Parts = NO_PARTS,
        initial: Initial | None = None,
    ) -> None:
        check_type(
            net,
            (Net, nn.Module),
            "net",
            "a Net or a module (load_net(NAME) returns a Net)",
            is_optional=False,
        )
        check_type(images, (Images,), "images", "Images, such as dataset.train", is_optional=False)
        check_type(
            recipe,
            (Recipe,),
            "recipe",
            "a Recipe, such as Recipe(epochs=5) or load_recipe(NET, NAME)",
        )
        recipe = recipe or Recipe()
        self.recipe = recipe
        self.device = choose_device(recipe.device)
        check_parts(parts, recipe)
        check_images(images, recipe)
        keep_freed_memory()
        with drawing_weights(recipe.seed):
            self._live = build_model(net, images, recipe, initial).to(self.device.value)
        check_model(self._live, recipe, len(images))
        self._head_path = find_linear_head(self._live) if recipe.head == "fitted" else ""
        self.precision = precision or choose_precision(recipe.precision, self._live)
        self._autocasts = self.precision.value == "bf16"
        self._optimizer = build_optimizer(self._live, recipe, self.precision.value, parts.optimizer)
        self._batches = Batches(
            images,
            recipe,
            self._live.device,
            lanes=deal_lanes(recipe.lanes),
            augment=parts.augment,
        )
        self._own_loss = parts.loss
        if isinstance(parts.loss, nn.Module):
            # A copy, because the original may also be a metric, which runs on the CPU.
            self._own_loss = copy.deepcopy(parts.loss).to(self._live.device)
        self._forward_model = use_kernels(self._live, find_kernels())
        self._models = {"live": self._live}
        self._mean: MeanWithStart | None = None
        if recipe.initial_fraction:
            self._mean = MeanWithStart(self._live, recipe.initial_fraction)
            self._models["initial"] = self._mean.initial
        self.schedule = Schedule(recipe, len(self._batches), parts.schedule)
        self._parts = parts
        # A module may contain infinities on purpose, for example in a mask.
        self._not_finite = find_not_finite(name_tensors(self._models, self._optimizer))
        # Many units of a pretrained net are inactive for the images of one task.
        self._measured = choose_measured(images) if recipe.head == "random" else None
        self._start_loss: float | None = None
        self._start_norm = 0.0
        self._images = images
        self.images = len(images)
        self.steps_per_epoch = len(self._batches)
        self._steps_per_record = steps_per_record
        self.steps_done = 0
        self.is_interrupted = False
        self._fits_head = recipe.head == "fitted" and initial is None
        self._start_epoch()

    def __repr__(self) -> str:
        steps = f"{self.steps_done:,} of {self.schedule.steps or '?'} steps"
        return f"Training({self._live!r}, {self.recipe}: {steps} done, on {self.device.value})"

    @property
    def model(self) -> Model:
        """The model in eval mode; with ``initial_fraction``, averaged with the initial weights."""
        return self._mean.model if self._mean else self._live

    @property
    def epochs_done(self) -> int:
        """Number of completed epochs."""
        return self.schedule.count_epochs(self.steps_done)

    @property
    def is_finished(self) -> bool:
        """Whether all steps are completed."""
        return self.schedule.is_over(self.steps_done)

    @property
    def lr(self) -> float:
        """Peak learning rate of the first parameter group."""
        return float(self._optimizer.param_groups[0]["initial_lr"])

    @property
    def start(self) -> Start:
        """What :func:`~lamina.training.diagnosis.diagnose` compares with, after the first step."""
        is_known = self._parts.loss is None and self._parts.augment is None
        return Start(
            loss=math.nan if self._start_loss is None else self._start_loss,
            untrained_loss=self._live.task.untrained_loss if is_known else math.nan,
            norm=self._start_norm,
            lr=self.lr,
            steps_per_epoch=self.steps_per_epoch,
            images=0 if self._measured is None else len(self._measured),
        )

    def __iter__(self) -> Iterator[FeatureProgress | HeadFit | Step | Epoch]:
        try:
            if not self.steps_done:
                if self._fits_head:
                    yield from fit_model_head(
                        self._live,
                        self._head_path,
                        self._images,
                        self.recipe,
                        autocasts=self._autocasts,
                    )
                group.share_weights(self._live)
                if self._mean:
                    self._mean.start()
            while not self.is_finished:
                yield from self._train_epoch()
        finally:
            self._live.eval()

    def _train_epoch(self) -> Iterator[Step | Epoch]:
        optimizer = self._optimizer
        epoch, first_step = divmod(self.steps_done, self.steps_per_epoch)
        self._set_training_mode()
        began = time.perf_counter()
        interrupts: Tensor | float = 0.0
        for step in self._batches.epoch(epoch, first_step, self.schedule.size_fraction):
            optimizer.zero_grad()
            if self.recipe.lanes == 1:
                loss, correct = self._add_gradients(step.gather(0))
            else:
                loss, correct, interrupted = self._add_lanes(step)
                interrupts = interrupts + interrupted

            is_epoch_over = step.step + 1 == self.steps_per_epoch
            is_last = is_epoch_over or self.schedule.is_over(self.steps_done + 1)
            is_recorded = is_last or (step.step + 1) % self._steps_per_record == 0
            # Reading values before other steps would stall a GPU.
            can_read = is_recorded or self._live.device.type == "cpu"
            if can_read:
                check_loss(loss, step, self._live, self._forward, self._parts, self.lr)
            if self.recipe.gradient_clip:
                nn.utils.clip_grad_norm_(self._live.parameters(), self.recipe.gradient_clip)
            set_lr(optimizer, self.schedule.factor(self.steps_done))
            if self._start_loss is None:
                self._start_loss = loss.item()
                self._start_norm = measure_norm(find_trained(self._live))
            before = {}
            if is_last:
                before = {name: part.clone() for name, part in find_trained(self._live).items()}
            optimizer.step()

            self.steps_done += 1
            self._seen_images += step.images
            self._sum_of_losses = self._sum_of_losses + loss * step.images
            self._correct = self._correct + correct
            self.is_interrupted = can_read and bool(interrupts)
            if not (is_recorded or self.is_interrupted):
                continue
            float(self._sum_of_losses)  # waits for a GPU
            self._seconds += time.perf_counter() - began
            self._live.eval()
            if is_last:
                self.check_weights()
                layers = measure_layers(self._live, before, self._measured)
                yield self._end_epoch(epoch + 1, layers)
            else:
                yield Step(epoch + 1, step.step + 1, self.steps_per_epoch, loss.item())
            if self.is_finished:  # perhaps within an epoch
                return
            self._set_training_mode()
            began = time.perf_counter()
            interrupts = 0.0

    def _add_lanes(self, step: DividedBatch) -> tuple[Scalar, Scalar, Scalar]:
        """Gradients, loss and correct predictions of a step's lanes, and interrupted processes."""
        sums = LaneSums(self._live, step, self.recipe.lanes)
        for batch in step.batches:
            sums.add(batch, *self._add_gradients(batch))
        return sums.finish()

    def _add_gradients(self, batch: Batch) -> tuple[Scalar, Scalar]:
        """Forward and backward pass of a batch; its loss and its number of correct predictions."""
        logits, loss = self._forward(batch)
        share = loss if batch.share == 1 else loss * batch.share
        # Not loss.backward(share), which makes torch import its symbolic shapes for over a second.
        share.backward()
        return loss.detach(), self._count_correct(logits.detach(), batch)

    def _forward(self, batch: Batch) -> tuple[Logits, Scalar]:
        """The logits and the loss of a batch; dropout depends only on seed, step and lane."""
        device = self._live.device
        purpose = "dropout" if self.recipe.lanes == 1 else f"dropout in lane {batch.lane}"
        with (
            seeded(derive_seed(self.recipe.seed, purpose, self.steps_done), device),
            torch.autocast(device.type, torch.bfloat16, enabled=self._autocasts),
        ):
            logits: Logits = self._forward_model(batch.pixels)
        return logits, self._compare(logits, batch)

    def _compare(self, logits: Logits, batch: Batch) -> Scalar:
        """The mean loss of a batch, by kind of target or by your own function."""
        recipe = self.recipe
        if self._own_loss is None:
            task = self._live.task
            return task.loss(logits, batch.targets, recipe.label_smoothing, batch.weights)
        purpose = f"loss of epoch {batch.epoch} in lane {batch.lane}"
        seed = derive_seed(recipe.seed, purpose, batch.step)
        return compute_own_loss(self._own_loss, logits, batch.targets, seed)

    def _count_correct(self, logits: Logits, batch: Batch) -> Scalar:
        """The number of correct predictions; NaN where they are not counted."""
        if batch.labels is None:
            return logits.new_tensor(math.nan)
        return self._live.task.correct(logits, batch.labels)

    def _set_training_mode(self) -> None:
        self._live.train()
        # pretrained statistics are better than the statistics of small batches
        if self.recipe.head == "fitted":
            for module in self._live.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def _start_epoch(self) -> None:
        """Begin the sums over an epoch; they stay on the device, so that no step waits for it."""
        self._seen_images = 0
        self._sum_of_losses = 0.0
        self._correct = 0.0
        self._seconds = 0.0

    def _end_epoch(self, number: int, layers: LayerStatistics) -> Epoch:
        images = self._seen_images
        epoch = Epoch(
            epoch=number,
            epochs=self.schedule.epochs,
            train_loss=float(self._sum_of_losses) / images,
            train_accuracy=_to_number(float(self._correct) / images),
            train_seconds=self._seconds,
            images_per_second=images / self._seconds,
            lr=self._optimizer.param_groups[0]["lr"],
            layers=layers,
        )
        self._start_epoch()
        return epoch

    def predict_logits(self, pixels: Pixels, part: range | None = None) -> LogitsArray:
        """The logits (N, K) of :attr:`model` for images, or for a part of their batches.

        Uses the number format of the training. See :func:`~lamina.predict_logits`.
        """
        return predict_logits(self.model, pixels, autocasts=self._autocasts, part=part)

    @property
    def keeps_head(self) -> bool:
        """Whether the model with the fitted head is still known after all layers were trained."""
        return self._mean is not None and self._fits_head

    def predict_by_head(self, pixels: Pixels, part: range | None = None) -> LogitsArray:
        """As :meth:`predict_logits`, of the model before all layers were trained."""
        model = self._models["initial"].eval()
        return predict_logits(model, pixels, autocasts=self._autocasts, part=part)

    def return_to_head(self) -> None:
        """Take back all steps after the fit of a head, if :attr:`keeps_head`."""
        self._live.load_state_dict(self._models["initial"].state_dict())

    def check_weights(self) -> None:
        """Raise ``NotFiniteError`` for a weight or optimizer state that is not finite."""
        tensors = name_tensors(self._models, self._optimizer)
        check_tensors(tensors, self._not_finite, self.lr)

    def digest(self) -> str:
        """Digest of all weights and of the optimizer state, to the last bit."""
        return digest_tensors(name_tensors(self._models, self._optimizer))

    def checkpoint(self) -> Checkpoint:
        """The state to resume exactly; raises ``NotFiniteError`` if it has NaN or infinity."""
        self.check_weights()
        standing = Standing(
            steps_done=self.steps_done,
            steps_per_epoch=self.steps_per_epoch,
            images=self._seen_images,
            loss=float(self._sum_of_losses),
            correct=_to_number(self._correct),
            seconds=self._seconds,
            start_loss=self._start_loss,
            start_norm=self._start_norm,
            optimizer=collect_numbers(self._optimizer),
            knots=self.schedule.knots,
        )
        tensors = name_tensors(self._models, self._optimizer)
        copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        return Checkpoint(copies, standing)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint of this recipe and images; ``RunError`` if it does not fit."""
        standing = restore_checkpoint(checkpoint, self._models, self._optimizer)
        self.steps_done = standing.steps_done
        self._start_loss = standing.start_loss
        self._start_norm = standing.start_norm
        self.schedule.restore(standing.knots, self.steps_done)
        self._seen_images = standing.images
        self._sum_of_losses = standing.loss
        self._correct = math.nan if standing.correct is None else standing.correct
        self._seconds = standing.seconds


def _to_number(value: Tensor | float) -> float | None:
    """The value as a number; ``None`` for NaN."""
    number = float(value)
    return None if math.isnan(number) else number
