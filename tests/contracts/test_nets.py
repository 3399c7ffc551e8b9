"""What every network promises, in 2D and in 3D."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from medseg3d.errors import GridError
from medseg3d.nets.presets import NETS, build_net

IN_CHANNELS, OUT_CHANNELS = 2, 3


def build_narrow(preset: str, *, spatial_dims: int, seed: int) -> nn.Module:
    """Build the preset's structure with few channels."""
    torch.manual_seed(seed)
    return build_net(
        NETS[preset].model_copy(update={"channels": (4, 6, 8, 10, 12)}),
        spatial_dims=spatial_dims,
        in_channels=IN_CHANNELS,
        out_channels=OUT_CHANNELS,
    )


def draw_image(net: nn.Module, *, times: int = 2) -> Tensor:
    """Draw two images whose size is the divisor, but `times` as long on the first axis."""
    first, *others = net.divisor
    return torch.randn(2, IN_CHANNELS, times * first, *others)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("preset", NETS)
class TestEveryNet:
    """One contract; a new preset is in it as soon as `NETS` has it."""

    @pytest.fixture(autouse=True)
    def net(self, preset: str, spatial_dims: int) -> Iterator[nn.Module]:
        """Build the network under test, and leave torch's generator as it was."""
        with torch.random.fork_rng():
            yield build_narrow(preset, spatial_dims=spatial_dims, seed=0)

    def test_logits_have_one_channel_per_output_and_the_size_of_the_image(self, net: nn.Module):
        image = draw_image(net)
        for mode in (net.train(), net.eval()):
            logits = mode(image)
            assert logits.shape == (2, OUT_CHANNELS, *image.shape[2:])
            assert logits.isfinite().all()

    def test_a_size_that_does_not_divide_is_refused_by_name(self, net: nn.Module):
        image = draw_image(net)[..., :-1]
        with pytest.raises(GridError) as refusal:
            net(image)
        for said in (str(tuple(image.shape[2:])), str(net.divisor), "predict_logits"):
            assert said in str(refusal.value)

    def test_gradients_reach_every_parameter(self, net: nn.Module):
        logits = net(draw_image(net))
        (logits * torch.randn_like(logits)).sum().backward()
        unreached = [
            name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()
        ]
        assert unreached == []

    def test_the_state_dict_is_the_whole_state(
        self, net: nn.Module, preset: str, spatial_dims: int
    ):
        image = draw_image(net)
        net(image)  # training mode: running statistics move
        twin = build_narrow(preset, spatial_dims=spatial_dims, seed=1)
        assert not torch.equal(twin.eval()(image), net.eval()(image))
        twin.load_state_dict(net.state_dict())
        assert torch.equal(twin(image), net(image))

    def test_weights_and_logits_depend_on_the_seed_only(
        self, net: nn.Module, preset: str, spatial_dims: int
    ):
        image = draw_image(net)
        again = build_narrow(preset, spatial_dims=spatial_dims, seed=0)
        assert torch.equal(again.eval()(image), net.eval()(image))

    def test_bfloat16_agrees_with_float32(self, net: nn.Module):
        net.eval()
        image = draw_image(net)
        with torch.no_grad():
            exact = net(image)
            with torch.autocast("cpu", torch.bfloat16):
                rough = net(image).float()
        assert (rough - exact).norm() < 0.03 * exact.norm()

    def test_exports_with_free_batch_and_size(self, net: nn.Module):
        net.eval()
        small = torch.randn(2, IN_CHANNELS, *(2 * divisor for divisor in net.divisor))
        large = torch.randn(3, IN_CHANNELS, *(3 * divisor for divisor in net.divisor))
        lengths = [d * torch.export.Dim(f"axis{axis}") for axis, d in enumerate(net.divisor)]
        free = {0: torch.export.Dim("batch"), **dict(enumerate(lengths, start=2))}
        program = torch.export.export(net, (small,), dynamic_shapes=(free,))
        torch.testing.assert_close(program.module()(large), net(large))
