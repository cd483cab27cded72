"""``Run``: a training run in a folder of plain files (:mod:`lamina.runs.folder`)."""

from __future__ import annotations

import math
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from lamina.data import Dataset
from lamina.data.description import describe_data, describe_reading
from lamina.data.image_inputs import ImageLike, find_images, list_images
from lamina.data.images import OTHER_FILE
from lamina.data.splits import Split
from lamina.errors import NetError, RunError, check_type
from lamina.evaluation.calibration import Calibration
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.predictions import Prediction, Predictions
from lamina.evaluation.predictor import Predictor
from lamina.evaluation.reports import Report
from lamina.files import damaged
from lamina.nets import Net
from lamina.runs.course import Course, RunEvent, explain_lack_of_memory
from lamina.runs.final import evaluate_final
from lamina.runs.folder import RunFolder
from lamina.runs.limit import TimeLimit
from lamina.runs.overview import (
    count_planned,
    describe_recipe,
    describe_run,
    describe_start,
    show_run,
)
from lamina.runs.processes import by_leader, check_processes, is_leader
from lamina.runs.progress import show_progress
from lamina.runs.record import RunRecord
from lamina.runs.resuming import (
    DataLike,
    find_dataset,
    prepare_folder,
    restore_net,
    resume_training,
)
from lamina.runs.saver import Saver
from lamina.targets import Score
from lamina.training.custom import NO_PARTS, Parts
from lamina.training.device import choose_again, choose_device
from lamina.training.events import Remark, Resumed
from lamina.training.model import Model
from lamina.training.prediction import predict_logits
from lamina.training.pretrained import TimmNet, native_side_px
from lamina.training.task import Task
from lamina.training.threads import computing_with, iter_computing_with, keep_threads

