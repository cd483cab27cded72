"""A head that learns alone, while all below it rests as it came."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from lamina.errors import RecipeError
from lamina.training.activations import path_of, record_calls
from lamina.training.model import Model, eval_mode
from lamina.training.recipe import Recipe
from lamina.training.schedule import sizes_shown


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


class Features:
    """What a resting trunk gives its head for each image, found once for all epochs.

    They are found in the batches of the first epoch, whenever that is: other batches might round otherwise, and a
    training that was stopped would not go on to the same bits.

    Args:
        model: the model.
        head: its head.
        images: how many there are.
    """

    def __init__(self, model: Model, head: nn.Module, images: int) -> None:
        self._model, self._head, self._images = model, head, images
        self._path = path_of(model, head)
        self._features: Tensor | None = None
        self._found: set[int] = set()

    def has(self, batch: int) -> bool:
        """Whether a batch of the first epoch was found, by its number."""
        return batch in self._found

    @torch.no_grad()
    def find(self, batch: int, indices: Int64[Tensor, " b"], pixels: UInt8[Tensor, "b h w c"]) -> None:
        """Find those of the first epoch's batch of that number, which holds the images at ``indices``."""
        features = record_calls(self._model, pixels, [self._path])[self._path].input
        if self._features is None:
            self._features = features.new_empty((self._images, *features.shape[1:]))
        self._features[indices] = features
        self._found.add(batch)

    def logits(self, indices: Int64[Tensor, " b"]) -> Float[Tensor, "b k"]:
        """What the head makes of the images at ``indices``, which were found before."""
        if self._features is None:
            raise ValueError("nothing was found yet")
        logits: Tensor = self._head(self._features[indices])
        return logits.float()


@torch.no_grad()
def can_remember(recipe: Recipe, model: Model, trunk: Trunk, sample: UInt8[Tensor, "b h w c"]) -> bool:
    """Whether features may stand for images.

    That is so if each image is shown alike in all epochs, the head's answer is the model's, and they are no larger.
    """
    is_moved = recipe.flip != "off" or recipe.translate_px or recipe.cutout_px
    if is_moved or len(sizes_shown(recipe)) > 1 or len(trunk.heads) != 1:
        return False
    head = path_of(model, trunk.heads[0])
    calls = record_calls(model, sample, [head])
    if head not in calls:
        return False
    with eval_mode(model):
        logits = model(sample)
    features, answer = calls[head]
    return torch.equal(answer.float(), logits) and features.nbytes <= sample.nbytes


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
