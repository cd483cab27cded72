"""NaN and infinity: found before they are saved, and traced to the layer where they began."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from lamina.errors import NotFiniteError
from lamina.training.activations import describe_layer, innermost_paths, watch
from lamina.training.batches import Batch, DividedBatch
from lamina.training.checkpoint import name_tensors
from lamina.training.forward import Forward
from lamina.training.group import ALONE, Group
from lamina.training.model import Model
from lamina.training.recipe import Recipe

UNKNOWN = "the gradients"
HOLDERS = {"live": "the model", "averaged": "the averaged model", "optimizer": "the optimizer's state"}


class Guard:
    """Stops a training that diverges, before a step or a checkpoint contains NaN or infinity.

    ``models`` holds the trained model as ``live``, and its average, if there is one, as ``averaged``.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        optimizer: Optimizer,
        forward: Forward,
        recipe: Recipe,
        group: Group = ALONE,
    ) -> None:
        self._models, self._optimizer, self._forward, self._recipe = models, optimizer, forward, recipe
        self._group = group
        self._watched = choose_watched(models["live"])
        # A module of the user's own may hold infinities on purpose, as a mask does.
        self._intended = frozenset(find_not_finite(name_tensors(models, optimizer)))

    def clip(self) -> None:
        """Scale the gradients so that their norm over all weights is within the recipe's limit, if it has one."""
        if self._recipe.gradient_clip:
            nn.utils.clip_grad_norm_(self._models["live"].parameters(), self._recipe.gradient_clip)

    def check_step(self, loss: Float[Tensor, ""], divided: DividedBatch, lr: float) -> None:
        """Check the loss and the gradients before the step is taken, which are the same in all processes.

        Raises:
            NotFiniteError: one of them is not finite; the message names the layer where that began.
        """
        if is_finite(loss, self._watched):
            return
        places = self._group.gather(find_first(map(self._trace, divided.own)).encode())
        where = find_first(place.decode() for place in places)
        raise NotFiniteError(self._describe(loss.item(), divided, where, lr))

    def find_problem(self, loss: Float[Tensor, ""], batch: Batch, lr: float) -> str | None:
        """What is not finite before a step that one lane takes by itself, in words, if anything."""
        return None if is_finite(loss, self._watched) else self._describe(loss.item(), batch, self._trace(batch), lr)

    def _trace(self, batch: Batch) -> str:
        model, smoothing = self._models["live"], self._recipe.label_smoothing

        def repeat() -> Tensor:
            return model.task.loss(self._forward.pass_layers(batch), batch.targets, smoothing, batch.weights)

        return trace_not_finite(model, repeat)

    def _describe(self, loss: float, batch: Batch | DividedBatch, where: str, lr: float) -> str:
        not_finite = "NaN" if math.isnan(loss) else "infinity"
        what = "A gradient became NaN or infinity" if math.isfinite(loss) else f"The loss became {not_finite}"
        norms = (nn.BatchNorm1d, nn.BatchNorm2d)
        normalizes = any(isinstance(module, norms) for module in self._models["live"].modules())
        remedies = " or gradient_clip 1" if normalizes else ", gradient_clip 1, or BatchNorm() in the net"
        return (
            f"{what} at step {batch.step + 1} of epoch {batch.epoch + 1}. "
            f"First not finite: {where}. "
            f"What usually helps: a lower lr (it is {lr:g}){remedies}."
        )

    def check_weights(self, lr: float) -> None:
        """Check all weights, and the optimizer's state, in all processes before they are evaluated or saved.

        Raises:
            NotFiniteError: one of them is not finite in a process; the message names it.
        """
        problems = self._group.gather((self.find_weights_problem(lr) or "").encode())
        if problem := next(filter(None, problems), None):
            raise NotFiniteError(problem.decode())

    def find_weights_problem(self, lr: float) -> str | None:
        """Which weight, or part of the optimizer's state, is not finite in this process, in words, if any."""
        found = find_not_finite(name_tensors(self._models, self._optimizer))
        if unintended := next((name for name in found if name not in self._intended), None):
            holder, _, name = unintended.partition(".")
            return (
                f"{name} of {HOLDERS[holder]} contains NaN or infinity; checkpoint skipped. Lower lr "
                f"(it is {lr:g}), or set gradient_clip to 1."
            )
        return None


def find_first(places: Iterable[str]) -> str:
    """The first place that is known."""
    return next((place for place in places if place != UNKNOWN), UNKNOWN)


def choose_watched(model: nn.Module) -> tuple[Tensor, ...]:
    """The weights whose gradients show nearly every problem: for linear layers and convolutions the bias, if it exists.

    The gradient of such a bias sums all that reaches the layer from above, so one NaN or infinity there makes it NaN or
    infinity; the weight's takes a hundred times as long to read. The weight's can overflow alone, where the layer's
    input is large: :func:`find_not_finite` sees that in the weights after the step.
    """
    watched: list[Tensor] = []
    for module in model.modules():
        bias = module.bias if isinstance(module, nn.Linear | nn.Conv2d) else None
        watched += module.parameters(recurse=False) if bias is None or not bias.requires_grad else (bias,)
    return tuple(watched)


def is_finite(loss: Float[Tensor, ""], weights: Iterable[Tensor]) -> bool:
    """Whether the loss and the gradients of some weights are finite. This waits for a GPU."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    # A sum is not finite if a part is not. A sum of finite parts can overflow: then every part is read.
    vectors = [loss.detach().view(1), *(gradient.view(-1) for gradient in gradients if gradient.ndim < 2)]
    sums = [torch.cat(vectors).sum(), *(gradient.sum().float() for gradient in gradients if gradient.ndim > 1)]
    total = sums[0] if len(sums) == 1 else torch.stack(sums).sum()
    return math.isfinite(total.item()) or all(bool(torch.isfinite(value).all()) for value in (loss, *gradients))


def find_not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of the tensors that contain NaN or infinity."""
    return [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]


def trace_not_finite(model: Model, take_step: Callable[[], Float[Tensor, ""]]) -> str:
    """Where the first NaN or infinity is, in words: in weights, activations, the loss, or gradients.

    ``model`` has the weights from before the step; ``take_step`` makes its forward pass and returns the loss.
    """
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            return f"the weights of {describe_layer(model, name.rpartition('.')[0])}"
    outputs: list[tuple[str, bool]] = []
    gradients: dict[int, bool] = {}

    def note(path: str, _: Tensor, output: Tensor) -> None:
        index = len(outputs)
        outputs.append((path, bool(torch.isfinite(output).all())))
        if output.requires_grad:
            output.register_hook(lambda gradient: gradients.__setitem__(index, bool(torch.isfinite(gradient).all())))

    with watch(model, innermost_paths(model), note):
        loss = take_step()
        for path, is_finite_output in outputs:
            if not is_finite_output:
                return f"the activations of {describe_layer(model, path)}"
        if not torch.isfinite(loss):
            return "the loss, or what the module itself computes after its layers: check the targets"
        model.zero_grad()
        loss.backward()
    for index, (path, _) in reversed(list(enumerate(outputs))):
        weights = [weight.grad for weight in model.get_submodule(path).parameters() if weight.grad is not None]
        if not gradients.get(index, True) or not all(bool(torch.isfinite(grad).all()) for grad in weights):
            return f"the gradients of {describe_layer(model, path)}"
    return UNKNOWN