if TYPE_CHECKING:
    import polars
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Run:
    """A training run, stored in a folder: train or resume it, evaluate it, and predict with it.

    :func:`~lamina.start_run` creates a run and :func:`~lamina.load_run` loads one.

    Attributes:
        path: Folder of the run.
        record: Net, recipe, data, software and machine, as in ``run.json``.
        dataset: Data set, if it was passed to this process.
        module: Your own module, or net with your own layers, before its first step, if it was
            passed.
        parts: Your own functions, if they were passed.
    """

    path: Path
    record: RunRecord = field(repr=False, compare=False)
    dataset: Dataset | None = field(default=None, repr=False, compare=False)
    module: Net | nn.Module | None = field(default=None, repr=False, compare=False)
    parts: Parts = field(default=NO_PARTS, repr=False, compare=False)

    @property
    def folder(self) -> RunFolder:
        """The files of the run."""
        return RunFolder(self.path)

    def train(
        self,
        *,
        data: DataLike | None = None,
        until: float | None = None,
        save_every_seconds: float = 60.0,
        progress: bool = True,
    ) -> Report | None:
        """Train the run, from the start or from its last checkpoint, and evaluate it.

        Takes the arguments and raises the errors of :meth:`iter_train`. In addition, ``progress``
        prints data, recipe, net and device, then a line per epoch, and shows a progress bar in a
        terminal or notebook.

        Returns:
            The report on ``test``, else on ``val``. ``None`` if neither can be scored.
        """
        trained = self.iter_train(
            data=data,
            until=until,
            save_every_seconds=save_every_seconds,
        )
        with closing(trained):  # an interrupt while printing must save and unlock the run, too
            events: Iterable[RunEvent] = trained
            if progress and is_leader():
                events = show_progress(self._introduce(trained, data), name=self.path.name)
            for _ in events:
                pass
        return self.report

    def _introduce(
        self, events: Iterator[RunEvent], data: DataLike | None
    ) -> Generator[RunEvent, None, None]:
        """The events, after a remark about data, recipe, net and device."""
        dataset = data if isinstance(data, Dataset) else self.dataset
        record = self.record
        lines = [f"data: {record.data.name}"]
        if dataset is not None:
            lines = [*describe_data(dataset), *describe_reading(dataset)]
        lines.append(f"recipe: {describe_recipe(record.recipe)}")
        is_pretrained = native_side_px(record.timm or self.module) is not None
        lines += describe_start(record, has_own_statistics=is_pretrained)
        first = next(events)  # which means that all checks passed
        yield Remark("\n".join(lines))
        yield first
        yield from events

    def iter_train(
        self,
        *,
        data: DataLike | None = None,
        until: float | None = None,
        is_open: bool = False,
        finish: threading.Event | None = None,
        save_every_seconds: float = 60.0,
    ) -> Generator[RunEvent, None, None]:
        """Train the run, and yield its events.

        You may leave the loop at any event: the run stays consistent, and calling this again
        resumes it. On the same processor type, with the same torch version, number of threads and
        kernels, the weights are then bit-identical to the weights of an uninterrupted run (untested
        on GPUs). The run is locked while it trains.

        Args:
            data: The run's data set, or its current path; by default the recorded path.
            until: When to stop, as a value of ``time.perf_counter()``. With the schedule
                ``trapezoid``, the learning rate falls to zero before this time.
            is_open: With the schedule ``trapezoid``, train until the time ``until``, for any number
                of epochs.
            finish: Event that ends the training early when it is set (single process only). With
                ``trapezoid``, the learning rate first falls to zero, in a tenth of the time so
                far.
            save_every_seconds: Time between checkpoints within epochs. lamina also saves after each
                epoch, unless saving would take more than 2 % of the time.

        Yields:
            These events, in this order:

            - ``Resumed``, if the training resumes;
            - ``Step``, every few steps;
            - after each epoch, once it is saved: the ``Report`` on ``val``, the ``Epoch``, and each
              new ``Diagnosis``;
            - ``EarlyEnd``, if patience or the time limit ends the training. After patience, the run
              is finished; otherwise, call this again to train the rest;
            - the ``Report`` on ``test``, or on ``val`` without a ``test`` split.

        Warns:
            LaminaWarning: A split cannot be evaluated, or software or hardware has changed.

        Raises:
            LaminaError: An argument is invalid, a file is damaged, another process trains the run,
                or the disk is full. The last checkpoint stays intact.
        """
        check_type(
            save_every_seconds,
            (Real,),
            "save_every_seconds",
            "a number of seconds",
            is_optional=False,
        )
        if not save_every_seconds >= 0:
            raise RunError(
                f"save_every_seconds is {save_every_seconds}; it must be 0 or more. Use"
                " save_every_seconds=60."
            )
        check_type(until, (Real,), "until", "a time in seconds, such as time.perf_counter() + 60")
        dataset = find_dataset(self, data)
        with ExitStack() as stack:
            # from here on, no other process changes the run
            by_leader(lambda: stack.enter_context(self.folder.lock()))
            record = self.record
            check_processes(dataset, choose_again(record.device).value)
            threads = keep_threads(record.machine.threads)
            with computing_with(threads):
                training = resume_training(self, dataset)
                by_leader(lambda: prepare_folder(self, training))
            stack.enter_context(explain_lack_of_memory(training))
            if training.steps_done:
                yield Resumed(training.steps_done, training.epochs_done, training.schedule.epochs)
            limit = TimeLimit()
            if until is not None:
                limit = TimeLimit(until, is_open and training.schedule.can_move)
            saver = Saver(training, self.folder, save_every_seconds)
            course = Course(self, training, saver, dataset, limit, finish)
            with closing(iter_computing_with(threads, course.iterate())) as events:
                # an exception thrown in here ends the loop, which saves
                for event in events:  # noqa: UP028
                    yield event

    def evaluate(self, *, data: DataLike | None = None) -> Report | None:
        """Evaluate the saved model on ``test``, else ``val``, and save report and logits.

        :meth:`train` calls this at the end, so you need it only if you stopped training early. See
        :meth:`iter_train` for ``data``.

        Returns:
            The report, or ``None`` if there are no images that can be scored.

        Warns:
            LaminaWarning: A split cannot be scored, or one of your own metrics was not passed to
                :func:`load_run`.

        Raises:
            LaminaError: The weights cannot be loaded (see :meth:`load_model`), the data is missing
                or has changed, or another process is training the run.
        """
        dataset = find_dataset(self, data)
        with self.folder.lock():
            model = self.load_model().to(choose_again(self.record.device).value)
            evaluation = evaluate_final(self, dataset, partial(predict_logits, model))
            evaluation.save(self.folder)
            return evaluation.report

    @property
    def report(self) -> Report | None:
        """The last evaluation of the saved model, or ``None``.

        Raises:
            RunError: ``report.json`` is damaged.
        """
        return self.folder.read_report()

    @property
    def outputs(self) -> dict[Split, Outputs]:
        """The saved model's logits for ``test`` and ``val``; empty before the first report.

        For regression, they are the predicted numbers in the units of the targets.

        Raises:
            RunError: ``logits.npz`` is damaged or does not fit the run.
        """
        return self.folder.load_outputs(self.record.task)

    @property
    def calibration(self) -> Calibration | None:
        """Temperatures and thresholds; ``None`` if ``val`` or the folds have too few images.

        Raises:
            RunError: ``calibration.json`` is damaged.
        """
        return self.folder.read_calibration(self.record.task)

    @property
    def task(self) -> Task:
        """The task of the saved model, with calibrated probabilities if the run has temperatures.

        Raises:
            RunError: ``calibration.json`` is damaged.
        """
        calibration = self.calibration
        return self.record.task if calibration is None else calibration.apply(self.record.task)

    @property
    def history(self) -> polars.DataFrame:
        """One row per epoch, with columns such as ``train_loss`` and ``val_accuracy``.

        Layer statistics and diagnoses are only in ``history.jsonl``.

        Raises:
            RunError: A line of ``history.jsonl`` is damaged.
        """
        return self.folder.history.frame()

    def plot(self) -> Figure:
        """The learning curves as a matplotlib figure for a notebook or ``figure.savefig(path)``.

        Raises:
            RunError: A file of the run is damaged.
        """
        from lamina.drawing.curves import draw_curves  # loads matplotlib

        report = self.report
        score = Score(self.record.task.score_name, math.nan)
        if report is not None:
            score = report.score
        return draw_curves(self.folder.history.epochs(), score, report)

    @property
    def end(self) -> str | None:
        """Why the training has ended: empty as planned, else a reason; ``None`` before its end."""
        return self.folder.history.end()

    @property
    def is_finished(self) -> bool:
        """Whether the training has ended: after its last step, by patience or on request."""
        return self.end is not None

    @property
    def epochs(self) -> int | None:
        """Number of epochs, as planned last; ``None`` while a time limit decides."""
        return count_planned(self.record, self.folder.history.epochs())

    def predictor(self, *, device: str = "auto") -> Predictor:
        """The trained model with its preprocessing, for predictions on images.

        Args:
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

        Raises:
            LaminaError: The device is missing, or any error of :meth:`load_model`.
        """
        model = self.load_model().to(choose_device(device).value)
        preparation = self.record.data.preparation
        return Predictor(model, preparation.resize, preparation.bit_depth)

    def predict(self, images: ImageLike | Iterable[ImageLike]) -> Predictions:
        """Predict images.

        Args:
            images: Paths of images, folders, archives, tables or patterns, or anything that
                :meth:`Predictor.predict` accepts.

        Returns:
            A table of predictions.

        Raises:
            LaminaError: See :meth:`load_model`.
        """
        items = list(list_images(images, self.record.in_shape))
        paths = [item for item in items if isinstance(item, str | Path)]
        if len(paths) < len(items):
            return self.predictor().predict(items)
        with ExitStack() as stack:
            files, problems = find_images(paths, stack)
            predictions = self.predictor().predict(files)
        for problem in problems:
            if problem.reason != OTHER_FILE:
                predictions.append(Prediction(problem.path, problem=problem.reason))
        return predictions

    def load_model(self) -> Model:
        """The trained model, on the CPU, in eval mode, calibrated if the run has temperatures.

        Raises:
            RunError: The weights are missing, damaged or do not fit, or your own module was not
                passed.
            NetError: The net needs timm, which is not installed.
        """
        record = self.record
        task = self.task
        net = restore_net(self)
        layers: Net | None = None
        try:
            if isinstance(net, TimmNet):
                body = net.empty_module(record.in_shape, task.outputs)
            elif isinstance(net, Net):
                layers = net.check(record.in_shape, task.outputs)
                self.folder.check_size(layers.parameter_count(record.in_shape))
                body = layers.module(record.in_shape)
            else:
                body = deepcopy(net)
            model = Model(
                body,
                net=layers,
                task=task,
                in_shape=record.in_shape,
                mean=record.mean,
                std=record.std,
            )
        # TypeError for sizes beyond 64 bits
        except (NetError, RuntimeError, TypeError, ValueError) as error:
            if record.net is None and isinstance(error, NetError):
                raise  # about the module that was passed, or timm is not installed
            raise damaged(str(self.folder.record_file), error) from error
        model.load_state_dict(self.folder.read_weights(model.state_dict()))
        model.eval()
        return model

    def __repr__(self) -> str:
        return describe_run(self)

    def _repr_html_(self) -> str:
        return show_run(self)
