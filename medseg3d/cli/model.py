"""What is done with a network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from medseg3d.cli.entry import NO_SETTINGS, Json, Out, Set, app, grouped, stoppable
from medseg3d.console import (
    print_facts,
    print_json,
    progress_bars,
    say,
    say_error,
)
from medseg3d.errors import ConfigError

INPUT = "Files (one per channel, or one per case), folders of cases or of DICOM, or a CSV."
Format = Literal["nifti", "dicom-seg", "rtstruct"]
FORMAT = "What results are written as; DICOM belongs to the DICOM it is made from."
SKIP = "Pass over cases whose result is there, as after a run that was stopped."
UNCERTAINTY = "Also CASE_uncertainty.nii.gz: where models and mirror images disagree, in bits."
PROBABILITIES = "Also CASE_probabilities.nii.gz: a volume per output channel, on a fourth axis."
MEMORY = "Most memory to take, such as 8GiB, of the host and of the GPU; else what is free."
VOLUMES = "Also volumes.csv: voxels, mm³ and ml of every value and region of every case."
MODELS = "Another bundle, to be averaged with the first; repeat for more."
NO_PATHS: Final[list[Path]] = []


@dataclass(frozen=True, slots=True)
class Results:
    """What `predict` writes, and what becomes of what is there."""

    output_format: Annotated[Format, typer.Option("--output-format", help=FORMAT)] = "nifti"
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results.")] = False
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help=SKIP)] = False
    uncertainty: Annotated[bool, typer.Option("--uncertainty", help=UNCERTAINTY)] = False
    probabilities: Annotated[bool, typer.Option("--probabilities", help=PROBABILITIES)] = False
    volumes: Annotated[bool, typer.Option("--volumes", help=VOLUMES)] = False
    memory: Annotated[str | None, typer.Option("--memory", help=MEMORY)] = None

    @property
    def existing(self) -> Literal["refuse", "replace", "skip"]:
        """What becomes of a result that is there."""
        if self.overwrite and self.skip_existing:
            raise ConfigError("--overwrite replaces results, --skip-existing keeps them; give one")
        return "replace" if self.overwrite else "skip" if self.skip_existing else "refuse"


@app.command()
@grouped
def predict(
    model: Annotated[Path, typer.Argument(help="A bundle, as `train` writes it.")],
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help=INPUT)],
    out: Out,
    results: Results,
    models: Annotated[list[Path], typer.Option("--model", help=MODELS)] = NO_PATHS,
    settings: Set = NO_SETTINGS,
    json: Json = False,
) -> None:
    """Segment cases; each label map lies on exactly the grid of its images.

    Example: `medseg3d predict model.safetensors scans/ --out results`
    """
    with stoppable(), progress_bars() as progress:
        from medseg3d.predict.cases import predict_inputs
        from medseg3d.predict.limits import parse_memory
        from medseg3d.predict.output import Output

        output = Output(
            results.output_format,
            existing=results.existing,
            uncertainty=results.uncertainty,
            probabilities=results.probabilities,
            volumes=results.volumes,
        )
        cases = predict_inputs(
            [model, *models],
            inputs,
            out,
            output=output,
            settings=settings,
            memory=None if results.memory is None else parse_memory(results.memory),
            progress=progress,
        )
        done = []
        try:
            for case in cases:
                done.append(case)
                if case.reason:
                    say_error(f"case '{case.id}': {case.reason}")
                elif case.path is None:
                    say(f"case '{case.id}': nothing was found, so there is no file")
        except KeyboardInterrupt:
            if json:
                print_json(done)
            raise
    failed = [case for case in done if case.reason]
    skipped = [case for case in done if case.skipped]
    if json:
        print_json(done)
    else:
        new = [case for case in done if not case.skipped]
        good = sum(case.reason is None for case in new)
        there = f"; {len(skipped)} were there already" if skipped else ""
        say(f"{good} of {len(new)} cases segmented into '{out}'{there}")
    raise typer.Exit(1 if failed else 0)


@app.command()
def prune(
    model: Annotated[Path, typer.Argument(help="A bundle of a nested network (UNet++).")],
    out: Annotated[Path, typer.Option("--out", help="The smaller bundle.")],
    depth: Annotated[int, typer.Option("--depth", help="Head to keep, 1 the shallowest.")],
) -> None:
    """Cut a UNet++ to the part that predicts at a depth; its predictions stay the same.

    Example: `medseg3d prune model.safetensors --depth 2 --out small.safetensors`
    """
    from medseg3d.deploy.prune import prune_bundle
    from medseg3d.nets.bundle import load_bundle, save_bundle

    bundle = load_bundle(model)
    pruned = prune_bundle(bundle, depth=depth)
    save_bundle(pruned, out)
    counts = [sum(p.numel() for p in b.net.parameters()) for b in (bundle, pruned)]
    print_facts({"model": out, "parameters": f"{counts[1]:,} of {counts[0]:,}"})
