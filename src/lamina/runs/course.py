"""The course of a run's training: its events, evaluations on ``val``, and end."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jaxtyping import Float32, UInt8

from lamina.data import Dataset
from lamina.errors import GroupError, LaminaError, NotFiniteError, RecipeError, warn
from lamina.evaluation.reports import Report
from lamina.evaluation.words import describe_undefined
from lamina.runs.final import evaluate_final, score_split
from lamina.runs.history import Row
from lamina.runs.limit import TimeLimit
from lamina.runs.processes import by_leader
from lamina.runs.saver import Saver
from lamina.targets import Score
from lamina.training import group
from lamina.training.checkpoint import digest_tensors
from lamina.training.device import is_out_of_memory
from lamina.training.diagnosis import find_overfitting
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
from lamina.training.schedule import evaluation_interval

if TYPE_CHECKING:
    from lamina.runs.run import Run

RunEvent: TypeAlias = Event | Report


@dataclass
class Course:
    """Trains a run to its end, with each event saved before it is yielded."""

    run: Run
    training: Training
    saver: Saver
    dataset: Dataset
    limit: TimeLimit
    finish: threading.Event | None  # soon after it is set, the training of a single process ends
    _end: EarlyEnd | None = None  # before the last step
    _has_warned: bool = False
    _is_end_recorded: bool = False

    def iterate(self) -> Generator[RunEvent, None, None]:
        """Yield the events of the training, then the final report."""
        self._begin()
        try:
            if self._end is None:
                yield from self._train()
            if not self.saver.is_saved:
                self.saver.save()
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
                    f"The last checkpoint is in {self.run.path}; load_run(…).train() resumes"
                    " from it."
                )
            raise
        except GeneratorExit:  # the caller left the loop; a group saves at an interrupt itself
            if not self.saver.is_saved and group.size() == 1:
                try:
                    self.saver.save()
                except NotFiniteError as error:
                    raise self._name_checkpoint(error) from error
            raise

    def _train(self) -> Iterator[RunEvent]:
        for event in self.training:
            yield from self._follow(event)
            if self._end:
                return

    def _begin(self) -> None:
        reason = group.lead_value(self.run.folder.history.end)
        self._is_end_recorded = reason is not None
        if reason and not self.training.is_finished:
            self._end = EarlyEnd(self.training.epochs_done, reason)
        if self.limit.is_open:
            self.training.schedule.leave_open(self.training.steps_done)
        if not group.lead_value(self.run.folder.checkpoint_file.exists):
            self.saver.save(with_model=False)

    def _follow(self, event: FeatureProgress | HeadFit | Step | Epoch) -> Iterator[RunEvent]:
        # before the first step, so there is nothing to save
        if isinstance(event, FeatureProgress | HeadFit):
            yield event
            return
        self.saver.is_saved = False
        if isinstance(event, Epoch):
            yield from self._follow_epoch(event)
        else:
            is_interrupted = self.training.is_interrupted
            if is_interrupted or group.lead_value(self.saver.is_time_to_save):
                self._check_same(f"At step {event.step} of epoch {event.epoch}")
                self.training.check_weights()
                self.saver.save(with_model=is_interrupted)
            yield event
        yield from self._look_at_the_clock(event)
        if self._end:
            self.training.check_weights()
        if self.training.is_interrupted and group.size() > 1:
            raise KeyboardInterrupt  # in all processes after the same step

    def _follow_epoch(self, event: Epoch) -> Iterator[RunEvent]:
        # even if lamina returns to the head, so that the training can be reproduced
        event = replace(event, weights=digest_tensors(self.training.model.state_dict()))
        report = self._evaluate_val(event)
        by_head = self._find_better_head(report)
        if report is not None and by_head is not None:
            self.training.return_to_head()
            score = report.score
            yield Remark(
                f"head: kept, because val {score.title} is {score.format(by_head.score.value)} with"
                f" it, and {score.format(score.value)} after training all layers"
            )
            report = by_head
        self._check_same(f"After epoch {event.epoch}")
        event = self._complete(event, report)
        overfitting, reason = group.lead_value(lambda: self._judge(event, report))
        if overfitting:
            diagnoses = (*event.diagnoses, Diagnosis(**overfitting))
            event = replace(event, diagnoses=diagnoses)
        self.saver.append_row(event.to_json())
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
        if group.lead_value(lambda: bool(must_save) or self.saver.is_worth_saving()):
            self.saver.save()
        if report is not None:
            yield report
        yield event
        yield from falls
        yield from event.diagnoses

    def _find_better_head(self, report: Report | None) -> Report | None:
        """After training, the report on ``val`` of the model with the fitted head, if better."""
        if report is None or not (self.training.is_finished and self.training.keeps_head):
            return None
        by_head = self._score_val(self.training.predict_by_head)
        if by_head is None:
            return None
        gain = by_head.score.value - report.score.value
        return by_head if (-gain if report.score.lower_is_better else gain) > 0 else None

    def _record_end(self, epoch: int, reason: str = "") -> None:
        """Append the row that says that training has ended."""
        if not self._is_end_recorded:
            self.saver.append_row({"event": "end", "epoch": epoch, "reason": reason})
        self._is_end_recorded = True

    def _complete(self, event: Epoch, report: Report | None) -> Epoch:
        """The epoch with its score and metrics on ``val``."""
        if report is None:
            return event
        custom = {f"{report.split}_{name}": value for name, value in report.metrics.items()}
        metrics = {**report.headline(), f"{report.split}_loss": report.loss, **custom}
        return replace(event, score=report.score, metrics=metrics)

    def _judge(self, event: Epoch, report: Report | None) -> tuple[dict[str, Any] | None, str]:
        """A diagnosis of overfitting on ``val``, as plain values, and a reason to end, if any."""
        if report is None:
            return None, ""
        rows = [*self.saver.epochs, event.to_json()]
        sign = 1 if report.score.lower_is_better else -1
        diagnosis: Diagnosis | None = None
        kinds = {diagnosis["kind"] for row in rows for diagnosis in row.get("diagnoses", ())}
        if "overfitting" not in kinds:
            diagnosis = find_overfitting(rows, report.score.name, sign)
        reason = self._lose_patience(rows, report.score, sign)
        return asdict(diagnosis) if diagnosis else None, reason

    def _lose_patience(self, rows: list[Row], score: Score, sign: int) -> str:
        patience = self.training.recipe.patience
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
        if is_alone and self.finish is not None and self.finish.is_set():
            self.finish.clear()
            limit.finish_soon()
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
            self.saver.save(with_model=False)
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

    def _score_val(self, predict: Callable[..., Float32[np.ndarray, "n k"]]) -> Report | None:
        val = self.dataset.val
        if val is None:
            return None
        began = time.perf_counter()
        logits = share_out(predict, val.pixels)
        seconds = time.perf_counter() - began
        task = self.training.model.task
        metrics = self.run.parts.metrics
        report = score_split(self.dataset, val, logits, task, seconds, metrics)
        # it would fail after every epoch, which is no reason to end training
        if report is None:
            self.dataset = replace(self.dataset, val=None)
        elif report.undefined and not self._has_warned:
            self._has_warned = True
            warn(describe_undefined(report), stacklevel=3)
        return report

    def _evaluate(self) -> Iterator[RunEvent]:
        predict = partial(share_out, partial(predict_logits, self.training.model))
        evaluation = evaluate_final(self.run, self.dataset, predict)
        by_leader(lambda: evaluation.save(self.run.folder))
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
        file = self.run.folder.checkpoint_file
        remedy = (
            f"{error.remedy} Train a new run, for example with --lr {lr:g} (in Python,"
            f" Recipe(lr={lr:g}))."
        )
        if file.exists():
            remedy += f" The last checkpoint, {file}, is intact."
        return NotFiniteError(error.problem, remedy=remedy.lstrip())


def share_out(
    predict: Callable[..., Float32[np.ndarray, "n k"]], pixels: UInt8[np.ndarray, "n h w c"]
) -> Float32[np.ndarray, "n k"]:
    """The logits of images; each process computes a part of the batches."""
    part = group.deal(count_batches(pixels), group.size(), group.rank())
    logits = predict(pixels, part=part)
    parts = group.gather(logits.tobytes())
    return np.frombuffer(b"".join(parts), np.float32).reshape(-1, logits.shape[1]).copy()


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
