"""OpenVINO gives what torch gives; what is kept of it is never trusted, and nothing is reported."""

import logging
import os
import platform
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medseg3d.errors import ConfigError, GridError, MissingExtraError
from medseg3d.nets.presets import NETS, build_net
from medseg3d.predict.openvino import (
    MOST_KEPT,
    OpenVinoEngine,
    choose_backend,
    default_cache,
    import_openvino,
    openvino_engine,
)

installed = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")


def draw_net(seed: int = 0, *, spatial_dims: int = 2) -> nn.Module:
    """Build a network of one convolution and a norm."""
    conv = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
    norm = nn.InstanceNorm2d if spatial_dims == 2 else nn.InstanceNorm3d
    torch.manual_seed(seed)
    return nn.Sequential(conv(2, 3, 3, padding=1), norm(3)).eval()


def build(net: nn.Module, *, cache: Path | None = None, **knobs: object) -> OpenVinoEngine:
    """Build an engine that computes as exactly as it can."""
    given = {"tile": (1, 2, 8, 8), "precision": "fp32", "threads": 1, "key": "seed 0", **knobs}
    return openvino_engine(net, cache=cache, **given)


@pytest.fixture
def tiles() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(1, 2, 8, 8)


@pytest.fixture(scope="session")
def first_blob(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the blob of a network, kept under the key `seed 0`."""
    folder = tmp_path_factory.mktemp("openvino")
    build(draw_net(0), cache=folder)
    [path] = folder.iterdir()
    return path


@pytest.fixture
def kept(first_blob: Path, tmp_path: Path) -> Path:
    """Give a folder that holds that blob."""
    shutil.copy(first_blob, tmp_path)
    return tmp_path


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name.startswith("medseg3d")]


@installed
@pytest.mark.slow
@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("preset", NETS)
def test_every_net_gives_the_probabilities_of_torch(preset: str, spatial_dims: int):
    torch.manual_seed(0)
    config = NETS[preset]
    narrow = {"channels": (4, 6, 8, 10, 12)[: len(config.channels)], "encoder_blocks": 1}
    net = build_net(
        config.model_copy(update=narrow), spatial_dims=spatial_dims, in_channels=2, out_channels=3
    )
    image = torch.randn(2, 2, *(2 * divisor for divisor in net.divisor))
    with torch.no_grad():
        net.train()(image)
        expected = net.eval()(image).softmax(1)
    got = build(net, tile=tuple(image.shape))(image).softmax(1)
    assert (got - expected).abs().max() < 1e-4
    close_call = expected.topk(2, dim=1).values.diff(dim=1).abs()[:, 0] < 1e-4
    assert torch.equal(got.argmax(1)[~close_call], expected.argmax(1)[~close_call])


@installed
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_batch_that_is_not_full_gives_the_logits_of_its_tiles(spatial_dims: int):
    net = draw_net(spatial_dims=spatial_dims)
    tiles = torch.randn(3, 2, *(8,) * spatial_dims)
    before = tiles.clone()
    engine = build(net, tile=tuple(tiles.shape))
    whole, two, last = engine(tiles), engine(tiles[:2]), engine(tiles[2:])
    assert torch.equal(two, whole[:2])
    assert torch.equal(last, whole[2:])
    assert torch.equal(tiles, before), "the input was modified"
    torch.testing.assert_close(whole, net(tiles), rtol=1e-4, atol=1e-5)


@installed
def test_logits_outlive_the_next_tiles_and_tiles_may_be_strided(tiles: Tensor):
    net = draw_net()
    engine = build(net)
    with torch.inference_mode():
        first = engine(tiles)
        remembered = first.clone()
        turned = engine(tiles.transpose(2, 3))
    assert torch.equal(first, remembered)
    torch.testing.assert_close(turned, net(tiles.transpose(2, 3)), rtol=1e-4, atol=1e-5)


@installed
def test_bf16_is_rougher_than_fp32_and_near_it(tiles: Tensor):
    exact, rough = (build(draw_net(), precision=name)(tiles) for name in ("fp32", "bf16"))
    if "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert not torch.equal(rough, exact)
    assert (rough - exact).norm() < 0.03 * exact.norm()


@installed
@pytest.mark.parametrize("shape", [(2, 2, 8, 8), (1, 3, 8, 8), (1, 2, 8, 4)])
def test_tiles_the_engine_was_not_built_for_are_refused(shape: tuple[int, ...]):
    with pytest.raises(GridError) as refused:
        build(draw_net())(torch.zeros(shape))
    assert f"built for tiles of shape (1, 2, 8, 8), got {shape}" in str(refused.value)


@installed
def test_the_blob_that_was_kept_gives_the_same_bytes_for_any_threads(kept: Path, tiles: Tensor):
    expected = build(draw_net(0))(tiles)
    other = draw_net(1)  # were it converted, its own logits would come
    assert not torch.equal(build(other)(tiles), expected)
    for threads in (1, 2, None):
        assert torch.equal(build(other, cache=kept, threads=threads)(tiles), expected)
    assert len([*kept.iterdir()]) == 1


@installed
@pytest.mark.parametrize(
    "changed", [{"key": "seed 1"}, {"precision": "bf16"}, {"tile": (2, 2, 8, 8)}], ids=str
)
def test_another_network_precision_or_tile_is_another_blob(kept: Path, changed: dict[str, object]):
    build(draw_net(1), cache=kept, **changed)
    assert len([*kept.iterdir()]) == 2


@installed
@pytest.mark.parametrize("damage", ["a bit", "the end", "everything", "another's"])
def test_a_damaged_or_foreign_blob_is_told_of_and_replaced(
    kept: Path, tiles: Tensor, damage: str, caplog: pytest.LogCaptureFixture
):
    expected = build(draw_net(0), cache=kept)(tiles)
    [path] = kept.iterdir()
    whole = path.read_bytes()
    if damage == "another's":
        build(draw_net(1), cache=kept, key="seed 1")
        [other] = set(kept.iterdir()) - {path}
        other.replace(path)
    else:
        flipped = whole[:99] + bytes([whole[99] ^ 1]) + whole[100:]
        path.write_bytes({"a bit": flipped, "the end": whole[:-40], "everything": b""}[damage])
    assert torch.equal(build(draw_net(0), cache=kept)(tiles), expected)
    assert len(warnings_of(caplog)) == 1
    assert f"'{path}' is damaged or of another model" in caplog.text
    caplog.clear()
    assert torch.equal(build(draw_net(1), cache=kept)(tiles), expected)
    assert warnings_of(caplog) == []


@installed
def test_a_folder_that_cannot_be_used_is_told_of_and_done_without(
    tmp_path: Path, tiles: Tensor, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").touch()
    engine = build(draw_net(), cache=tmp_path / "file" / "cache")
    torch.testing.assert_close(engine(tiles), draw_net()(tiles), rtol=1e-4, atol=1e-5)
    assert "is not kept for the next time" in warnings_of(caplog)[-1]


@installed
def test_the_blobs_that_were_not_used_for_longest_make_room(kept: Path):
    [used] = kept.iterdir()
    others = [kept / f"{n}.blob" for n in range(MOST_KEPT)]
    for age, path in enumerate([used, *others]):
        path.touch()
        os.utime(path, (10**9 + age, 10**9 + age))
    build(draw_net(1), cache=kept)  # uses the oldest
    build(draw_net(1), cache=kept, key="seed 1")
    assert len([*kept.iterdir()]) == MOST_KEPT
    assert used.exists()
    assert [path.exists() for path in others[:3]] == [False, False, True]


class Branch(nn.Module):
    """Do one thing or another, as the data are."""

    def forward(self, features: Tensor) -> Tensor:
        return features if features.max() > 0 else -features


class Bessel(nn.Module):
    """Do what OpenVINO has no operation for."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.special.i1e(features)


@installed
@pytest.mark.parametrize("layer", [Branch(), Bessel()], ids=["branch", "no operation"])
def test_a_network_that_cannot_be_converted_is_refused_by_its_layer(layer: nn.Module):
    net = nn.Sequential(nn.ReLU(), nn.Sequential(nn.ReLU(), layer)).eval()
    root = logging.getLogger()
    before = [*root.handlers], root.level
    with pytest.raises(ConfigError) as refused:
        build(net)
    assert "OpenVINO cannot run this network because of layer '1.1': " in str(refused.value)
    assert str(refused.value).endswith("Use the backend torch.")
    assert "\n" not in str(refused.value)
    assert ([*root.handlers], root.level) == before


@installed
def test_a_tile_that_does_not_fit_the_network_is_refused_as_the_network_does():
    net = build_net("unet", spatial_dims=2, in_channels=1, out_channels=2).eval()
    with pytest.raises(GridError, match=r"size \(30, 32\) is not a multiple"):
        build(net, tile=(1, 1, 30, 32))


def test_training_mode_is_refused():
    with pytest.raises(ConfigError, match=r"expected eval mode; call net\.eval\(\)"):
        build(draw_net().train())


def test_where_openvino_is_missing_its_pip_line_is_given(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError) as refused:
        build(draw_net())
    assert 'pip install "medseg3d[openvino]"' in str(refused.value)
    assert "openvino_telemetry" not in sys.modules


BUILD = """
import sys
asked = []

def refuse(event, arguments):
    if event.startswith("socket."):
        asked.append(event)
        raise OSError(event)

sys.addaudithook(refuse)
import torch
from pathlib import Path
from torch import nn
from medseg3d.predict.openvino import openvino_engine

torch.manual_seed(0)
net = nn.Conv2d(2, 3, 3).eval()
cache = Path(sys.argv[1])
engine = openvino_engine(net, tile=(1, 2, 8, 8), precision="fp32", cache=cache, key="conv")
print(asked, engine(torch.ones(1, 2, 8, 8)).sum().item())
"""


def start(cache: Path, home: Path) -> "subprocess.Popen[str]":
    """Build an engine in a process of its own, where telemetry would see no reason to be quiet."""
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(cache)],
        env={"HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@installed
@pytest.mark.slow
def test_nothing_is_sent_and_nothing_but_the_blob_written(tmp_path: Path):
    home, cache = tmp_path / "home", tmp_path / "cache"
    home.mkdir()
    said, complained = start(cache, home).communicate()
    assert said.startswith("[] "), complained
    assert [*home.iterdir()] == []
    assert [path.suffix for path in cache.iterdir()] == [".blob"]


@installed
@pytest.mark.slow
def test_processes_that_start_together_do_not_disturb_each_other(tmp_path: Path):
    started = [start(tmp_path / "cache", tmp_path) for _ in range(3)]
    said = [process.communicate() for process in started]
    assert [complained for _, complained in said] == [""] * 3
    assert len({answer for answer, _ in said}) == 1
    assert len([*(tmp_path / "cache").iterdir()]) == 1


def test_blobs_lie_in_the_users_cache_folder():
    assert default_cache().parts[-3:] == (".cache", "medseg3d", "openvino")
    assert default_cache().is_relative_to(Path.home())


@installed
def test_openvino_is_chosen_on_a_cpu_it_is_installed_on():
    on_x86 = platform.machine().lower() in ("x86_64", "amd64")
    chosen = choose_backend("auto", device=torch.device("cpu"))
    assert chosen == ("openvino" if on_x86 else "torch")


@pytest.mark.parametrize("asked", ["torch", "openvino"])
def test_a_backend_that_is_asked_for_is_taken(asked: str):
    assert choose_backend(asked, device=torch.device("cpu")) == asked


def test_openvino_is_not_for_gpus():
    assert choose_backend("auto", device=torch.device("cuda")) == "torch"
    with pytest.raises(ConfigError) as refused:
        choose_backend("openvino", device=torch.device("cuda"))
    assert "backend 'openvino' runs on the CPU, got device 'cuda'" in str(refused.value)
