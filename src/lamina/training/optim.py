"""Optimizers: torch's and Muon."""

from __future__ import annotations

import inspect
import pkgutil
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from lamina.errors import LaminaWarning, NetError, RecipeError, name_some
from lamina.training.custom import OwnOptimizer, Parameters, describe_part
from lamina.training.model import Model
from lamina.training.prediction import find_head
from lamina.training.recipe import OPTIMIZERS, Recipe

# coefficients of the quintic step (Jordan et al., "Muon", 2024)
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def build_optimizer(
    model: Model, recipe: Recipe, precision: str = "fp32", function: OwnOptimizer | None = None
) -> Optimizer:
    """The custom optimizer, or the recipe's; each group has its ``initial_lr``."""
    if function is None:
        optimizer = _build_named(model, recipe, precision)
    else:
        optimizer = _build_custom(function, model, recipe)
    for group in optimizer.param_groups:
        group["initial_lr"] = float(group["lr"])
    return optimizer


def set_lr(optimizer: Optimizer, factor: float) -> None:
    """Set the learning rate of each group to a factor of its initial one."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def _build_named(model: Model, recipe: Recipe, precision: str) -> Optimizer:
    """The recipe's optimizer; it decays only weights of two or more dimensions."""
    entry = OPTIMIZERS[recipe.optimizer]
    kind = quicken(pkgutil.resolve_name(entry.kind))
    options = dict(entry.options)
    if entry.takes_momentum:
        options["momentum"] = recipe.momentum
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    matrices = [weight for weight in trained if weight.ndim >= 2]
    vectors = [weight for weight in trained if weight.ndim < 2]
    decay = recipe.weight_decay
    groups = [
        {"params": matrices, "weight_decay": decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    if kind is Muon:
        # The rows of the head are classes, whose individual scales Adam keeps and Muon would not.
        head = _find_head_weights(model)
        hidden = [weight for weight in matrices if weight not in head]
        rows = [weight for weight in matrices if weight in head]
        groups = [
            {"params": hidden, "weight_decay": decay},
            {"params": rows, "weight_decay": decay, "orthogonal": False},
            {"params": vectors, "orthogonal": False},
        ]
        options["dtype"] = torch.bfloat16 if precision == "bf16" else torch.float32
    elif not decay:  # one call of the fused kernel saves a tenth of a step of a small MLP
        groups = [{"params": trained, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    optimizer: Optimizer = kind(groups, lr=recipe.lr, **options)
    return optimizer


def _find_head_weights(model: Model) -> set[Tensor]:
    try:
        return set(model.get_submodule(find_head(model)).parameters())
    except NetError:  # a net without layers has only weights of its own
        return set()


def _build_custom(function: OwnOptimizer, model: Model, recipe: Recipe) -> Optimizer:
    named = {name: weight for name, weight in model.body.named_parameters() if weight.requires_grad}
    optimizer = function(Parameters(named), recipe)
    name = describe_part(function)
    if not isinstance(optimizer, Optimizer):
        raise RecipeError(
            f"optimizer must return a torch.optim.Optimizer, but {name} returned"
            f" {type(optimizer).__name__}. Return one, such as torch.optim.SGD(parameters,"
            " lr=recipe.lr)."
        )
    if any("lr" not in group for group in optimizer.param_groups):
        raise RecipeError(
            f"optimizer must have a learning rate, lr, in each parameter group, but {name} returned"
            " a group without it. Set group['lr'] in every group."
        )
    trained = {weight for group in optimizer.param_groups for weight in group["params"]}
    if strangers := len(trained - set(named.values())):
        raise RecipeError(
            f"optimizer must train only the parameters of the net, but {name} returned an optimizer"
            f" with {strangers} other parameters. Make them parameters of a module in the net."
        )
    if left_out := [path for path, weight in named.items() if weight not in trained]:
        warnings.warn(
            f"the optimizer from {name} does not train {len(left_out)} of {len(named)} parameters: "
            f"{name_some(left_out, 5)}",
            LaminaWarning,
            stacklevel=1,  # one place, so that Python shows it once
        )
    return optimizer


class _QuickStart(Optimizer):
    """torch's methods without wrappers that import its compiler."""

    # One epoch of mlp on shapes, as a process, takes 2.2 s of processor time instead of 3.5 s (AMD
    # EPYC, torch 2.13, medians of five).

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)

    def zero_grad(self, set_to_none: bool = True) -> None:
        del set_to_none  # None is faster
        for group in self.param_groups:
            for weight in group["params"]:
                weight.grad = None


def quicken(kind: type[Optimizer]) -> Any:
    """Return an optimizer class that does not import torch's compiler."""
    if issubclass(kind, _QuickStart):
        return kind
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (_QuickStart, kind), {"step": step})


class SGD(quicken(torch.optim.SGD)):  # type: ignore[misc]
    """torch's SGD, which also trains weights that get their first gradient late."""

    def __init__(self, groups: Iterable[Any], lr: float, momentum: float) -> None:
        super().__init__(groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=True)
        # because the kernel needs momentum for all weights or none
        for group in self.param_groups:
            for weight in group["params"]:
                if momentum:
                    self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)


class Muon(_QuickStart):
    """Muon: SGD whose momentum is orthogonalized for each weight matrix (Jordan et al., 2024)."""

    def __init__(
        self,
        groups: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "orthogonal": True,
            "weight_decay": 0.0,
            "dtype": dtype,
        }
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update by Muon, or by AdamW (betas 0.9, 0.999) for groups with ``orthogonal`` False."""
        for group in self.param_groups:
            move = self._move_orthogonally if group["orthogonal"] else self._move_by_adam
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    move(weight, weight.grad, group)

    def _move_orthogonally(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        buffer = state["momentum_buffer"]
        momentum = group["momentum"]
        buffer.lerp_(gradient, 1 - momentum)
        ahead = gradient.lerp(buffer, momentum)
        direction = orthogonalize(ahead.flatten(1).to(group["dtype"]))
        # The length of an Adam step (Liu et al., arXiv 2502.16982, equation 4), so both use one
        # learning rate.
        length = 0.2 * max(direction.shape) ** 0.5
        weight.add_(direction.view_as(weight), alpha=-group["lr"] * length)

    def _move_by_adam(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(weight)
            state["exp_avg_sq"] = torch.zeros_like(weight)
        state["step"] += 1
        step = state["step"].item()
        state["exp_avg"].lerp_(gradient, 0.1)
        state["exp_avg_sq"].lerp_(gradient.square(), 0.001)
        deviation = (state["exp_avg_sq"] / (1 - 0.999**step)).sqrt_().add_(1e-8)
        weight.addcdiv_(state["exp_avg"], deviation, value=-group["lr"] / (1 - 0.9**step))


def orthogonalize(matrix: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """U Vᵀ of ``matrix`` = U S Vᵀ by five Newton-Schulz steps; singular values 0.7 to 1.2."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
