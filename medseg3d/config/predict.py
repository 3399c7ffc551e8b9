"""How a volume is segmented, tile by tile."""

from collections.abc import Iterable
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, PositiveInt, field_validator

from medseg3d.config.postprocess import RegionRule, plan_steps
from medseg3d.config.section import Section
from medseg3d.labels import LabelScheme

Axis: TypeAlias = Literal["i", "j", "k"]
"""Of a preprocessed volume."""
Precision: TypeAlias = Literal["auto", "fp32", "bf16", "fp16"]
Kernels: TypeAlias = Literal["eager", "graph", "fused", "inductor"]
Focus: TypeAlias = Literal["all", "nonzero", "body"]


class PredictConfig(Section):
    """The sliding window."""

    tile_size: tuple[PositiveInt, ...] | None = None
    """Window along the preprocessed axes; null takes the training patch."""
    overlap: float = Field(default=0.5, ge=0, lt=1)
    """Least share of a tile that its neighbour covers too."""
    tile_batch: PositiveInt = 1
    """Tiles per forward pass; the result does not depend on it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    precision: Precision = "auto"
    """Of weights and activations; `auto` takes half precision where the processor computes in it,
    `fp32` gives the same bits on every machine of a kind. Tiles are summed in fp32 always."""
    backend: Literal["auto", "torch", "openvino"] = "torch"
    """What computes on a CPU; `auto` takes OpenVINO where it is installed, but not for fp32."""
    kernels: Kernels = "eager"
    """How torch launches a network: `eager` one kernel after the other; on CUDA `graph` all of them
    at once, `fused` also norms, sums and activations in one, by Triton; `inductor` as torch.compile
    makes them, on CPUs too, which takes a minute at first."""
    keep_memory: bool = True
    """Whether the command, in training too, keeps the memory of large tensors for the next ones; on
    CPUs (Linux) that is quicker, and the most memory in use somewhat more."""
    mirror: tuple[Axis, ...] = ()
    """Preprocessed axes along which tiles are flipped too, of those that training flipped; what all
    flips give is averaged. Each axis doubles the time."""
    focus: Focus = "all"
    """Where tiles are computed, the rest becomes background: everywhere; around voxels that are not
    0 in some channel (skull-stripped brains); around those above -500 HU (CT)."""
    thresholds: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(default={})
    """Region -> probability above which it is there, of networks that predict regions; else 0.5."""
    postprocess: dict[str, RegionRule] = Field(default={})
    """Region's or value's name -> what is done to it in the label map, on the grid of the images;
    one after the other, in the order given."""

    @field_validator("mirror")
    @classmethod
    def _each_axis_once(cls, axes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(axes)) < len(axes):
            raise ValueError("an axis is named twice")
        return axes

    def require_fit(
        self,
        labels: LabelScheme,
        *,
        spatial_dims: int,
        flipped: Iterable[Axis] | None,
        regions: Iterable[str] = (),
    ) -> None:
        """Check that knobs speak of what a network knows: axes that training flipped, regions.

        Raises:
            ValueError: they name something else.
        """
        plan_steps(self.postprocess, labels)
        if unknown := sorted(set(self.thresholds) - set(regions)):
            raise ValueError(
                f"predict.thresholds is for {unknown}; "
                f"the network's outputs are {[*regions] or 'values, of which the largest wins'}"
            )
        if off := sorted(set(self.mirror) - set("ijk"[:spatial_dims])):
            raise ValueError(
                f"predict.mirror is {off}; a {spatial_dims}D network has "
                f"{', '.join('ijk'[:spatial_dims])}"
            )
        if flipped is not None and (unknown := sorted(set(self.mirror) - set(flipped))):
            raise ValueError(
                f"predict.mirror is {unknown}, which training never flipped, so that the network "
                f"would be asked what it has not seen; it flipped {[*flipped] or 'none'}"
            )
