"""
7. Your own images
==================

**Question:** How do you get from a folder of images to a model that others can
use?

This chapter draws a small folder of images, so that it needs no photographs.
Each step is the same for your images: check the images, train, look at the
result, predict, export and serve. The command line has a command for each step.
"""

import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageDraw

import lamina
from lamina import Preparation, load_data
from lamina.deploy.export import check_parity, export_onnx

# %%
# A folder for each class
# -----------------------
#
# The images of a class are in a folder that is named after the class. Draw 60
# images each of bottles, bowls and mugs, on dark backgrounds:


def draw(name, rng, background):
    """An image of 48×48 pixels."""
    image = Image.new(
        "RGB", (192, 192), tuple(rng.integers(*background, 3).tolist())
    )
    pen = ImageDraw.Draw(image)
    color = tuple(rng.integers(100, 256, 3).tolist())
    x, y = rng.integers(60, 132, 2).tolist()
    size = int(rng.integers(24, 48))
    if name == "bottle":
        pen.rectangle(
            (x - size // 2, y - size // 2, x + size // 2, y + size), fill=color
        )
        pen.rectangle((x - size // 6, y - size, x + size // 6, y), fill=color)
    elif name == "bowl":
        pen.chord((x - size, y - size, x + size, y + size), 0, 180, fill=color)
    else:
        pen.rectangle(
            (x - size // 2, y - size // 2, x + size // 2, y + size), fill=color
        )
        handle = (x, y - size // 4, x + size, y + 3 * size // 4)
        pen.ellipse(handle, outline=color, width=size // 6)
    image = image.rotate(rng.uniform(-20, 20), fillcolor=image.getpixel((0, 0)))
    return image.resize((48, 48), Image.Resampling.LANCZOS)


def draw_folder(folder, count, background, seed):
    rng = np.random.default_rng(seed)
    for name in ("bottle", "bowl", "mug"):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            image = draw(name, rng, background)
            image.save(folder / name / f"{number:02}.png")


place = Path(tempfile.mkdtemp())
folder = place / "crockery"
draw_folder(folder, 60, background=(0, 80), seed=0)

# %%
# Real folders have faults. Add two: an image that was saved twice, with
# slightly different brightness, and a file that is not an image.

copy = Image.open(folder / "mug" / "07.png").point(
    lambda value: min(255, value + 8)
)
copy.save(folder / "mug" / "07-copy.png")
(folder / "bowl" / "60.png").write_text("not an image")

# Figure: Twelve drawn images on dark backgrounds: four bottles, four bowls and
# four mugs, in different colors, sizes and angles.
figure, axes = plt.subplots(3, 4, figsize=(5, 3.8))
for line, name in zip(axes, ("bottle", "bowl", "mug"), strict=True):
    line[0].set_ylabel(name)
    for number, axis in enumerate(line):
        axis.imshow(Image.open(folder / name / f"{number:02}.png"))
        axis.set(xticks=[], yticks=[])

# %%
# Check the images
# ----------------
#
# `load_data` loads the folder. If the folder has no `test` or `val`, lamina
# sets aside images for both:

data = load_data(folder)
for split, images in data.splits.items():
    print(f"{split:<6} {images.target_counts()}")

# %%
# lamina leaves out the file that is not an image. Near-duplicates are worse: if
# one is in `train` and another in `test`, the test score is too good.

duplicates = lamina.find_near_duplicates(data)
print(duplicates)

# sphinx_gallery_start_ignore
assert sum(len(images) for images in data.splits.values()) == 181
# sphinx_gallery_end_ignore
# %%
# The first pair, with the smallest distance, contains the copy. The other pairs
# are simple drawings that resemble each other: look at each pair before you
# delete an image. On the command line, `lamina data crockery` lists all
# problems, and `lamina data duplicates crockery` the near-duplicates. Delete
# the copy and the file that is not an image:

(folder / "mug" / "07-copy.png").unlink()
(folder / "bowl" / "60.png").unlink()
data = load_data(folder)

# %%
# Train
# -----
#
# `cnn-s` is a small net of convolutions and batch norm that comes with lamina.
# `lamina train --data crockery --time 3m` names no net, so lamina chooses net,
# image size and recipe to suit your images and the time limit.
#
# **Predict:** How many of the 36 test images will the net classify correctly?

run = lamina.train(
    data, "cnn-s", name="crockery", runs_dir=place / "runs", progress=False
)
print(run.report)

# sphinx_gallery_start_ignore
assert run.report.score.value > 0.6
# sphinx_gallery_end_ignore
# %%
# Read the interval, not only the score: with 36 images, it is wide. Moreover,
# the test images come from the same source as the training images. Draw 20
# other images of each class on light backgrounds, as if someone else had taken
# them.
#
# **Predict:** What accuracy will the model reach on these?

others = place / "others"
draw_folder(others, 20, background=(150, 256), seed=1)
all_images = load_data(others, Preparation(val_fraction=0, test_fraction=0)).train
other_report = lamina.evaluate(run.load_model(), all_images)
print(f"dark backgrounds: {run.report.score}")
print(f"light backgrounds: {other_report.score}")

# %%
# All training images had dark backgrounds, so the net has never seen a shape on
# a light one. A test score applies only to images like the training images.
# Collect images from all the places where the model will be used.
#
# Predict
# -------
#
# `run.predict` accepts paths, folders, arrays and PIL images. Each prediction has
# the probabilities of all classes:

new = sorted(others.glob("*/00.png"))
predictions = run.predict(new)
for path, prediction in zip(new, predictions, strict=True):
    probability = prediction.values[prediction.predicted]
    print(f"{path.parent.name}: {prediction.predicted} ({probability:.0%})")

# %%
# The article says of `model.eval()`: *"During evaluation, we don't want certain
# layers (like dropout or batch normalization) to behave differently than during
# training."* The opposite is true: these layers must behave differently. In
# training, batch norm uses the statistics of the batch, so the logits of an
# image depend on the other images. Compute them once with one other image and
# once with 35 others:

model = run.load_model()
pixels = torch.from_numpy(data.test.pixels)
with torch.no_grad():
    for mode, change in (("training", model.train), ("evaluation", model.eval)):
        change()
        alone = model(pixels[:2])[0]
        together = model(pixels)[0]
        difference = (alone - together).abs().max()
        print(f"{mode}: logits differ by {difference:.4f}")

# sphinx_gallery_start_ignore
assert difference < 0.01
# sphinx_gallery_end_ignore
# %%
# `run.predict` and all commands use evaluation mode.
#
# Export
# ------
#
# A model is of no use without its preprocessing. The article's code scales
# pixels in its data loader, so anyone who uses its model must do the same. A
# file that lamina exports accepts pixels from 0 to 255 and scales them itself.
# `lamina export RUN crockery.onnx` writes the file, and compares its
# logits with the logits of the run:

content = export_onnx(run.predictor(device="cpu"))
(place / "crockery.onnx").write_bytes(content)
print(f"{len(content) / 1e6:.1f} MB")
print(check_parity(content, run.load_model(), data.test))

# %%
# Serve
# -----
#
# `lamina serve RUN` starts a server with a page for the browser and an interface
# for programs. Start it, send an image, and stop it:

server = subprocess.Popen(
    [sys.executable, "-m", "lamina", "serve", run.path, "--port", "0", "--json"],
    stdout=subprocess.PIPE,
    text=True,
)
try:
    url = next(
        json.loads(line)["url"] for line in server.stdout if '"serving"' in line
    )
    request = urllib.request.Request(
        f"{url.rstrip('/')}/v1/predict",
        data=(folder / "mug" / "00.png").read_bytes(),
        headers={"Content-Type": "image/png"},
    )
    with urllib.request.urlopen(request) as response:
        answer = json.load(response)
finally:
    server.terminate()
    server.wait()
print(answer["predicted"], answer["predictions"][0])

# sphinx_gallery_start_ignore
assert answer["predicted"] in data.train.target_names
assert server.poll() is not None
# sphinx_gallery_end_ignore
# %%
# Only programs on your machine can reach this server. :doc:`Serving
# </howto/serve>` shows how to give other people access.
#
# Try
# ---
#
# 1. Draw half of the training images on light backgrounds. How does the score on
#    `others` change?
# 2. Train with 10 images of each class. How wide is the interval of the test
#    accuracy? Then use `lamina.cross_validate`, which tests on every image.
# 3. Photograph two cups, 20 times each. What does `lamina.explain` show: the
#    cups, or the table?
#
# Lesson 6 of the :doc:`studio </howto/studio>`, *Your own images*, does this
# with a webcam. :doc:`Training on your own images </howto/train-on-a-folder>`
# describes all options. Chapter 8, :doc:`honest numbers
# </chapters/08_honest_numbers>`, shows how far you can trust a score.
