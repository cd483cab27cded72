"""A net with a branch, and models of it as after a training."""

from __future__ import annotations

import torch
from torch import nn

from lamina.nets import BatchNorm, Conv2d, GlobalAvgPool, Net, Output, ReLU, Residual
from lamina.training.model import build_model
from lamina.training.recipe import Recipe

RESIDUAL = Net(
    Conv2d(6, 3, padding="same"),
    BatchNorm(),
    ReLU(),
    Residual(Conv2d(6, 3, padding="same"), BatchNorm()),
    ReLU(),
    GlobalAvgPool(),
    Output(),
)


def make_model(net, images, *, temperatures=()):
    torch.manual_seed(0)
    model = build_model(net, images, Recipe(normalization="channel"))
    for module in model.modules():  # as after training
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.running_mean)
    model.task = model.task.with_temperatures(temperatures) if temperatures else model.task
    return model
