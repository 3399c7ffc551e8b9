"""What is made of a slab's sums is what would be made of the whole image's logits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from medseg3d.errors import ConfigError
from medseg3d.predict.engine import Engine
from medseg3d.predict.slab import Slab, label_dtype
from medseg3d.predict.sliding import predict_logits, stream_slabs
from medseg3d.predict.tiles import gaussian_weight, plan_tiles

THRESHOLDS = [0.2, 0.5, 0.8]
OUTPUTS = st.sampled_from(["values", "regions"])
SHAPES = st.tuples(*[st.integers(1, 14)] * 3)
TILES = st.tuples(*[st.integers(1, 8)] * 3)


class Mixed(nn.Module):
    """Three logits that depend on the place in the tile, and a map."""

    def forward(self, x: Tensor) -> Tensor:
        steps = [torch.linspace(-1, 1, n) for n in x.shape[2:]]
        slope = sum(torch.meshgrid(*steps, indexing="ij"))
        return torch.cat([x, -x * slope, x * x + slope - 1, (x - slope) ** 2], dim=1)


WITH_MAP = Engine(Mixed().eval(), torch.device("cpu"), num_maps=1)


def slab_of(sums: Tensor, *, weight: float = 1.0, box: tuple[slice, ...] | None = None) -> Slab:
    own = box or tuple(slice(0, n) for n in sums.shape[1:])
    return Slab(own, sums, sums[:0], (torch.full(sums.shape[1:], weight),))


def joined(parts: list[tuple[tuple[slice, ...], Tensor]], shape: tuple[int, ...]) -> Tensor:
    channels = parts[0][1].shape[:-3]
    whole = torch.full((*channels, *shape), torch.nan)
    for box, part in parts:
        whole[(..., *box)] = part.to(whole.dtype)
    return whole


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(shape=SHAPES, tile=TILES, overlap=st.floats(0, 0.7), outputs=OUTPUTS)
def test_streamed_decisions_are_those_of_the_whole_logits(
    shape: tuple[int, ...], tile: tuple[int, ...], overlap: float, outputs: str
) -> None:
    image, how = torch.randn(1, *shape), {"tile_size": tile, "overlap": overlap}
    logits = predict_logits(WITH_MAP, image, **how)

    slabs = stream_slabs(WITH_MAP, image, **how)
    kept = [
        (s.box, s.probs(outputs), s.maps(), s.regions(THRESHOLDS), s.labels().long()) for s in slabs
    ]

    probs, maps, regions, labels = (
        joined([(parts[0], parts[n]) for parts in kept], shape) for n in range(1, 5)
    )
    expected = logits.softmax(0) if outputs == "values" else logits.sigmoid()
    torch.testing.assert_close(probs, expected, rtol=1e-5, atol=1e-6)
    least = torch.tensor(THRESHOLDS).view(3, 1, 1, 1)
    sure = (logits.sigmoid() - least).abs() > 1e-5  # where rounding may decide, either is right
    assert torch.equal(regions.bool()[sure], (logits.sigmoid() > least)[sure])
    chosen = logits.gather(0, labels[None].long())[0]
    torch.testing.assert_close(chosen, logits.amax(0), rtol=1e-5, atol=1e-5)
    as_logit = Engine(WITH_MAP.run, WITH_MAP.device)
    torch.testing.assert_close(maps, predict_logits(as_logit, image, **how)[3:])


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(shape=SHAPES, tile=TILES, overlap=st.floats(0, 0.7), batch=st.integers(1, 3))
def test_where_every_tile_is_wanted_nothing_changes(
    shape: tuple[int, ...], tile: tuple[int, ...], overlap: float, batch: int
) -> None:
    image = torch.randn(1, *shape)
    how = {"tile_size": tile, "overlap": overlap, "tile_batch": batch}
    everywhere = torch.ones(shape, dtype=torch.bool)

    pairs = zip(
        stream_slabs(WITH_MAP, image, **how),
        stream_slabs(WITH_MAP, image, **how, wanted=everywhere),
        strict=True,
    )

    for plain, wanted in pairs:
        assert plain.box == wanted.box
        assert torch.equal(plain.labels(), wanted.labels())
        assert torch.equal(plain.logits(), wanted.logits())
        assert torch.equal(plain.maps(), wanted.maps())


@settings(deadline=None, max_examples=40)
@given(
    shape=SHAPES,
    tile=TILES,
    overlap=st.floats(0, 0.7),
    batch=st.integers(1, 3),
    num_wanted=st.integers(0, 4),
    seed=st.integers(0, 999),
)
def test_where_some_tiles_are_wanted_those_are_blended_and_the_rest_is_background(
    shape: tuple[int, ...],
    tile: tuple[int, ...],
    overlap: float,
    batch: int,
    num_wanted: int,
    seed: int,
) -> None:
    draw = torch.Generator().manual_seed(seed)
    image = torch.randn(1, *shape, generator=draw)
    wanted = torch.zeros(shape, dtype=torch.bool)
    wanted.view(-1)[torch.randint(wanted.numel(), (num_wanted,), generator=draw)] = True
    how = {"tile_size": tile, "overlap": overlap, "tile_batch": batch, "wanted": wanted}

    whole = torch.zeros(3, *shape)
    covered = torch.zeros(shape, dtype=torch.bool)
    for slab in stream_slabs(WITH_MAP, image, **how):
        here = slab.weights[0] > 0
        for weight in slab.weights[1:]:
            here = here & (weight > 0)
        covered[slab.box] = here
        whole[(slice(None), *slab.box)] = slab.logits()
        beyond = ~here.expand(slab.sums.shape[1:])
        assert not slab.labels()[beyond].any()
        assert not slab.regions([0.001] * 3)[:, beyond].any()
        assert (slab.probs("values")[0, beyond] == 1).all()
        assert not slab.probs("values")[1:, beyond].any()
        assert not slab.probs("regions")[:, beyond].any()
        assert not slab.maps()[:, beyond].any()

    assert covered[wanted].all()
    assert not whole[:, ~covered].any()
    assert whole.isfinite().all()
    sums, weights = blended(image, wanted, tile, overlap)
    assert torch.equal(weights > 0, covered)
    torch.testing.assert_close(whole, sums / weights.clamp_min(1e-30), rtol=1e-3, atol=1e-4)


def blended(
    image: Tensor, wanted: Tensor, tile: tuple[int, ...], overlap: float
) -> tuple[Tensor, Tensor]:
    """Blend the tiles that hold a wanted voxel, all in memory, in float64."""
    short = [max(t - n, 0) for n, t in zip(image.shape[1:], tile, strict=True)]
    sides = [side for n in reversed(short) for side in (n // 2, n - n // 2)]
    padded = nn.functional.pad(image[None], sides, mode="replicate")[0]
    mask = nn.functional.pad(wanted[None, None].float(), sides, mode="replicate")[0, 0] > 0
    sums = torch.zeros(3, *padded.shape[1:], dtype=torch.float64)
    weights = torch.zeros(padded.shape[1:], dtype=torch.float64)
    each = [torch.from_numpy(gaussian_weight(t)).double() for t in tile]
    weight = each[0][:, None, None] * each[1][:, None] * each[2]
    for column in plan_tiles(padded.shape[1:], tile, overlap=overlap).columns():
        for box in column.tiles:
            if mask[box].any():
                sums[(slice(None), *box)] += (
                    WITH_MAP(padded[(None, slice(None), *box)])[0, :3] * weight
                )
                weights[box] += weight
    inside = tuple(slice(n // 2, n // 2 + m) for n, m in zip(short, image.shape[1:], strict=True))
    return sums[(slice(None), *inside)].float(), weights[inside].float()


def test_of_equal_logits_the_first_channel_wins() -> None:
    sums = torch.tensor([[1.0, 0.0, 2.0], [1.0, 3.0, 2.0], [0.0, 3.0, 2.0]]).view(3, 3, 1, 1)

    assert slab_of(sums).labels().ravel().tolist() == [0, 1, 0]


def test_a_region_is_where_its_probability_is_above_its_own_threshold() -> None:
    probs = torch.tensor([0.1, 0.21, 0.49, 0.51, 0.79, 0.81])
    sums = 4 * torch.logit(probs).expand(3, 6).reshape(3, 6, 1, 1)

    masks = slab_of(sums, weight=4.0).regions(THRESHOLDS)

    assert masks.sum((1, 2, 3)).tolist() == [5, 3, 1]


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_nan_is_refused_by_what_decides(channel: int) -> None:
    sums = torch.zeros(3, 2, 2, 2)
    sums[channel, 1, 0, 1] = torch.nan

    for decide in (Slab.labels, lambda slab: slab.regions([0.5] * 3)):
        with pytest.raises(ConfigError) as error:
            decide(slab_of(sums))
        assert str(error.value) == (
            "the network gives NaN: its weights are damaged, or numbers overflow in half "
            "precision; try --set predict.precision=fp32"
        )


def test_a_slab_is_cut_to_a_box_and_moves_with_it() -> None:
    sums = torch.arange(24.0).reshape(1, 4, 3, 2)
    rows, planes = torch.arange(1.0, 5).view(4, 1, 1), torch.ones(1, 1, 2)
    slab = Slab((slice(4, 8), slice(0, 3), slice(0, 2)), sums, sums + 1, (rows, planes))

    cut = slab.within((slice(6, 9), slice(1, 2), slice(0, 2)))

    assert cut is not None
    assert cut.box == (slice(0, 2), slice(0, 1), slice(0, 2))
    assert torch.equal(cut.sums, sums[:, 2:, 1:2])
    assert torch.equal(cut.map_sums, sums[:, 2:, 1:2] + 1)
    assert torch.equal(cut.logits(), sums[:, 2:, 1:2] / torch.tensor([3.0, 4]).view(2, 1, 1))
    assert slab.within((slice(8, 9), slice(0, 3), slice(0, 2))) is None


def test_labels_take_the_smallest_dtype_that_holds_all_channels() -> None:
    assert label_dtype(256) == torch.uint8
    assert label_dtype(257) == torch.int32
