"""The training loop, as an iterator: forward, loss, backward, step."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from copy import deepcopy
from functools import partial

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from lamina.data import Images
from lamina.errors import NotFiniteError
from lamina.nets import Net
from lamina.training.batches import Batch, Batches, DividedBatch
from lamina.training.checkpoint import Checkpoint, Standing, collect_tensors, name_tensors, restore_tensors
from lamina.training.device import choose_device, keep_freed_memory
from lamina.training.doctor import Doctor
from lamina.training.events import Diagnosis, Epoch, Step, Tally
from lamina.training.forward import Forward
from lamina.training.group import ALONE, Group
from lamina.training.guard import Guard
from lamina.training.lanes import Sums, build_sums, check_lanes
from lamina.training.local_steps import LocalSteps
from lamina.training.model import Model, build_model, check_model, update_average
from lamina.training.optim import build_optimizer, set_lr
from lamina.training.precision import Precision, choose_precision
from lamina.training.randomness import derive_seed, seeded
from lamina.training.recipe import Recipe
from lamina.training.schedule import lr_factor
from lamina.training.tensors import digest_tensors


class Training:
    """A training in progress: iterate to train it; :attr:`model` is in eval mode whenever the loop is yours.

    Leaving the loop is safe, and iterating again resumes with the next step. From here on the process keeps the memory
    that its steps free (:func:`keep_freed_memory`).

    Args:
        net: a net, or a module of your own from normalized float images (N, C, H, W) to logits, trained in place.
        images: the training images.
        recipe: how to train.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: the choice that a run recorded; by default it follows from the recipe.
        steps_per_record: steps between Step records.
        group: the processes that train together, each with the same arguments; they share out the recipe's lanes.

    Attributes:
        recipe, device, precision: what is used, with what was chosen for ``auto``.
        images, steps_per_epoch: how many of them an epoch has.
        steps_done: steps since the beginning.
        rewinds: how often the training went back to a checkpoint and halved the learning rate.
        is_interrupted: whether a process of the group was interrupted before the last record.

    Raises:
        NetError: the net does not take these images or does not give one logit for each target.
        RecipeError: the recipe does not fit the images or the net, or the device does not exist.
        NotFiniteError: while iterating, the loss or a gradient is NaN or infinity, and the weights are those from
            before that step, or from before the block of steps that lanes take by themselves; or, at the end of an
            epoch, a weight or the optimizer's state is.
        DataError: there are no images.

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
        group: Group = ALONE,
    ) -> None:
        self.recipe = recipe = recipe or Recipe()
        self.device = choose_device(device)
        target = torch.device(self.device.value)
        check_lanes(recipe, len(images), group)
        self._batches = Batches(images, recipe, target, group)
        with seeded(derive_seed(recipe.seed, "weights"), torch.device("cpu")):
            self._live = build_model(net, images, recipe).to(target)
        check_model(self._live, recipe, len(images))
        keep_freed_memory()
        self.precision = precision or choose_precision(recipe.precision, self._live)
        self._forward = Forward(self._live, self._batches, recipe, self.precision, group)
        self._models = {"live": self._live} | ({"averaged": deepcopy(self._live)} if recipe.ema_decay else {})
        self._optimizer = build_optimizer(self._live, recipe, self.precision.value)
        self._sums = build_sums(self._live, recipe, group)
        self._local = LocalSteps(self._live, self._optimizer, recipe.lanes, group) if recipe.sync_every > 1 else None
        self._guard = Guard(self._models, self._optimizer, self._forward, recipe, group)
        self._doctor, self._group = Doctor(self._live, recipe, images, len(self._batches)), group
        self._steps_per_record, self._tally = steps_per_record, Tally()
        self.images, self.steps_per_epoch = len(images), len(self._batches)
        self.steps_done = self.rewinds = 0
        self.is_interrupted = False

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
        """The peak learning rate: the recipe's, halved at each return to a checkpoint."""
        return self.recipe.lr * 0.5**self.rewinds

    def predict_logits(self, pixels: UInt8[np.ndarray, "n h w c"]) -> Float32[np.ndarray, "n k"]:
        """The logits of pictures from :attr:`model` in the training's number format, between two records.

        They are quicker than :func:`lamina.predict_logits` and may round differently. While the trunk is frozen, its
        features of the same array are computed once.
        """
        return self._forward.predict_logits(self.model, pixels, self.steps_done / self.steps_per_epoch)

    def __iter__(self) -> Iterator[Step | Epoch]:
        try:
            while not self.is_finished:
                yield from self._train_epoch()
        finally:
            self._set_eval_mode()

    def _train_epoch(self) -> Iterator[Step | Epoch]:
        recipe, tally = self.recipe, self._tally
        epoch, first_step = divmod(self.steps_done, self.steps_per_epoch)
        clock = time.perf_counter()
        self._forward.set_mode(epoch)
        interrupts: Tensor | float = 0.0

        for block in self._batches.blocks(epoch, first_step):  # of one step, unless the recipe's lanes go alone
            begun, done = block[0].step, block[-1].step + 1
            is_last = done == self.steps_per_epoch
            is_recorded = is_last or begun // self._steps_per_record != done // self._steps_per_record
            if self._local is None:
                sums = self._take_step(block[0], is_recorded=is_recorded)
            else:
                sums = self._take_local_steps(self._local, block)

            if recipe.ema_decay:
                update_average(self._models["averaged"], self._live, recipe.ema_decay ** len(block))
            self.steps_done += len(block)
            tally.add(sums.loss, sums.correct, sum(divided.images for divided in block))
            if sums.interrupts is not None:
                interrupts = interrupts + sums.interrupts
            # A GPU would wait.
            self.is_interrupted = (is_recorded or sums.loss.is_cpu) and bool(interrupts)
            if is_recorded or self.is_interrupted:
                interrupts = 0.0
                loss = sums.loss.item()
                tally.seconds += time.perf_counter() - clock
                self._set_eval_mode()
                if is_last:
                    self._tally = Tally()
                    self._guard.check_weights(self.lr)
                    yield self._examine(tally.summarize(epoch + 1, recipe.epochs, self._lr_of(epoch, done - 1)))
                else:
                    yield Step(epoch + 1, done, self.steps_per_epoch, loss)
                self._forward.set_mode(epoch)
                clock = time.perf_counter()

    def _take_step(self, divided: DividedBatch, *, is_recorded: bool) -> Sums:
        """Forward, loss, backward, step."""
        set_lr(self._optimizer, self._lr_of(divided.epoch, divided.step))
        self._optimizer.zero_grad()
        self._sums.begin(divided)
        for batch in divided.own:  # one, unless the recipe divides batches into lanes
            self._sums.add(batch, *self._go_back(batch, batch.share))
        sums = self._sums.finish()
        if is_recorded or sums.loss.is_cpu:  # a GPU would wait for every check
            self._guard.check_step(sums.loss, divided, self.lr)
        self._guard.clip()
        self._doctor.begin_step(self.steps_done)
        self._optimizer.step()
        can_repeat = self.recipe.lanes == 1 and self.recipe.compile == "off" and self._live.net is not None
        repeat = partial(self._go_forward, batch) if can_repeat else None
        self._doctor.end_step(self.steps_done, sums.loss, repeat)
        return sums

    def _take_local_steps(self, local: LocalSteps, block: list[DividedBatch]) -> Sums:
        """The same several times for each lane by itself; then the mean of the lanes."""
        for batches in local.each_lane(block):
            for batch in batches:
                set_lr(self._optimizer, self._lr_of(batch.epoch, batch.step))
                self._optimizer.zero_grad()
                loss, correct = self._go_back(batch)
                if problem := self._guard.find_problem(loss, batch, self.lr):
                    local.fail(problem)
                    break
                self._guard.clip()
                self._optimizer.step()
                local.add(batch, loss, correct)
        sums, problem = local.finish()
        if problem:
            raise NotFiniteError(problem)
        return sums

    def _go_forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """A batch's logits and loss by the present weights."""
        logits = self._forward(batch)
        return logits, self._live.task.loss(logits, batch.targets, self.recipe.label_smoothing, batch.weights)

    def _go_back(self, batch: Batch, share: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Forward and backward: a batch's loss and right answers; the gradients are those of ``share`` of its loss."""
        logits, loss = self._go_forward(batch)
        loss.backward(share)
        return loss, self._live.task.correct(logits.detach(), batch.targets)

    def _examine(self, epoch: Epoch) -> Epoch:
        """An epoch's record with its layers' figures, and what the doctor says; in a group, what the leader's says."""
        fraction = (self._lr_of(epoch.epoch - 1, 0) + epoch.lr) / (2 * self.lr) if self.lr else 1.0
        layers, found = self._doctor.end_epoch(epoch, self.steps_done, self.lr, fraction)
        if self._group.size > 1:
            text = self._group.lead(lambda: json.dumps([dataclasses.asdict(one) for one in found]).encode())
            found = [Diagnosis(**values) for values in json.loads(text)]
        return dataclasses.replace(epoch, layers=layers, diagnoses=tuple(found))

    def _lr_of(self, epoch: int, step: int) -> float:
        """The learning rate of a step of an epoch."""
        steps = self.steps_per_epoch
        return self.lr * lr_factor(self.recipe, epoch * steps + step, self.recipe.epochs * steps)

    def _set_eval_mode(self) -> None:
        self._forward.set_eval_mode()
        if self.model is not self._live:
            self.model.eval()

    def check_weights(self) -> None:
        """Raise ``NotFiniteError`` in all processes if a weight, or an optimizer's state, of one is not finite."""
        self._guard.check_weights(self.lr)

    def digest(self) -> str:
        """A digest of all weights and of the optimizer's state, to the last bit, between two records."""
        return digest_tensors(name_tensors(self._models, self._optimizer))

    def checkpoint(self) -> Checkpoint:
        """Everything that an exact continuation needs, between two records.

        Raises:
            NotFiniteError: a weight, or the optimizer's state, contains NaN or infinity.
        """
        if problem := self._guard.find_weights_problem(self.lr):
            raise NotFiniteError(problem)
        tally = self._tally
        correct = None if tally.correct is None else float(tally.correct)
        standing = Standing(self.steps_done, self.rewinds, tally.images, float(tally.loss), correct, tally.seconds)
        return Checkpoint(collect_tensors(self._models, self._optimizer), standing)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint of the same recipe, seed and images; leave a loop in progress and begin a new one.

        Raises:
            RunError: the checkpoint's weights are not those of this net; nothing has been changed.
        """
        restore_tensors(checkpoint.tensors, self._models, self._optimizer)
        self._doctor.restart()
        standing = checkpoint.standing
        self.steps_done, self.rewinds = standing.steps_done, standing.rewinds
        self._tally = Tally(standing.images, standing.loss, standing.correct, standing.seconds)
