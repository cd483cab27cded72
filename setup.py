"""The optional C functions of lamina.kernels; pyproject.toml has everything else."""

import os

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel

LIBRARY = Extension(
    "lamina.kernels.avx512",  # a plain library without Python's headers, which ctypes loads
    ["src/lamina/kernels/norm_act.c"],
    extra_compile_args=[
        "-std=c11",
        "-O3",
        "-g0",
        "-ffp-contract=off",
        "-fno-math-errno",
        "-fvisibility=hidden",
    ],
    optional=True,  # without a compiler, lamina installs and torch computes these layers
    py_limited_api=True,  # the library's name contains no version of Python
)


class AnyPython(bdist_wheel):
    """A wheel for every version of Python: the library does not use Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """The version of Python, its ABI and the platform."""
        return "py3", "none", super().get_tag()[2]


# With LAMINA_KERNELS=off, the wheel fits every platform.
extensions = [] if os.environ.get("LAMINA_KERNELS") == "off" else [LIBRARY]
setup(ext_modules=extensions, cmdclass={"bdist_wheel": AnyPython})
