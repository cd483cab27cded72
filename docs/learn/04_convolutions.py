"""
4. Convolutions
===============

**Question:** What does a net gain if it knows that neighboring pixels belong
together?

To an MLP, neighboring pixels are as unrelated as distant ones. A
**convolution** looks at small windows of the image, and uses the same weights
in each of them. This chapter computes one by hand, trains a net of
convolutions, shows its filters, and destroys the order of pixels that the net
relies on.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn import functional

import lamina
from lamina import Net, Preparation, Recipe, activations, load_data, summarize
from lamina.nets import Conv2d, Flatten, Linear, Output, ReLU

data = load_data("shapes", Preparation(val_fraction=0.1))

# %%
# A filter
# --------
#
# A **filter** (or kernel) is a small window of weights. It moves over the
# image. At each position, it multiplies the pixels by its weights and adds up
# the products. This one subtracts the pixels on the left from the pixels on the
# right:

row = list(data.test.targets).index(data.test.target_names.index("square"))
gray = torch.from_numpy(data.test.pixels[row]).float().mean(dim=2) / 255
edges = torch.tensor([[-1.0, 0.0, 1.0]] * 3)


def convolve(image):
    return functional.conv2d(image[None, None], edges[None, None])[0, 0]


output = convolve(gray)
by_hand = (gray[10:13, 5:8] * edges).sum()
print(f"output at row 10, column 5: {output[10, 5]:.4f}, by hand {by_hand:.4f}")

# Figure: Left, a tilted square with stripes, in gray. Right, the output of the
# filter: the left side of the square stands out as negative, its right side as
# positive; the other two sides and the stripes are fainter.
figure, axes = plt.subplots(1, 2, figsize=(6, 2.8))
axes[0].imshow(gray, cmap="gray")
axes[0].set(title="image", xticks=[], yticks=[])
most = output.abs().max()
drawn = axes[1].imshow(output, cmap="RdBu", vmin=-most, vmax=most)
axes[1].set(title="output of the filter", xticks=[], yticks=[])
figure.colorbar(drawn)

# sphinx_gallery_start_ignore
assert torch.allclose(output[10, 5], by_hand, atol=1e-5)
assert output.argmin() % output.shape[1] + 8 < output.argmax() % output.shape[1]
# sphinx_gallery_end_ignore
# %%
# *"The output is more positive when the portion of the image closely matches
# the filter"*, says the article. The output also grows with contrast. Half the
# contrast gives half the output, although the shape matches equally well:

half = convolve(0.5 + 0.5 * (gray - 0.5))
print(f"largest output {output.max():.3f}, with half contrast {half.max():.3f}")

# %%
# Move the image by 4 pixels, and the output moves by 4 pixels. A filter that
# detects something in one place detects it everywhere, without learning it
# again:

moved = convolve(gray.roll(4, dims=1))
same = torch.allclose(moved[:, 8:], output[:, 4:-4], atol=1e-5)
print("the output moves along:", same)

# sphinx_gallery_start_ignore
assert torch.allclose(half.max(), output.max() / 2, atol=1e-4)
assert same
# sphinx_gallery_end_ignore
# %%
# Stride and padding
# ------------------
#
# The **stride** is the number of pixels by which the filter moves. **Padding**
# adds zeros around the image, so that the filter fits at the border.
#
# **Predict:** What are the height and width of the output for an image of
# 32×32 pixels and a filter of 3×3 pixels?

for stride in (1, 2):
    for padding in ("valid", "same", 1):
        layer = Conv2d(16, 3, stride=stride, padding=padding)
        _, height, width = layer.out_shape((3, 32, 32))
        print(
            f"stride {stride}, padding {padding!r:<7} → {height}×{width} pixels"
        )

# %%
# `"valid"` adds no padding. With `"same"`, the output has the size of the input
# divided by the stride. lamina accepts this for every stride; PyTorch's layer
# refuses it if the stride is above 1:

try:
    torch.nn.Conv2d(3, 16, 3, stride=2, padding="same")
except ValueError as error:
    print("PyTorch:", error)

# %%
# With stride 2, `padding=1` gives the same size as `"same"`, but not the same
# numbers. It pads all sides, so that the filter is centered on rows 0, 2, 4 and
# so on. `"same"` pads only below and on the right, as Keras does, so that the
# filter is centered on rows 1, 3, 5 and so on. The article's text describes
# Keras, and its code uses PyTorch.
#
# A net of convolutions
# ---------------------
#
# An image has three channels, so each filter of the first layer has 3 · 3 · 3
# weights. The layer's output has one channel for each filter. In a stack, each
# layer sees more of the image than the layer before: its **receptive field**
# grows.

filters = [
    layer
    for channels in (16, 32, 64)
    for layer in (Conv2d(channels, 3, stride=2, padding="same"), ReLU())
]
cnn = Net(*filters, Flatten(), Linear(64), ReLU(), Output())
mlp = Net(Flatten(), Linear(128), ReLU(), Output())
summarize(cnn, data)

# %%
# **Predict:** This net has less than a quarter of the parameters of the MLP of
# chapter 2. With the same recipe, that MLP reaches an accuracy of about a
# third. What accuracy will this net reach?

recipe = Recipe(epochs=8, batch_size=100, lr=0.003)


def train(net, data):
    run = lamina.train(data, net, recipe, progress=False)
    return run, run.history["val_accuracy"][-1]


cnn_run, cnn_accuracy = train(cnn, data)
_, mlp_accuracy = train(mlp, data)
for net, accuracy in ((cnn, cnn_accuracy), (mlp, mlp_accuracy)):
    parameters = summarize(net, data).parameters
    print(f"{parameters:>7,} parameters, val {accuracy:.1%}")

# sphinx_gallery_start_ignore
assert cnn_accuracy > 1.5 * mlp_accuracy
assert 4 * summarize(cnn, data).parameters < summarize(mlp, data).parameters
# sphinx_gallery_end_ignore
# %%
# More parameters are not always better: what matters is that the layers suit
# images. There are few filters, but each is applied in many places, so the CNN
# needs more multiply-adds than the MLP.
#
# *"Notice that the number of parameters is actually fewer in our new model"*,
# the article says of its CNN. In the article's code, this is false. The CNN has
# almost twice as many, because of the `Linear` layer that follows its
# convolutions:

for name in ("mlp", "cnn"):
    costs = summarize(lamina.load_net(name), (3, 32, 32), 10)
    print(f"{name}: {costs.parameters:,} parameters")
    print(f"     {costs.multiply_adds:,} multiply-adds for an image")

# sphinx_gallery_start_ignore
article = [
    summarize(lamina.load_net(name), (3, 32, 32), 10).parameters
    for name in ("mlp", "cnn")
]
assert article[0] < article[1]
# sphinx_gallery_end_ignore
# %%
# What the filters have learned
# -----------------------------
#
# Nobody told the net what an edge is. Its filters are random at first, and
# training changes them to lower the loss. These are the 16 filters of the first
# layer, each with its output for one image:

model = cnn_run.load_model()
weights = model.body[0].weight.detach()
weights = 0.5 + 0.5 * weights / weights.abs().amax(dim=(1, 2, 3), keepdim=True)
outputs = activations(model, data.test.pixels[row : row + 1], [2])[2][0]

# Figure: 16 filters of 3×3 colored pixels, and below each its output for an image
# of a square. Some filters differ from left to right or from top to bottom, and
# their outputs show edges; some have one color, and their outputs show the area
# of the square or the background.
figure, axes = plt.subplots(4, 8, figsize=(8, 4.2))
for number in range(16):
    top = 2 * (number // 8)
    axes[top, number % 8].imshow(weights[number].permute(1, 2, 0))
    axes[top + 1, number % 8].imshow(outputs[number], cmap="gray")
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])

is_dead = (activations(model, data.test.pixels, [2])[2] == 0).all(dim=(0, 2, 3))
print(f"{is_dead.sum()} of 16 filters output 0 for all test images")

# sphinx_gallery_start_ignore
assert outputs.min() == 0
# sphinx_gallery_end_ignore
# %%
# If an output is black, its filter responds to nothing in this image. It is
# dead (chapter 2) only if it outputs 0 for all images.
#
# `lamina inspect RUN` shows more: the images and patches that each unit responds
# to most. See :doc:`Look inside a net </howto/explain>`.
#
# What the net relies on
# ----------------------
#
# A convolution assumes that neighboring pixels belong together. Remove this
# order: rearrange the pixels, in the same way for each image. No information is
# lost; the pixels only change places.

order = np.random.default_rng(0).permutation(32 * 32)


def scramble(images):
    pixels = images.pixels.reshape(len(images), -1, 3)[:, order].reshape(
        images.pixels.shape
    )
    return lamina.Images.from_arrays(pixels, images.targets, images.target_names)


scrambled = lamina.Dataset.from_images(
    scramble(data.train), val=scramble(data.val), test=scramble(data.test)
)

# Figure: Five images of shapes, and below them the same images with their pixels
# scrambled, which look like noise.
figure, axes = plt.subplots(2, 5, figsize=(7, 3))
for column in range(5):
    axes[0, column].imshow(data.test.pixels[column])
    axes[1, column].imshow(scrambled.test.pixels[column])
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])

# %%
# **Predict:** You could not recognize shapes in such images. Which net gets
# worse, and by how much?

_, scrambled_cnn = train(cnn, scrambled)
_, scrambled_mlp = train(mlp, scrambled)
print(f"CNN  val {cnn_accuracy:.1%} → {scrambled_cnn:.1%}")
print(f"MLP  val {mlp_accuracy:.1%} → {scrambled_mlp:.1%}")

# sphinx_gallery_start_ignore
assert abs(scrambled_mlp - mlp_accuracy) < 0.08
assert scrambled_cnn < 0.7 * cnn_accuracy
# sphinx_gallery_end_ignore
# %%
# To the MLP, both data sets are equally hard: the order of its 3,072 inputs
# means nothing to it, and the small difference comes from its random initial
# weights. The CNN loses its advantage. This advantage does not come from more
# layers, but from an assumption that is true for images.
#
# Try
# ---
#
# 1. Replace the strides with `MaxPool2d(2)` after each ReLU. How do the
#    accuracy and the multiply-adds change?
# 2. Evaluate the CNN on test images that are moved by 8 pixels, with `np.roll`.
#    Has it learned shapes, or shapes in their usual place?
# 3. Draw the filters before training: `lamina.training.model.build_model(cnn,
#    data.train, recipe)` is the net with its initial weights. Which filters
#    have changed most?
#
# Lesson 3 of the :doc:`studio </howto/studio>`, *Convolutions*, shows the
# outputs of the filters during training. Chapter 5, :doc:`batch norm and dropout
# </chapters/05_batch_norm_and_dropout>`, adds two layers that most nets for
# images contain.
