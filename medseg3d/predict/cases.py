"""Many cases: from what a user names to a file each."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

from medseg3d.config.load import override_section
from medseg3d.data.cases import Case
from medseg3d.data.inputs import find_inputs
from medseg3d.errors import ConfigError
from medseg3d.io.atomic import prepare_folder
from medseg3d.nets.bundle import Bundle, load_bundle, reuse_weights
from medseg3d.predict.allocator import keep_memory
from medseg3d.predict.case import choose_device, predict_case
from medseg3d.predict.compose import compose_engine
from medseg3d.predict.output import AS_NIFTI, Output, plan_output, require_source, write_result
from medseg3d.predict.sliding import Progress

log = logging.getLogger(__name__)

FREE: Final = (
    "images.", "labels.codes.", "labels.colors.", "network.depth=", "predict.",
    "preprocess.nonfinite=", "preprocess.volume=", "preprocess.tilt=", "preprocess.gaps=",
)  # fmt: skip
"""What of a recipe may be set for a trained model."""


@dataclass(frozen=True, slots=True)
class PredictedCase:
    """What became of one case: the file that was written, or why there is none.

    Neither, where nothing was found and the format has no way to say so (DICOM).
    """

    id: str
    path: Path | None
    reason: str | None
    seconds: float


def predict_cases(
    bundle: Bundle,
    cases: Sequence[Case],
    out: Path,
    *,
    output: Output = AS_NIFTI,
    overwrite: bool = False,
    on_tiles: Callable[[Case], Progress] | None = None,
) -> Iterator[PredictedCase]:
    """Segment cases one after the other into `out`, a file a case; a failing case stops no other.

    The files are as `write_result` writes them. `on_tiles` gives, for a case that starts, what is
    called as its tiles are done.

    Raises:
        ConfigError: `out` cannot be written to, holds a result already and not `overwrite`, or
            is where the images lie under the names of their results.
    """
    targets = {case.id: output.target(out, case) for case in cases}
    sources = {path.resolve() for case in cases for path in case.images.values()}
    if own := [target.name for target in targets.values() if target.resolve() in sources]:
        raise ConfigError(
            f"the result of '{own[0]}' would replace the image it is made from; "
            "choose another --out than the folder of the images"
        )
    prepare_folder(out, keep=[] if overwrite else targets.values())
    engine = compose_engine([bundle])
    for case in cases:
        start = perf_counter()
        reason, written = None, False
        targets[case.id].unlink(missing_ok=True)  # what lay there is no result of this run
        try:
            progress = on_tiles(case) if on_tiles else None
            images = [case.images[channel] for channel in bundle.recipe.images]
            require_source(images[0], output)
            label_map = predict_case(bundle, images, engine=engine, progress=progress)
            written = write_result(
                label_map, targets[case.id], image=images[0], recipe=bundle.recipe, output=output
            )
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            log.debug("case '%s'", case.id, exc_info=True)
        path = targets[case.id] if written else None
        yield PredictedCase(case.id, path, reason, perf_counter() - start)


def predict_inputs(
    model: Path,
    inputs: Sequence[Path],
    out: Path,
    *,
    output_format: str = "nifti",
    settings: Sequence[str] = (),
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Iterator[PredictedCase]:
    """Segment what a user names, with a model's file; else as `predict_cases`.

    `settings` such as `predict.overlap=0.25` change how the model is used; what it was trained to
    be cannot be set. `progress` is told the case and its tiles. Unless told otherwise the process
    keeps its memory (see `keep_memory`).

    Raises:
        BundleError: the model cannot be read.
        ConfigError: no such input or format, a setting that is not free, a label that DICOM SEG
            needs a code for, or `out` as in `predict_cases`.
    """
    for setting in settings:
        if not setting.startswith(FREE):
            raise ConfigError(
                f"--set {setting}: not free, the model was trained so; free are {', '.join(FREE)}"
            )
    loaded = load_bundle(model)
    recipe = override_section(loaded.recipe, settings)
    if recipe.network != loaded.recipe.network:
        loaded = reuse_weights(loaded, recipe)
    if recipe.predict.keep_memory:
        keep_memory()
    net = loaded.net.to(choose_device(recipe.predict.device))
    output = plan_output(output_format, model, recipe)
    cases = find_inputs(inputs, recipe.images)

    def on_tiles(case: Case) -> Progress:
        return lambda done, total: progress(case.id, done, total) if progress else None

    yield from predict_cases(
        Bundle(net, recipe, loaded.version),
        cases,
        out,
        output=output,
        overwrite=overwrite,
        on_tiles=on_tiles,
    )
