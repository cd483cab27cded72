"""
3. Loss, gradient and learning rate
===================================

**Question:** How does a net find its weights, and how large should each step be?

A net begins with random weights. Training changes them step by step, so that the
loss falls. This chapter computes a step by hand, draws the loss around the path
of a training run, and tries learning rates from far too low to far too high.
"""

import matplotlib.pyplot as plt
import torch
from torch.nn import functional

from lamina import Epoch, Net, Preparation, Recipe, Training, load_data
from lamina.nets import Flatten, Linear, Output, ReLU
from lamina.training.model import build_model

data = load_data("shapes", Preparation(val_fraction=0.1))
net = Net(Flatten(), Linear(32), ReLU(), Output())

# %%
# Loss
# ----
#
# The softmax turns logits into probabilities. The **cross-entropy** of an image
# is the negative logarithm of the probability that the net gives to the true
# class: 0 if the net is certain and right, and large if it is certain and
# wrong.

for probability in (0.99, 0.5, 0.1, 0.01):
    loss = -torch.tensor(probability).log()
    print(f"probability of the true class {probability:<5} loss {loss:.2f}")

# %%
# A new net has not learned anything, so each of the ten classes has a
# probability of about 0.1, and the loss is about ln 10 = 2.30.
#
# The loss function *"returns a single number for each observation"*, the
# article says. PyTorch's loss returns the mean over the batch, unless you ask
# for `reduction="none"`:

torch.manual_seed(0)
model = build_model(net, data.train, Recipe())
pixels = torch.from_numpy(data.train.pixels[:1000])
targets = torch.from_numpy(data.train.targets[:1000])
logits = model(pixels)
losses = functional.cross_entropy(logits, targets, reduction="none")
loss = functional.cross_entropy(logits, targets)
print(f"mean of {len(losses)} losses: {losses.mean():.4f}; the loss: {loss:.4f}")

# sphinx_gallery_start_ignore
assert abs(losses.mean() - loss) < 1e-4
assert abs(loss - 2.3026) < 0.6
# sphinx_gallery_end_ignore
# %%
# Gradient
# --------
#
# The **gradient** shows how much the loss changes with each weight.
# `loss.backward()` computes it for all weights at once. Check the gradient of
# one weight: change the weight a little, and divide the change of the loss by
# the change of the weight.

weight = model.body[3].weight
before = weight.detach().clone()
loss.backward()
change = 0.01
with torch.no_grad():
    weight[0, 0] += change
    changed_loss = functional.cross_entropy(model(pixels), targets)
    weight[0, 0] -= change
    print("requires_grad within no_grad:", weight.requires_grad)
measured = (changed_loss - loss) / change
print(f"gradient {weight.grad[0, 0]:.5f}, measured {measured:.5f}")

# sphinx_gallery_start_ignore
assert abs(weight.grad[0, 0] - measured) < 0.05 * abs(weight.grad[0, 0])
with torch.no_grad():
    assert weight.requires_grad and not (weight * 1).requires_grad
# sphinx_gallery_end_ignore
# %%
# `torch.no_grad()` does not *"temporarily set all requires_grad flags to False"*,
# as the article says. It stops PyTorch from recording operations.
#
# The error is *"propagated backward through the network, adjusting each set of
# weights"*, says the article. These are two separate steps.
# **Backpropagation** computes gradients and changes no weight. The **optimizer**
# changes the weights. The simplest one, stochastic gradient descent (SGD),
# subtracts the gradient times the **learning rate**, `lr`:

print("weights changed by backward():", not torch.equal(weight, before))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
optimizer.step()
step = (weight - before)[0, 0].item()
print(f"step {step:.6f} = -0.1 · {weight.grad[0, 0]:.6f}")

# sphinx_gallery_start_ignore
assert abs(step + 0.1 * weight.grad[0, 0]) < 1e-6
# sphinx_gallery_end_ignore
# %%
# `optimizer.step()` *"takes a step in the opposite direction of the gradient"*.
# This is true for SGD, but the article uses Adam. Adam divides each gradient by
# its recent magnitude. Its first step has about the size `lr` for every weight,
# whether its gradient is large or small:

