"""
1. Pixels and a linear net
==========================

**Question:** Can a net tell shapes apart if it only weighs the pixels?

An image is a grid of numbers. This chapter feeds these numbers into the
smallest possible net, shows the weights that the net learns, and finds out what
they can and cannot do.

You learn what weights, logits, loss and epochs are, and why images are split into
`train`, `val` and `test`.
"""

import matplotlib.pyplot as plt
import torch

import lamina
from lamina import Net, Preparation, Recipe, load_data, summarize
from lamina.nets import Flatten, Output

# %%
# An image is numbers
# -------------------
#
# `shapes` is a data set that lamina draws: ten shapes in random positions, sizes,
# angles and colors, in images of 32×32 pixels.

data = load_data("shapes", Preparation(val_fraction=0.1))

# Figure: Ten small images, one of each class: arrow, circle, crescent, cross,
# drop, heart, pentagon, square, star and triangle, in different colors, places
# and sizes, on colored backgrounds.
figure, axes = plt.subplots(2, 5, figsize=(7, 3.2))
for number, name in enumerate(data.train.target_names):
    row = list(data.train.targets).index(number)
    axes.flat[number].imshow(data.train.pixels[row])
    axes.flat[number].set(title=name, xticks=[], yticks=[])

# %%
# Each pixel has three numbers from 0 to 255, for red, green and blue. These are
# the top left four pixels of the first image:

print(data.train.pixels[0, :2, :2])
print(data.train.pixels.shape, "= images, height, width, colors")

# %%
# A linear net
# ------------
#
# `Flatten` makes a list of the 3 · 32 · 32 = 3,072 numbers of an image. `Output`
# has one **unit** for each of the ten classes. A unit multiplies each number by a
# **weight**, adds up the products, and adds one more learned number, its
# **bias**.

net = Net(Flatten(), Output())
print(summarize(net, data))

# %%
# The ten sums are called **logits**. The class with the largest logit is the
# prediction.
#
# The weights are random at first. The **loss** measures how improbable the net
# finds the true classes of a batch of images. Each training step changes the
# weights a little, so that the loss falls. One pass over all training images is
# an **epoch**.
#
# **Predict:** Guessing has an accuracy of 10 %. What accuracy will this net
# reach on images that it has not seen: under 20 %, 20 to 40 %, 40 to 55 %, or
# more?

run = lamina.train(data, net, Recipe(epochs=8, batch_size=100, lr=0.001))

# sphinx_gallery_start_ignore
assert (len(data.train), len(data.val), len(data.test)) == (7200, 800, 2000)
assert run.report.score.value < 0.2
# sphinx_gallery_end_ignore
# %%
# lamina trains the net on the 7,200 images of `train`. After each epoch, lamina
# measures loss and accuracy on the 800 images of `val`, which the net is not
# trained on. Choose nets and settings by `val`. lamina uses the 2,000 images of
# `test` once, at the end, for the final score:

print(run.report)

# %%
# The net is hardly better than guessing. In the table, the train accuracy rises
# from epoch to epoch, but the val accuracy does not: the net **memorizes** some
# of its training images, but it does not **generalize** to others.

# Figure: Two curves by epoch. Train accuracy rises from about 11 to about 23
# percent. Val accuracy stays between 10 and 15 percent.
history = run.history
figure, axis = plt.subplots(figsize=(5, 3))
axis.plot(
    history["epoch"], 100 * history["train_accuracy"], marker="o", label="train"
)
axis.plot(
    history["epoch"], 100 * history["val_accuracy"], marker="s", label="val"
)
axis.axhline(10, color="gray", linestyle=":", label="guessing")
axis.set(xlabel="epoch", ylabel="accuracy in %", ylim=(0, 30))
axis.legend()

# %%
# What the weights look like
# --------------------------
#
# Each unit has one weight for each number of the image, so its weights can be
# drawn as an image: a **template**. The logit is large if the image resembles the
# template.

model = run.load_model()
weights = model.body[1].weight.detach()
templates = weights.reshape(10, 3, 32, 32).permute(0, 2, 3, 1)
templates = 0.5 + 0.5 * templates / templates.abs().max()

# Figure: The ten templates of the linear net. All look like colored noise with
# faint blotches; none shows its shape.
figure, axes = plt.subplots(2, 5, figsize=(7, 3.2))
for axis, name, template in zip(
    axes.flat, data.train.target_names, templates, strict=True
):
    axis.imshow(template)
    axis.set(title=name, xticks=[], yticks=[])

# %%
# You cannot recognize any shape. A template fits shapes in one place, at one
# size and angle, in one color. In `shapes`, all of these are random, so no
# single template fits many stars but few hearts.
#
# What the article says
# ---------------------
#
# The article says that *"each unit applies a nonlinear transformation to a
# weighted sum of its inputs"*. Units also add a bias, and the last layer
# applies no transformation. Compute the logits of an image by hand:

pixels = data.test.pixels[:1]
inputs = model.normalize(torch.from_numpy(pixels)).flatten(1)
with torch.no_grad():
    by_hand = inputs @ weights.T + model.body[1].bias
    logits = model.eval()(torch.from_numpy(pixels))
print(by_hand.numpy().round(3))
print(logits.numpy().round(3))

# sphinx_gallery_start_ignore
assert torch.allclose(by_hand, logits, atol=1e-4)
# sphinx_gallery_end_ignore
# %%
# `model.normalize` subtracts the mean of each color over the training images,
# and divides by the standard deviation. The article scales pixels to the range
# from -1 to 1 instead. Both methods keep the inputs of the first layer small.
#
# The article computes probabilities *"via a sigmoid function"*. This is wrong
# for classes that exclude each other. The **softmax** of the logits sums to 1
# over the classes. Sigmoids do not. They suit labels if several may apply to one
# image:

print(f"sum of softmax: {logits.softmax(dim=1).sum():.2f}")
print(f"sum of sigmoid: {logits.sigmoid().sum():.2f}")

# sphinx_gallery_start_ignore
assert (
    abs(logits.softmax(dim=1).sum() - 1) < 1e-5 < abs(logits.sigmoid().sum() - 1)
)
# sphinx_gallery_end_ignore
# %%
# The article's code is correct: its net returns logits, and its loss applies the
# softmax.
#
# Try
# ---
#
# 1. Train for 30 epochs. Does the val accuracy rise with the train accuracy?
# 2. Draw a logit as an image: multiply one image by one template, pixel by
#    pixel. Which pixels raise the logit?
# 3. Would a linear net do better if all shapes were in the middle and upright?
#    Find a data set that is like this, such as `mnist`, and train the same net on
#    it.
#
# Lesson 1 of the :doc:`studio </howto/studio>`, *A linear net*, trains this net
# in the browser. Chapter 2, :doc:`a hidden layer and its activation
# </chapters/02_hidden_layer>`, puts a layer between pixels and output.
