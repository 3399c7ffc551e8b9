"""How ways to one result are timed: in turn, in two processes side by side.

In one process memory is allocated `as it comes`. In the other, what is freed is kept (`memory
kept`), which medseg3d's command line sees to and its peers do not; so `as a user gets it` is ours
with memory kept against theirs as it comes. In each round, first in one process and then in the
other, all take turns; medians over rounds.
"""

import os
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medseg3d.predict.allocator import keep_memory

OURS = "medseg3d"

Figures = dict[str, dict[str, float]]
"""Way -> what was measured -> value."""


@dataclass(frozen=True)
class Trial:
    """Ways to one result, and how to look at what came of it; a result of ours begins with OURS."""

    ways: dict[str, Callable[[], Tensor]]
    judge: Callable[[Tensor], dict[str, float]]


ALLOCATORS = {"as it comes": None, "memory kept": keep_memory}


def take_turns(prepare: Callable[..., Trial], rounds: int, *how: Any) -> dict[str, Any]:
    """Let two processes, and all ways in each, take turns; give medians and ratios."""
    taken: dict[str, list[Figures]] = {name: [] for name in ALLOCATORS}
    with ExitStack() as stack:
        pools = {name: stack.enter_context(fresh_process(name)) for name in ALLOCATORS}
        for _ in range(rounds):
            for name, pool in pools.items():
                taken[name].append(pool.submit(run_round, prepare, *how).result())
    found = {name: take_medians(figures) for name, figures in taken.items()}
    return {**found, "times_faster": hold_against(*found.values())}


def fresh_process(allocator: str) -> ProcessPoolExecutor:
    """Start a process of its own that allocates memory so."""
    return ProcessPoolExecutor(1, get_context("spawn"), initializer=ALLOCATORS[allocator])


def run_round(prepare: Callable[..., Trial], *how: Any) -> Figures:
    """Go every way once in this process."""
    warnings.simplefilter("ignore")  # the peers'
    trial, figures = prepare_once(prepare, *how), {}
    for name, act in trial.ways.items():
        start, wall = time.process_time(), time.perf_counter()
        result = act()
        spent = {"cpu_s": time.process_time() - start, "wall_s": time.perf_counter() - wall}
        figures[name] = spent | trial.judge(result)
        del result  # the next may have its memory
    return figures


@cache
def prepare_once(prepare: Callable[..., Trial], *how: Any) -> Trial:
    """Prepare a trial, which stays for the next round."""
    return prepare(*how)


def take_medians(rounds: list[Figures]) -> Figures:
    """Give the median of each measure over rounds."""
    return {
        way: {
            what: float(f"{statistics.median(one[way][what] for one in rounds):.4g}")
            for what in measured
        }
        for way, measured in rounds[0].items()
    }


def hold_against(comes: Figures, kept: Figures) -> dict[str, Any]:
    """Divide the CPU-seconds of each peer by each of ours."""

    def ratios(ours: Figures, theirs: Figures) -> dict[str, dict[str, float]]:
        return {
            own: {
                peer: round(theirs[peer]["cpu_s"] / ours[own]["cpu_s"], 2)
                for peer in theirs
                if not peer.startswith(OURS)
            }
            for own in ours
            if own.startswith(OURS)
        }

    return {
        "as a user gets it": ratios(kept, comes),
        "as it comes": ratios(comes, comes),
        "memory kept": ratios(kept, kept),
    }


def describe_machine() -> dict[str, Any]:
    """Say what times depend on."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else "?",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