torch.manual_seed(0)
model = build_model(net, data.train, Recipe())
weight = model.body[3].weight
before = weight.detach().clone()
functional.cross_entropy(model(pixels), targets).backward()
torch.optim.Adam(model.parameters(), lr=0.001).step()
sizes = weight.grad.abs()
steps = (weight.detach() - before).abs()
moved = sizes > 1e-5
print(f"gradients from {sizes[moved].min():.5f} to {sizes.max():.5f}")
print(f"steps     from {steps[moved].min():.5f} to {steps.max():.5f}")

# sphinx_gallery_start_ignore
assert steps.max() < 0.00101
assert steps[moved].min() > 0.0009
# sphinx_gallery_end_ignore
# %%
# The loss surface
# ----------------
#
# The loss is a function of all weights: 98,666 in this net. You cannot draw
# such a function, but you can draw a slice of it. Train the net with SGD at
# three learning rates, always from the same initial weights, and keep the
# weights after each step. This is the loop of the article, with a batch of 100
# images in each step:


def train(lr, steps=400):
    torch.manual_seed(0)
    model = build_model(net, data.train, Recipe())
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    order = torch.Generator().manual_seed(0)
    path = [torch.nn.utils.parameters_to_vector(model.parameters()).detach()]
    for _ in range(steps):
        rows = torch.randint(len(data.train), (100,), generator=order)
        optimizer.zero_grad()
        loss = functional.cross_entropy(
            model(torch.from_numpy(data.train.pixels[rows])),
            torch.from_numpy(data.train.targets[rows]),
        )
        loss.backward()
        optimizer.step()
        path.append(
            torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        )
    return torch.stack(path)


paths = {lr: train(lr) for lr in (0.01, 0.1, 0.3)}

# %%
# The slice is the plane through the start and the ends of two paths. The first
# direction leads from the start to one end. The second direction is at right
# angles to it. Compute the loss of 1,000 training images on a grid in the
# plane:

start = paths[0.1][0]
first = paths[0.1][-1] - start
first = first / first.norm()
second = paths[0.3][-1] - start
second = second - (second @ first) * first
second = second / second.norm()
places = {
    lr: torch.stack([(path - start) @ first, (path - start) @ second], dim=1)
    for lr, path in paths.items()
}
everything = torch.cat(list(places.values()))
low, high = everything.min(dim=0).values, everything.max(dim=0).values
margin = 0.25 * (high - low)
x = torch.linspace(
    *(low - margin)[[0]].tolist(), *(high + margin)[[0]].tolist(), 30
)
y = torch.linspace(
    *(low - margin)[[1]].tolist(), *(high + margin)[[1]].tolist(), 30
)
surface = torch.empty(len(y), len(x))
with torch.no_grad():
    for row, up in enumerate(y):
        for column, right in enumerate(x):
            weights = start + right * first + up * second
            torch.nn.utils.vector_to_parameters(weights, model.parameters())
            surface[row, column] = functional.cross_entropy(
                model(pixels), targets
            )

# Figure: Contours of the loss in a plane of weights, with three paths from the
# same start. The path with the learning rate 0.01 is short. The path with 0.1
# leads straight to a region of low loss. The path with 0.3 leads elsewhere in
# small zigzags and ends in a region of higher loss.
figure, axis = plt.subplots(figsize=(6.5, 4.5))
filled = axis.contourf(x, y, surface.clamp(max=4), levels=30, cmap="viridis")
figure.colorbar(filled, label="loss of 1,000 training images")
colors = ("white", "orange", "red")
for (lr, place), color in zip(places.items(), colors, strict=True):
    axis.plot(
        *place.T,
        color=color,
        linewidth=1,
        marker=".",
        markersize=2,
        label=f"lr {lr}",
    )
axis.plot(0, 0, "wo", label="start")
axis.set(xlabel="first direction", ylabel="second direction")
axis.legend(facecolor="gray", labelcolor="white")

