"""What every network promises, in 2D and in 3D."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from medseg3d.errors import GridError
from medseg3d.nets.presets import NETS, build_net
from medseg3d.predict.sliding import predict_logits

IN_CHANNELS, OUT_CHANNELS = 2, 3
WIDTHS = (4, 6, 8, 10, 12)


def build_narrow(preset: str, *, spatial_dims: int, seed: int, **knobs: object) -> nn.Module:
    """Build the preset's structure: few channels, at most five levels and two blocks in each."""
    torch.manual_seed(seed)
    config = NETS[preset]
    blocks = config.encoder_blocks
    narrow = {
        "channels": WIDTHS[: len(config.channels)],
        "encoder_blocks": min(blocks, 2) if isinstance(blocks, int) else (1, 2, 2, 2, 2),
    }
    return build_net(
        config.model_copy(update={**narrow, **knobs}),
        spatial_dims=spatial_dims,
        in_channels=IN_CHANNELS,
        out_channels=OUT_CHANNELS,
    )


def draw_image(net: nn.Module, *, times: int = 2) -> Tensor:
    """Draw two images whose size is the divisor, but `times` as long on the first axis."""
    first, *others = net.divisor
    return torch.randn(2, IN_CHANNELS, times * first, *others)


def as_list(logits: Tensor | list[Tensor]) -> list[Tensor]:
    """Give all outputs, of a network with deep supervision or without."""
    return logits if isinstance(logits, list) else [logits]


def step(net: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Take gradients in training mode; give them and the running statistics."""
    torch.manual_seed(1)
    sum(logits.square().mean() for logits in as_list(net.train()(image))).backward()
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    return {**gradients, **dict(net.named_buffers())}


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
        for logits in (as_list(net.train()(image))[0], net.eval()(image)):
            assert logits.shape == (2, OUT_CHANNELS, *image.shape[2:])
            assert logits.isfinite().all()

    def test_a_size_that_does_not_divide_is_refused_by_name(self, net: nn.Module):
        image = draw_image(net)[..., :-1]
        with pytest.raises(GridError) as refusal:
            net(image)
        for said in (str(tuple(image.shape[2:])), str(net.divisor), "predict_logits"):
            assert said in str(refusal.value)

    @pytest.mark.parametrize("size", [(37, 61, 29), (25, 25, 25), (1, 40, 33), (33, 20, 1)])
    def test_images_of_any_size_are_predicted(
        self, net: nn.Module, spatial_dims: int, size: tuple[int, ...]
    ):
        image = torch.randn(IN_CHANNELS, *size[:spatial_dims])
        tile = [2 * divisor for divisor in net.divisor]
        logits = predict_logits(net.eval(), image, tile_size=tile, overlap=0.0)
        assert logits.shape == (OUT_CHANNELS, *size[:spatial_dims])
        assert logits.isfinite().all()

    def test_deep_supervision_gives_a_list_fine_to_coarse_while_training(
        self, preset: str, spatial_dims: int
    ):
        knobs = {"deep_supervision": True, "norm": "none"}
        net = build_narrow(preset, spatial_dims=spatial_dims, seed=0, **knobs)
        image = draw_image(net)
        with torch.no_grad():
            outputs, whole = net.train()(image), net.eval()(image)
        lengths = [logits.shape[2] for logits in outputs]
        assert len(outputs) == len(net.encoder) - 1
        assert lengths == sorted(lengths, reverse=True)
        assert torch.equal(outputs[0], whole)

    def test_activation_checkpointing_changes_no_gradient_and_no_statistic(
        self, net: nn.Module, preset: str, spatial_dims: int
    ):
        knobs = {"activation_checkpointing": True, "dropout": 0.5}
        thrifty = build_narrow(preset, spatial_dims=spatial_dims, seed=0, **knobs)
        usual = build_narrow(preset, spatial_dims=spatial_dims, seed=0, dropout=0.5)
        image = draw_image(net)
        expected, got = step(usual, image), step(thrifty, image)
        assert expected.keys() == got.keys()
        assert all(torch.equal(got[name], expected[name]) for name in expected)

    def test_gradients_reach_every_parameter(self, net: nn.Module):
        outputs = as_list(net(draw_image(net)))
        sum((logits * torch.randn_like(logits)).sum() for logits in outputs).backward()
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

    @pytest.mark.slow
    def test_exports_with_free_batch_and_size(self, net: nn.Module):
        net.eval()
        small = torch.randn(2, IN_CHANNELS, *(2 * divisor for divisor in net.divisor))
        large = torch.randn(3, IN_CHANNELS, *(3 * divisor for divisor in net.divisor))
        lengths = [d * torch.export.Dim(f"axis{axis}") for axis, d in enumerate(net.divisor)]
        free = {0: torch.export.Dim("batch"), **dict(enumerate(lengths, start=2))}
        program = torch.export.export(net, (small,), dynamic_shapes=(free,))
        torch.testing.assert_close(program.module()(large), net(large))


COMPILE = """
import sys
import torch
from medseg3d.nets.presets import NETS, build_net

for name, config in NETS.items():
    levels = len(config.channels)
    knobs = {"channels": (4, 6, 8, 10, 12)[:levels], "encoder_blocks": 1}
    net = build_net(
        config.model_copy(update=knobs),
        spatial_dims=int(sys.argv[1]), in_channels=1, out_channels=2,
    ).eval()
    image = torch.randn(2, 1, *(2 * divisor for divisor in net.divisor))
    torch.compiler.reset()
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    with torch.no_grad():
        assert torch.equal(compiled(image), net(image)), name
    print(name)
"""


@pytest.mark.slow
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_every_net_compiles_into_one_graph(spatial_dims: int):
    """In a process of its own: the checks of shapes that tests switch on cannot be compiled."""
    command = [sys.executable, "-c", COMPILE, str(spatial_dims)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == [*NETS]
