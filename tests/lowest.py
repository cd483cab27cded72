"""Print constraints for pip: the lowest version of each dependency that pyproject.toml allows.

    python tests/lowest.py > lowest.txt && pip install --constraint lowest.txt ".[test]"

torch and torchvision are left out, because older builds for CPUs are not in the package index.
Packages that only the tests need are left out, too.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

LEFT_OUT = ("torch", "torchvision")


def main() -> None:
    """Read dependencies and extras."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    groups = [project["dependencies"], *(extras[name] for name in extras if name != "test")]
    texts = [text for group in groups for text in group]
    for text in texts:
        lowest = re.match(r"([\w.-]+)(?:\[\w+\])?>=([\d.]+)", text)
        if lowest is not None and lowest[1] not in LEFT_OUT:
            print(f"{lowest[1]}=={lowest[2]}")


if __name__ == "__main__":
    main()
