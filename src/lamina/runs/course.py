"""The course of a run's training, from its first step to the final report.

It knows the folder and the record of a run, not ``Run``, so that ``run.py`` can use it.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from lamina.data import Dataset, Images
from lamina.errors import (
    DataError,
    GroupError,
    LaminaError,
    NotFiniteError,
    RecipeError,
    name_some,
    warn,
)
from lamina.evaluation.calibration import Calibration, calibrate
from lamina.evaluation.evaluating import score_logits
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.report import Report
from lamina.runs.folder import Row, RunFolder
from lamina.runs.record import RunRecord
from lamina.targets import Score
from lamina.training import group
from lamina.training.checkpoint import digest_tensors
from lamina.training.custom import OwnMetric, Parts
from lamina.training.device import is_out_of_memory
from lamina.training.diagnosis import diagnose
from lamina.training.events import (
    Cooldown,
    Diagnosis,
    EarlyEnd,
    Epoch,
    Event,
    FeatureProgress,
    HeadFit,
    Remark,
    Step,
)
from lamina.training.loop import Training
from lamina.training.prediction import count_batches, predict_logits
from lamina.training.schedule import Schedule, evaluation_interval
from lamina.training.task import Task
from lamina.training.timing import SAVING_FRACTION

RunEvent: TypeAlias = Event | Report
Logits: TypeAlias = Float32[np.ndarray, "n k"]
Predict: TypeAlias = Callable[[UInt8[np.ndarray, "n h w c"]], Logits]
"""From images to their logits."""
LEAST_STEPS = 3
LEAST_SECONDS = 1.0
"""The pace is known after this many steps and this many seconds."""
RECENT_FRACTION = 0.25
"""Fraction of the time so far over which the pace is measured; a machine's speed may change."""
TOLERANCE = 0.02
"""A fall is planned again if it would end this fraction of the time too early or too late."""
SPARE_FRACTION = 0.01
"""A fall should end this fraction of the time before the limit."""
REST_FRACTION = 0.03
"""Between two plans, this fraction of the time passes."""
SAVE_SECONDS = 60.0
"""Time between checkpoints within an epoch."""
FINISHING_FRACTION = 0.1
"""Of the time so far, in which training finishes on request."""


@dataclass
class TimeLimit:
    """When training should end: its pace, and how many steps are left.

    Attributes:
        until: When the last step should end, as ``time.perf_counter()`` counts seconds; infinity
            without a limit.
        is_open: Whether training goes on until then, for any number of epochs.
        finish: Soon after it is set, training ends.
        is_finishing: Whether it was set.
    """

    until: float = math.inf
    is_open: bool = False
    finish: threading.Event | None = None
    is_finishing: bool = False
    _began: float = field(default_factory=lambda: time.perf_counter())
    _marks: deque[tuple[float, int]] = field(default_factory=deque)
    _planned_at: float = -math.inf

    @property
    def is_over(self) -> bool:
        """Whether the time has run out."""
        return time.perf_counter() > self.until

    @property
    def reason(self) -> str:
        """Why training ends before its last epoch."""
        return "finishing on request" if self.is_finishing else "the time limit"

    def look(self) -> None:
        """If the user asks to finish, move the limit to soon, and never to later."""
        if self.finish is None or not self.finish.is_set():
            return
        self.finish.clear()
        now = time.perf_counter()
        self.until = min(self.until, now + FINISHING_FRACTION * (now - self._began))
        self.is_finishing = True
        self._planned_at = -math.inf

    def steer(self, schedule: Schedule, step: int) -> None:
        """Let the rate fall when it has to; an end that cannot move stays."""
        steps = self.choose_fall_steps(schedule, step) if schedule.can_move else None
        if steps is not None:
            schedule.start_fall(step, steps)

    def choose_fall_steps(self, schedule: Schedule, step: int) -> int | None:
        """Steps in which the rate should fall from ``step`` on; ``None`` keeps the plan."""
        now = time.perf_counter()
        self._marks.append((now, step))
        if now > self.until:  # one more step ends training at the rate that the fall has reached
            return None if schedule.is_over(step + 1) else 1
        if now - self._began < LEAST_SECONDS or step - self._marks[0][1] < LEAST_STEPS:
            return None
        oldest = now - RECENT_FRACTION * (now - self._began)
        while len(self._marks) > LEAST_STEPS + 1 and self._marks[1][0] < oldest:
            self._marks.popleft()
        if self.until == math.inf:
            return None
        since, first = self._marks[0]
        steps_per_second = (step - first) / (now - since)
        whole = self.until - self._began
        steps_left = (self.until - SPARE_FRACTION * whole - now) * steps_per_second
        planned = math.inf if schedule.steps is None else schedule.steps - step
        if not schedule.is_falling(step):
            is_due = schedule.count_fall_steps(step) >= steps_left
        else:
            slack = TOLERANCE * whole * steps_per_second
            is_due = planned > steps_left + slack or (self.is_open and planned < steps_left - slack)
            is_due = is_due and now - self._planned_at >= REST_FRACTION * whole
        if not is_due:
            return None
        self._planned_at = now
        return max(1, int(steps_left))