# sphinx_gallery_start_ignore
ends, detours = {}, {}
for lr, place in places.items():
    torch.nn.utils.vector_to_parameters(paths[lr][-1], model.parameters())
    with torch.no_grad():
        ends[lr] = functional.cross_entropy(model(pixels), targets).item()
    length = place.diff(dim=0).norm(dim=1).sum()
    detours[lr] = (length / (place[-1] - place[0]).norm()).item()
assert ends[0.1] + 0.05 < min(ends[0.01], ends[0.3])
assert detours[0.3] > detours[0.1] + 0.1
# sphinx_gallery_end_ignore
# %%
# The darker the color, the lower the loss. With 0.01, 400 steps are too few to
# reach a low loss. With 0.1, the path descends steadily. With 0.3, the steps
# are so large that the path zigzags, and its end is higher than the end of the
# path with 0.1.
#
# The slice is a simplification: most points of the paths are not in the plane,
# and the figure shows their projections onto it.
#
# The ends differ, although data and start are the same. A large learning rate
# *"may not find the global minimum of the loss function"*, says the article. No
# learning rate guarantees it, large or small: the loss of a net with hidden
# layers has many valleys.
#
# How large a step?
# -----------------
#
# **Predict:** Adam trains the net for 5 epochs with eight learning rates, from
# 0.00001 to 0.1. Sketch the final loss against the learning rate. Where is it
# lowest, and what happens at the ends?

rates = (0.00001, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
first_losses, losses = [], []
for lr in rates:
    training = Training(net, data.train, Recipe(epochs=5, batch_size=100, lr=lr))
    epochs = [event for event in training if isinstance(event, Epoch)]
    first_losses.append(epochs[0].train_loss)
    losses.append(epochs[-1].train_loss)
    print(
        f"lr {lr:<7} epoch 1: loss {first_losses[-1]:.3f},"
        f" epoch 5: {losses[-1]:.3f}"
    )

# Figure: The loss of epoch 5 against the learning rate. It falls from 2.3 at
# 0.00001 to its lowest value near 0.003, and then rises. Only at 0.1 is it
# above the loss of guessing.
figure, axis = plt.subplots(figsize=(5.5, 3))
axis.loglog(rates, losses, marker="o")
axis.axhline(2.3026, color="gray", linestyle=":", label="guessing")
axis.set(xlabel="learning rate", ylabel="loss of epoch 5")
axis.set_yticks([2, 2.5, 3], ["2", "2.5", "3"])
axis.minorticks_off()
axis.legend()

# sphinx_gallery_start_ignore
best = rates[losses.index(min(losses))]
assert best in (0.001, 0.003)
assert 2.2 < losses[0] < first_losses[0]
assert all(first > 2.5 for first in first_losses[-3:])
assert min(losses) + 0.03 < losses[-3] < losses[-2] < 2.3 < 2.4 < losses[-1]
# sphinx_gallery_end_ignore
# %%
# - **Too low:** the loss falls, but so slowly that 5 epochs are not enough.
# - **Right:** the loss falls fastest over the five epochs.
# - **Too high:** the steps overshoot. The loss jumps in epoch 1, and after
#   epoch 5 it is still higher than with a smaller rate. With 0.1, it is worse
#   than guessing. Even larger steps end in NaN; lamina then stops and names the
#   layer.
#
# The best rate depends on net, optimizer, batch size and length of training. It
# is therefore the first setting to tune. `lamina tune NET --over
# lr=1e-4..1e-1:log` finds it; see :doc:`Tuning </howto/tuning>`.
#
# Most of lamina's recipes lower the rate towards the end of training: large
# steps first, to get far, and small ones at the end, to settle.
# `schedule="cosine"` is one way.
#
# Try
# ---
#
# 1. Train with `Recipe(epochs=5, lr=0.003, schedule="cosine")`. Is the loss lower
#    than without the schedule?
# 2. Halve the batch size. Does the best learning rate change?
# 3. Leave out `optimizer.zero_grad()` in `train`. PyTorch then adds each
#    gradient to the previous ones. Draw the paths again.
#
# Chapter 4, :doc:`convolutions </chapters/04_convolutions>`, changes the net
# instead of the training.
