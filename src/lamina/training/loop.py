"""The training loop, as an iterator: forward, loss, backward, step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32, UInt8

from lamina.data import Images
from lamina.errors import NotFiniteError
from lamina.training.average import Average
from lamina.training.batches import Batches, DividedBatch
from lamina.training.checkpoint import Checkpoint, Standing, digest_state, make_checkpoint, restore_checkpoint
from lamina.training.device import keep_freed_memory
from lamina.training.doctor import Doctor
from lamina.training.events import Epoch, Step
from lamina.training.forward import Forward
from lamina.training.group import ALONE, Group
from lamina.training.guard import Guard
from lamina.training.lanes import Sums, Tally, build_sums
from lamina.training.loss import choose_loss
from lamina.training.model import Model
from lamina.training.optim import set_lr
from lamina.training.parts import NO_PARTS, Parts
from lamina.training.precision import Precision
from lamina.training.recipe import Recipe
from lamina.training.schedule import lr_factor
from lamina.training.setup import AnyNet, check_format, prepare_training
from lamina.values import explain_call


class Training:
    """A training in progress: iterate to train it; :attr:`model` is in eval mode whenever the loop is yours.

    Leaving the loop is safe, and iterating again resumes with the next step.

    Args:
        net: a net, or a module of your own from normalized float images (N, C, H, W) to logits, trained in place.
        images: the training images; ``recipe``: how to train.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``; ``precision``: the number format that a run recorded.
        steps_per_record: steps between Step records, at which the loop can be left.
        group: the processes that train together; ``parts``: functions of your own: loss, optimizer and more.

    Attributes:
        recipe, device, precision: what is used, with what was chosen for ``auto``.
        images, steps_per_epoch, steps_done: how many; steps since the beginning.
        rewinds: how often the training went back to a checkpoint and halved the learning rate.
        is_interrupted: whether a process of the group was interrupted before the last record.

    Raises:
        LaminaError: net, recipe, images and device do not fit (:func:`~lamina.training.setup.prepare_training`).
        NotFiniteError: the loss, a gradient, a weight or the optimizer's state is not finite.

    >>> from lamina import load_data, load_net
    >>> training = Training(load_net("mlp"), load_data("shapes").train, Recipe(epochs=1))
    >>> [event.epoch for event in training if isinstance(event, Epoch)]
    [1]
    """

    @explain_call
    def __init__(
        self,
        net: AnyNet,
        images: Images,
        recipe: Recipe | None = None,
        *,
        device: str = "auto",
        precision: Precision | None = None,
        steps_per_record: int = 10,
        group: Group = ALONE,
        parts: Parts = NO_PARTS,
    ) -> None:
        check_format(precision, steps_per_record)
        prepared = prepare_training(net, images, recipe, device, precision, group, parts)
        self._live, recipe = prepared.model, prepared.recipe
        self.recipe, self.device, self.precision = recipe, prepared.device, prepared.precision
        keep_freed_memory()
        self._batches = Batches(images, recipe, self._live.device, group, augment=parts.augment)
        loss = choose_loss(self._live.task, recipe, parts, self._live.device)
        self._forward = Forward(self._live, self._batches, recipe, self.precision, loss, group)
        self._average = Average(self._live, recipe.ema_decay) if recipe.ema_decay else None
        self._models = {"live": self._live} | ({"averaged": self._average.model} if self._average else {})
        self._optimizer, self._schedule = prepared.optimizer, parts.schedule
        self._lanes, self._tally = build_sums(self._live, recipe, group), Tally()
        self._guard = Guard(self._models, self._optimizer, self._forward, recipe, group, parts)
        self._doctor = Doctor(self._live, self._forward, images, recipe, len(self._batches), group, parts)
        self.images, self.steps_per_epoch, self._steps_per_record = len(images), len(self._batches), steps_per_record
        self.steps_done, self.rewinds, self.is_interrupted = 0, 0, False

    def __repr__(self) -> str:
        steps = f"{self.steps_done:,} of {self.recipe.epochs * self.steps_per_epoch:,} steps done"
        return f"Training({self._live!r}, {self.recipe}: {steps}, on {self.device.value})"

    @property
    def model(self) -> Model:
        """The model to evaluate: the averaged one where the recipe keeps an average."""
        return self._models.get("averaged", self._live)

    @property
    def epochs_done(self) -> int:
        """Whole epochs since the beginning."""
        return self.steps_done // self.steps_per_epoch

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done."""
        return self.epochs_done >= self.recipe.epochs

    @property
    def lr(self) -> float:
        """The peak learning rate of the optimizer's first group, halved at each return to a checkpoint."""
        return float(self._optimizer.param_groups[0]["initial_lr"]) * 0.5**self.rewinds

    def __iter__(self) -> Iterator[Step | Epoch]:
        try:
            while not self.is_finished:
                yield from self._train_epoch()
        finally:
            self._forward.set_eval_mode()

    def _train_epoch(self) -> Iterator[Step | Epoch]:
        forward, task, lanes, optimizer = self._forward, self._live.task, self._lanes, self._optimizer
        steps = self.recipe.epochs * self.steps_per_epoch
        forward.set_mode(self.epochs_done)
        self._tally.start()
        for step in self._batches.epoch(*divmod(self.steps_done, self.steps_per_epoch)):
            lanes.begin(step)
            optimizer.zero_grad()
            for batch in step.own:  # one, unless the recipe divides batches into lanes
                logits = forward(batch)
                correct = None if batch.labels is None else task.correct(logits.detach(), batch.labels)
                loss = forward.loss(logits, batch)
                # Not backward(share): torch would load its symbolic shapes, more than a second's work.
                (loss if batch.share is None else loss * batch.share).backward()
                lanes.add(batch, loss, correct)
            sums = lanes.finish()

            if self._can_wait(step):
                self._guard.check_step(sums.loss, step, self.lr)
            self._guard.clip()
            set_lr(optimizer, 0.5**self.rewinds * lr_factor(self.recipe, self.steps_done, steps, self._schedule))
            with self._doctor.watch(step, sums.loss):
                optimizer.step()
            if self._average:
                self._average.update(self.steps_done)
            yield from self._record(step, sums)

    def _record(self, step: DividedBatch, sums: Sums) -> Iterator[Step | Epoch]:
        """Count a step; where a record is due, yield it with the model in eval mode and the clock stopped."""
        self.steps_done += 1
        self._tally.add(sums, step.images)
        self.is_interrupted = self._can_wait(step) and self._tally.is_interrupted
        if not (self._is_recorded(step) or self.is_interrupted):
            return
        self._tally.pause()
        self._forward.set_eval_mode()
        if step.step + 1 < self.steps_per_epoch:
            yield Step(step.epoch + 1, step.step + 1, self.steps_per_epoch, sums.loss.item())
        else:
            self._guard.check_weights(self.lr)
            epoch = self._tally.summarize(step.epoch + 1, self.recipe.epochs, self._optimizer.param_groups[0]["lr"])
            self._tally = Tally()
            yield self._doctor.examine(epoch, self.lr)
        self._forward.set_mode(step.epoch)
        self._tally.start()

    def _is_recorded(self, step: DividedBatch) -> bool:
        return step.step + 1 == self.steps_per_epoch or (step.step + 1) % self._steps_per_record == 0

    def _can_wait(self, step: DividedBatch) -> bool:  # to read numbers, which a GPU would have to finish first
        return self._live.device.type == "cpu" or self._is_recorded(step)

    def predict_logits(self, pixels: UInt8[np.ndarray, "n h w c"]) -> Float32[np.ndarray, "n k"]:
        """The logits from :attr:`model`, between two records; rounded as in training, and faster than elsewhere."""
        return self._forward.predict_logits(self.model, pixels, self.steps_done / self.steps_per_epoch)

    def check_weights(self) -> None:
        """Raise ``NotFiniteError`` in all processes if a weight, or an optimizer's state, of one is not finite."""
        self._guard.check_weights(self.lr)

    def digest(self) -> str:
        """A digest of all weights and of the optimizer's state, to the last bit, between two records."""
        return digest_state(self._models, self._optimizer)

    def checkpoint(self) -> Checkpoint:
        """Everything that an exact continuation needs, between two records; ``NotFiniteError`` if a weight is NaN."""
        if problem := self._guard.find_weights_problem(self.lr):
            raise NotFiniteError(problem)
        standing = Standing(self.steps_done, self.rewinds, *self._tally.values(), self._doctor.to_json())
        return make_checkpoint(self._models, self._optimizer, standing)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint of the same recipe and images, in a new loop; ``RunError`` if it does not fit."""
        standing = checkpoint.standing
        restore_checkpoint(checkpoint, self._models, self._optimizer)
        self._doctor.restore(standing.doctor)
        self.steps_done, self.rewinds = standing.steps_done, standing.rewinds
        self._tally = Tally(standing.images, standing.loss, standing.correct, standing.seconds)
