"""Events while lamina chooses how to train."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.errors import escape
from lamina.evaluation.reports import Report
from lamina.runs.overview import describe_start
from lamina.runs.record import Considered
from lamina.runs.run import Run
from lamina.studies.experiment import Candidate
from lamina.targets import Score
from lamina.text import format_table
from lamina.training.events import Diagnosis, Epoch, Event, Resumed
from lamina.training.pretrained import native_side_px


@dataclass(frozen=True)
class Decision(Event):
    """A choice and its reason, such as time, image size, recipe or pretrained weights."""

    what: str
    value: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.value}" + (f" ({self.reason})" if self.reason else "")


@dataclass(frozen=True)
class RecipeDecision(Decision):
    """The recipe of a run."""


@dataclass(frozen=True)
class FinalsDecision(Decision):
    """The end of a search, and what its finals train."""


@dataclass(frozen=True)
class ConsideredNets(Event):
    """All candidates with their verdicts. Named ``considered`` in JSON."""

    candidates: tuple[Considered, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "event": "considered",
            "candidates": [dataclasses.asdict(one) for one in self.candidates],
        }

    def __str__(self) -> str:
        rows = [
            (one.net_name, f"{one.side_px} px", str(one.epochs), f"{one.seconds:.0f}", one.verdict)
            for one in self.candidates
        ]
        return format_table(("considered", "size", "epochs", "seconds", "verdict"), rows)


@dataclass(frozen=True)
class Started(Event):
    """The start of a run, before its events.

    If a trial shows that another net is better, a second ``Started`` follows.

    Attributes:
        run: The run.
        candidate: What is trained, and its pace; ``None`` for a run that was started earlier.
    """

    run: Run
    candidate: Candidate | None = None

    def to_json(self) -> dict[str, Any]:
        record = self.run.record
        return {
            "event": "started",
            "run": str(self.run.path),
            "net": record.net_name,
            "parameters": record.parameters,
            "device": record.device.value,
            "precision": record.precision.value,
        }

    def __str__(self) -> str:
        lines = describe_start(self.run.record, has_own_statistics=self.native_side_px is not None)
        return "\n".join([*lines, f"run: {escape(str(self.run.path))}"])

    @property
    def native_side_px(self) -> int | None:
        """The image size that a timm net was pretrained on; ``None`` for other nets."""
        return native_side_px(self.run.record.timm or self.run.module)


@dataclass(frozen=True)
class ScratchTrial(Event):
    """A short training from random weights, compared with a fitted head on held-out images.

    Attributes:
        net: Name of the net.
        side_px: Side of the images.
        seconds: Time of the trial.
        images: Number of held-out images.
        loss: Mean loss of the net from scratch for them.
        head_loss: Mean loss of the fitted head.
        standard_error: Standard error of the mean difference.
    """

    net: str
    side_px: int
    seconds: float
    images: int
    loss: float
    head_loss: float
    standard_error: float

    @property
    def is_better(self) -> bool:
        """Whether the net from scratch has the lower loss, although trained only briefly."""
        return self.loss < self.head_loss

    def __str__(self) -> str:
        verdict = "from scratch is better" if self.is_better else "the pretrained net stays"
        return (
            f"trial: {self.net} from scratch at {self.side_px} px for {self.seconds:.0f} s: loss"
            f" {self.loss:.3f} on {self.images:,} held-out images, fitted head {self.head_loss:.3f}"
            f" (standard error of the difference {self.standard_error:.3f}): {verdict}"
        )


@dataclass(frozen=True)
class Seed(Event):
    """The score of one of several runs with different seeds.

    Attributes:
        seed: Seed of the recipe.
        run: Folder of the run.
        split: Split that was evaluated; ``None`` if there was none.
        metric: Name of the score.
        score: Value of the score, such as an accuracy from 0 to 1.
    """

    seed: int
    run: Path
    split: str | None
    metric: str | None
    score: float | None

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"run": str(self.run)}

    def format(self, value: float) -> str:
        """A value of this metric as text, with its name."""
        return str(Score(self.metric or "", value))

    def __str__(self) -> str:
        found = "no score" if self.score is None else f"{self.split} {self.format(self.score)}"
        return f"seed {self.seed}: {found} ({escape(str(self.run))})"


@dataclass(frozen=True)
class Seeds(Event):
    """The scores of several runs with different seeds.

    Attributes:
        runs: One ``Seed`` per run.
        mean: Mean score; ``None`` if a run has no score, because the mean of the others would be
            biased.
        interval: 95 % interval of the mean by Student's t; ``None`` for a single run.
    """

    runs: tuple[Seed, ...]
    mean: float | None
    interval: tuple[float, float] | None

    @property
    def scores(self) -> list[float | None]:
        return [one.score for one in self.runs]

    @property
    def split(self) -> str | None:
        return self.runs[0].split

    def to_json(self) -> dict[str, Any]:
        first = self.runs[0]
        return {
            "event": "seeds",
            "scores": self.scores,
            "mean": self.mean,
            "interval": self.interval and list(self.interval),
            "metric": first.metric,
            "split": first.split,
            "seeds": [one.seed for one in self.runs],
            "runs": [str(one.run) for one in self.runs],
        }

    def __str__(self) -> str:
        lines, first = [str(one) for one in self.runs], self.runs[0]
        if self.mean is None:
            lacking = ", ".join(str(one.seed) for one in self.runs if one.score is None)
            return "\n".join([*lines, f"no mean, because these seeds have no score: {lacking}"])
        text = f"mean {first.split} {first.format(self.mean)}"
        if self.interval is None:
            return "\n".join([*lines, f"{text} (no interval for a single run)"])
        low, high = (Score(first.metric or "", end).format(end) for end in self.interval)
        low = low.removesuffix(" %")
        return "\n".join(
            [*lines, f"{text} (95 % interval of the mean {low} to {high}, {len(self.runs)} runs)"]
        )


def is_about_run(event: object) -> bool:
    """Whether an event with a line of its own is about a single run, and not about a study."""
    return isinstance(event, RecipeDecision | Started | Resumed | Epoch | Diagnosis | Report)
