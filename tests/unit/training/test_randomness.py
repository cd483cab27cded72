import torch

from lamina.training.randomness import derive_seed, seeded

CPU = torch.device("cpu")


def test_seeded_draws_the_same_and_disturbs_nothing_outside():
    torch.manual_seed(3)
    undisturbed = torch.rand(4)
    torch.manual_seed(3)
    with seeded(7, CPU):
        first = torch.rand(4)
    after = torch.rand(4)
    with seeded(7, CPU):
        second = torch.rand(4)
    assert torch.equal(first, second)
    assert torch.equal(after, undisturbed)


def test_seeds_of_different_purposes_and_epochs_differ():
    seeds = {
        derive_seed(seed, purpose, index)
        for seed in range(10)
        for purpose in ("order", "flip")
        for index in range(10)
    }
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)
