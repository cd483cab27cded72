"""
2. A hidden layer and its activation
====================================

**Question:** What does a layer between pixels and output add, and what does ReLU
do there?

A linear net compares an image with one template for each class. A **hidden
layer** computes new numbers from the pixels, and the output uses these.
"""

import matplotlib.pyplot as plt
import torch
from torch.nn import functional

import lamina
from lamina import Net, Preparation, Recipe, load_data, summarize
from lamina.nets import Flatten, LeakyReLU, Linear, Output, ReLU, Sigmoid, Tanh

data = load_data("shapes", Preparation(val_fraction=0.1))
recipe = Recipe(epochs=8, batch_size=100, lr=0.001)

# %%
# More weights
# ------------
#
# `Linear(128)` has 128 units. Each has a weight for every one of the 3,072
# numbers of an image. A net of such layers, with activations between them, is a
# **multilayer perceptron** (MLP).

linear = Net(Flatten(), Output())
two_linear = Net(Flatten(), Linear(128), Output())
mlp = Net(Flatten(), Linear(128), ReLU(), Output())
for net in (linear, two_linear, mlp):
    print(f"{summarize(net, data).parameters:>8,} parameters: {net}")

# %%
# **Predict:** The linear net reached an accuracy of about 13 % on new images.
# The other two nets have 13 times as many parameters. What accuracy will they
# reach on `val`?

runs = {
    "linear": lamina.train(data, linear, recipe, progress=False),
    "two linear layers": lamina.train(data, two_linear, recipe, progress=False),
    "with ReLU": lamina.train(data, mlp, recipe, progress=False),
}
accuracies = {name: run.history["val_accuracy"][-1] for name, run in runs.items()}
for name, accuracy in accuracies.items():
    print(f"{name:<18} val {accuracy:.1%}")

# sphinx_gallery_start_ignore
assert accuracies["two linear layers"] < 0.2
assert accuracies["with ReLU"] > 0.2
# sphinx_gallery_end_ignore
# %%
# Without ReLU, the second layer adds nothing but cost. A weighted sum of weighted
# sums is itself a weighted sum. One layer can replace both: multiply their
# weights.
#
# lamina numbers layers from 1, as `summarize` prints them. `model.body` is a
# PyTorch list and counts from 0, so that `model.body[1]` is layer 2.

model = runs["two linear layers"].load_model().eval()
first, second = model.body[1], model.body[2]
with torch.no_grad():
    weights = second.weight @ first.weight
    bias = second.weight @ first.bias + second.bias
    pixels = torch.from_numpy(data.test.pixels[:100])
    one_layer = model.normalize(pixels).flatten(1) @ weights.T + bias
    difference = (one_layer - model(pixels)).abs().max().item()
print(f"largest difference of the logits of 100 images: {difference:.6f}")

# sphinx_gallery_start_ignore
assert difference < 1e-3
# sphinx_gallery_end_ignore
# %%
# What an activation does
# -----------------------
#
# An **activation** is a function that is applied to each number between two
# layers. **ReLU** replaces negative numbers by 0. It has a bend, so the sum of
# several units can have several bends.
#
# To see this, fit small nets to a sine wave: one input, 16 hidden units, one
# output.


