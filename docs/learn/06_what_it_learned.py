"""
6. What a net has learned
=========================

**Question:** What has a trained net learned, and why does it predict what it
predicts?

A test accuracy does not show what a net looks for. This chapter looks at the
mistakes of a net, at its units and layers, and at maps of the pixels that a
prediction depends on. Looking at units, layers and maps can mislead, so each
has a control.
"""

import matplotlib.pyplot as plt
import numpy as np

import lamina
from lamina import Dataset, Images, Net, Preparation, Recipe, load_data
from lamina.insight.units import cut_patch
from lamina.nets import BatchNorm, Conv2d, Flatten, Linear, Output, ReLU

data = load_data("shapes", Preparation(val_fraction=0.1))
filters = [
    layer
    for channels in (16, 32, 64)
    for layer in (
        Conv2d(channels, 3, stride=2, padding="same"),
        BatchNorm(),
        ReLU(),
    )
]
net = Net(*filters, Flatten(), Linear(64), BatchNorm(), ReLU(), Output())
recipe = Recipe(epochs=8, batch_size=100, lr=0.003, translate_px=2)
run = lamina.train(data, net, recipe, progress=False)
print(run.report.score)

# sphinx_gallery_start_ignore
assert run.report.score.value > 0.6
# sphinx_gallery_end_ignore
# %%
# `translate_px=2` moves each training image at random by up to 2 pixels, so that
# the net sees each shape in more places.
#
# Which mistakes?
# ---------------
#
# **Predict:** The ten classes are arrow, circle, crescent, cross, drop, heart,
# pentagon, square, star and triangle. Which two does the net confuse most often?

confusions = lamina.find_confusions(run)
for pair in confusions.pairs[:3]:
    print(
        f"{len(pair.rows)} of {pair.images} images of {pair.target}"
        f" are predicted as {pair.predicted}"
    )

# %%
# These images of the first pair have the largest losses:

# Figure: Six small images of the class that the net confuses most often.
pair = confusions.pairs[0]
figure, axes = plt.subplots(1, 6, figsize=(8, 1.7))
for axis, row in zip(axes, pair.rows, strict=False):
    axis.imshow(data.test.pixels[row])
    axis.set(xticks=[], yticks=[])
figure.suptitle(f"{pair.target}, predicted as {pair.predicted}")

# %%
# What units respond to
# ---------------------
#
# *"Gradually, each unit becomes skilled at identifying a particular feature"*,
# says the article. A **unit** of a convolution is one of its channels. Search
# the training images for the patches that excite a unit of the third convolution
# most:

units = lamina.inspect_units(run, layer=7, most=4)
print(units.headline())
for unit in units.units:
    print(f"unit {unit.number + 1} separates {unit.describe_best()}")

# %%
# The number after the class is the area under the ROC curve: 0.5 for a unit
# that does not separate the class from the others, 1 for a unit that separates
# it perfectly. `not star` means that the unit responds to all classes except
# stars.

# Figure: Four rows of six patches. The patches of each row show similar parts of
# shapes, such as a curve in one direction, in several colors, on light and dark
# backgrounds.
figure, axes = plt.subplots(4, 6, figsize=(6, 4.2))
for line, unit in zip(axes, units.units, strict=True):
    line[0].set_ylabel(f"unit {unit.number + 1}")
    for axis, patch in zip(line, unit.patches, strict=False):
        axis.imshow(cut_patch(units.images, patch))
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])

# %%
# The patches of a unit are alike, whatever the colors, so units do detect
# features. But *a particular feature* claims too much. Even for the units that
# separate a class best, the area is far below 1. And you see only the patches
# that excite a unit most; weaker responses look different.
#
# What layers encode
# ------------------
#
# A **probe** is a linear classifier that is trained on the output of one layer.
# Its accuracy shows how much information about the classes this output
# contains. The control is the same net with random weights.
#
# **Predict:** A random net has not learned anything. How accurate are its probes?

probes = lamina.probe_layers(run)
for probe in probes.layers:
    print(
        f"{probe.name:<16} {probe.score.value:6.1%}"
        f"   random weights {probe.control.value:6.1%}"
    )

# Figure: Accuracy of the probe on each layer. For the trained net, it rises from
# 13 to almost 90 percent at the last hidden layer, and is similar at the
# output. For random weights, it rises to about 20 percent at the first two
# layers, and then falls.
figure, axis = plt.subplots(figsize=(6, 3))
names = [probe.name for probe in probes.layers]
axis.plot(
    names, [100 * p.score.value for p in probes.layers], "o-", label="trained"
)
axis.plot(
    names,
    [100 * p.control.value for p in probes.layers],
    "s--",
    label="random weights",
)
axis.set(ylabel="accuracy of the probe in %", ylim=(0, 100))
axis.tick_params(axis="x", rotation=20)
axis.legend()

