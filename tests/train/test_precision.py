"""A quick training step is a training step: its gradients, its weights, what it learns."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.backends import cudnn

from medseg3d.config.loss import LossConfig
from medseg3d.labels import LabelScheme
from medseg3d.nets.presets import NETS, build_net
from medseg3d.train.losses import build_loss
from medseg3d.train.precision import gpu_convolutions, quicken

NETWORKS = {
    "instance": ("resunet", {"norm": "instance"}),
    "gated": ("resunet", {"norm": "batch", "attention": "se"}),
    "supervised": ("resenc_m", {"channels": (8, 16, 16), "encoder_blocks": (1, 1, 2)}),
    "mobile": ("mobile_resunet", {"norm": "instance"}),
}
LOSS = build_loss(LossConfig(), LabelScheme(values={1: "shell", 2: "core"}), outputs="values")
PLACES = [
    ("cpu", torch.bfloat16),
    *(
        pytest.param(
            "cuda",
            dtype,
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU"),
            ],
        )
        for dtype in (torch.bfloat16, torch.float16)
    ),
]


def build(name: str, spatial_dims: int = 3) -> nn.Module:
    """Build a small network in training mode; the same weights each time."""
    torch.manual_seed(0)
    kind, knobs = NETWORKS[name]
    config = NETS[kind].model_copy(update={"channels": (8, 16)} | knobs)
    return build_net(config, spatial_dims=spatial_dims, in_channels=1, out_channels=3).train()


def draw(batch: int, spatial_dims: int = 3) -> tuple[Tensor, Tensor]:
    """Draw images in which a bright ball with a brighter core lies in noise, and its labels."""
    axes = torch.meshgrid(*[torch.arange(16.0)] * spatial_dims, indexing="ij")
    centres = torch.rand(batch, spatial_dims, *[1] * spatial_dims) * 6 + 5
    distance = (torch.stack(axes)[None] - centres).norm(dim=1)
    labels = (distance < 5).long() + (distance < 3)
    return (labels + 0.3 * torch.randn(labels.shape))[:, None], labels


def gradients(net: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Give the loss and each parameter's gradient."""
    image, labels = batch
    loss = LOSS(net(image), labels)
    loss.backward()
    return loss.detach().double(), {n: p.grad.double() for n, p in net.named_parameters()}


@pytest.mark.parametrize(("device", "dtype"), PLACES)
@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_as_true_as_those_of_plain_autocast(
    name: str, spatial_dims: int, device: str, dtype: torch.dtype
) -> None:
    plain = build(name, spatial_dims).to(device)
    exact, quick = copy.deepcopy(plain).double(), quicken(copy.deepcopy(plain), "bf16")
    image, labels = (tensor.to(device) for tensor in draw(2, spatial_dims))

    loss, truth = gradients(exact, (image.double(), labels))
    with torch.autocast(device, dtype):
        (cast_loss, cast), (our_loss, ours) = (
            gradients(net, (image, labels)) for net in (plain, quick)
        )

    size = torch.cat([gradient.flatten() for gradient in truth.values()]).norm()
    for parameter, gradient in truth.items():
        of_ours, of_cast = ((g[parameter] - gradient).norm() / size for g in (ours, cast))
        assert of_ours < min(0.07, 1.3 * of_cast + 0.005), parameter
    assert abs(our_loss - loss) < 2 * abs(cast_loss - loss) + 0.001


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_features_of_a_single_channel_image_lie_channels_last(name: str, spatial_dims: int) -> None:
    net = quicken(build(name, spatial_dims), "bf16")
    last = [torch.channels_last, torch.channels_last_3d][spatial_dims - 2]
    orders = []
    for module in net.modules():
        if not [*module.children()]:
            module.register_forward_hook(
                lambda _module, _args, made: orders.append(made.is_contiguous(memory_format=last))
            )
    with torch.autocast("cpu", torch.bfloat16):
        net(draw(2, spatial_dims)[0])
    assert len(orders) > 10
    assert all(orders)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_keep_names_shapes_values_and_dtype(name: str) -> None:
    plain, quick = build(name).state_dict(), quicken(build(name), "bf16").state_dict()
    assert [*plain] == [*quick]
    for before, after in zip(plain.values(), quick.values(), strict=True):
        assert (before.dtype, before.stride()) == (after.dtype, after.stride())
        assert torch.equal(before, after)


@pytest.mark.parametrize("name", NETWORKS)
def test_in_fp32_a_step_is_what_it_was_bit_by_bit(name: str) -> None:
    batch = draw(2)
    (loss, truth), (our_loss, ours) = (
        gradients(net, batch) for net in (build(name), quicken(build(name), "fp32"))
    )
    assert loss == our_loss
    assert all(torch.equal(truth[n], ours[n]) for n in truth)


def test_a_step_in_half_precision_repeats_bit_by_bit_on_a_cpu() -> None:
    batch = draw(2)
    with torch.autocast("cpu", torch.bfloat16):
        first, second = (gradients(quicken(build("instance"), "bf16"), batch)[1] for _ in range(2))
    assert all(torch.equal(first[n], second[n]) for n in first)


def test_a_network_that_does_not_train_is_run_as_it_was() -> None:
    image, _ = draw(1)
    plain, quick = build("instance").eval(), quicken(build("instance"), "bf16").eval()
    assert torch.equal(plain(image), quick(image))


@pytest.mark.slow
def test_what_is_learnt_is_as_good_as_in_fp32() -> None:
    dices = [learn("fp32"), learn("bf16")]
    assert min(dices) > 0.85
    assert abs(dices[0] - dices[1]) < 0.03


def learn(precision: str) -> float:
    """Train on balls; give the Dice of the core over held-out ones."""
    net = quicken(build("instance"), precision)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    for _ in range(40):
        image, labels = draw(2)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = net(image)
        optimizer.zero_grad()
        LOSS(logits.float(), labels).backward()
        optimizer.step()
    image, labels = draw(8)
    with torch.no_grad():
        found, core = net.eval()(image).argmax(1) == 2, labels == 2
    return float(2 * (found & core).sum() / (found.sum() + core.sum()))


@pytest.mark.parametrize(
    ("precision", "deterministic", "tries"),
    [("fp32", False, False), ("bf16", False, True), ("fp16", True, False)],
)
def test_cudnn_tries_kernels_where_steps_need_not_repeat(
    precision: str, deterministic: bool, tries: bool
) -> None:
    before = cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32
    with gpu_convolutions(precision, deterministic=deterministic):
        assert (cudnn.benchmark, cudnn.deterministic) == (tries, deterministic)
        assert cudnn.allow_tf32 is (precision != "fp32")
    assert before == (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32)
