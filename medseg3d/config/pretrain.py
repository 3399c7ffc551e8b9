"""How an encoder is trained without labels, and what its file tells of it."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from medseg3d.config.augment import AugmentConfig
from medseg3d.config.data import Pattern
from medseg3d.config.network import NetworkConfig
from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.config.section import Section


class PretrainConfig(Section):
    """What `medseg3d pretrain` does with images alone.

    Device, precision, workers, seed, warm-up, weight decay, clipping and checkpoints are train's.
    """

    method: Literal["masked", "simclr"] = "masked"
    """`masked`: the network restores blocks cut out of the image; `simclr`: its encoder learns to
    tell two views of one place from views of others (Chen et al., 2020)."""
    patch_size: tuple[PositiveInt, ...] | None = None
    """Crop along the preprocessed axes; null takes train's."""
    batch_size: int = Field(default=8, ge=2)
    """Places per step; `simclr` takes two crops of each, and tells each from all others."""
    epochs: PositiveInt = 100
    """Number of epochs."""
    steps_per_epoch: PositiveInt = 100
    """Steps between two entries of the log."""
    learning_rate: PositiveFloat = 1e-3
    """Highest learning rate of AdamW, which falls along a half cosine after train.warmup_steps."""
    augment: AugmentConfig | None = None
    """Random changes to the crops, each view its own; null takes train's."""
    mask_ratio: float = Field(default=0.6, gt=0, lt=1)
    """Share of blocks that `masked` sets to 0, in all channels."""
    mask_block: PositiveInt = 8
    """Edge of a block in voxels."""
    mask_loss: Literal["l1", "l2"] = "l2"
    """Mean absolute or squared difference of restored and true grey values, in masked voxels."""
    temperature: PositiveFloat = 0.1
    """Of `simclr`: the lower, the more the most similar of the other views count."""
    projection: PositiveInt = 128
    """Of `simclr`: numbers that two layers make of the deepest features, and views are told by."""


class EncoderRecipe(Section):
    """What another training must know of pretrained weights."""

    images: dict[str, Pattern] = Field(min_length=1)
    """Channel name -> path pattern of pretraining, in the network's order."""
    preprocess: PreprocessConfig
    """From file to network."""
    spatial_dims: Literal[2, 3]
    """2D or 3D network."""
    network: NetworkConfig
    """Which network, and its knobs."""
    pretrain: PretrainConfig
    """How the weights were made."""
