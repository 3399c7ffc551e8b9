"""What a bundle must know to segment: the part of a run that outlives its data set."""

from typing import Literal

from pydantic import Field, model_validator

from medseg3d.config.data import Pattern
from medseg3d.config.network import NetworkConfig
from medseg3d.config.predict import Axis, PredictConfig
from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.config.run import Outputs, RunConfig
from medseg3d.config.section import Section
from medseg3d.labels import LabelScheme


class Recipe(Section):
    """From file to label map, without weights."""

    images: dict[str, Pattern] = Field(min_length=1)
    """Channel name -> path pattern of training, in the network's order."""
    labels: LabelScheme
    """Values, names and regions of the label maps."""
    missing: Literal["refuse", "zeros"] = "refuse"
    """What to do with cases that lack a channel: an error, or zeros, as in training."""
    preprocess: PreprocessConfig
    """From file to network and back."""
    spatial_dims: Literal[2, 3]
    """2D or 3D network."""
    outputs: Outputs = "values"
    """What output channels are: background and each value, of which the largest wins (softmax);
    or regions that may overlap, each with a threshold of its own (sigmoid)."""
    flipped: tuple[Axis, ...] | None = None
    """Axes along which training flipped images; null where that is not known."""
    network: NetworkConfig
    """Which network, and its knobs."""
    predict: PredictConfig
    """Sliding window, with the tile's size filled in."""

    @model_validator(mode="after")
    def _sections_agree(self) -> "Recipe":
        tile_size = self.predict.tile_size
        if tile_size is None or len(tile_size) != self.spatial_dims:
            raise ValueError(
                f"predict.tile_size is {tile_size}, a {self.spatial_dims}D network needs "
                f"{self.spatial_dims} numbers"
            )
        self.require_fitting(self.predict)
        return self

    def require_fitting(self, predict: PredictConfig) -> None:
        """Check that knobs, these or another recipe's, speak of what this network knows.

        Raises:
            ValueError: they name something else.
        """
        regions = self.labels.painted if self.outputs == "regions" else ()
        predict.require_fit(
            self.labels, spatial_dims=self.spatial_dims, flipped=self.flipped, regions=regions
        )

    @property
    def num_outputs(self) -> int:
        """Output channels of the network."""
        of_values = len(self.labels.channel_values)
        return of_values if self.outputs == "values" else len(self.labels.regions)


def build_recipe(run: RunConfig) -> Recipe:
    """Take from a run what its model needs; the tile is the training patch unless set."""
    tile_size = run.predict.tile_size or run.train.patch_size
    return Recipe(
        images=run.data.images,
        missing="zeros" if run.data.missing == "zeros" else "refuse",
        labels=run.data.labels,
        preprocess=run.preprocess,
        spatial_dims=run.spatial_dims,
        outputs=run.outputs,
        flipped=run.flipped,
        network=run.network,
        predict=run.predict.model_copy(update={"tile_size": tile_size}),
    )
