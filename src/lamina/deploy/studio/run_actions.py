"""What the page asks for about runs and their results: a class for each action."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lamina.deploy.studio.studio import Studio
from lamina.errors import RunError

# in a run, made by these commands, and downloaded
MADE_FILES = {"report.html": "report", "model.onnx": "export"}


@dataclass(frozen=True)
class ListRuns:
    """All runs, the newest first."""

    async def act(self, studio: Studio) -> Any:
        return await studio.compute_quickly("run_views.list_runs", studio.data.runs_dir)


@dataclass(frozen=True)
class DescribeRun:
    """A run with its history, net, recipe and checkpoints."""

    run: str

    async def act(self, studio: Studio) -> Any:
        studio.find_run(self.run)
        arguments = (studio.data.runs_dir, self.run)
        return await studio.compute_quickly("run_views.describe_run", *arguments)


@dataclass(frozen=True)
class ListCheckpoints:
    """The epochs from which a run can continue."""

    run: str

    async def act(self, studio: Studio) -> Any:
        return await studio.compute_quickly("run_views.list_epochs", studio.find_run(self.run))


@dataclass(frozen=True)
class OfRun:
    """An action that calls ``function`` with the folder of a run, and with more ``arguments``.

    A newer request with the same ``replaces`` takes the place of one that still waits.
    """

    run: str
    replaces: str = ""
    function: ClassVar[str]

    @property
    def arguments(self) -> tuple[Any, ...]:
        return ()

    async def act(self, studio: Studio) -> Any:
        arguments = (studio.find_run(self.run), *self.arguments)
        return await studio.compute(self.function, *arguments, replaces=self.replaces)


class ShowReport(OfRun):
    """Report, confusions and largest losses."""

    function = "results.show_report"


class Repeat(OfRun):
    """The command and the Python that train the run again."""

    function = "reproduction.describe_reproduction"


@dataclass(frozen=True, kw_only=True)
class ShowCell(OfRun):
    """The images of a cell of a table of confusions."""

    problem: int
    truth: int
    predicted: int
    function = "results.show_cell"

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.problem, self.truth, self.predicted


@dataclass(frozen=True, kw_only=True)
class ShowUnits(OfRun):
    """What the units of a layer respond to."""

    layer: str
    function = "results.show_units"

    @property
    def arguments(self) -> tuple[Any, ...]:
        return (self.layer,)


@dataclass(frozen=True, kw_only=True)
class OfImage(OfRun):
    """An action about an image: the bytes of a file, or an image of the run's data."""

    image: bytes | None = None
    split: str = ""
    row: int = 0

    @property
    def arguments(self) -> tuple[Any, ...]:
        return ((self.split, self.row) if self.image is None else self.image,)


class Explain(OfImage):
    """The pixels that the prediction depends on."""

    function = "results.explain"


class FindSimilar(OfImage):
    """The most similar training images."""

    function = "results.find_similar"


class Look(OfImage):
    """The prediction, and the outputs of the layers."""

    async def act(self, studio: Studio) -> Any:
        arguments = (studio.find_run(self.run), *self.arguments)
        return await studio.compute_quickly("results.look_at", *arguments, replaces=self.replaces)


@dataclass(frozen=True, kw_only=True)
class Compare(OfRun):
    """How other runs differ from the run."""

    others: tuple[str, ...]
    function = "results.compare_with"

    async def act(self, studio: Studio) -> Any:
        for name in (self.run, *self.others):
            studio.find_run(name)
        arguments = (studio.data.runs_dir, self.run, self.others)
        return await studio.compute(self.function, *arguments, replaces=self.replaces)


@dataclass(frozen=True)
class MakeFile:
    """Start the command that writes a file of a run."""

    run: str
    file: str

    async def act(self, studio: Studio) -> dict[str, Any]:
        path = studio.find_run(self.run)
        if self.file not in MADE_FILES:
            names = " or ".join(MADE_FILES)
            raise RunError(f"The studio cannot make {self.file[:100]!r}. Choose {names}.")
        words = [MADE_FILES[self.file], str(path), str(path / self.file)]
        return studio.jobs.start(words).to_json()


@dataclass(frozen=True)
class ListFiles:
    """The sizes in bytes of the files that were made."""

    run: str

    async def act(self, studio: Studio) -> dict[str, int]:
        files = [studio.find_run(self.run) / name for name in MADE_FILES]
        return {file.name: file.stat().st_size for file in files if file.exists()}


ACTIONS = {
    "runs": ListRuns,
    "run": DescribeRun,
    "checkpoints": ListCheckpoints,
    "report": ShowReport,
    "cell": ShowCell,
    "units": ShowUnits,
    "look": Look,
    "explain": Explain,
    "similar": FindSimilar,
    "compare": Compare,
    "repeat": Repeat,
    "make": MakeFile,
    "files": ListFiles,
}
