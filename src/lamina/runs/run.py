"""``Run``: a training, its progress and its results, in a folder of plain files (:mod:`lamina.runs.run_folder`)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator, Iterable
from contextlib import ExitStack, closing
from copy import deepcopy
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from lamina.data import Dataset, Images
from lamina.data.description import describe_data, describe_reading
from lamina.data.splits import Split
from lamina.errors import NetError, RunError, check_type
from lamina.evaluation.calibration import Calibration
from lamina.evaluation.image_files import ImageLike, find_images, list_images
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.predictor import Prediction, Predictions, Predictor
from lamina.evaluation.reports import Report
from lamina.files import damaged
from lamina.nets import Net
from lamina.runs.final import evaluate_final
from lamina.runs.keep import Keeper, RunEvent, explain_lack_of_memory
from lamina.runs.overview import describe_recipe, describe_run, describe_start, show_run
from lamina.runs.processes import check_place, check_processes, lead_record
from lamina.runs.progress import show_progress
from lamina.runs.record import RunRecord
from lamina.runs.retraining import choose_net, find_dataset, prepare_folder, resume_training
from lamina.runs.run_folder import RunFolder
from lamina.targets import Score
from lamina.training.device import choose_again, choose_device
from lamina.training.events import Remark, Resumed
from lamina.training.group import ALONE, Group, check_group
from lamina.training.model import Model
from lamina.training.parts import NO_PARTS, Parts
from lamina.training.pretrained import TimmNet, import_timm, native_side_px
from lamina.training.task import Task
from lamina.values import explain_call

if TYPE_CHECKING:
    import polars
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Run:
    """A run folder: where it is, and what its ``run.json`` held when it was read.

    Attributes:
        path: the folder.
        record: the content of ``run.json``.
        dataset: what it trains on, where this process has it.
        module: the user's own module, or net with own layers, before the first step, where this process has it.
        parts: the user's own functions, where this process has them.
    """

    path: Path
    record: RunRecord
    dataset: Dataset | None = field(default=None, repr=False, compare=False)
    module: Net | nn.Module | None = field(default=None, repr=False, compare=False)
    parts: Parts = field(default=NO_PARTS, repr=False, compare=False)

    @property
    def folder(self) -> RunFolder:
        """The run's files."""
        return RunFolder(self.path)

    @explain_call
    def train(
        self,
        *,
        data: Dataset | Images | str | Path | None = None,
        epochs: int | None = None,
        until: float | None = None,
        save_every_seconds: float = 60.0,
        rewind_on_nan: bool | None = None,
        on_diagnosis: str = "continue",
        group: Group = ALONE,
        progress: bool = True,
    ) -> Report | None:
        """Train from the start, or exactly from where the run was last saved, and evaluate; returns when that is done.

        The arguments and errors are those of :meth:`iter_train`; ``progress`` prints data, recipe, net and device, then
        a line for each epoch, and shows a progress bar in a terminal or a notebook. The report is ``None`` where
        nothing can be scored, or where a diagnosis ended the training.
        """
        check_group(group)
        events: Iterable[RunEvent] = self.iter_train(
            data=data,
            epochs=epochs,
            until=until,
            save_every_seconds=save_every_seconds,
            rewind_on_nan=rewind_on_nan,
            on_diagnosis=on_diagnosis,
            group=group,
        )
        if progress and group.is_leader:
            events = show_progress(self._introduce(events, data), name=self.path.name)
        for _ in events:
            pass
        return self.report

    def _introduce(
        self, events: Iterable[RunEvent], data: Dataset | Images | str | Path | None
    ) -> Generator[RunEvent, None, None]:
        """The events, and before the first what the run trains, and on what."""
        dataset = data if isinstance(data, Dataset) else self.dataset
        own = native_side_px(self.record.timm or self.module) is not None
        found = [f"data: {self.record.data.name}"]
        if dataset is not None:
            found = [*describe_data(dataset), *describe_reading(dataset)]
        start = describe_start(self.record, has_own_statistics=own)
        lines = [*found, f"recipe: {describe_recipe(self.record.recipe)}", *start]
        for number, event in enumerate(events):
            if not number:  # all checks have passed
                yield Remark("\n".join(lines))
            yield event

    @explain_call
    def iter_train(
        self,
        *,
        data: Dataset | Images | str | Path | None = None,
        epochs: int | None = None,
        until: float | None = None,
        save_every_seconds: float = 60.0,
        rewind_on_nan: bool | None = None,
        on_diagnosis: str = "continue",
        evaluates: bool = True,
        group: Group = ALONE,
    ) -> Generator[RunEvent, None, None]:
        """Train as :meth:`train` does, event by event.

        Yields a ``Step`` after some steps, and after each epoch its ``Report`` on ``val`` (where there is one), then
        its ``Epoch``, then each new ``Diagnosis``, once all are saved; epochs so short that saving would dominate are
        saved together. ``Resumed`` comes first when it resumes, and ``Rewind`` after a return to a checkpoint. Last
        comes the ``Report`` on ``test``, which is read then alone, or else on ``val``. However the loop is left, the
        run is whole, and calling this again continues to weights that are bit-identical on the same processor and
        version of torch. The run is locked meanwhile.

        An ``EarlyEnd`` comes before the last ``Report`` where ``Recipe.patience`` or the time limit ends the training;
        after patience the run is finished. Where a diagnosis ends it, nothing is evaluated on ``test``. Calling this
        again then trains the rest.

        Args:
            data: the run's data set, or where it is now; by default where it was.
            epochs: of the whole training, to make it longer: with a constant schedule without warmup.
            until: when the last step ends, as ``time.perf_counter()`` counts seconds; by default there is no limit.
            save_every_seconds: time between checkpoints; an epoch ends with one, unless saving would dominate.
            rewind_on_nan: on NaN or infinity, return to the last checkpoint with half the lr, at most 3 times; by
                default as before, which is not to.
            on_diagnosis: ``continue``, or ``stop``: end the training after a ``Diagnosis`` that is new in the run.
            evaluates: whether to evaluate and report the model after the last epoch.
            group: the processes that train it together, all of which call this; the leader writes the run, and the
                others need not have it.

        Warns:
            LaminaWarning: something cannot be written or evaluated, or something differs from when the run began.

        Raises:
            LaminaError: an argument is invalid, a file is damaged, another process trains the run, or there is no
                room; what was saved before stays.
        """
        check_type(save_every_seconds, (Real,), "save_every_seconds", "a number of seconds", is_optional=False)
        if not save_every_seconds >= 0:
            raise RunError(f"save_every_seconds was {save_every_seconds}, but must be 0 or more.")
        check_group(group)
        check_type(until, (Real,), "until", "a time of time.perf_counter()")
        if on_diagnosis not in ("continue", "stop"):
            raise RunError(f"on_diagnosis was {on_diagnosis!r:.60}, but is continue or stop.")
        folder = self.folder
        dataset = find_dataset(folder, self.record, self.dataset if data is None else data, group)
        check_place(self.path, group)
        with ExitStack() as stack:

            def lock() -> bytes:
                stack.enter_context(folder.lock())
                return b""

            group.lead(lock)  # from here on, nobody else changes the run
            record = lead_record(group, folder.read_record)
            check_processes(record, group)
            training = resume_training(folder, record, dataset, self.module, epochs, group, self.parts)
            stack.enter_context(explain_lack_of_memory(training))

            def update() -> RunRecord:
                prepare_folder(folder, record, training)
                rewinds = record.rewind_on_nan if rewind_on_nan is None else rewind_on_nan
                recipe = dataclasses.replace(training.recipe, compile=record.recipe.compile)
                updated = dataclasses.replace(record, recipe=recipe, rewind_on_nan=rewinds)
                if updated != record:
                    folder.replace_record(updated)
                return updated

            record = lead_record(group, update)
            if training.steps_done:
                yield Resumed(training.steps_done, training.epochs_done, training.recipe.epochs)
            stops = on_diagnosis == "stop"
            keeper = Keeper(
                *(training, folder, record, dataset, save_every_seconds, until, stops, evaluates, group),
                metrics=self.parts.metrics,
            )
            with closing(keeper.train()) as events:
                for event in events:  # noqa: UP028  # what is thrown in here leaves the loop, and all is saved
                    yield event

    @explain_call
    def evaluate(self, *, data: Dataset | Images | str | Path | None = None) -> Report | None:
        """Evaluate the saved model as it is now on ``test``, else on ``val``; save report, logits and figures.

        :meth:`train` ends with this; here it is for a training that was stopped before its last epoch. ``None`` if
        there are no images that can be scored. ``data`` is as for :meth:`iter_train`.

        Warns:
            LaminaWarning: a split cannot be scored, or a metric of your own was not given to :func:`load_run`.

        Raises:
            LaminaError: as :meth:`load_model`, the data is not there or has changed, or another process trains the run.
        """
        dataset = find_dataset(self.folder, self.record, self.dataset if data is None else data)
        with self.folder.lock():
            run = dataclasses.replace(self, record=self.folder.read_record())
            model = run.load_model().to(choose_again(run.record.device).value)
            return evaluate_final(self.folder, run.record, model, dataset, metrics=self.parts.metrics)

    @property
    def report(self) -> Report | None:
        """The last evaluation of the saved model; ``None`` while there is none.

        Raises:
            RunError: its file is damaged.
        """
        return self.folder.read_report()

    @property
    def outputs(self) -> dict[Split, Outputs]:
        """The logits of the saved model for ``test`` and ``val``, by split; empty while there is no report.

        Of a regression, they are the predicted numbers, in the units of the targets.

        Raises:
            RunError: the file is damaged, or does not fit the run.
        """
        return self.folder.load_outputs(self.record.task)

    @property
    def calibration(self) -> Calibration | None:
        """The temperatures of the saved model's probabilities; ``None`` where it had no ``val`` to fit them to.

        Raises:
            RunError: the file is damaged.
        """
        return self.folder.read_calibration(self.record.task)

    @property
    def task(self) -> Task:
        """What the saved model predicts; its probabilities are calibrated if the run is.

        Raises:
            RunError: ``calibration.json`` is damaged.
        """
        calibration = self.calibration
        return self.record.task if calibration is None else self.record.task.with_temperatures(calibration.temperatures)

    @property
    def history(self) -> polars.DataFrame:
        """The epochs so far: a row for each, a column for each number, such as ``train_loss`` and ``val_accuracy``.

        What else an epoch has, its layers and diagnoses, is in ``history.jsonl``.

        Raises:
            RunError: a line of ``history.jsonl`` is damaged.
        """
        return self.folder.history.frame()

    def plot(self) -> Figure:
        """The learning curves as a matplotlib figure, which a notebook shows; ``figure.savefig(path)`` saves it.

        Raises:
            RunError: a file of the run is damaged.
        """
        from lamina.drawing.curves import draw_curves  # loads matplotlib

        name, kind, report = self.record.net_name, self.record.task.kind, self.report
        score = Score(kind.score_name, math.nan, not kind.has_classes) if report is None else report.score
        reports = {} if report is None else {name: [report]}
        return draw_curves({name: [self.folder.history.epochs()]}, score, reports=reports)

    @property
    def early_end(self) -> str | None:
        """Why the training ended before its last epoch, where ``Recipe.patience`` ended it; else ``None``."""
        return self.folder.history.early_end()

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done, or ``Recipe.patience`` ended the training."""
        return self.early_end is not None or len(self.folder.history.epochs()) == self.record.recipe.epochs

    @explain_call
    def predictor(self, *, device: str = "auto") -> Predictor:
        """The trained model with everything needed to use it on images.

        ``device`` is ``auto``, ``cpu``, ``cuda`` or ``mps``.

        Raises:
            LaminaError: as :meth:`load_model`, or the device is not there.
        """
        model = self.load_model().to(choose_device(device).value)
        return Predictor(model, self.record.data.preparation.resize)

    @explain_call
    def predict(self, images: ImageLike | Iterable[ImageLike]) -> Predictions:
        """The predictions for paths of images, folders of them, and patterns such as ``photos/*.jpg``, as a table.

        Takes whatever else :meth:`Predictor.predict` takes, such as arrays.

        Raises:
            LaminaError: as :meth:`load_model`.
        """
        given = [images] if isinstance(images, str | Path) else list(list_images(images, self.record.in_shape))
        paths = [one for one in given if isinstance(one, str | Path)]
        if len(paths) < len(given):
            return self.predictor().predict(given)
        files, problems = find_images(paths)
        not_found = [Prediction(problem.path, problem=problem.reason) for problem in problems]
        found = self.predictor().predict(files)
        found.extend(not_found)
        return found

    def replace_record(self, record: RunRecord) -> Run:
        """The run with another ``run.json``; report and logits, which it outdates, are removed."""
        if record != self.record:
            self.folder.replace_record(record)
        return dataclasses.replace(self, record=record)

    def load_model(self) -> Model:
        """The trained model, on the CPU, in eval mode; its task's probabilities are calibrated if the run is.

        Raises:
            RunError: the weights are missing, damaged or do not fit, or a module is missing.
            NetError: the net is timm's, which is not installed.
        """
        record, task = self.record, self.task
        net = choose_net(self.folder, record, self.module)
        if isinstance(net, TimmNet):
            import_timm()
        try:
            if isinstance(net, TimmNet):
                body = net.empty_module(record.in_shape, record.task.outputs)
            elif isinstance(net, Net):
                net = net.check(record.in_shape, record.task.outputs)
                body = net.module(record.in_shape)
            else:
                body = deepcopy(net)
            layers = net if isinstance(net, Net) else None
            model = Model(body, net=layers, task=task, in_shape=record.in_shape, mean=record.mean, std=record.std)
        except (NetError, RuntimeError, TypeError, ValueError) as error:  # sizes beyond 64 bits are of a wrong type
            if record.own_module is not None and isinstance(error, NetError):
                raise  # about what was given
            raise damaged(str(self.folder.record_file), error) from error
        model.load_state_dict(self.folder.read_weights(model.state_dict()))
        return model.eval()

    def __repr__(self) -> str:
        return describe_run(self.folder, self.record)

    def _repr_html_(self) -> str:
        return show_run(self.folder, self.record)
