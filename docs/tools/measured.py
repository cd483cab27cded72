"""Measured values from ``docs/numbers.toml``, which pages write as ``{{ name }}``."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "numbers.toml"


def load_numbers(file: Path = FILE) -> dict[str, dict[str, Any]]:
    """The numbers by name, each with its value, unit and the conditions of its measurement."""
    document = tomllib.loads(file.read_text(encoding="utf-8"))
    numbers: dict[str, dict[str, Any]] = {}
    for measurement in document["measurement"]:
        conditions = {key: value for key, value in measurement.items() if key != "numbers"}
        for name, number in measurement["numbers"].items():
            if name in numbers:
                raise ValueError(f"{file.name} has two numbers called {name}.")
            numbers[name] = {**conditions, **number}
    return numbers


def show(number: dict[str, Any]) -> str:
    """The value with its unit, as pages show it."""
    return f"{number['value']} {number['unit']}".strip()


def substitutions() -> dict[str, str]:
    return {name: show(number) for name, number in load_numbers().items()}
