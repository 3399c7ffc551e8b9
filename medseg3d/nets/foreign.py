"""MONAI's networks behind the same door; importing this module does not import MONAI."""

from difflib import get_close_matches

from jaxtyping import Float
from torch import Tensor, nn

from medseg3d.config.network import MonaiConfig
from medseg3d.errors import ConfigError
from medseg3d.extras import import_extra
from medseg3d.nets.blocks import PerAxis
from medseg3d.nets.unet import require_fit


class ForeignNet(nn.Module):
    """A network of others, with the sizes it takes and the contract of deep supervision."""

    def __init__(self, net: nn.Module, *, in_channels: int, divisor: PerAxis) -> None:
        super().__init__()
        self.net = net
        self.in_channels = in_channels
        self.divisor = divisor

    def forward(
        self, image: Float[Tensor, "B C *spatial"]
    ) -> Float[Tensor, "B L *spatial"] | list[Float[Tensor, "B L ..."]]:
        """Give logits; in training mode all that the network gives, as a list if more than one.

        Raises:
            GridError: axes, channels or size do not fit the network.
        """
        require_fit(image, in_channels=self.in_channels, divisor=self.divisor)
        given = self.net(image)
        outputs = [given] if isinstance(given, Tensor) else [*given]
        if outputs[0].ndim > image.ndim:  # DynUNet stacks its heads behind the batch
            outputs = [*outputs[0].unbind(1)]
        return outputs if self.training and len(outputs) > 1 else outputs[0]


def build_monai(
    config: MonaiConfig, *, spatial_dims: int, in_channels: int, out_channels: int
) -> ForeignNet:
    """Build a network of MONAI's, with the weights MONAI draws.

    Raises:
        ConfigError: MONAI has no such network, or it does not take these arguments.
        MissingExtraError: MONAI is not installed.
    """
    nets = vars(import_extra("monai.networks.nets", extra="train"))
    networks = {n: c for n, c in nets.items() if isinstance(c, type) and issubclass(c, nn.Module)}
    if config.name not in networks:
        nearest = get_close_matches(config.name, networks, n=1)
        hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
        raise ConfigError(f"MONAI has no network called '{config.name}'{hint}")
    if "PlusPlus" in config.name and config.arguments.get("deep_supervision"):
        raise ConfigError("MONAI's UNet++ lists its shallowest head first; use 'unetplusplus'")
    try:
        net = networks[config.name](
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            out_channels=out_channels,
            **config.arguments,
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"monai/{config.name} cannot be built: {error}") from error
    return ForeignNet(net, in_channels=in_channels, divisor=(config.divisor,) * spatial_dims)