# sphinx_gallery_start_ignore
trained = [probe.score.value for probe in probes.layers]
controls = [probe.control.value for probe in probes.layers]
assert trained[:-1] == sorted(trained[:-1])
assert trained[-2] > 0.7 and abs(trained[-1] - trained[-2]) < 0.08
assert max(controls[1:3]) == max(controls) > trained[0] + 0.05
assert trained[1] > controls[1] + 0.05 and controls[-1] < controls[1] - 0.05
assert trained[-1] > 1.5 * max(controls)
# sphinx_gallery_end_ignore
# %%
# The article praises *"their ability to learn features from the input data,
# without human guidance"*. The difference between the two curves shows what the
# net has learned. On the first layer, random filters have about a third of the
# gain over the pixels. Without the control, you would attribute the whole gain
# to learning. *Without human guidance* is not quite true, either: people
# labeled the images, and chose layers that suit images.
#
# Why this prediction?
# --------------------
#
# An **attribution map** shows which pixels raise the logit of a class, and
# which lower it. `lamina.explain` computes one with each of three methods:
#
# - **occlusion** covers a part of the image, and measures how the logit falls;
# - **gradients** (integrated gradients) adds up gradients on the way from an
#   image of the mean color to the explained image;
# - **grad-cam** weights the channels of the last convolution by their gradients.

outputs = run.outputs["test"]
right = np.flatnonzero(outputs.logits.argmax(axis=1) == data.test.targets)
explanation = lamina.explain(run, data.test.pixels[right[0]])

# %%
# Red pixels raise the logit, and blue pixels lower it:


# Figure: An image of a shape, and three maps of it. Occlusion and gradients mark
# places on the shape and at its outline; Grad-CAM marks large areas, most of
# them beside the shape.
def draw_maps(explanation):
    _, axes = plt.subplots(1, 1 + len(explanation.maps), figsize=(8, 2.4))
    axes[0].imshow(explanation.pixels)
    axes[0].set_title(f"predicted: {explanation.prediction.predicted}")
    for axis, (method, one) in zip(
        axes[1:], explanation.maps.items(), strict=True
    ):
        most = abs(one.values).max()
        axis.imshow(one.values, cmap="RdBu_r", vmin=-most, vmax=most)
        axis.set_title(method)
    for axis in axes:
        axis.set(xticks=[], yticks=[])


draw_maps(explanation)

# %%
# The three maps differ, although they explain the same prediction. A map can
# look plausible and still be wrong. So check each map: cover pixels in the
# order of their values in the map, and see whether the probability falls
# further than if the map is moved to a random place.

for method, one in explanation.maps.items():
    checked = one.faithfulness
    print(
        f"{method:<10} probability {checked.before:.2f},"
        f" covered in the map's order {checked.by_map:.2f},"
        f" at random places {checked.by_random_map:.2f}"
    )

# %%
# One image shows little. Repeat the check on 20 images:

better = {method: [] for method in explanation.maps}
for row in right[:20]:
    for method, one in lamina.explain(run, data.test.pixels[row]).maps.items():
        checked = one.faithfulness
        better[method].append(checked.by_random_map - checked.by_map)
for method, gains in better.items():
    print(
        f"{method:<10} better than random places for"
        f" {sum(gain > 0 for gain in gains)} of 20 images,"
        f" by {np.mean(gains):.2f} on average"
    )

# %%
# Do not believe a map that is not better than random places, however plausible it
# looks. `lamina explain` and the page of `lamina serve` print these measurements
# with every map.
#
# The wrong reason
# ----------------
#
# Maps are most useful for finding what you did not expect. Put a small mark into
# a corner of each image, with a brightness for each class. Such marks occur in
# real data: a ruler in photographs of tumors, a watermark, a date.


def add_mark(images):
    pixels = images.pixels.copy()
    for row, target in enumerate(images.targets):
        pixels[row, 28:31, 28:31] = 25 * target
    return Images.from_arrays(pixels, images.targets, images.target_names)


marked = Dataset.from_images(
    add_mark(data.train), val=add_mark(data.val), test=add_mark(data.test)
)
marked_run = lamina.train(marked, net, Recipe(epochs=3, lr=0.003), progress=False)
print(f"marked test images: {marked_run.report.score}")

# %%
# **Predict:** How accurate is this net on the same test images without the
# mark?

plain_score = lamina.evaluate(marked_run.load_model(), data.test).score
print(f"without the mark: {plain_score}")

# sphinx_gallery_start_ignore
assert marked_run.report.score.value > 0.8
assert plain_score.value < 0.4
# sphinx_gallery_end_ignore
# %%
# The test accuracy was excellent, but said nothing about shapes, because the
# test images had the mark, too. A map shows what happened:

# Figure: An image with a small gray square in its lower right corner, and three
# maps of it. Occlusion and gradients mark the corner and nothing else. Grad-CAM
# does not mark it.
marked_explanation = lamina.explain(marked_run, marked.test.pixels[right[0]])
draw_maps(marked_explanation)

# sphinx_gallery_start_ignore
for method in ("occlusion", "gradients"):
    values = marked_explanation.maps[method].values
    assert min(np.unravel_index(values.argmax(), values.shape)) >= 24
# sphinx_gallery_end_ignore
# %%
# Occlusion and gradients mark the corner and nothing else. Grad-CAM misses it: a
# single method is not enough, and neither is a single image.
#
# Try
# ---
#
# 1. Inspect the units of layers 1, 4 and 11. From which layer on do units
#    separate a class?
# 2. Remove the mark from half of the training images. Does the net learn shapes?
# 3. Explain a wrong prediction for the predicted and for the true class, with
#    `target=`. Which pixels raise both logits?
#
# Lesson 5 of the :doc:`studio </howto/studio>`, *What it learned*, shows filters
# and outputs of units during training. :doc:`Look inside a net
# </howto/explain>` continues this chapter on the command line. Chapter 7,
# :doc:`your own images </chapters/07_your_images>`, goes from a folder to a
# served model.
