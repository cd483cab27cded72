"""
5. Batch norm and dropout
=========================

**Question:** Do batch norm and dropout make a net better, and how do you know?

Many nets for images contain these layers. This chapter computes by hand what
they do, trains nets with and without them over several seeds, and tests the
reasons that the article gives.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import lamina
from lamina import Dataset, Net, Preparation, Recipe, Variant, load_data
from lamina.nets import BatchNorm, Conv2d, Dropout, Flatten, Linear, Output, ReLU

data = load_data("shapes", Preparation(val_fraction=0.1))


def make_net(*before_relu, dropout=()):
    filters = [
        layer
        for channels in (16, 32, 64)
        for layer in (
            Conv2d(channels, 3, stride=2, padding="same"),
            *before_relu,
            ReLU(),
        )
    ]
    return Net(
        *filters, Flatten(), Linear(64), *before_relu, ReLU(), *dropout, Output()
    )


plain = make_net()
norm = make_net(BatchNorm())
both = make_net(BatchNorm(), dropout=[Dropout(0.5)])

# %%
# What batch norm does
# --------------------
#
# **Batch norm** subtracts the mean of each channel over the batch, and divides
# by the standard deviation. Then it multiplies by a learned number and adds
# another. These numbers start at 1 and 0:

torch.manual_seed(0)
layer = nn.BatchNorm1d(3)
batch = torch.randn(100, 3) * torch.tensor([1.0, 10.0, 100.0]) + 5
by_hand = (batch - batch.mean(dim=0)) / batch.std(dim=0, correction=0)
output = layer(batch)
print(f"standard deviations before: {batch.std(dim=0).numpy().round(1)}")
print(f"after: {output.std(dim=0).detach().numpy().round(2)}")
print(f"largest difference from by hand: {(output - by_hand).abs().max():.5f}")

# %%
# A prediction must not depend on the other images in the batch. The layer
# therefore keeps running averages of mean and variance, and uses these after
# `model.eval()`.
#
# *"The momentum parameter is the weight given to the previous value"*, says the
# article. This is true in Keras. In PyTorch, it is the weight of the new value.
# With the article's `momentum=0.9`, each batch replaces nine tenths of the
# average:

layer = nn.BatchNorm1d(1, momentum=0.9)
layer(torch.randn(100, 1) + 10)
print(
    f"running mean: 0.0 before, {layer.running_mean.item():.1f} after one batch"
)

# sphinx_gallery_start_ignore
assert torch.allclose(output, by_hand, atol=1e-3)
assert 8 < layer.running_mean.item() < 10
# sphinx_gallery_end_ignore
# %%
# With and without batch norm
# ---------------------------
#
# Train the net of chapter 4 with three learning rates, plain and with batch norm
# before each ReLU.
#
# **Predict:** At which of the learning rates does batch norm help most?

accuracies = {"plain": [], "batch norm": []}
for lr in (0.001, 0.01, 0.03):
    recipe = Recipe(epochs=3, batch_size=100, lr=lr)
    for name, net in (("plain", plain), ("batch norm", norm)):
        run = lamina.train(data, net, recipe, progress=False)
        accuracies[name].append(run.history["val_accuracy"][-1])
    print(
        f"lr {lr}: val plain {accuracies['plain'][-1]:.1%},"
        f" batch norm {accuracies['batch norm'][-1]:.1%}"
    )

# sphinx_gallery_start_ignore
assert accuracies["plain"][2] < 0.2 < 0.3 < accuracies["batch norm"][2]
# sphinx_gallery_end_ignore
# %%
# At the highest rate, the plain net only guesses, but the net with batch norm
# learns.
#
# These are single runs: another seed gives other weights and another score. To
# find out whether batch norm helps at a learning rate of 0.003, train pairs of
# runs that share a seed. `lamina.compare` derives a **verdict** from an
# interval for new seeds and new test images:

recipe = Recipe(epochs=3, batch_size=100, lr=0.003)
with_norm = Variant("norm", norm, recipe)
norm_verdict = lamina.compare(
    with_norm, Variant("plain", plain, recipe), data, seeds=3, progress=False
)
print(f"A, with batch norm: {norm_verdict.a_score:.1%}")
print(f"B, plain: {norm_verdict.b_score:.1%}")
print(norm_verdict.headline())

# sphinx_gallery_start_ignore
assert norm_verdict.difference > 0.08
# sphinx_gallery_end_ignore
# %%
# lamina calls A better only if the whole interval is above 0.
#
# What dropout does
# -----------------
#
# **Dropout** sets a random part of its inputs to 0 in each training step. The
# article does not say that dropout also divides the remaining inputs by the
# fraction that is left, so that their sum stays the same on average.
# Predictions use all inputs:

dropout = nn.Dropout(0.5)
ones = torch.ones(10_000)
print(
    "training:  ", dropout(ones)[:8].tolist(), f"mean {dropout(ones).mean():.2f}"
)
print("prediction:", dropout.eval()(ones)[:8].tolist())

# %%
# **Predict:** Is the net with both better than the net with batch norm alone,
# after three epochs?

dropout_verdict = lamina.compare(
    Variant("both", both, recipe), with_norm, data, seeds=3, progress=False
)
print(f"A, with dropout: {dropout_verdict.a_score:.1%}")
print(f"B, without: {dropout_verdict.b_score:.1%}")
print(dropout_verdict.headline())

# sphinx_gallery_start_ignore
assert dropout_verdict.difference < 0
# sphinx_gallery_end_ignore
# %%
# The net with dropout learns more slowly. Regularization techniques *"ensure
# that the model is penalized if it starts to overfit"*, the article says. But
# dropout does not wait for overfitting: it acts from the first step.
#
# Dropout is meant for nets that memorize. Train both nets on only 2,000 images,
# for 12 epochs:

few = Dataset.from_images(
    data.train.take(range(2000)), val=data.val, test=data.test
)
recipe = Recipe(epochs=12, batch_size=100, lr=0.003)
histories = {
    name: lamina.train(few, net, recipe, progress=False).history
    for name, net in (("without dropout", norm), ("with dropout", both))
}

# Figure: Loss by epoch, without and with dropout. In both panels, the loss on
# train falls and the loss on val rises at the end. With dropout, the train loss
# falls more slowly, and the val loss ends lower.
figure, axes = plt.subplots(1, 2, figsize=(7, 3), sharey=True)
for axis, (name, history) in zip(axes, histories.items(), strict=True):
    axis.plot(history["epoch"], history["train_loss"], marker="o", label="train")
    axis.plot(history["epoch"], history["val_loss"], marker="s", label="val")
    axis.set(title=name, xlabel="epoch", ylim=(0, 4))
axes[0].set(ylabel="loss")
axes[0].legend()

# %%
for name, history in histories.items():
    last = history.row(-1, named=True)
    print(
        f"{name:<16} accuracy on train {last['train_accuracy']:.1%},"
        f" on val {last['val_accuracy']:.1%}; loss on val {last['val_loss']:.2f}"
    )

# sphinx_gallery_start_ignore
without, with_dropout = (
    history.row(-1, named=True) for history in histories.values()
)
assert without["train_accuracy"] > with_dropout["train_accuracy"]
assert without["val_loss"] > with_dropout["val_loss"]
# sphinx_gallery_end_ignore
# %%
# Dropout narrows the gap between the accuracies on train and val. Part of this
# is an illusion, because the accuracy on train is measured with dropout. The
# loss on val is measured without dropout, and it is lower: the net is less
# certain where it is wrong.
#
# What the article says
# ---------------------
#
# The article presents batch norm as the remedy for two problems.
#
# The first is that activations may not stay well scaled *"as the network trains
# and the weights move further away from their random initial values"*. The
# article calls this *covariate shift*. The name is not quite right: within a
# net, it is **internal covariate shift**. Does batch norm help because it
# removes the shift? Bring the shift back, much as Santurkar et al. (2018) did:
# after each batch norm, multiply every channel by a random number and add
# another one, both drawn anew in each training step.


class RandomShift(nn.Module):
    def forward(self, inputs):
        if not self.training:
            return inputs
        shape = (1, inputs.shape[1]) + (1,) * (inputs.dim() - 2)
        scale = torch.empty(shape).uniform_(0.7, 1.3)
        return inputs * scale + torch.empty(shape).uniform_(-0.5, 0.5)


def make_module(norm_2d, norm_1d, shift):
    layers = []
    for channels, filters in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(channels, filters, 3, stride=2, padding=1)]
        layers += [norm_2d(filters), shift(), nn.ReLU()]
    layers += [nn.Flatten(), nn.Linear(1024, 64), norm_1d(64), shift(), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, 10))


# %%
# **Predict:** Will the shifted net be as bad as the plain net?

modules = {
    "plain": lambda: make_module(nn.Identity, nn.Identity, nn.Identity),
    "batch norm": lambda: make_module(
        nn.BatchNorm2d, nn.BatchNorm1d, nn.Identity
    ),
    "batch norm, shifted": lambda: make_module(
        nn.BatchNorm2d, nn.BatchNorm1d, RandomShift
    ),
}
shifted = {}
for name, module in modules.items():
    scores = []
    for seed in range(3):
        recipe = Recipe(epochs=3, batch_size=100, lr=0.01, seed=seed)
        run = lamina.train(data, module, recipe, progress=False)
        scores.append(run.history["val_accuracy"][-1])
    shifted[name] = sum(scores) / len(scores)
    print(f"{name:<20} val {shifted[name]:.1%}, mean of three seeds")

# sphinx_gallery_start_ignore
assert shifted["batch norm, shifted"] > 1.5 * shifted["plain"]
# sphinx_gallery_end_ignore
# %%
# In the shifted net, the inputs of layers change in every step, but it still
# learns far more than the plain net. Whether the shift matters is disputed.
# Santurkar et al. find that batch norm makes the loss smoother, so that larger
# steps are possible.
#
# The second problem is exploding gradients, which *"can sometimes grow
# exponentially large"* from the last layer to the first. Batch norm does not
# prevent this. Stack 50 blocks and compare the gradients of the first and last
# layer, before any training:


def compare_gradients(normalize):
    torch.manual_seed(0)
    linear = [nn.Linear(64, 64) for _ in range(50)]
    blocks = []
    for one in linear:
        nn.init.kaiming_normal_(one.weight)
        blocks += [one, normalize(64), nn.ReLU()]
    net = nn.Sequential(*blocks, nn.Linear(64, 10))
    loss = nn.functional.cross_entropy(
        net(torch.randn(128, 64)), torch.arange(128) % 10
    )
    loss.backward()
    return (linear[0].weight.grad.norm() / linear[-1].weight.grad.norm()).item()


plain_ratio = compare_gradients(nn.Identity)
norm_ratio = compare_gradients(nn.BatchNorm1d)
print("gradient norm of the first layer divided by the norm of the last")
print(f"without batch norm {plain_ratio:,.1f}, with batch norm {norm_ratio:,.1f}")

# sphinx_gallery_start_ignore
assert plain_ratio < 10 and norm_ratio > 1000
# sphinx_gallery_end_ignore
# %%
# With suitable initial weights, the gradients of the stack without batch norm
# keep their size, and batch norm makes them explode (Yang et al. 2019). Nor
# does it keep weights small: multiply the weights before a batch norm by 100,
# and its output does not change.
#
# Still, batch norm improves the shallow net of this chapter, and most nets in
# practice.
#
# Try
# ---
#
# 1. Compare `plain` with itself, with the same recipe except for `seed=1000` in
#    B. How large are the differences that are due to chance alone?
# 2. Use dropout of 0.2 instead of 0.5, and train for 12 epochs on all images. Is
#    the verdict the same?
# 3. Train `norm` with a batch size of 4. Mean and standard deviation of four
#    images are imprecise: does batch norm still help?
#
# Lesson 4 of the :doc:`studio </howto/studio>`, *Batch norm and dropout*, builds
# these nets from cards. Chapter 6, :doc:`what a net has learned
# </chapters/06_what_it_learned>`, looks into a trained net.
