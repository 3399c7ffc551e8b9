"""The laws of the sliding window, with networks whose answer is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medseg3d.errors import ConfigError, GridError
from medseg3d.nets.presets import NETS, build_net
from medseg3d.predict.sliding import predict_labels, predict_logits


class Constant(nn.Module):
    """Give the same logits everywhere."""

    def __init__(self, *logits: float, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=dtype), requires_grad=False)

    def forward(self, image: Tensor) -> Tensor:
        shape = (1, -1) + (1,) * (image.ndim - 2)
        return self.logits.reshape(shape).expand(len(image), -1, *image.shape[2:])


class Copy(nn.Module):
    """Give the image and its negative."""

    divisor = (4, 4, 4)

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([image, -image], dim=1)


@pytest.mark.parametrize("shape", [(33, 20, 47), (5, 40, 1), (1, 1, 1), (24, 24, 24)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_constant_logits_come_back_constant_at_every_voxel(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    values = torch.tensor([0.3, -70.0, 1000.0], dtype=dtype)
    net = Constant(*values.tolist(), dtype=dtype).eval()

    logits = predict_logits(net, torch.rand(1, *shape), tile_size=(16, 16, 16))

    assert logits.dtype == torch.float32
    assert logits.shape == (3, *shape)
    expected = values.float().reshape(3, 1, 1, 1).expand_as(logits)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", [(33, 20, 47), (3, 60, 16), (16, 16, 16)])
def test_a_voxelwise_network_gives_what_it_gives_without_tiles(shape: tuple[int, ...]) -> None:
    image = torch.randn(1, *shape)
    before = image.clone()

    logits = predict_logits(Copy().eval(), image, tile_size=(16, 20, 16), overlap=0.3)

    torch.testing.assert_close(logits, torch.cat([image, -image]), rtol=1e-5, atol=1e-6)
    assert torch.equal(image, before), "the input was modified"


@pytest.mark.parametrize("tile_batch", [1, 2])
def test_a_network_that_writes_into_its_input_does_not_write_into_the_image(
    tile_batch: int,
) -> None:
    image = torch.randn(1, 20, 16, 16)
    before = image.clone()

    logits = predict_logits(
        nn.ReLU(inplace=True).eval(), image, tile_size=(16, 16, 16), tile_batch=tile_batch
    )

    assert torch.equal(image, before)
    torch.testing.assert_close(logits, before.relu(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", NETS)
def test_the_result_does_not_depend_on_the_tile_batch(name: str, spatial_dims: int) -> None:
    torch.manual_seed(0)
    config = NETS[name].model_copy(update={"channels": (4, 8, 8), "encoder_blocks": 1})
    net = build_net(config, spatial_dims=spatial_dims, in_channels=2, out_channels=3).eval()
    image = torch.randn(2, *(37, 21, 19)[:spatial_dims])
    tile_size = (16, 16, 16)[:spatial_dims]

    one, many = (
        predict_logits(net, image, tile_size=tile_size, tile_batch=batch) for batch in (1, 5)
    )

    assert one.shape == (3, *image.shape[1:])
    torch.testing.assert_close(one, many, rtol=1e-3, atol=1e-4)


def test_labels_are_the_argmax_of_the_logits() -> None:
    image = torch.randn(1, 20, 30, 9)

    labels = predict_labels(Copy().eval(), image, tile_size=(16, 16, 16))

    assert labels.dtype == torch.uint8
    assert torch.equal(labels, (image[0] < 0).to(torch.uint8))


def test_more_than_256_channels_do_not_wrap_around() -> None:
    net = Constant(*[float(n == 299) for n in range(300)]).eval()

    labels = predict_labels(net, torch.zeros(1, 4, 4, 4), tile_size=(4, 4, 4))

    assert (labels == 299).all()


def test_logits_are_written_to_a_file_as_they_are_finished(tmp_path: Path) -> None:
    image = torch.randn(1, 20, 30, 9)
    how = {"tile_size": (16, 16, 16)}
    stored = np.memmap(tmp_path / "logits", np.float32, mode="w+", shape=(2, 20, 30, 9))

    given = predict_logits(Copy().eval(), image, **how, out=torch.from_numpy(stored))

    stored.flush()
    read = np.fromfile(tmp_path / "logits", np.float32).reshape(stored.shape)
    expected = predict_logits(Copy().eval(), image, **how)
    torch.testing.assert_close(torch.from_numpy(read), expected, rtol=0, atol=0)
    assert given.data_ptr() == stored.ctypes.data
    with pytest.raises(GridError, match=r"has shape \(2, 20, 30, 9\), got out of \(1, 20, 30, 9\)"):
        predict_logits(Copy().eval(), image, **how, out=torch.empty(1, 20, 30, 9))


def test_progress_counts_tiles_to_the_last() -> None:
    seen: list[tuple[int, int]] = []

    predict_logits(
        Constant(1.0).eval(),
        torch.zeros(1, 16, 40, 64),
        tile_size=(16, 16, 16),
        tile_batch=3,
        progress=lambda done, total: seen.append((done, total)),
    )

    assert seen[-1] == (28, 28)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_a_tile_of_other_dimension_is_refused() -> None:
    with pytest.raises(GridError, match=r"3 spatial axes, tile_size \(16, 16\) has 2"):
        predict_logits(Constant(1.0).eval(), torch.zeros(1, 8, 8, 8), tile_size=(16, 16))


def test_a_tile_that_does_not_fit_the_network_is_refused_with_the_next_that_does() -> None:
    with pytest.raises(GridError, match=r"\(16, 18, 16\).*\(4, 4, 4\).*\(16, 20, 16\)"):
        predict_logits(Copy().eval(), torch.zeros(1, 8, 8, 8), tile_size=(16, 18, 16))


def test_a_network_in_training_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"training mode, expected eval mode; call net\.eval\(\)"):
        predict_logits(Copy(), torch.zeros(1, 8, 8, 8), tile_size=(8, 8, 8))
