"""What is done with a data set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from medseg3d.cli.entry import NO_SETTINGS, Json, app, grouped
from medseg3d.console import print_json, print_text, progress_bars, say
from medseg3d.errors import ConfigError

DATASET = "A data set's folder, or a YAML with a section `data`."
RUN = "The YAML to write; printed if left out."
NET = "Network to plan for, as `medseg3d info` knows them; resenc_m with a GPU, else resunet."
DIMS = "Axes of the network; 3, or 2 for images of one slice."
MEMORY = "Memory that training may take, such as 8GiB; else what the GPU or the machine has free."
HOURS = "How long training may take; else nnU-Net's 250,000 steps with a GPU, an hour without."

SET = "Set a knob of the section `data`, such as data.missing=zeros; repeat for more."


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a plan keeps to."""

    net: Annotated[str | None, typer.Option("--net", help=NET)] = None
    dims: Annotated[Literal[2, 3] | None, typer.Option("--dims", help=DIMS)] = None
    memory: Annotated[str | None, typer.Option("--memory", help=MEMORY)] = None
    hours: Annotated[float | None, typer.Option("--hours", help=HOURS)] = None


@app.command()
@grouped
def fingerprint(
    dataset: Annotated[Path, typer.Argument(help=DATASET)],
    wishes: Wishes,
    out: Annotated[Path | None, typer.Option("--out", "-o", help=RUN)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    settings: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help=SET)
    ] = NO_SETTINGS,
    json: Json = False,
) -> None:
    """Measure a data set and write a config for `medseg3d train`, with a reason for every choice.

    Example: `medseg3d fingerprint Dataset004_Hippocampus -o run.yaml --memory 8GiB`
    """
    from medseg3d.config.write import write_config
    from medseg3d.io.atomic import write_atomically
    from medseg3d.plan.machine import find_machine
    from medseg3d.plan.run import plan_dataset

    if out and (out.is_dir() or (out.exists() and not overwrite)):
        raise ConfigError(f"'{out}' is there already; give another --out, or --overwrite")
    if out:  # before time is spent on measuring
        out.parent.mkdir(parents=True, exist_ok=True)
    with progress_bars() as progress:
        plan = plan_dataset(
            dataset,
            find_machine(wishes.memory),
            net=wishes.net,
            spatial_dims=wishes.dims,
            hours=wishes.hours,
            settings=settings,
            progress=lambda done, total: progress("measuring", done, total),
        )
    text = write_config(plan.config, plan.reasons)
    if json:
        print_json({"fingerprint": plan.fingerprint, "reasons": plan.reasons})
    elif out is None:
        print_text(text)
    if out:
        write_atomically(out, text.encode())
        say(f"written to '{out}'; go on with: medseg3d train {out}")