@dataclass
class Course:
    """Trains a run to its end, with each event saved before it is yielded.

    A checkpoint is never ahead of the history. Only the leading process writes.
    """

    folder: RunFolder
    record: RunRecord
    training: Training
    dataset: Dataset
    parts: Parts
    limit: TimeLimit
    _epochs: list[Row] = field(default_factory=list)  # of the history, in the leading process
    _end: EarlyEnd | None = None  # before the last step
    _has_warned: bool = False
    _is_end_recorded: bool = False
    _is_saved: bool = True  # whether model and checkpoint have the state of the training
    _saved_at: float = field(default_factory=lambda: time.perf_counter())
    _saving_seconds: float = 0.0

    def iterate(self) -> Generator[RunEvent, None, None]:
        """Yield the events of the training, then the final report."""
        self._begin()
        try:
            if self._end is None:
                yield from self._train()
            if not self._is_saved:
                self._save()
            if self.training.is_finished:
                self._record_end(self.training.epochs_done)
            if self._end:
                yield self._end
            yield from self._evaluate()
        except NotFiniteError as error:
            raise self._name_checkpoint(error) from error
        except Exception as error:
            if not isinstance(error, LaminaError):  # from a custom function or module
                error.add_note(
                    f"The last checkpoint is in {self.folder.path}; load_run(…).train() resumes"
                    " from it."
                )
            raise
        except GeneratorExit:  # the caller left the loop; a group saves at an interrupt itself
            if not self._is_saved and group.size() == 1:
                try:
                    self._save()
                except NotFiniteError as error:
                    raise self._name_checkpoint(error) from error
            raise

    def _begin(self) -> None:
        reason = group.lead_value(self._read_history)
        self._is_end_recorded = reason is not None
        if reason and not self.training.is_finished:
            self._end = EarlyEnd(self.training.epochs_done, reason)
        if self.limit.is_open:
            self.training.schedule.leave_open(self.training.steps_done)
        if not group.lead_value(self.folder.checkpoint_file.exists):
            self._save(with_model=False)

    def _read_history(self) -> str | None:
        """Read the epochs so far, and why training has ended; ``None`` if it has not ended."""
        rows = self.folder.read_rows()
        self._epochs = [row for row in rows if row["event"] == "epoch"]
        return find_end(rows)

    def _train(self) -> Iterator[RunEvent]:
        for event in self.training:
            yield from self._follow(event)
            if self._end:
                return

    def _follow(self, event: FeatureProgress | HeadFit | Step | Epoch) -> Iterator[RunEvent]:
        # before the first step, so there is nothing to save
        if isinstance(event, FeatureProgress | HeadFit):
            yield event
            return
        self._is_saved = False
        if isinstance(event, Epoch):
            yield from self._follow_epoch(event)
        else:
            is_interrupted = self.training.is_interrupted
            if is_interrupted or group.lead_value(self._is_time_to_save):
                self._check_same(f"At step {event.step} of epoch {event.epoch}")
                self.training.check_weights()
                self._save(with_model=is_interrupted)
            yield event
        yield from self._look_at_the_clock(event)
        if self._end:
            self.training.check_weights()
        if self.training.is_interrupted and group.size() > 1:
            raise KeyboardInterrupt  # in all processes after the same step

    def _follow_epoch(self, event: Epoch) -> Iterator[RunEvent]:
        # even if lamina returns to the head, so that the training can be reproduced
        event = replace(event, weights=digest_tensors(self.training.model.state_dict()))
        report, remark = self._return_to_better_head(self._evaluate_val(event))
        self._check_same(f"After epoch {event.epoch}")
        event = self._complete(event, report)
        problems, reason = group.lead_value(lambda: self._judge(event, report))
        event = replace(event, diagnoses=tuple(Diagnosis(**problem) for problem in problems))
        self._epochs.append(event.to_json())
        group.lead_value(lambda: self.folder.append_row(event.to_json()))
        schedule = self.training.schedule
        falls: Iterable[Cooldown] = ()
        if reason and not schedule.can_move:
            self._end = EarlyEnd(event.epoch, reason)
        elif reason and not schedule.is_falling(self.training.steps_done):
            steps = schedule.count_fall_steps(self.training.steps_done)
            falls = list(self._start_fall(event.epoch, steps, reason))
        is_last = self.training.is_finished or self._end is not None
        if is_last:
            if self.limit.is_finishing:
                reason = "finished on request"
            self._record_end(event.epoch, reason)
        must_save = event.diagnoses or self.training.is_interrupted or is_last
        if group.lead_value(lambda: bool(must_save) or self._is_worth_saving()):
            self._save()
        if remark is not None:
            yield remark
        if report is not None:
            yield report
        yield event
        yield from falls
        yield from event.diagnoses

    def _return_to_better_head(self, report: Report | None) -> tuple[Report | None, Remark | None]:
        """After training, take back all steps if the fitted head alone is better on ``val``."""
        if report is None or not (self.training.is_finished and self.training.keeps_head):
            return report, None
        by_head = self._score_val(self.training.predict_by_head)
        if by_head is None:
            return report, None
        score = report.score
        gain = by_head.score.value - score.value
        is_better = gain < 0 if score.lower_is_better else gain > 0
        if not is_better:
            return report, None
        self.training.return_to_head()
        text = (
            f"head: kept, because val {score.title} is {score.format(by_head.score.value)} with"
            f" it, and {score.format(score.value)} after training all layers"
        )
        return by_head, Remark(text)

    def _record_end(self, epoch: int, reason: str = "") -> None:
        """Append the row that says that training has ended."""
        if not self._is_end_recorded:
            row = {"event": "end", "epoch": epoch, "reason": reason}
            group.lead_value(lambda: self.folder.append_row(row))
        self._is_end_recorded = True

    def _complete(self, event: Epoch, report: Report | None) -> Epoch:
        """The epoch with its score and metrics on ``val``."""
        if report is None:
            return event
        custom = {
            f"{report.split}_{name}": value
            for name, value in report.metrics.items()
            if name in self.parts.metrics
        }
        metrics = {**report.values(), f"{report.split}_loss": report.loss, **custom}
        return replace(event, score=report.score, metrics=metrics)

    def _judge(self, event: Epoch, report: Report | None) -> tuple[list[dict[str, Any]], str]:
        """The diagnoses after an epoch, as plain values, and a reason to end, if any."""
        rows = [*self._epochs, event.to_json()]
        score = None if report is None else report.score
        problems = diagnose(rows, self.training.start, score)
        reason = "" if score is None else self._lose_patience(rows, score)
        return [asdict(problem) for problem in problems], reason

    def _lose_patience(self, rows: list[Row], score: Score) -> str:
        patience = self.training.recipe.patience
        sign = 1 if score.lower_is_better else -1
        if not patience or self.training.is_finished:
            return ""
        column = f"val_{score.name}"
        scored = [row for row in rows if row.get(column) is not None]
        best = min(scored, key=lambda row: sign * row[column], default={"epoch": 0})["epoch"]
        if sum(row["epoch"] > best for row in scored) < patience:
            return ""
        return f"val {score.title} has not improved since epoch {best} (patience {patience})"

    def _look_at_the_clock(self, event: Step | Epoch) -> Iterator[RunEvent]:
        """Begin the fall of the learning rate when the time limit or the user asks for it."""
        training = self.training
        schedule = training.schedule
        limit = self.limit
        if training.is_finished or self._end:
            return
        is_alone = group.size() == 1
        if is_alone:
            limit.look()
        if is_alone and schedule.can_move:
            steps = limit.choose_fall_steps(schedule, training.steps_done)
            if steps is not None:
                yield from self._start_fall(event.epoch, steps, limit.reason)
        elif limit.is_finishing:
            schedule.start_fall(training.steps_done, 1)  # the next step is the last
        elif limit.until < math.inf and group.lead_value(lambda: limit.is_over):
            done = training.epochs_done
            of = "" if schedule.epochs is None else f" of {schedule.epochs}"
            self._end = EarlyEnd(done, f"time limit reached after {done}{of} epochs")

    def _start_fall(self, epoch: int, steps: int, reason: str) -> Iterator[Cooldown]:
        """Let the learning rate fall; saves the first fall, which a kill would delay otherwise."""
        schedule = self.training.schedule
        done = self.training.steps_done
        is_falling = schedule.is_falling(done)
        schedule.start_fall(done, steps)
        if not is_falling:
            self._save(with_model=False)
            yield Cooldown(epoch, steps, reason)

    def _evaluate_val(self, event: Epoch) -> Report | None:
        """The report on ``val`` after an epoch; ``None`` if evaluation is not due."""
        val = self.dataset.val
        if val is None:
            return None
        interval = evaluation_interval(self.training.images, len(val))
        if event.epoch % interval and not self.training.is_finished:
            return None
        return self._score_val(self.training.predict_logits)

    def _score_val(self, predict: Callable[..., Logits]) -> Report | None:
        val = self.dataset.val
        if val is None:
            return None
        began = time.perf_counter()
        logits = share_out(predict, val.pixels)
        seconds = time.perf_counter() - began
        task = self.training.model.task
        report = score_split(self.dataset, val, logits, task, seconds, self.parts.metrics)
        # it would fail after every epoch, which is no reason to end training
        if report is None:
            self.dataset = replace(self.dataset, val=None)
        elif report.undefined and not self._has_warned:
            self._has_warned = True
            warn(report.describe_undefined(), stacklevel=3)
        return report

    def _evaluate(self) -> Iterator[RunEvent]:
        predict = partial(share_out, partial(predict_logits, self.training.model))
        evaluation = evaluate_final(self.folder, self.record, self.dataset, self.parts, predict)
        group.lead_value(lambda: evaluation.save(self.folder))
        if evaluation.report is not None:
            yield evaluation.report

    def _check_same(self, when: str) -> None:
        if group.size() == 1:
            return
        if deviating := group.find_deviating(self.training.digest()):
            raise GroupError(
                f"{when}, the weights differ between the processes ({deviating}). Memory or a"
                " processor may be faulty, or the module may keep state outside of buffers. The"
                " last checkpoint is intact;",
                remedy="resume it with lamina resume.",
            )

    def _name_checkpoint(self, error: NotFiniteError) -> NotFiniteError:
        """The error, with a lower learning rate and the last checkpoint in its advice."""
        lr = self.training.lr / 2
        remedy = (
            f"{error.remedy} Train a new run, for example with --lr {lr:g} (in Python,"
            f" Recipe(lr={lr:g})). The last checkpoint, {self.folder.checkpoint_file}, is intact."
        )
        return NotFiniteError(error.problem, remedy=remedy.lstrip())

    def _is_time_to_save(self) -> bool:
        """Whether the last checkpoint is so old that another is due within the epoch."""
        return time.perf_counter() - self._saved_at >= SAVE_SECONDS

    def _is_worth_saving(self) -> bool:
        """Whether to save after this epoch: yes, unless saving takes too much of the time."""
        waited = time.perf_counter() - self._saved_at
        return self._is_time_to_save() or self._saving_seconds < SAVING_FRACTION * waited

    def _save(self, *, with_model: bool = True) -> None:
        """Save the model, if asked to, and the checkpoint."""
        group.lead_value(lambda: self._write(with_model=with_model))
        if with_model:
            self._is_saved = True

    def _write(self, *, with_model: bool) -> None:
        began = time.perf_counter()
        checkpoint = self.training.checkpoint()  # first, because it rejects NaN and infinity
        if with_model:
            self.folder.save_model(self.training.model)
        self.folder.save_checkpoint(checkpoint)
        self._saved_at = time.perf_counter()
        self._saving_seconds = self._saved_at - began


