"""What the page asks for about runs and their results: a class for each action."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
class OfRun:
    """An action about a run; a newer request with the same ``replaces`` replaces a waiting one."""

    run: str
    replaces: str = ""


class DescribeRun(OfRun):
    """The run with its history, net, recipe and checkpoints."""

    async def act(self, studio: Studio) -> Any:
        studio.find_run(self.run)
        arguments = (studio.data.runs_dir, self.run)
        return await studio.compute_quickly("run_views.describe_run", *arguments)


class ListCheckpoints(OfRun):
    """The epochs from which the run can continue."""

    async def act(self, studio: Studio) -> Any:
        path = studio.find_run(self.run)
        return await studio.compute_quickly("run_views.list_epochs", path)


class ShowReport(OfRun):
    """Report, confusions and largest losses."""

    async def act(self, studio: Studio) -> Any:
        path = studio.find_run(self.run)
        return await studio.compute("results.show_report", path, replaces=self.replaces)


@dataclass(frozen=True, kw_only=True)
class ShowCell(OfRun):
    """The images of a cell of a table of confusions."""

    problem: int
    truth: int
    predicted: int

    async def act(self, studio: Studio) -> Any:
        arguments = (studio.find_run(self.run), self.problem, self.truth, self.predicted)
        return await studio.compute("results.show_cell", *arguments, replaces=self.replaces)


@dataclass(frozen=True, kw_only=True)
class ShowUnits(OfRun):
    """What the units of a layer respond to."""

    layer: str

    async def act(self, studio: Studio) -> Any:
        arguments = (studio.find_run(self.run), self.layer)
        return await studio.compute("results.show_units", *arguments, replaces=self.replaces)


@dataclass(frozen=True, kw_only=True)
class OfImage(OfRun):
    """An action about an image: the bytes of a file, or an image of the run's data."""

    image: bytes | None = None
    split: str = ""
    row: int = 0

    @property
    def sight(self) -> bytes | tuple[str, int]:
        return (self.split, self.row) if self.image is None else self.image


class Look(OfImage):
    """The prediction, and the outputs of the layers."""

    async def act(self, studio: Studio) -> Any:
        arguments = (studio.find_run(self.run), self.sight)
        return await studio.compute_quickly("results.look_at", *arguments, replaces=self.replaces)


class Explain(OfImage):
    """The pixels that the prediction depends on."""

    async def act(self, studio: Studio) -> Any:
        arguments = (studio.find_run(self.run), self.sight)
        return await studio.compute("results.explain", *arguments, replaces=self.replaces)


class FindSimilar(OfImage):
    """The most similar training images."""

    async def act(self, studio: Studio) -> Any:
        arguments = (studio.find_run(self.run), self.sight)
        return await studio.compute("results.find_similar", *arguments, replaces=self.replaces)


@dataclass(frozen=True, kw_only=True)
class Compare(OfRun):
    """How other runs differ from the run."""

    others: tuple[str, ...]

    async def act(self, studio: Studio) -> Any:
        for name in (self.run, *self.others):
            studio.find_run(name)
        arguments = (studio.data.runs_dir, self.run, self.others)
        return await studio.compute("results.compare_with", *arguments, replaces=self.replaces)


class Repeat(OfRun):
    """The command and the Python that train the run again."""

    async def act(self, studio: Studio) -> Any:
        path = studio.find_run(self.run)
        function = "reproduction.describe_reproduction"
        return await studio.compute(function, path, replaces=self.replaces)


@dataclass(frozen=True, kw_only=True)
class MakeFile(OfRun):
    """Start the command that writes a file of the run."""

    file: str

    async def act(self, studio: Studio) -> dict[str, Any]:
        path = studio.find_run(self.run)
        if self.file not in MADE_FILES:
            names = " or ".join(MADE_FILES)
            raise RunError(f"The studio cannot make {self.file[:100]!r}. Choose {names}.")
        words = [MADE_FILES[self.file], str(path), str(path / self.file)]
        return studio.jobs.start(words).to_json()


class ListFiles(OfRun):
    """The sizes in bytes of the files that were made."""

    async def act(self, studio: Studio) -> dict[str, int]:
        files = [studio.find_run(self.run) / name for name in MADE_FILES]
        return {file.name: file.stat().st_size for file in files if file.exists()}
