"""The optional C functions of lamina.kernels; pyproject.toml has everything else."""

from setuptools import Extension, setup

FOLDER = "src/lamina/kernels/"
NATIVE = Extension(
    "lamina.kernels.native",  # a plain library without Python's headers, which ctypes loads
    [FOLDER + name for name in ("native.c", "baseline.c", "avx2.c", "avx512.c")],
    depends=[FOLDER + name for name in ("native.h", "vectors.h", "gather.inc", "norm_act.inc")],
    # Without the third flag, instruction sets would round differently.
    extra_compile_args=[
        "-std=c11",
        "-O3",
        "-g0",
        "-ffp-contract=off",
        "-fno-math-errno",
        "-fvisibility=hidden",
    ],
    optional=True,  # without a compiler, lamina installs and torch computes these layers
    py_limited_api=True,
)

setup(ext_modules=[NATIVE], options={"bdist_wheel": {"py_limited_api": "cp311"}})
