"""The wheel and the sdist in an empty environment, without extras."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from lamina import __version__

pytestmark = pytest.mark.nightly  # builds packages for 20 s; a release builds them, too

ROOT = Path(__file__).parents[2]
BUILD = """
import sys
from setuptools import build_meta
folder = sys.argv[1]
build_meta.build_sdist(folder)
build_meta.build_wheel(folder)
"""
COMPILED = (".c", "-entry.js")
"""Ends of files from which others are built."""
NOT_PACKAGED = ("*.so", "__pycache__", "*.egg-info")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist of a clean copy of the checkout, and the wheel built from this sdist."""
    folder = tmp_path_factory.mktemp("packages")
    names = ["src", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"]
    unwanted = shutil.ignore_patterns(*NOT_PACKAGED)
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
        else:
            shutil.copy(ROOT / name, folder / name)
    sdist = build(folder)[0]
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return sdist, build(unpacked)[1]


def build(folder: Path, name: str = "dist", kernels: str = "auto") -> tuple[Path, Path]:
    """Build the sdist and the wheel of a project, in a folder inside it."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder / name)],
        cwd=folder,
        env={**os.environ, "LAMINA_KERNELS": kernels},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (sdist,), (wheel,) = (folder / name).glob("*.tar.gz"), (folder / name).glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def lamina(packages: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, from a wheel in an environment with nothing but what lamina depends on."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    packages_folder = Path(
        sysconfig.get_path("purelib", vars={"base": str(environment)}, scheme="venv")
    )
    with zipfile.ZipFile(packages[1]) as wheel:
        wheel.extractall(packages_folder)
    (installed,) = distributions(path=[str(packages_folder)])
    for dependency in find_dependencies(installed):
        link_distribution(dependency, packages_folder)
    (script,) = installed.entry_points.select(group="console_scripts")
    command = environment / "bin" / script.name
    command.write_text(
        f"#!{python}\nimport sys\nfrom {script.module} import {script.attr}\n"
        f"sys.exit({script.attr}())\n",
        encoding="utf-8",
    )
    command.chmod(0o755)
    return command


def find_dependencies(package: Distribution) -> Iterator[Distribution]:
    """The distributions that a package requires without extras, directly or not."""
    packages, seen = [package], set()
    while packages:
        for text in packages.pop().requires or ():
            requirement = Requirement(text)
            is_needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if is_needed and requirement.name not in seen:
                seen.add(requirement.name)
                packages.append(distribution(requirement.name))
                yield packages[-1]


def link_distribution(package: Distribution, folder: Path) -> None:
    """Make the files of an installed distribution visible in another environment."""
    for file in package.files or ():
        top = file.parts[0]
        target = folder / top
        if top not in ("..", "__pycache__") and not target.exists():
            target.symlink_to(package.locate_file(top))


def run_installed(lamina: Path, *words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "COVERAGE"))
    }
    return subprocess.run(
        [lamina, *map(str, words)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def list_sources() -> set[str]:
    """Every file of lamina, from src."""
    folder = ROOT / "src"
    unwanted = tuple(pattern.strip("*") for pattern in NOT_PACKAGED)
    return {
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.is_file() and not any(part.endswith(unwanted) for part in file.parts)
    }


def list_members(wheel: Path) -> set[str]:
    """The files of a wheel without its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def list_files(sdist: Path) -> set[str]:
    with tarfile.open(sdist) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def test_the_sdist_holds_every_file_of_lamina(packages):
    members = list_files(packages[0])
    assert {f"src/{name}" for name in list_sources()} - members == set()
    assert not any(name.startswith(("tests", "docs", "benchmarks")) for name in members)


def test_the_wheel_holds_pages_styles_and_types_and_no_tests(packages):
    members = list_members(packages[1])
    expected = {name for name in list_sources() if not name.endswith(COMPILED)}
    libraries = {name for name in members if name.endswith((".so", ".pyd"))}
    assert members - libraries == expected
    platform = sysconfig.get_platform().translate(str.maketrans("-.", "__"))
    assert packages[1].name == f"lamina-{__version__}-py3-none-{platform}.whl"


def test_a_wheel_without_c_functions_fits_every_platform(packages):
    unpacked = packages[1].parents[1]
    sdist, wheel = build(unpacked, "without", kernels="off")
    assert wheel.name == f"lamina-{__version__}-py3-none-any.whl"
    sources = {name for name in list_sources() if not name.endswith(COMPILED)}
    assert list_members(wheel) == sources
    assert list_files(sdist) == list_files(packages[0])


def test_the_installed_command_trains(lamina, image_set, tmp_path):
    trained = run_installed(
        lamina, "train", "mlp", "--data", image_set, "--epochs", "1", cwd=tmp_path
    )
    assert trained.returncode == 0, trained.stderr
    assert "test accuracy" in trained.stdout
    (run_folder,) = (tmp_path / "runs").iterdir()
    assert (run_folder / "model.safetensors").exists()


EXTRAS = {
    "export RUN net.onnx": "export",
    "serve RUN": "serve",
    "studio": "serve",
    "tune mlp --over lr=1e-4..1e-1:log --data IMAGES": "tune",
    "train timm:resnet18 --data IMAGES": "pretrained",
}
REFUSED = """
import json, sys
from lamina.cli import main
for command in json.loads(sys.argv[1]):
    print("COMMAND", file=sys.stderr)
    assert main(command.split()) == 2, command
"""


def test_a_missing_extra_is_named_with_its_command(lamina, stored_runs, image_set, tmp_path):
    places = {"RUN": str(stored_runs["finished"]), "IMAGES": str(image_set)}
    commands = [" ".join(places.get(word, word) for word in line.split()) for line in EXTRAS]
    python = lamina.with_name("python")
    done = run_installed(python, "-c", REFUSED, json.dumps(commands), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    _, *texts = done.stderr.split("COMMAND\n")
    for text, extra in zip(texts, EXTRAS.values(), strict=True):
        assert f"lamina[{extra}]" in text
