"""How a network is trained."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from medseg3d.config.augment import AugmentConfig
from medseg3d.config.loss import LossConfig
from medseg3d.config.section import Section


class TrainConfig(Section):
    """Patches, optimisation, and how often to look and save."""

    patch_size: tuple[PositiveInt, ...] = (64, 64, 64)
    """Training crop along the preprocessed axes; two numbers for a 2D network."""
    batch_size: PositiveInt = 2
    """Patches per forward pass, over all devices together."""
    accumulate: PositiveInt = 1
    """Batches whose gradients are averaged into one step."""
    epochs: PositiveInt = 100
    """Number of epochs."""
    steps_per_epoch: PositiveInt = 100
    """Steps between two entries of the log; validation and checkpoints count in epochs."""
    foreground_share: float = Field(default=0.5, ge=0, le=1)
    """Share of patches centred on a labelled voxel, each label equally often."""
    augment: AugmentConfig = AugmentConfig()
    """Random changes to the patches."""
    loss: LossConfig = LossConfig()
    """What is minimised."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with Nesterov momentum 0.99."""
    learning_rate: PositiveFloat = 1e-3
    """Highest learning rate, reached after the warm-up."""
    schedule: Literal["auto", "cosine", "poly", "constant"] = "auto"
    """How the rate falls after the warm-up: along a half cosine (`auto` for AdamW), as (1 - t)^0.9
    (`auto` for SGD), or not at all."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the learning rate rises linearly."""
    weight_decay: NonNegativeFloat = 1e-4
    """Decoupled (AdamW) or L2 (SGD) weight decay."""
    clip_norm: PositiveFloat | None = 12.0
    """Largest norm of the gradient; null does not clip."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Keep a mean of the weights that moves by 1 - ema_decay a step, and validate and ship it."""
    start_from: Annotated[Path, AfterValidator(Path.expanduser)] | None = None
    """A bundle or pretrained encoder whose weights, where they fit, training starts from."""
    frozen: tuple[str, ...] = ()
    """Parts whose weights stay as they are, such as `encoder` or `encoder.0`."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward pass; fp32 is repeatable bit by bit on a CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    devices: PositiveInt = 1
    """Processes to start on this machine, a GPU each; torchrun and srun start their own."""
    deterministic: bool = False
    """Refuse what is not repeatable bit by bit, on GPUs at some cost."""
    num_workers: NonNegativeInt = 0
    """Processes that read patches; the result does not depend on it."""
    seed: int = Field(default=0, ge=0)
    """Seed of weights, patches and augmentation."""
    validate_every: PositiveInt = 5
    """Epochs between two validations."""
    patience: PositiveInt | None = None
    """Validations without a better mean Dice after which training stops; null never stops early."""
    ship: Literal["last", "best"] = "last"
    """Which weights become model.safetensors: the last, or those of the best validation."""
    checkpoint_every: PositiveInt = 1
    """Epochs between two checkpoints."""
    tensorboard: bool = False
    """Whether the run's folder gets a `tensorboard/` besides metrics.jsonl."""
