"""The mean of the weights moves as its definition says, and goes on as if never stopped."""

import pytest
import torch
from torch import nn

from medseg3d.train.ema import Ema


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 1)
        self.norm = nn.BatchNorm3d(2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(image))


def take_steps(net: Net, ema: Ema, *, steps: int, seed: int = 0) -> list[torch.Tensor]:
    """Train on noise; give the convolution's weights after each step."""
    torch.manual_seed(seed)
    optimizer, seen = torch.optim.SGD(net.parameters(), lr=0.1), []
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(2, 1, 3, 3, 3)).pow(3).mean().backward()
        optimizer.step()
        ema.update(net)
        seen.append(net.conv.weight.detach().clone())
    return seen


def test_the_mean_begins_quickly_and_ends_at_its_decay() -> None:
    net = Net()
    ema, mean = Ema(net, decay=0.2), net.conv.weight.detach().clone()

    for number, weight in enumerate(take_steps(net, ema, steps=5)):
        decay = [0.1, 2 / 11, 0.2, 0.2, 0.2][number]
        mean = decay * mean + (1 - decay) * weight

    torch.testing.assert_close(ema.net.conv.weight, mean)
    assert not torch.equal(ema.net.conv.weight, net.conv.weight)


def test_statistics_of_norms_are_copied() -> None:
    net = Net()
    ema = Ema(net, decay=0.999)

    take_steps(net, ema, steps=3)

    assert ema.net.norm.running_mean.any()
    assert torch.equal(ema.net.norm.running_mean, net.norm.running_mean)
    assert ema.net.norm.num_batches_tracked == 3


def test_it_is_a_network_to_validate_with_that_the_other_does_not_notice() -> None:
    net = Net().train()
    ema = Ema(net, decay=0.9)
    take_steps(net, ema, steps=2)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}

    said = ema.net(torch.ones(1, 1, 2, 2, 2))

    assert not ema.net.training
    assert not said.requires_grad
    assert net.training
    assert net.conv.weight.requires_grad
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_a_resumed_mean_is_the_same_bit_by_bit() -> None:
    whole, parted = Net(), Net()
    parted.load_state_dict(whole.state_dict())
    ema, first = Ema(whole, decay=0.95), Ema(parted, decay=0.95)
    take_steps(whole, ema, steps=3)
    take_steps(parted, first, steps=3)
    saved = {name: tensor.clone() for name, tensor in first.state().items()}

    resumed = Ema(Net(), decay=0.95)
    resumed.load(saved)
    take_steps(whole, ema, steps=4, seed=1)
    take_steps(parted, resumed, steps=4, seed=1)

    assert ema.state().keys() == resumed.state().keys()
    assert all(torch.equal(ema.state()[name], found) for name, found in resumed.state().items())
    assert resumed.num_updates == 7


def test_a_state_of_another_network_is_refused() -> None:
    with pytest.raises(KeyError, match="num_updates"):
        Ema(Net(), decay=0.9).load(Net().state_dict())
