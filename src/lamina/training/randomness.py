"""Random generators seeded by purpose and step only, so that training resumes exactly."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

SEEDING = threading.RLock()
"""torch has one generator per process, which all threads share."""


def derive_seed(seed: int, purpose: str, index: int = 0) -> int:
    """A 63-bit seed for a ``purpose``, such as ``"order"``, and an epoch or step ``index``."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def derive_generator(seed: int, purpose: str, index: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, purpose, index))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators in the block and restore them afterwards; one thread at a time."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        torch.cuda.init()
        generators.append(torch.cuda.default_generators[device.index or 0])
    with SEEDING:
        states = [generator.get_state() for generator in generators]
        for generator in generators:
            generator.manual_seed(seed)
        try:
            yield
        finally:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)


@contextmanager
def drawing_weights(seed: int) -> Iterator[None]:
    """Let torch draw the initial weights that follow from a recipe's seed in the block."""
    with seeded(derive_seed(seed, "weights"), torch.device("cpu")):
        yield


@contextmanager
def seeded_everywhere(seed: int, device: torch.device) -> Iterator[None]:
    """Like :func:`seeded`, but also for NumPy and Python, which custom functions may use."""
    with seeded(seed, device):
        numpy_state = np.random.get_state()
        python_state = random.getstate()
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)