def fit(activation, steps=2000):
    torch.manual_seed(0)
    hidden = torch.nn.Linear(1, 16)
    output = torch.nn.Linear(16, 1)
    optimizer = torch.optim.Adam(
        [*hidden.parameters(), *output.parameters()], lr=0.01
    )
    x = torch.linspace(-3, 3, 100)[:, None]
    for _ in range(steps):
        y = output(activation(hidden(x)))
        loss = (y - torch.sin(2 * x + 1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return x, y.detach(), loss.item()


shown = {
    "no activation": torch.nn.Identity(),
    "ReLU": torch.relu,
    "tanh": torch.tanh,
    "square": torch.square,
}
fits = {name: fit(activation) for name, activation in shown.items()}

# Figure: A sine wave and four fits to it. Without an activation, the fit is a
# straight line. With squares, it is a parabola. With ReLU, it is a line with
# several bends near the wave. With tanh, it is smooth and hardly differs from the
# wave.
figure, axes = plt.subplots(1, 4, figsize=(10, 2.6), sharey=True)
for axis, (name, (x, y, loss)) in zip(axes, fits.items(), strict=True):
    axis.plot(x, torch.sin(2 * x + 1), color="gray", linestyle=":")
    axis.plot(x, y)
    axis.set(title=f"{name}\nmean squared error {loss:.3f}", ylim=(-1.6, 1.6))

# sphinx_gallery_start_ignore
assert fits["no activation"][2] > 0.3 and fits["square"][2] > 0.3
assert fits["ReLU"][2] < 0.1 and fits["tanh"][2] < 0.1
# sphinx_gallery_end_ignore
# %%
# What the article says
# ---------------------
#
# The article says that *"neural networks with non-linear activation functions
# are universal function approximators"*. The square is not linear, but the fit
# of the fourth net is a parabola: a sum of polynomials of degree 2 has at most
# degree 2, whatever the number of units. A net with one hidden layer and a
# continuous activation approximates every continuous function on a bounded,
# closed set if and only if the activation is not a polynomial (Leshno, Lin,
# Pinkus and Schocken 1993). The theorem says that suitable weights exist, not
# that training finds them.
#
# *"ReLU units can sometimes die if they always output 0"* is true. A unit that
# outputs 0 for all images has the gradient 0, so no step changes its weights.
# This can happen after a step that is too large.
#
# *"LeakyReLU activations fix this issue by always ensuring the gradient is
# nonzero."* LeakyReLU multiplies negative numbers by 0.01 instead of replacing
# them with 0. Train a net with three hidden layers for each activation and each
# of two learning rates. Count the second hidden layer's **dead units**, whose
# gradient is 0:

pixels = torch.from_numpy(data.train.pixels[:2000])
targets = torch.from_numpy(data.train.targets[:2000])
dead_units, val_accuracies = {}, {}
for lr in (0.001, 0.01):
    for activation in (ReLU(), LeakyReLU()):
        deep = Net(Flatten(), *[Linear(128), activation] * 3, Output())
        run = lamina.train(
            data, deep, Recipe(epochs=3, batch_size=100, lr=lr), progress=False
        )
        model = run.load_model()
        functional.cross_entropy(model(pixels), targets).backward()
        is_dead = (model.body[3].weight.grad == 0).all(dim=1)
        setting = f"lr {lr}, {activation!r}"
        dead_units[setting] = int(is_dead.sum())
        val_accuracies[setting] = run.history["val_accuracy"][-1]
        print(
            f"{setting:<21} {dead_units[setting]:>3} dead units of 128,"
            f" val {val_accuracies[setting]:.1%}"
        )

# sphinx_gallery_start_ignore
assert dead_units["lr 0.001, ReLU()"] < 64 < dead_units["lr 0.01, ReLU()"]
assert dead_units["lr 0.001, LeakyReLU()"] == 0
assert dead_units["lr 0.01, LeakyReLU()"] == 0
for activation in ("ReLU()", "LeakyReLU()"):
    assert (
        val_accuracies[f"lr 0.01, {activation}"]
        < val_accuracies[f"lr 0.001, {activation}"]
    )
# sphinx_gallery_end_ignore
# %%
# With LeakyReLU, no unit is dead, as the article says. But both nets learn less
# at the higher rate: the steps are still too large. The cause is the learning
# rate.
#
# Which activation is best?
# -------------------------
#
# **Predict:** Sigmoid and tanh are smooth; ReLU has a bend. Which net reaches
# the highest accuracy in 8 epochs?

for activation in (ReLU(), Tanh(), Sigmoid()):
    run = lamina.train(
        data, mlp.replace(ReLU, activation), recipe, progress=False
    )
    last = run.history.row(-1, named=True)
    print(
        f"{activation!r:<10} train {last['train_accuracy']:.1%}"
        f"  val {last['val_accuracy']:.1%}"
    )

# %%
# These are single runs with one seed each. Other seeds would give other weights
# and scores. :doc:`Comparing nets </howto/comparing>` shows how to find out
# which net is better.
#
# Try
# ---
#
# 1. Replace `Linear(128)` with `Linear(1024)`. Does the val accuracy rise with
#    the train accuracy?
# 2. Fit the sine with 4, 8 and 64 ReLU units. How many bends does the fit have?
# 3. Add `BatchNorm()` before each ReLU of the net with three hidden layers. How
#    many units are dead at a learning rate of 0.01?
#
# Lesson 2 of the :doc:`studio </howto/studio>`, *A hidden layer*, builds these
# nets from cards. Chapter 3, :doc:`loss, gradient and learning rate
# </chapters/03_learning_rate>`, shows how a net finds its weights.
