"""A head that learns alone, while all below it rests as it came."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from lamina.errors import RecipeError


@dataclass(frozen=True, eq=False)
class Trunk:
    """What lies below a net's head.

    Attributes:
        body: the whole net.
        heads: the layers that give its logits: one, or two in distilled nets.
        weights: all others that learn.
    """

    body: nn.Module
    heads: tuple[nn.Module, ...]
    weights: tuple[Tensor, ...]

    def rest(self) -> None:
        """Keep it as it is: no gradient reaches it, and its norms and dropouts do as in prediction."""
        self.body.eval()
        for head in self.heads:
            head.train()
        for weight in self.weights:
            weight.requires_grad_(False)

    def wake(self) -> None:
        """Let it learn."""
        self.body.train()
        for weight in self.weights:
            weight.requires_grad_(True)


def find_trunk(body: nn.Module) -> Trunk:
    """What lies below the head that ``body`` names by ``get_classifier()``, as timm's nets do.

    Raises:
        RecipeError: it names none.
    """
    ask = getattr(body, "get_classifier", None)
    found = ask() if callable(ask) else ()
    heads = tuple(found) if isinstance(found, tuple | list) else (found,)
    own = {weight for head in heads for weight in head.parameters()}
    if not own:
        raise RecipeError(
            "freeze lets the head alone learn above layers that have learned before, as those of timm:NAME have, but "
            "this net names no head. Set freeze to 0."
        )
    return Trunk(
        body, heads, tuple(weight for weight in body.parameters() if weight.requires_grad and weight not in own)
    )