def find_end(rows: Iterable[Row]) -> str | None:
    """Why training has ended, empty if as planned; ``None`` if it has not ended."""
    for row in rows:
        if row["event"] == "end":
            return str(row.get("reason", ""))
    return None


@dataclass(frozen=True)
class Evaluation:
    """The final evaluation of a run: its report, logits and calibration.

    Attributes:
        report: The report on ``test``, else on ``val``; ``None`` if neither has a score.
        outputs: The logits of these splits.
        calibration: ``None`` if there are too few images.
    """

    report: Report | None
    outputs: tuple[Outputs, ...]
    calibration: Calibration | None

    def save(self, folder: RunFolder) -> None:
        """Replace the results of the run."""
        if self.report is not None or self.calibration is not None:
            folder.save_calibration(self.calibration)
        if self.report is not None:
            folder.save_outputs(self.outputs)
            folder.save_report(self.report)


def evaluate_final(
    folder: RunFolder, record: RunRecord, dataset: Dataset, parts: Parts, predict: Predict
) -> Evaluation:
    """Evaluate ``test`` and ``val``, whose logits ``predict`` computes, without saving."""
    own = [name.removeprefix("metrics.") for name in record.parts if name.startswith("metrics.")]
    if missing := [name for name in own if name not in parts.metrics]:
        warn(
            "the run's own metrics cannot be computed without their functions:"
            f" {name_some(missing)}.",
            remedy="Pass them again, as in load_run(path, parts=Parts(metrics=…))",
        )
    test = None if record.holds_back_test else dataset.test
    splits = [images for images in (test, dataset.val) if images is not None]
    logits: dict[str, Logits] = {}
    seconds: dict[str, float] = {}
    for images in splits:
        began = time.perf_counter()
        logits[images.split] = predict(images.pixels)
        seconds[images.split] = time.perf_counter() - began
    calibration = _calibrate(folder, record, dataset, logits)
    task = record.task
    if calibration is not None:
        task = calibration.apply(task)
    report: Report | None = None
    outputs: list[Outputs] = []
    for images in splits:
        split = images.split
        if report is None:
            metrics = parts.metrics
            report = score_split(dataset, images, logits[split], task, seconds[split], metrics)
        if report is not None:
            outputs.append(Outputs.collect(record.task, logits[split], images, dataset.train))
    return Evaluation(report, tuple(outputs), calibration)


