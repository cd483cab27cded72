"""How gradients become steps: torch's own optimizers, and Muon."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import SGD, Optimizer, RMSprop
from torch.optim.adam import adam
from torch.optim.adamw import adamw

from lamina.training.recipe import Recipe

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic step, steep at zero (Jordan et al., "Muon", 2024)."""


def build_optimizer(model: nn.Module, recipe: Recipe, precision: str = "fp32") -> Optimizer:
    """The recipe's optimizer over the weights that are trained; with ``precision`` bf16, Muon multiplies in that too.

    Only weights of two dimensions or more decay: shrinking a bias or a norm's scale regularizes nothing.

    >>> type(build_optimizer(nn.Linear(2, 2), Recipe(optimizer="sgd", lr=0.1))).__name__
    'SGD'
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    matrices = [weight for weight in trained if weight.ndim >= 2]
    vectors = [weight for weight in trained if weight.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if not recipe.weight_decay:
        groups = [
            {"params": trained, "weight_decay": 0.0}
        ]  # one group is one call of the fused kernel: a tenth of a small MLP's step
    match recipe.optimizer:
        case "adam":
            return Adam(groups, lr=recipe.lr)
        case "adamw":
            return Adam(groups, lr=recipe.lr, decays_weights=True)
        case "rmsprop":
            return RMSprop(groups, lr=recipe.lr, foreach=True)
        case "sgd":
            return SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True)
        case "muon":
            return _build_muon(matrices, vectors, recipe, torch.bfloat16 if precision == "bf16" else torch.float32)


def _build_muon(matrices: Sequence[Tensor], vectors: Sequence[Tensor], recipe: Recipe, dtype: torch.dtype) -> Muon:
    # The last matrix makes the logits: its rows are classes, each with a scale of its own, and Adam keeps those.
    hidden, head = matrices[:-1], matrices[-1:]
    groups = [
        {"params": hidden, "orthogonal": True, "weight_decay": recipe.weight_decay},
        {"params": head, "orthogonal": False, "weight_decay": recipe.weight_decay},
        {"params": vectors, "orthogonal": False, "weight_decay": 0.0},
    ]
    return Muon([group for group in groups if group["params"]], lr=recipe.lr, momentum=recipe.momentum, dtype=dtype)


class _Optimizer(Optimizer):
    """torch's, but for methods that would load its compiler: half a second, for nothing that is used here."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the step before."""
        del set_to_none  # a gradient of zeros would be read for nothing
        for group in self.param_groups:
            for weight in group["params"]:
                weight.grad = None


class Adam(_Optimizer):
    """Adam, and AdamW, by one call of torch's fused kernel for each group of weights.

    What :class:`torch.optim.Adam` does around that call, for the choices that lamina does not offer, takes as long as
    the call itself where a net is small. Kingma and Ba, arXiv 1412.6980, algorithm 1; Loshchilov and Hutter, arXiv
    1711.05101, algorithm 2. Betas are 0.9 and 0.999, and 1e-8 is added to the deviation.

    Args:
        groups: parameter groups with ``weight_decay``.
        lr: learning rate.
        decays_weights: whether the decay pulls at the weights themselves (AdamW) and not in the gradient.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, *, decays_weights: bool = False) -> None:
        # "fused" tells torch to keep the count of steps beside the weights when it loads a state.
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0, "decays_weights": decays_weights, "fused": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step along the gradients that backward has left."""
        loss = _compute_loss(closure)
        for group in self.param_groups:
            moved = [weight for weight in group["params"] if weight.grad is not None]
            memory = [self.state[weight] or self._begin(weight) for weight in moved]
            if not moved:
                continue
            advance = adamw if group["decays_weights"] else adam
            advance(
                moved,
                [weight.grad for weight in moved],
                [kept["exp_avg"] for kept in memory],
                [kept["exp_avg_sq"] for kept in memory],
                [],
                [kept["step"] for kept in memory],
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=1e-8,
                maximize=False,
            )
        return loss

    def _begin(self, weight: Tensor) -> dict[str, Tensor]:
        kept: dict[str, Tensor] = self.state[weight]
        kept["step"] = torch.zeros((), dtype=torch.float32, device=weight.device)
        kept["exp_avg"], kept["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        return kept


def _compute_loss(closure: Callable[[], float] | None) -> float | None:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


class Muon(_Optimizer):
    """Momentum, made orthogonal: every direction of a weight matrix moves equally far (Jordan et al., 2024).

    The step of an m × n matrix is scaled by 0.2 √max(m, n), which gives it the length of an Adam step (Liu et al.,
    arXiv 2502.16982, equation 4): one learning rate serves both. A convolution's weight is a matrix with a row for
    each filter. Groups whose ``orthogonal`` is false (biases, norms, the head) take AdamW steps (betas 0.9, 0.999).

    Args:
        groups: parameter groups with ``orthogonal`` and ``weight_decay``.
        lr: learning rate.
        momentum: share of the last step kept in the next, 0 to 1.
        dtype: what the orthogonal direction is computed in; its error in bfloat16 is within that of the iteration.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "orthogonal": True, "weight_decay": 0.0, "dtype": dtype}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step along the gradients that backward has left."""
        loss = _compute_loss(closure)
        for group in self.param_groups:
            move = self._move_orthogonally if group["orthogonal"] else self._move_by_adam
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    move(weight, weight.grad, group)
        return loss

    def _move_orthogonally(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        buffer, momentum = state["momentum_buffer"], group["momentum"]
        buffer.lerp_(gradient, 1 - momentum)
        ahead = gradient.lerp(buffer, momentum)
        direction = orthogonalize(ahead.flatten(1).to(group["dtype"]))
        length = 0.2 * max(direction.shape) ** 0.5
        weight.add_(direction.view_as(weight), alpha=-group["lr"] * length)

    def _move_by_adam(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        state["step"] += 1
        step = state["step"].item()
        state["exp_avg"].lerp_(gradient, 0.1)
        state["exp_avg_sq"].lerp_(gradient.square(), 0.001)
        deviation = (state["exp_avg_sq"] / (1 - 0.999**step)).sqrt_().add_(1e-8)
        weight.addcdiv_(state["exp_avg"], deviation, value=-group["lr"] / (1 - 0.9**step))


def orthogonalize(matrix: Float[Tensor, "m n"], steps: int = 5) -> Float[Tensor, "m n"]:
    """Nearly the orthogonal factor U Vᵀ of ``matrix`` = U S Vᵀ, by Newton-Schulz steps in place of a decomposition.

    Five steps bring every singular value that is over a thousandth of the largest to between 0.7 and 1.2.

    >>> turned = orthogonalize(torch.tensor([[3.0, 0.0], [0.0, 0.5]]))
    >>> bool((torch.linalg.svdvals(turned) - 1).abs().max() < 0.35)
    True
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
