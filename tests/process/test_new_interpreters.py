"""What only a new interpreter shows: imports, warnings, and the permissions of another user."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.images import encode, noise

LIGHT = """
import sys

def name_loaded():
    print(sorted({"torch", "numpy", "polars", "jaxtyping", "matplotlib"} & set(sys.modules)))

import lamina
name_loaded()
import lamina.nets as nets
nets.summarize(nets.parse_net("Conv2d(8, 3), Flatten(), Output()"), (3, 8, 8), 10)
name_loaded()
import lamina.data
name_loaded()
"""


def test_lamina_nets_and_data_are_imported_without_torch() -> None:
    words = [sys.executable, "-c", LIGHT]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    alone, nets, data = map(eval, done.stdout.splitlines())
    assert alone == nets == []
    assert not {"torch", "matplotlib"} & set(data)


WARN = """import numpy as np
from lamina.data import Dataset, Images
x = Images.from_arrays(np.eye(4, dtype=np.uint8)[None].repeat(2, 0), [0, 1], ["cat", "dog", "owl"])
Dataset.from_images(x, test=x)
"""


def test_warnings_are_about_the_line_of_the_caller(tmp_path: Path) -> None:
    # elsewhere jaxtyping checks types, which puts its own frames between
    (tmp_path / "warn.py").write_text(WARN)
    command = [sys.executable, "-W", "always", "warn.py"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stderr
    assert re.findall(r"\w+\.py:\d+: LaminaWarning: \w+", said) == [
        "warn.py:3: LaminaWarning: x",
        "warn.py:4: LaminaWarning: train",
        "warn.py:4: LaminaWarning: 2",
    ]


# Root can read every file, so the process becomes nobody once all is imported.
READ_AS_NOBODY = """
import os
from pathlib import Path
from lamina.data.decoding import BadImageError, read_file
if os.geteuid() == 0:
    os.seteuid(65534)
print(len(read_file(Path("yours.png"))))
try:
    read_file(Path("mine.png"))
except BadImageError as error:
    print(error)
os.seteuid(os.getuid())  # what ends with the process, such as coverage, is its owner's again
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_a_file_without_permission_says_so(tmp_path: Path) -> None:
    image = encode(noise(9, 9))
    tmp_path.chmod(0o755)
    for name, mode in (("mine.png", 0o000), ("yours.png", 0o644)):
        (tmp_path / name).write_bytes(image)
        (tmp_path / name).chmod(mode)
    ran = subprocess.run(
        [sys.executable, "-c", READ_AS_NOBODY], capture_output=True, text=True, cwd=tmp_path
    )
    assert (ran.stdout, ran.stderr) == (f"{len(image)}\npermission denied\n", "")


# EXIF data whose tag lies outside of it.
WITHOUT_WARNINGS = """
import io, struct, warnings
from PIL import Image
from lamina.data.decoding import decode_image
assert not [module for _, _, _, module, _ in warnings.filters if "PIL" in str(module)]
warnings.simplefilter("ignore")
file = io.BytesIO()
exif = b"Exif\\0\\0MM\\0*" + struct.pack(">IHHHII", 8, 1, 271, 2, 500, 9000)
Image.new("RGB", (8, 8), "red").save(file, "JPEG", exif=exif)
print(decode_image(file.getvalue()).shape)
"""


def test_damaged_exif_data_leave_the_filters_of_warnings() -> None:
    words = [sys.executable, "-c", WITHOUT_WARNINGS]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("(8, 8, 3)\n", "")
