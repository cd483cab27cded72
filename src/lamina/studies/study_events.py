"""Events while lamina chooses how to train."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from lamina.errors import escape
from lamina.evaluation.reports import Report
from lamina.runs.overview import describe_start
from lamina.runs.record import Considered
from lamina.runs.run import Run
from lamina.studies.experiment import Candidate
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
        text = f"{self.what}: {self.value}"
        return f"{text} ({self.reason})" if self.reason else text


@dataclass(frozen=True)
class RecipeDecision(Decision):
    """The recipe of a run."""


@dataclass(frozen=True)
class ConsideredNets(Event):
    """All candidates with their verdicts. Named ``considered`` in JSON."""

    candidates: tuple[Considered, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "event": "considered",
            "candidates": [dataclasses.asdict(candidate) for candidate in self.candidates],
        }

    def __str__(self) -> str:
        rows = []
        for net in self.candidates:
            size = f"{net.side_px} px"
            seconds = f"{net.seconds:.0f}"
            rows.append((net.net_name, size, str(net.epochs), seconds, net.verdict))
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


def is_about_run(event: object) -> bool:
    """Whether an event with a line of its own is about a single run, and not about a study."""
    return isinstance(event, RecipeDecision | Started | Resumed | Epoch | Diagnosis | Report)
