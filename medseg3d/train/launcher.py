"""Who started this process, and how it starts several: torchrun, or srun of Slurm.

Launchers speak to processes through environment variables alone, so this module reads theirs;
medseg3d has none of its own.
"""

import logging
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Final, Literal

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import get_args_parser, run

RANK: Final = {"torchrun": "RANK", "srun": "SLURM_PROCID"}
"""Where each launcher writes the number of a process."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How many processes train together, and who started them."""

    launcher: Literal["none", "torchrun", "srun"]
    devices: int = 1
    """On each machine."""
    nodes: int = 1

    @property
    def count(self) -> int:
        """Number of processes in all."""
        return self.devices * self.nodes


def find_launch() -> Launch:
    """Tell how this process was started."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        return Launch("torchrun", devices, int(os.environ["WORLD_SIZE"]) // devices)
    tasks, nodes = (int(os.environ.get(f"SLURM_STEP_NUM_{n}", "1")) for n in ("TASKS", "NODES"))
    return Launch("srun", tasks // nodes, nodes) if tasks > 1 else Launch("none")


def is_first() -> bool:
    """Tell whether this process is the one that speaks for all."""
    launcher = find_launch().launcher
    return launcher == "none" or os.environ[RANK[launcher]] == "0"


def start_processes(arguments: Sequence[str], devices: int) -> int:
    """Run medseg3d with these arguments as several processes of one training; give the exit code.

    This is torchrun on one machine. Where one process fails the others are ended; a signal is
    passed on to all, who then have half a minute to save.
    """
    cores = len(os.sched_getaffinity(0))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // devices)))
    options = ["--standalone", "--nproc-per-node", str(devices), "-m", "medseg3d", *arguments]
    before = signal.signal(signal.SIGUSR1, _pass_on)  # torchrun does so with the others
    logging.disable(logging.ERROR)  # the processes say what is wrong, torchrun says it again
    try:
        run(get_args_parser().parse_args(options))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        code = _first_told(error)
        return code if code > 0 else 128 - code  # negative: the signal that killed it
    except SignalException as stopped:
        return exit_code(signal.Signals(stopped.sigval))
    finally:
        logging.disable(logging.NOTSET)
        signal.signal(signal.SIGUSR1, before)
    return 0


def _first_told(error: ChildFailedError) -> int:
    """Give the exit code of the first process to fail, of those that abort for its sake only last.

    A process whose connections break while it ends is aborted by them, whatever it had to say.
    """
    codes = [f.exitcode for f in sorted(error.failures.values(), key=lambda f: f.timestamp)]
    return next((code for code in codes if code != -signal.SIGABRT), codes[0])


def exit_code(stopped_by: signal.Signals) -> int:
    """Give the exit code of a process that a signal stopped: 0 where Slurm starts it again."""
    return 0 if stopped_by == signal.SIGUSR1 and slurm_job() else 128 + stopped_by


def slurm_job() -> str | None:
    """Name the job of Slurm that this process belongs to."""
    number, task = (os.environ.get(f"SLURM_ARRAY_{part}") for part in ("JOB_ID", "TASK_ID"))
    return f"{number}_{task}" if number and task else os.environ.get("SLURM_JOB_ID")


def requeue(job: str) -> str | None:
    """Have Slurm start a job again; give what it says against it."""
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else None


def _pass_on(number: int, _frame: FrameType | None) -> None:
    received = signal.Signals(number)
    raise SignalException(f"got {received.name}", sigval=received)
