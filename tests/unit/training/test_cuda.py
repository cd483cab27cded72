from dataclasses import replace

import pytest
import torch

from lamina.data import load_data
from lamina.training.events import Epoch
from lamina.training.loop import Training
from lamina.training.prediction import predict_logits
from lamina.training.recipe import Recipe
from lamina.zoo import load_net

needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA here, or LAMINA_TEST_CUDA is not set"
)


@needs_cuda
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop", "sgd", "muon"])
def test_a_net_trains_on_cuda_as_on_the_cpu(optimizer):
    images = load_data("shapes").train
    recipe = Recipe(
        epochs=2,
        optimizer=optimizer,
        flip="random",
        translate_px=2,
        cutout_px=4,
        precision="fp32",
    )
    losses, logits = {}, {}
    for device in ("cpu", "cuda"):
        training = Training(load_net("mlp"), images, replace(recipe, device=device))
        losses[device] = [event.train_loss for event in training if isinstance(event, Epoch)]
        logits[device] = predict_logits(training.model, images.pixels[:50])
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=0.01)
    assert logits["cuda"] == pytest.approx(logits["cpu"], abs=0.1)