def _calibrate(
    folder: RunFolder, record: RunRecord, dataset: Dataset, logits: Mapping[str, Logits]
) -> Calibration | None:
    """Temperatures and thresholds, chosen on the folds' predictions, else on ``val``."""
    task = record.task
    aim = record.recipe.find_aim(task.kind)
    held_out = folder.load_out_of_fold(record)
    if held_out is None and dataset.val is not None:
        held_out = Outputs.collect(task, logits["val"], dataset.val)
    if held_out is not None:
        return calibrate(task, held_out, aim)
    if aim is not None and record.data.preparation.folds() is None:
        warn(
            f"There is no val split to choose thresholds for {aim} on, so they are 0.5.",
            remedy="Train with --val 0.1",
        )
    return None


def score_split(
    dataset: Dataset,
    images: Images,
    logits: Logits,
    task: Task,
    seconds: float,
    metrics: Mapping[str, OwnMetric],
) -> Report | None:
    """The report on a split; warns and returns ``None`` if it cannot be scored."""
    try:
        report = score_logits(task, logits, images, seconds, metrics)
    except DataError as error:
        warn(f"{images.split} cannot be scored: {error}")
        return None
    return replace(report, data_name=dataset.name, data_fingerprint=dataset.fingerprint)


def share_out(predict: Callable[..., Logits], pixels: UInt8[np.ndarray, "n h w c"]) -> Logits:
    """The logits of images; each process computes a part of the batches."""
    part = group.deal(count_batches(pixels), group.size(), group.rank())
    logits = predict(pixels, part=part)
    parts = group.gather(logits.tobytes())
    return np.frombuffer(b"".join(parts), np.float32).reshape(-1, logits.shape[1]).copy()


