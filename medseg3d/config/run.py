"""A whole run: what `medseg3d train` reads from YAML."""

from typing import Literal, TypeAlias

from pydantic import model_validator

from medseg3d.config.data import DataConfig
from medseg3d.config.network import NetworkConfig
from medseg3d.config.predict import Axis, PredictConfig
from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.config.pretrain import PretrainConfig
from medseg3d.config.section import Section
from medseg3d.config.train import TrainConfig

Outputs: TypeAlias = Literal["values", "regions"]
"""What channels are: of which the largest wins, or each for itself."""


class RunConfig(Section):
    """Everything that makes a model, one section per verb."""

    data: DataConfig
    """Cases, labels, split."""
    preprocess: PreprocessConfig = PreprocessConfig()
    """From file to network and back."""
    spatial_dims: Literal[2, 3] = 3
    """3: the network sees volumes; 2: slices along the last axis."""
    outputs: Outputs = "values"
    """What output channels are: background and each value, of which the largest wins (softmax);
    or regions that may overlap, each with a threshold of its own (sigmoid)."""
    network: NetworkConfig
    """Which network, by `kind`, and its knobs."""
    train: TrainConfig = TrainConfig()
    """Patches and optimisation."""
    pretrain: PretrainConfig = PretrainConfig()
    """What `medseg3d pretrain` does with images alone."""
    predict: PredictConfig = PredictConfig()
    """Sliding window of validation and prediction."""

    @model_validator(mode="after")
    def _sections_agree(self) -> "RunConfig":
        sizes = {
            "train.patch_size": self.train.patch_size,
            "pretrain.patch_size": self.pretrain.patch_size,
            "predict.tile_size": self.predict.tile_size,
        }
        for name, size in sizes.items():
            if size is not None and len(size) != self.spatial_dims:
                raise ValueError(
                    f"{name} has {len(size)} numbers, a {self.spatial_dims}D network needs "
                    f"{self.spatial_dims}"
                )
        self.preprocess.scales(len(self.data.images))
        labels = self.data.labels
        self.predict.require_fit(
            labels,
            spatial_dims=self.spatial_dims,
            flipped=self.flipped,
            regions=labels.painted if self.outputs == "regions" else (),
        )
        return self

    @property
    def flipped(self) -> tuple[Axis, ...]:
        """Axes along which training flips images."""
        axes: tuple[Axis, ...] = ("i", "j", "k")
        return tuple(axes[n] for n in self.train.augment.mirror_axes if n < self.spatial_dims)
