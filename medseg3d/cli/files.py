"""Files: what they are, and the same in another format."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from medseg3d.cli.entry import Json, app
from medseg3d.console import (
    as_text,
    print_facts,
    print_json,
    print_table,
    print_text,
    progress_bars,
    say,
    say_error,
)
from medseg3d.errors import ConfigError

Tilt = Literal["refuse", "correct", "keep"]
Gaps = Literal["refuse", "resample"]

SOURCE = "A folder, file or zip archive of DICOM; the second is short for --out."
NAMES = (
    "What files are called, of {modality} {number} {description} {protocol} {patient} {date} "
    "{study} {series}; all but the first two may tell who it is."
)
TILT = "Slices that are tilted: refuse, correct (resample), or keep (sheared axes)."
GAPS = "Slices that are not evenly spaced: refuse, or resample."


@app.command()
def info(
    what: Annotated[
        str, typer.Argument(help="A volume, a folder of DICOM, a bundle, or a network's name.")
    ],
    json: Json = False,
) -> None:
    """Say what a file is, a folder's DICOM series, or a network: parameters, operations, memory.

    Example: `medseg3d info model.safetensors`
    """
    from medseg3d.info import describe

    facts = describe(what)
    if json:
        print_json(facts)
    elif "series" in facts:
        rows = [[as_text(value) for value in row.values()] for row in facts["series"]]
        print_table("Series", [*facts["series"][0]], rows)
    else:
        print_facts(facts)


@app.command()
def convert(
    paths: Annotated[list[Path], typer.Argument(metavar="INPUT [OUT]", help=SOURCE)],
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the result.")] = None,
    names: Annotated[str, typer.Option("--names", help=NAMES)] = "{modality}-{number}",
    tilt: Annotated[Tilt, typer.Option("--tilt", help=TILT)] = "refuse",
    gaps: Annotated[Gaps, typer.Option("--gaps", help=GAPS)] = "refuse",
    channels: Annotated[
        bool, typer.Option("--channels", help="One file of four axes for all volumes of a series.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results.")] = False,
    json: Json = False,
) -> None:
    """Write each volume of each DICOM series as NIfTI, with a JSON of what was done.

    Example: `medseg3d convert study/ --out nifti`
    """
    from medseg3d.io.convert import convert_series

    source, *folders = [*paths, *([out] if out else [])]
    if len(folders) != 1:
        raise ConfigError("convert takes one input and one folder for the result: --out FOLDER")
    with progress_bars() as progress:
        done = []
        for volume in convert_series(
            source,
            folders[0],
            names=names,
            tilt=tilt,
            gaps=gaps,
            channels=channels,
            overwrite=overwrite,
            progress=progress,
        ):
            done.append(volume)
            if volume.failed:
                say_error(f"{volume.name}: {volume.reason}")
    failed = [volume for volume in done if volume.failed]
    if json:
        print_json(done)
    else:
        for volume in done:
            print_text(f"{volume.path or '–'}  {volume.name}  {'; '.join(volume.remarks)}")
        written = sum(volume.path is not None for volume in done)
        say(f"{written} volumes written to '{folders[0]}', {len(failed)} failed")
    raise typer.Exit(1 if failed else 0)
