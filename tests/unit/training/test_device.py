import pytest
import torch

from lamina.errors import RecipeError
from lamina.training.device import Choice, choose_again, choose_device


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_gpu_is_an_error_and_never_a_silent_cpu():
    with pytest.raises(RecipeError) as rejected:
        choose_device("cuda")
    assert (
        str(rejected.value)
        == "device is 'cuda', but torch does not find one on this machine (found: cpu). Use auto or"
        " cpu."
    )


def test_an_unknown_device_is_rejected():
    with pytest.raises(RecipeError) as rejected:
        choose_device("tpu")
    assert (
        str(rejected.value)
        == "device is 'tpu'; it must be one of auto, cuda, mps, cpu. Use device='auto'."
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_training_continues_on_what_is_here():
    assert choose_again(Choice("cuda", "found")) == choose_device("auto")
    assert choose_again(Choice("cpu", "no GPU found")) == Choice("cpu", "no GPU found")


def test_the_requested_device_is_used():
    assert choose_device("cpu") == Choice("cpu", "as requested")


@pytest.mark.parametrize(
    ("has_mps", "reason"),
    [(False, "no GPU found"), (True, "MPS is untested; request it with device mps")],
)
def test_on_a_mac_the_reason_for_the_cpu_names_mps(monkeypatch, has_mps, reason):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: has_mps)
    assert choose_device("auto") == Choice("cpu", reason)
