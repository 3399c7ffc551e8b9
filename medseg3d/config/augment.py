"""Random changes to training patches."""

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    field_validator,
    model_validator,
)

from medseg3d.config.section import Section


def _rising(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] > span[1]:
        raise ValueError("a range is given as smallest, largest")
    return span


Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Span: TypeAlias = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_rising)]

NOTHING: Final = {
    "rotation_probability": 0,
    "scale_probability": 0,
    "noise_probability": 0,
    "brightness_probability": 0,
    "gamma_probability": 0,
}

PRESETS: Final[dict[str, dict[str, Any]]] = {
    "none": NOTHING,
    "light": {},
    "founding": NOTHING
    | {
        "rotation_probability": 0.5,
        "elastic_probability": 0.5,
        "contrast_probability": 0.5,
        "contrast": (0.8, 1.2),
    },
    "nnunet": {
        "mirror_axes": (0, 1, 2),
        "rotation_probability": 0.2,
        "rotation_degrees": 30,
        "rotation_degrees_2d": 180,
        "scale_probability": 0.2,
        "scale": (0.7, 1.4),
        "noise_probability": 0.1,
        "blur_probability": 0.2,
        "contrast_probability": 0.15,
        "low_resolution_probability": 0.25,
        "gamma_probability": 0.3,
        "inverted_gamma_probability": 0.1,
    },
}
"""What a preset sets; everything else is as in `light`, the defaults below."""


class AugmentConfig(Section):
    """Random changes to training patches; every probability is per patch.

    A preset's name alone stands for all that it sets: `augment: nnunet`.
    """

    preset: Literal["none", "light", "founding", "nnunet"] = "light"
    """What the other knobs are where they are not given: nothing, a little (the values of this
    table), rotation, elastic bending and contrast, or what nnU-Net does."""
    mirror_axes: tuple[Literal[0, 1, 2], ...] = ()
    """Axes flipped with probability one half; not for labels that tell left from right. No preset
    flips but `nnunet`, along all axes."""
    rotation_probability: Share = 0.3
    """How often a patch is turned; turning, zooming and bending are one interpolation."""
    rotation_degrees: NonNegativeFloat = 15.0
    """Largest angle about each axis."""
    rotation_degrees_2d: NonNegativeFloat = 15.0
    """Largest angle in place of that for 2D networks, and where there is a `thick_axis`."""
    scale_probability: Share = 0.3
    """How often a patch is zoomed."""
    scale: Span = (0.85, 1.18)
    """Range of the zoom factor; above 1, things get larger."""
    scale_per_axis: bool = False
    """Whether each axis has a zoom factor of its own."""
    elastic_probability: Share = 0.0
    """How often a patch is bent by a smooth random field (Simard 2003)."""
    elastic_sigma: PositiveFloat = 10.0
    """How smooth that field is: the deviation of the Gaussian that smooths noise from -1 to 1, in
    units of the shortest voxel edge."""
    elastic_alpha: NonNegativeFloat = 30.0
    """How strong it is: the factor of the smoothed noise. Shifts have a standard deviation of
    0.163 × alpha / sigma voxel edges, as in the plane, for which this was defined, in 3D too."""
    thick_axis: Literal[0, 1, 2] | None = None
    """Axis along which nothing is turned, zoomed or bent: that of slices much thicker than wide."""
    noise_probability: Share = 0.15
    """How often Gaussian noise is added."""
    noise_deviation: NonNegativeFloat = 0.1
    """Largest standard deviation of that noise, in units of the normalised image."""
    blur_probability: Share = 0.0
    """How often a patch is blurred."""
    blur_channel_share: Share = 0.5
    """How often each channel of such a patch is."""
    blur_sigma: Span = (0.5, 1.0)
    """Range of the Gaussian's standard deviation, drawn for each axis, in voxels."""
    brightness_probability: Share = 0.15
    """How often each channel is multiplied by a factor."""
    brightness: Span = (0.75, 1.25)
    """Range of that factor; as often below 1 as above."""
    contrast_probability: Share = 0.0
    """How often each channel's distance from its mean is multiplied, within the channel's range."""
    contrast: Span = (0.75, 1.25)
    """Range of that factor; as often below 1 as above."""
    low_resolution_probability: Share = 0.0
    """How often a patch is made coarse: fewer voxels, then as many as before, interpolated."""
    low_resolution_channel_share: Share = 0.5
    """How often each channel of such a patch is."""
    low_resolution: Span = (0.5, 1.0)
    """Range of the share of voxels kept along each axis but the thick one."""
    gamma_probability: Share = 0.15
    """How often each channel's grey scale is bent by an exponent; mean and deviation stay."""
    inverted_gamma_probability: Share = 0.0
    """How often the negative's grey scale is."""
    gamma: Span = (0.7, 1.5)
    """Range of the exponent; as often below 1 as above."""
    channel_dropout_probability: Share = 0.0
    """How often each channel is set to 0, for networks that shall do without; one always stays."""

    @model_validator(mode="before")
    @classmethod
    def _begin_with_preset(cls, given: Any) -> Any:
        if isinstance(given, str):
            given = {"preset": given}
        if not isinstance(given, dict):
            return given
        return PRESETS.get(str(given.get("preset", "light")), {}) | given

    @field_validator("mirror_axes")
    @classmethod
    def _each_axis_once(cls, axes: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(axes)) < len(axes):
            raise ValueError("an axis is named twice")
        return axes
