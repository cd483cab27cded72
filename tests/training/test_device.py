import pytest
import torch

from lamina.errors import RecipeError
from lamina.training.device import Choice, choose_device


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_an_error_and_never_a_silent_cpu():
    with pytest.raises(RecipeError) as refused:
        choose_device("cuda")
    assert str(refused.value) == "device was 'cuda', but torch finds none here. Found: cpu. Use auto or cpu."


def test_an_unknown_device_is_refused():
    with pytest.raises(RecipeError) as refused:
        choose_device("tpu")
    assert str(refused.value) == "device was 'tpu', but takes one of auto, cuda, mps, cpu."


def test_what_was_asked_for_is_what_is_taken():
    assert choose_device("cpu") == Choice("cpu", "as asked")
