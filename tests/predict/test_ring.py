"""Streaming gives what holding everything would."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medseg3d.predict.sliding import predict_labels, predict_logits, stream_slabs
from medseg3d.predict.tiles import plan_tiles


class Mixed(nn.Module):
    """Logits that depend on the place in the tile, so that blending shows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps = [torch.linspace(-1, 1, n) for n in x.shape[2:]]
        slope = sum(torch.meshgrid(*steps, indexing="ij"))
        return torch.cat([x, -x * slope, x * x + slope], dim=1)


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