def check_processes(dataset: Dataset, device: str) -> None:
    """Require the same images and kind of device for all processes that train together."""
    if group.size() == 1:
        return
    if deviating := group.find_deviating(dataset.fingerprint):
        raise DataError(
            f"{dataset.name} differs between the processes ({deviating}). Use the same images on"
            " every machine, from a shared disk or copied."
        )
    lacks_gpu = device == "cuda" and torch.cuda.current_device() != group.local_rank()
    if lacks_gpu:
        device = "no GPU"
    devices = [name.decode() for name in group.gather(device.encode())]
    if set(devices) not in ({"cpu"}, {"cuda"}):
        listed = ", ".join(f"rank {rank}: {name}" for rank, name in enumerate(devices))
        raise RecipeError(
            "Processes that train together must all use the CPU, or each its own CUDA GPU, but"
            f" there are {listed}. Start fewer processes, or train a new run with --device cpu (in"
            " Python, Recipe(device='cpu'))."
        )


@contextmanager
def explain_lack_of_memory(training: Training) -> Iterator[None]:
    """Turn a lack of memory into a ``RecipeError``."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        size = min(training.recipe.batch_size, training.images)
        remedy = f"Try batch_size {size // 2}."
        if size == 1:
            remedy = "Try smaller images or a smaller net."
        raise RecipeError(
            f"Out of memory on {training.device.value} with batch_size"
            f" {training.recipe.batch_size}.",
            remedy,
        ) from error
