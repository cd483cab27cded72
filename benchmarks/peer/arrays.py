"""Loads images into uint8 arrays with another library; prints the seconds without the imports."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

who, source, size_text, cache = sys.argv[1:]
size_px = int(size_text) or None
BATCH_SIZE = 250


def with_torchvision(folder: Path, workers: int) -> list[np.ndarray]:
    import torch
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    fit = [transforms.Resize(size_px), transforms.CenterCrop(size_px)] if size_px else []
    transform = transforms.Compose([*fit, transforms.PILToTensor()])
    arrays = []
    global start
    start = time.perf_counter()
    for split in sorted(folder.iterdir()):
        folder_images = ImageFolder(split, transform)
        batches = DataLoader(folder_images, BATCH_SIZE, num_workers=workers)
        arrays.append(torch.cat([images for images, _ in batches]).numpy())
    return arrays


def with_datasets(path: Path) -> list[np.ndarray]:
    import datasets
    from PIL import Image, ImageOps

    datasets.disable_progress_bars()

    def fit(image: Image.Image) -> np.ndarray:
        image = image.convert("RGB")
        return np.asarray(ImageOps.fit(image, (size_px, size_px)) if size_px else image)

    global start
    start = time.perf_counter()
    if path.suffix == ".parquet":
        files = {"train": str(path)}
        splits = datasets.load_dataset("parquet", data_files=files, cache_dir=cache)
        splits = splits.cast_column("image", datasets.Image())
    else:
        splits = datasets.load_dataset("imagefolder", data_dir=str(path), cache_dir=cache)
    arrays = []
    for split in splits.values():
        batches = split.iter(BATCH_SIZE)
        arrays.append(
            np.concatenate(
                [np.stack([fit(image) for image in batch["image"]]) for batch in batches]
            )
        )
    return arrays


start = time.perf_counter()
if who == "datasets":
    found = with_datasets(Path(source))
else:
    found = with_torchvision(Path(source), int(who.removeprefix("torchvision-")))
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "images": sum(map(len, found))}))
