"""Many cases: from what a user names to files each."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Final

from medseg3d.config.load import override_section
from medseg3d.data.cases import Case
from medseg3d.data.inputs import find_inputs
from medseg3d.errors import ConfigError
from medseg3d.io.atomic import prepare_folder, remove_unfinished
from medseg3d.nets.bundle import Bundle, load_bundle, reuse_weights
from medseg3d.predict.allocator import keep_memory
from medseg3d.predict.case import choose_device
from medseg3d.predict.compose import require_alike
from medseg3d.predict.output import AS_NIFTI, CaseFiles, Output, plan_output
from medseg3d.predict.stages import run_stages
from medseg3d.predict.steps import Report, Steps
from medseg3d.predict.volumes import TABLE, read_volumes, write_volumes

log = logging.getLogger(__name__)

FREE: Final = (
    "images.", "labels.codes.", "labels.colors.", "network.depth=", "predict.",
    "preprocess.nonfinite=", "preprocess.volume=", "preprocess.tilt=", "preprocess.gaps=",
)  # fmt: skip
"""What of a recipe may be set for a trained model."""


@dataclass(frozen=True, slots=True)
class PredictedCase:
    """What became of one case: the label map that was written, or why there is none.

    Neither, where nothing was found and the format has no way to say so (DICOM).
    """

    id: str
    path: Path | None
    reason: str | None
    seconds: float
    """Spent on it, without waiting for other cases."""
    skipped: bool = False
    """Whether the label map was there already."""


def predict_cases(
    bundles: Bundle | Sequence[Bundle],
    cases: Sequence[Case],
    out: Path,
    *,
    output: Output = AS_NIFTI,
    memory: int | None = None,
    progress: Report | None = None,
) -> Iterator[PredictedCase]:
    """Segment cases into `out` and give them in their order; a failing case stops no other.

    While one case is computed, others are read and written. The files are as `write_case` writes
    them; several bundles are averaged. `memory` is how many bytes may be taken, None all that is
    free: each case is planned ahead to fit. Stopped by KeyboardInterrupt, or closed, cases are done
    or not begun, and the table of volumes is of those that are done.

    Raises:
        ConfigError: `out` cannot be written to, holds a result that `output` does not let be
            there, or is where the images lie under the names of their results; or as
            `compose_engine`.
    """
    bundles = [bundles] if isinstance(bundles, Bundle) else bundles
    require_alike(bundles)
    files = _plan_files(cases, out, output)
    results = [path for one in files.values() for path in one.paths]
    prepare_folder(out, keep=_kept(out, results, output))
    remove_unfinished(out, names={path.name for path in results})
    skip = output.existing == "skip"
    there = {case.id for case in cases if skip and files[case.id].label_map.exists()}
    todo = [case for case in cases if case.id not in there]
    steps = Steps.prepare(bundles, files, output, todo=todo, memory=memory, report=progress)
    stages = run_stages(
        todo,
        plan=steps.plan,
        read=steps.read,
        compute=steps.compute,
        write=steps.write,
        waiting=steps.waiting,
    )
    num_done = 0
    try:
        with closing(stages) as attempts:
            for case in cases:
                skipped = case.id in there
                attempt = steps.look(case) if skipped else next(attempts)
                name = attempt.case.id
                if attempt.reason and not skipped:
                    files[name].remove()  # what lies there is no result of this run
                num_done += attempt.reason is None
                yield PredictedCase(name, attempt.result, attempt.reason, attempt.seconds, skipped)
    except KeyboardInterrupt as stop:
        hint = "" if output.existing == "replace" else "; go on with --skip-existing"
        stop.add_note(f"{num_done} of {len(cases)} cases are done{hint}")
        raise
    finally:
        remove_unfinished(out, names={path.name for path in results})
        if output.volumes:
            earlier = read_volumes(out) if skip else {}
            volumes = earlier | {case.id: steps.volumes.get(case.id, []) for case in cases}
            write_volumes(out, chain.from_iterable(volumes.values()))


def predict_inputs(
    models: Path | Sequence[Path],
    inputs: Sequence[Path],
    out: Path,
    *,
    output: Output = AS_NIFTI,
    settings: Sequence[str] = (),
    memory: int | None = None,
    progress: Report | None = None,
) -> Iterator[PredictedCase]:
    """Segment what a user names, with the files of one model or several; else as `predict_cases`.

    `settings` such as `predict.overlap=0.25` change how the models are used; what they were trained
    to be cannot be set. Unless told otherwise the process keeps its memory (see `keep_memory`).

    Raises:
        BundleError: a model cannot be read.
        ConfigError: no such input or format, a setting that is not free, a label that DICOM SEG
            needs a code for, or as `predict_cases`.
    """
    for setting in settings:
        if not setting.startswith(FREE):
            raise ConfigError(
                f"--set {setting}: not free, the model was trained so; free are {', '.join(FREE)}"
            )
    models = [models] if isinstance(models, Path) else models
    if len({model.resolve() for model in models}) < len(models):
        log.warning("a model is given twice: it counts twice, and always agrees with itself")
    bundles = [_load(model, settings) for model in models]
    recipe = bundles[0].recipe
    if recipe.predict.keep_memory:
        keep_memory()
    output = plan_output(output, models, recipe)
    cases = find_inputs(inputs, recipe.images, missing=recipe.missing)
    yield from predict_cases(bundles, cases, out, output=output, memory=memory, progress=progress)


def _load(model: Path, settings: Sequence[str]) -> Bundle:
    loaded = load_bundle(model)
    recipe = override_section(loaded.recipe, settings)
    if recipe.network != loaded.recipe.network:
        loaded = reuse_weights(loaded, recipe)
    return Bundle(loaded.net.to(choose_device(recipe.predict.device)), recipe, loaded.version)


def _plan_files(cases: Sequence[Case], out: Path, output: Output) -> dict[str, CaseFiles]:
    """Give the files of each case, none of which is another's or where a case's own files lie.

    Raises:
        ConfigError: one is.
    """
    files = {case.id: output.files(out, case) for case in cases}
    results = [path for one in files.values() for path in one.paths]
    given = [path for case in cases for path in (*case.images.values(), case.reference) if path]
    sources = {path.resolve() for path in given}
    if own := [path.name for path in results if path.resolve() in sources]:
        raise ConfigError(
            f"the result '{own[0]}' would replace an image or a reference of that name; "
            "choose another --out than their folder"
        )
    if len({*results}) < len(results):
        doubled = next(path.name for path in results if results.count(path) > 1)
        raise ConfigError(
            f"two cases would both be written to '{doubled}'; segment them into different folders"
        )
    taken = {*results}
    return {
        name: replace(one, stale=tuple(path for path in one.stale if path not in taken))
        for name, one in files.items()
    }


def _kept(out: Path, results: Sequence[Path], output: Output) -> Sequence[Path]:
    """Give the files that must not be there yet."""
    if output.existing != "refuse":
        return []
    return [*results, out / TABLE] if output.volumes else results
