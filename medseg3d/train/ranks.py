"""The processes of one training: how many, which of them this is, and how they agree."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.plugins.precision.amp import MixedPrecision
from lightning_fabric.plugins.precision.precision import Precision
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import distributed, nn

from medseg3d.config.train import TrainConfig
from medseg3d.errors import ConfigError, MedSegError
from medseg3d.predict.case import choose_device
from medseg3d.train.launcher import Launch, find_launch

PATIENCE: Final = timedelta(days=7)
"""How long processes wait for the first one to preprocess a data set."""

ENVIRONMENTS: Final = {
    "none": LightningEnvironment,
    "torchrun": TorchElasticEnvironment,
    "srun": SLURMEnvironment,
}

Value = TypeVar("Value")


class Ranks:
    """All processes of a training, seen from one of them; with one alone nothing needs agreeing.

    Gradients travel between devices; what is said here travels between hosts, on a channel of its
    own on which waiting for hours is no fault.
    """

    def __init__(self, fabric: Fabric) -> None:
        """Join the processes that the launcher of `fabric` knows."""
        self.fabric = fabric
        self.number = fabric.global_rank
        self.count = fabric.world_size
        alone = self.count == 1
        self._hosts = None if alone else distributed.new_group(backend="gloo", timeout=PATIENCE)

    @property
    def first(self) -> bool:
        """Tell whether this is the process that writes and speaks."""
        return self.number == 0

    def gather(self, value: Value) -> list[Value]:
        """Give what each process says, in their order, to all of them."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value, group=self._hosts)
        return values

    def any(self, value: object) -> bool:
        """Tell all whether any process says yes."""
        if self.count == 1:
            return bool(value)
        answer = torch.tensor(bool(value), dtype=torch.uint8)
        distributed.all_reduce(answer, distributed.ReduceOp.MAX, group=self._hosts)
        return bool(answer)

    def let_first(self, job: Callable[[], Value]) -> Value:
        """Have the first process do a job, and give all what comes of it.

        Raises:
            MedSegError: the job failed, on the first process.
            SystemExit: the job failed, on the others, who have nothing to say.
        """
        if self.count == 1:
            return job()
        said: list[Any] = [None]
        if not self.first:
            distributed.broadcast_object_list(said, src=0, group=self._hosts)
            if said[0] is None:
                raise SystemExit(2)
            return said[0][0]
        try:
            said = [(job(),)]
        finally:
            distributed.broadcast_object_list(said, src=0, group=self._hosts)
        return said[0][0]

    def with_synchronous_norms(self, net: nn.Module) -> nn.Module:
        """Let batch norms count the patches of all processes, as one process would.

        Raises:
            ConfigError: there are some, and the processes compute on CPUs, where torch cannot.
        """
        batch_norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
        if self.count == 1 or not any(isinstance(m, batch_norms) for m in net.modules()):
            return net
        if self.fabric.device.type == "cpu":
            raise ConfigError(
                f"batch norm over {self.count} processes needs GPUs: torch synchronises it there "
                "only. Train with train.devices=1, or with network.norm=instance."
            )
        return nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]


def join_ranks(config: TrainConfig) -> Ranks:
    """Set up devices, precision and processes.

    Raises:
        ConfigError: no such device, processes that nobody started, or that cannot share a batch.
    """
    launch = find_launch()
    if launch.launcher == "none" and config.devices > 1:
        raise ConfigError(
            f"train.devices={config.devices} needs as many processes, and this is one alone. "
            "`medseg3d train` starts them; so does `torchrun --nproc-per-node "
            f"{config.devices} SCRIPT`."
        )
    if config.batch_size % launch.count:
        raise ConfigError(
            f"train.batch_size {config.batch_size} is that of all {launch.count} processes "
            "together and cannot be divided among them; choose a multiple"
        )
    return Ranks(_build_fabric(config, launch))


def _build_fabric(config: TrainConfig, launch: Launch) -> Fabric:
    device = choose_device(config.device)
    if device.type == "cuda" and torch.cuda.device_count() < launch.devices:
        raise ConfigError(
            f"{launch.devices} processes on a machine with {torch.cuda.device_count()} GPUs; "
            "start one for each"
        )
    alone = launch.launcher == "none"
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # a banner a process
    try:
        fabric = Fabric(
            accelerator=device.type,
            devices=launch.devices,
            num_nodes=launch.nodes,
            plugins=[ENVIRONMENTS[launch.launcher](), _build_precision(config, device.type)],
            strategy="auto" if alone else DDPStrategy(gradient_as_bucket_view=True),
        )
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"the processes of this training cannot be joined: {error}") from error
    return fabric


def _build_precision(config: TrainConfig, device: str) -> Precision:
    """Build what casts and scales; Fabric's own choice would take bf16 for fp16 on a CPU."""
    if config.precision == "fp32":
        return Precision()
    if config.precision == "bf16":
        return MixedPrecision("bf16-mixed", device)
    return MixedPrecision("16-mixed", device, torch.amp.GradScaler(device))


def leave_ranks() -> None:
    """Close the connections between processes; else they may abort one that ends."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def explained() -> Iterator[None]:
    """Say that another process ended where torch says that a connection did.

    Raises:
        ConfigError: another process ended.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, MedSegError) or "gloo/" not in str(error):
            raise
        raise ConfigError(
            "another process of this training ended; it says why, or its exit code does. Then go "
            "on with --resume"
        ) from error
