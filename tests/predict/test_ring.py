"""Streaming gives what holding everything would."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medseg3d.predict.compose import slicewise
from medseg3d.predict.engine import Engine, build_engine
from medseg3d.predict.sliding import predict_labels, predict_logits, stream_slabs
from medseg3d.predict.tiles import plan_tiles


class Mixed(nn.Module):
    """Logits that depend on the place in the tile, so that blending shows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps = [torch.linspace(-1, 1, n) for n in x.shape[2:]]
        slope = sum(torch.meshgrid(*steps, indexing="ij"))
        return torch.cat([x, -x * slope, x * x + slope], dim=1)


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(*[st.integers(1, 23)] * 3),
    tile=st.tuples(*[st.integers(1, 9)] * 3),
    overlap=st.floats(0, 0.8),
    batch=st.integers(1, 4),
)
def test_slabs_are_the_blend_of_all_tiles_and_cover_each_voxel_once(
    shape: tuple[int, int, int], tile: tuple[int, int, int], overlap: float, batch: int
) -> None:
    image = torch.rand(1, *shape)
    net = Mixed().eval()
    how = {"tile_size": tile, "overlap": overlap, "tile_batch": batch}

    covered = torch.zeros(shape)
    for slab in stream_slabs(net, image, **how):
        covered[slab.box] += 1
    logits = predict_logits(net, image, **how)

    assert (covered == 1).all()
    labels = predict_labels(net, image, **how).long()
    chosen = logits.gather(0, labels[None])[0]
    torch.testing.assert_close(chosen, logits.amax(0), rtol=1e-5, atol=1e-6)  # of ties any
    if all(n >= t for n, t in zip(shape, tile, strict=True)):
        torch.testing.assert_close(logits, held_whole(net, image, tile, overlap))


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_tiles_of_half_precision_are_summed_in_single(precision: torch.dtype) -> None:
    image = torch.rand(1, 20, 9, 7)
    half = Engine(lambda tiles: Mixed()(tiles).to(precision), torch.device("cpu"))

    logits = predict_logits(half, image, tile_size=(8, 6, 7), overlap=0.7)

    expected = held_whole(Mixed(), image, (8, 6, 7), 0.7)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, rtol=0, atol=4 * torch.finfo(precision).eps)


@pytest.mark.parametrize("shape", [(17, 13), (1, 30), (5, 1)])
def test_a_2d_image_is_blended_as_a_volume_of_one_slice(shape: tuple[int, int]) -> None:
    image = torch.rand(1, *shape)

    flat = predict_logits(Mixed().eval(), image, tile_size=(6, 5))
    deep = predict_logits(
        slicewise(build_engine(Mixed().eval())), image[..., None], tile_size=(6, 5, 1)
    )

    torch.testing.assert_close(flat, deep[..., 0])


def test_a_slab_is_not_held_once_the_next_is_asked_for() -> None:
    engine = build_engine(Mixed().eval())
    slabs = stream_slabs(engine, torch.rand(1, 40, 12, 6), tile_size=(6, 6, 6), overlap=0.0)

    places = {slab.sums.untyped_storage().data_ptr() for slab in slabs}

    assert len(places) == 1, "all slabs are views of one window"


def held_whole(
    net: nn.Module, image: torch.Tensor, tile: tuple[int, int, int], overlap: float
) -> torch.Tensor:
    grid = plan_tiles(image.shape[1:], tile, overlap=overlap)
    offsets = [torch.arange(n) - (n - 1) / 2 for n in tile]
    weight = torch.ones(())
    for n, offset in zip(tile, offsets, strict=True):
        weight = weight[..., None] * torch.exp(-0.5 * (offset / (n / 8)) ** 2)
    total, sums = torch.zeros(image.shape[1:]), torch.zeros(3, *image.shape[1:])
    for box in (box for column in grid.columns() for box in column.tiles):
        total[box] += weight
        sums[(slice(None), *box)] += net(image[(None, slice(None), *box)])[0] * weight
    return sums / total
