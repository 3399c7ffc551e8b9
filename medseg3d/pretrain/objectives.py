"""What pretraining minimises: nothing but images is needed."""

from math import prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from medseg3d.config.network import MonaiConfig, NestedConfig
from medseg3d.config.pretrain import PretrainConfig
from medseg3d.config.run import RunConfig
from medseg3d.errors import ConfigError
from medseg3d.nets.blocks import initialise
from medseg3d.nets.levels import plan_levels
from medseg3d.nets.presets import BLOCKS, NETS
from medseg3d.nets.unet import UNet, build_unet


class Objective(nn.Module):
    """A network that learns from `num_views` crops of each place, and which parts of it do."""

    num_views: int
    taught: tuple[str, ...]
    net: UNet

    def weights(self) -> dict[str, Tensor]:
        """Give what the network has learnt, by its names."""
        state = self.net.state_dict()
        return {name: state[name] for name in state if name.split(".")[0] in self.taught}


class Restoration(Objective):
    """The network restores blocks that are set to 0, the mean of a normalised image.

    The decoder learns as well: it turns features into voxels, as segmentation does, and is part of
    what the file holds. Source: He et al., "Masked autoencoders are scalable vision learners",
    2022, with convolutions instead of tokens.
    """

    num_views = 1
    taught = ("encoder", "decoder")

    def __init__(self, net: UNet, config: PretrainConfig) -> None:
        """Take a network with as many outputs as input channels."""
        super().__init__()
        self.net = net
        self.config = config

    def forward(self, image: Float[Tensor, "B C *spatial"]) -> Float[Tensor, ""]:
        """Give the mean difference of restored and true grey values, over masked voxels."""
        config = self.config
        mask = draw_mask(len(image), image.shape[2:], config).to(image.device)[:, None]
        restored = self.net(image.masked_fill(mask, 0.0)).float()
        difference = (restored - image).where(mask, 0)
        error = difference.abs() if config.mask_loss == "l1" else difference.square()
        return error.sum() / mask.expand_as(error).sum()


class Contrast(Objective):
    """Two views of a place are to be alike, and unlike all others (SimCLR).

    The encoder's deepest features, averaged over the crop, go through two layers, which are only
    there for the comparison. Source: Chen et al., "A simple framework for contrastive learning of
    visual representations", 2020.
    """

    num_views = 2
    taught = ("encoder",)

    def __init__(self, net: UNet, config: PretrainConfig, *, width: int) -> None:
        """Take a network, of which only the encoder learns; `width` channels has its deepest."""
        super().__init__()
        self.net = net
        for part in (net.decoder, net.heads):
            part.requires_grad_(False)
        self.temperature = config.temperature
        self.projection = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, config.projection)
        )

    def forward(self, image: Float[Tensor, "B C *spatial"]) -> Float[Tensor, ""]:
        """Give NT-Xent of crops, of which the second half are other views of the first."""
        features = image
        for level in self.net.encoder:
            features = level(features)
        first, second = self.projection(features.flatten(2).mean(2)).float().chunk(2)
        return nt_xent(first, second, temperature=self.temperature)


def build_objective(config: RunConfig) -> Objective:
    """Build the network of a run, with fresh weights, and what it shall learn without labels.

    Raises:
        ConfigError: the network has no encoder of its own, or cannot be built.
    """
    network, channels = config.network, len(config.data.images)
    if isinstance(network, MonaiConfig):
        raise ConfigError(
            f"network 'monai/{network.name}' cannot be pretrained: which of its weights are an "
            f"encoder is not known. Networks that can are {', '.join(NETS)}."
        )
    one_head: dict[str, object] = {"deep_supervision": False}
    if isinstance(network, NestedConfig):
        one_head["depth"] = None
    net = build_unet(
        network.model_copy(update=one_head),
        BLOCKS[network.kind],
        spatial_dims=config.spatial_dims,
        in_channels=channels,
        out_channels=channels,
    )
    initialise(net)
    if config.pretrain.method == "masked":
        return Restoration(net, config.pretrain)
    width = plan_levels(network, config.spatial_dims)[-1].channels
    return Contrast(net, config.pretrain, width=width)


def nt_xent(
    first: Float[Tensor, "B D"], second: Float[Tensor, "B D"], *, temperature: float
) -> Float[Tensor, ""]:
    """Give the mean cross-entropy of finding each view's partner among all others, by cosine.

    Row n of `first` and row n of `second` are partners. Source: Chen et al., 2020, eq. 1.
    """
    views = normalize(torch.cat((first, second)))
    alike = views @ views.T / temperature
    oneself = torch.eye(len(views), dtype=torch.bool, device=views.device)
    partner = torch.arange(len(views), device=views.device).roll(len(first))
    return cross_entropy(alike.masked_fill(oneself, -torch.inf), partner)


def draw_mask(
    batch: int, size: tuple[int, ...], config: PretrainConfig
) -> Bool[Tensor, "B *spatial"]:
    """Draw blocks to mask, as many in each image, by torch's global generator on the CPU.

    At least one block is masked and one is not; where the size is no multiple of a block, the
    last ones are cut.
    """
    blocks = [-(-length // config.mask_block) for length in size]
    count = min(max(round(config.mask_ratio * prod(blocks)), 1), prod(blocks) - 1)
    mask = (torch.rand(batch, prod(blocks)).argsort(1) < count).reshape(batch, *blocks)
    for axis, length in enumerate(size, start=1):
        mask = mask.repeat_interleave(config.mask_block, axis).narrow(axis, 0, length)
    return mask
