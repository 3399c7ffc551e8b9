"""A network is run in another precision and order of memory, and says nearly the same."""

import copy
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from medseg3d.errors import ConfigError
from medseg3d.nets.bundle import Bundle
from medseg3d.nets.presets import NETS, build_net
from medseg3d.predict.engine import build_engine, bundle_engine, native_precision
from medseg3d.predict.sliding import predict_labels, predict_logits

CPU = torch.device("cpu")


def small_net(name: str, spatial_dims: int) -> nn.Module:
    torch.manual_seed(0)
    config = NETS[name].model_copy(update={"channels": (8, 16, 16, 16)})
    return build_net(config, spatial_dims=spatial_dims, in_channels=2, out_channels=3).eval()


def test_fp32_is_the_network_as_it_is() -> None:
    net = small_net("unet", 3)
    image = torch.rand(2, 20, 24, 17)

    plain = predict_logits(net, image, tile_size=(16, 16, 16))
    engine = predict_logits(build_engine(net, precision="fp32"), image, tile_size=(16, 16, 16))

    assert torch.equal(plain, engine)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", ["unet", "resunet", "unetplusplus"])
def test_bf16_says_nearly_the_same_and_changes_no_weight(name: str, spatial_dims: int) -> None:
    net = small_net(name, spatial_dims)
    before = copy.deepcopy(net.state_dict())
    image = torch.rand(2, *(32, 32, 32)[:spatial_dims])
    tile = (32,) * spatial_dims

    exact = predict_logits(net, image, tile_size=tile).softmax(0)
    half = predict_logits(build_engine(net, precision="bf16"), image, tile_size=tile)

    assert half.dtype == torch.float32
    assert (half.softmax(0) - exact).abs().mean() < 0.02
    assert (half.argmax(0) == exact.argmax(0)).float().mean() > 0.97
    assert all(torch.equal(weight, before[key]) for key, weight in net.state_dict().items())
    assert all(p.dtype == torch.float32 for p in net.parameters())


def test_images_of_any_dtype_are_taken_and_not_changed() -> None:
    net = small_net("unet", 3)
    image = torch.randint(0, 200, (2, 20, 18, 40), dtype=torch.int16)
    kept = image.clone()

    labels = predict_labels(net, image, tile_size=(16, 16, 16), tile_batch=3)

    assert torch.equal(image, kept)
    assert torch.equal(labels, predict_labels(net, image.float(), tile_size=(16, 16, 16)))


def test_nan_is_no_label() -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = torch.zeros(len(x), 2, *x.shape[2:])
            logits[0, 1, 3, 3, 3] = torch.nan
            return logits

    with pytest.raises(ConfigError, match=r"the network gives NaN.*precision=fp32"):
        predict_labels(Broken().eval(), torch.zeros(1, 8, 8, 8), tile_size=(8, 8, 8))


def bundle_like(build_bundle: Callable[..., Bundle], **knobs: object) -> Bundle:
    bundle = build_bundle("t1")
    predict = bundle.recipe.predict.model_copy(update=knobs)
    return Bundle(bundle.net, bundle.recipe.model_copy(update={"predict": predict}), "0.0.test")


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_openvino_says_what_torch_says(
    build_bundle: Callable[..., Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    image = torch.rand(1, 40, 36, 33)
    how = {"tile_size": (32, 32, 32), "tile_batch": 2}
    exact = predict_logits(build_bundle("t1").net, image, **how)

    bundle = bundle_like(build_bundle, backend="openvino", precision="fp32", tile_batch=2)
    logits = predict_logits(bundle_engine(bundle), image, **how)

    assert (logits.softmax(0) - exact.softmax(0)).abs().max() < 1e-3
    assert len([*(tmp_path / ".cache/medseg3d/openvino").glob("*.blob")]) == 1


def test_backends_are_chosen_by_precision_too(build_bundle: Callable[..., Bundle]) -> None:
    exact = bundle_like(build_bundle, backend="auto", precision="fp32")
    assert bundle_engine(exact).run is exact.net
    with pytest.raises(ConfigError, match="OpenVINO runs in bf16 or fp32, got precision 'fp16'"):
        bundle_engine(bundle_like(build_bundle, backend="openvino", precision="fp16"))
    with pytest.raises(ConfigError, match="OpenVINO launches kernels of its own, got"):
        bundle_engine(bundle_like(build_bundle, backend="openvino", kernels="inductor"))


def test_auto_is_what_the_processor_computes_in() -> None:
    net = small_net("unet", 2)
    precision = native_precision(CPU)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    assert build_engine(net, precision="auto").dtype == dtype


@pytest.mark.parametrize(
    ("capability", "precision"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((12, 0), "bf16")]
)
def test_a_gpu_that_only_emulates_bf16_computes_in_fp16(
    capability: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert native_precision(torch.device("cuda")) == precision


def test_a_network_in_training_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="training mode, expected eval mode"):
        build_engine(small_net("unet", 2).train())


def test_kernels_are_not_fused_in_fp32() -> None:
    with pytest.raises(ConfigError, match="'fused' are for half precision, got precision 'fp32'"):
        build_engine(small_net("unet", 2), kernels="fused")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
@pytest.mark.parametrize("name", ["unet", "resunet"])
def test_a_gpu_says_in_fp32_what_a_cpu_says(name: str) -> None:
    net, image = small_net(name, 3), torch.randint(-300, 300, (2, 40, 36, 33), dtype=torch.int16)
    exact = predict_logits(net, image, tile_size=(32, 32, 32)).softmax(0)

    engine = build_engine(net.cuda(), precision="fp32")
    first, second = (predict_logits(engine, image, tile_size=(32, 32, 32)) for _ in range(2))

    assert (first.softmax(0).cpu() - exact).abs().max() < 1e-4
    assert torch.equal(first, second)
