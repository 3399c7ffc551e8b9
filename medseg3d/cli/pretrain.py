"""What is done with images that nobody has labelled."""

from pathlib import Path
from typing import Annotated

import typer

from medseg3d.cli.entry import NO_SETTINGS, Json, Out, Set, app
from medseg3d.console import print_facts, print_json, progress_bars, show_event


@app.command()
def pretrain(
    config: Annotated[Path, typer.Argument(help="The YAML of a run; labels are not looked at.")],
    out: Out,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was cut off.")
    ] = False,
    settings: Set = NO_SETTINGS,
    json: Json = False,
) -> None:
    """Train a network's encoder on images alone; OUT/encoder.safetensors is what to start from.

    Example: `medseg3d pretrain configs/hippocampus.yaml --out runs/pretrained`, then
    `medseg3d train configs/hippocampus.yaml --set
    train.start_from=runs/pretrained/encoder.safetensors`
    """
    from medseg3d.config.load import load_config
    from medseg3d.predict.allocator import keep_memory
    from medseg3d.pretrain.run import pretrain_run

    run = load_config(config, settings)
    if run.predict.keep_memory:
        keep_memory()
    with progress_bars() as progress:
        encoder = pretrain_run(run, out, resume=resume, watch=show_event, progress=progress)
    if json:
        print_json({"encoder": str(encoder)})
    else:
        print_facts({"encoder": encoder})
