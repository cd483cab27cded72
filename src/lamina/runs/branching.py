"""Branches: new runs from a checkpoint of another run, with its or another recipe and net."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from lamina.data import Dataset
from lamina.errors import RecipeError, RunError
from lamina.files import read_bytes
from lamina.nets import Net
from lamina.runs.checkpoints import find_checkpoint
from lamina.runs.record import BranchedFrom, RunRecord
from lamina.runs.retraining import choose_net, find_dataset, make_training, read_initial
from lamina.runs.run import Run
from lamina.runs.run_folder import pack_checkpoint
from lamina.runs.start import create_folder
from lamina.training.checkpoint import Checkpoint
from lamina.training.loop import Training
from lamina.training.recipe import Recipe
from lamina.training.schedule import Fall


def branch_run(
    run: Run,
    epoch: float | None = None,
    *,
    recipe: Recipe | None = None,
    net: Net | None = None,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    command: Sequence[str] = (),
) -> Run:
    """Create a run that continues from a checkpoint of another one. ``run.train()`` trains it.

    With the same recipe and net, it continues to the same weights as the other run, to the last
    bit. With another optimizer, the state of the optimizer starts anew; with another batch size,
    the epoch must be complete.

    Args:
        run: The run to branch from, which stays as it is.
        epoch: Continue from the checkpoint after this epoch; by default the last one. Besides it, a
            run has the checkpoint before the fall of the learning rate, and those that the studio
            kept.
        recipe: Another recipe; by default the run's.
        net: Another net whose weights have the same names and shapes, such as one with another
            dropout probability.
        name: Name of the new run; by default date, net and a number.
        runs_dir: Folder of the new run.
        command: Recorded as the command that created the run.

    Returns:
        The new run, with the history up to the checkpoint.

    Raises:
        LaminaError: The checkpoint is missing or damaged, does not fit the net, is beyond the
            epochs of the recipe, or any error of :meth:`Run.train` before its first step.

    >>> import tempfile
    >>> from lamina import Epoch, Net, start_run
    >>> from lamina.nets import Flatten, Output
    >>> folder = tempfile.mkdtemp()
    >>> run = start_run(Net(Flatten(), Output()), "shapes", Recipe(epochs=2), runs_dir=folder)
    >>> events = run.iter_train()
    >>> next(event.epoch for event in events if isinstance(event, Epoch))  # one of two epochs
    1
    >>> events.close()
    >>> branch = branch_run(run, recipe=Recipe(epochs=2, lr=0.01), runs_dir=folder)
    >>> branch.train(progress=False).split, branch.history["lr"].to_list()
    ('test', [0.001, 0.01])
    """
    stored = run.folder.read_checkpoint(None if epoch is None else find_checkpoint(run, epoch))
    if stored is None:
        raise RunError(f"{run.path} has no checkpoint yet. Train it for at least one epoch.")
    old, dataset = run.record, find_dataset(run.folder, run.record, run.dataset)
    unchanged = _make(run, old, dataset)
    begin = round(stored.standing.steps_done / unchanged.steps_per_epoch, 3)
    if epoch not in (None, begin):  # a training has replaced it meanwhile
        raise RunError(
            f"{run.path} no longer has the checkpoint after epoch {epoch:.10g}. Choose again."
        )
    net = old.net if net is None else net.with_outputs(old.task.outputs)
    is_same = recipe in (None, old.recipe) and net == old.net
    record = dataclasses.replace(
        old,
        recipe=recipe or old.recipe,
        net=net,
        command=tuple(command),
        created=datetime.now(UTC).isoformat(timespec="microseconds"),
        considered=(),
        late_end=old.late_end if is_same or stored.standing.is_falling else None,
    )
    training = _make(run, record, dataset)
    if not is_same:
        stored = fit_checkpoint(stored, unchanged, training)
    try:
        training.restore(stored)
    except RunError as error:
        raise RunError(
            f"The net does not fit the weights of {run.path}: {error}. Change only settings without"
            " weights, such as the probability of Dropout."
        ) from error
    done = training.epochs_done
    is_over = training.recipe.epochs <= done if record.late_end is None else training.is_finished
    if is_over and not is_same:
        if record.late_end is not None:
            raise RecipeError(
                "The training was over at this checkpoint. Branch from an earlier checkpoint."
            )
        raise RecipeError(
            f"epochs is {record.epochs}, but the checkpoint is after epoch {done}. Use a number "
            f"above {done}, or an earlier checkpoint."
        )
    record = dataclasses.replace(record, branched_from=BranchedFrom(str(run.path.resolve()), begin))
    kept = [file for file in (run.folder.initial_file, run.folder.history.file) if file.exists()]
    files = {file.name: read_bytes(file) for file in kept} | {
        run.folder.checkpoint_file.name: pack_checkpoint(stored)
    }
    branch = dataclasses.replace(
        run,
        path=create_folder(Path(runs_dir), record, name, dataset, files),
        record=record,
        dataset=dataset,
    )
    branch.folder.history.trim(training.epochs_done, training.rewinds)
    return branch


def _make(run: Run, record: RunRecord, dataset: Dataset) -> Training:
    net = choose_net(run.folder, record, run.module)
    initial = read_initial(run.folder, record)
    return make_training(
        record, dataset, net, parts=run.parts, initial=initial, has_checkpoint=True
    )


def fit_checkpoint(checkpoint: Checkpoint, old: Training, new: Training) -> Checkpoint:
    """A checkpoint of ``old`` as the one from which ``new``, with another recipe, continues."""
    standing, tensors = checkpoint.standing, dict(checkpoint.tensors)
    before, after = old.recipe, new.recipe
    moves_end = (before.epochs, before.schedule, before.batch_size) != (
        after.epochs,
        after.schedule,
        after.batch_size,
    )
    if moves_end and standing.is_falling:
        raise RecipeError(
            "epochs, schedule and batch_size cannot be changed here, because the learning rate has "
            "begun to fall for the end of the training. Branch from an earlier checkpoint."
        )
    epochs_done, rest = divmod(standing.steps_done, old.steps_per_epoch)
    if rest and new.steps_per_epoch != old.steps_per_epoch:
        raise RecipeError(
            "batch_size can only be changed after a complete epoch, but this checkpoint is within "
            "one. Branch from another checkpoint."
        )
    fresh = new.checkpoint()
    groups = {name: numbers for name, numbers in fresh.standing.optimizer.items() if name.isdigit()}
    weights = {name: numbers for name, numbers in standing.optimizer.items() if not name.isdigit()}
    if before.optimizer != after.optimizer:
        tensors = {
            name: tensor for name, tensor in tensors.items() if not name.startswith("optimizer.")
        }
        weights = {}
    steps_done, plan, falls = (
        epochs_done * new.steps_per_epoch + rest,
        new.ending.plan,
        standing.falls,
    )
    if moves_end:
        falls = ()
        if plan.steps is not None and plan.is_falling(steps_done) and steps_done < plan.steps:
            falls = (Fall(steps_done, plan.steps),)  # it would have begun by now, so it begins here
    standing = dataclasses.replace(
        standing,
        steps_done=steps_done,
        rewinds=0 if before.lr != after.lr else standing.rewinds,
        optimizer=groups | weights,
        falls=falls,
    )
    return Checkpoint(tensors, standing)
