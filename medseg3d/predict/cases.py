"""Many cases: from what a user names to files each."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Final, SupportsFloat, TypeAlias

import numpy as np

from medseg3d.config.load import override_section
from medseg3d.config.recipe import Recipe
from medseg3d.data.cases import Case
from medseg3d.data.inputs import find_inputs
from medseg3d.errors import ConfigError
from medseg3d.io.atomic import prepare_folder, remove_unfinished
from medseg3d.io.files import read_label_map
from medseg3d.nets.bundle import Bundle, load_bundle, reuse_weights
from medseg3d.predict.allocator import keep_memory
from medseg3d.predict.case import (
    Predicted,
    Prepared,
    choose_device,
    predict_prepared,
    prepare_case,
    restore_label_map,
)
from medseg3d.predict.compose import compose_engine
from medseg3d.predict.engine import Engine
from medseg3d.predict.output import (
    AS_NIFTI,
    CaseFiles,
    Output,
    plan_output,
    require_source,
    write_case,
)
from medseg3d.predict.sliding import Progress
from medseg3d.predict.stages import Attempt, run_stages
from medseg3d.predict.volumes import TABLE, LabelVolume, measure_volumes, write_volumes
from medseg3d.volume import Volume

log = logging.getLogger(__name__)

FREE: Final = (
    "images.", "labels.codes.", "labels.colors.", "network.depth=", "predict.",
    "preprocess.nonfinite=", "preprocess.volume=", "preprocess.tilt=", "preprocess.gaps=",
)  # fmt: skip
"""What of a recipe may be set for a trained model."""

Report: TypeAlias = Callable[[str, SupportsFloat, int], None]
"""Called with what is being done, the number done, of which a part may be half done, and the number
in all: the tiles of each case, and the `cases`."""


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
    progress: Report | None = None,
) -> Iterator[PredictedCase]:
    """Segment cases into `out` and give them in their order; a failing case stops no other.

    While one case is computed, others are read and written. The files are as `write_case` writes
    them; several bundles are averaged. Stopped by KeyboardInterrupt, or closed, cases are done or
    not begun, and the table of volumes is of those that are done.

    Raises:
        ConfigError: `out` cannot be written to, holds a result that `output` does not let be
            there, or is where the images lie under the names of their results; or as
            `compose_engine`.
    """
    bundles = [bundles] if isinstance(bundles, Bundle) else bundles
    files = {case.id: output.files(out, case) for case in cases}
    results = [path for one in files.values() for path in one.paths]
    _require_own_names(cases, results)
    prepare_folder(out, keep=_kept(out, results, output))
    remove_unfinished(out, names={path.name for path in results})
    skip = output.existing == "skip"
    there = {case.id for case in cases if skip and files[case.id].label_map.exists()}
    todo = [case for case in cases if case.id not in there]
    engine = compose_engine(bundles, uncertainty=output.uncertainty)
    steps = _Steps(bundles[0].recipe, engine, files, output, [case.id for case in todo], progress)
    num_done = 0
    try:
        with closing(
            run_stages(todo, read=steps.read, compute=steps.compute, write=steps.write)
        ) as attempts:
            for case in cases:
                skipped = case.id in there
                attempt = steps.look(case) if skipped else next(attempts)
                if attempt.reason and not skipped:
                    files[case.id].remove()  # what lies there is no result of this run
                num_done += attempt.reason is None
                yield PredictedCase(
                    case.id, attempt.result, attempt.reason, attempt.seconds, skipped
                )
    except KeyboardInterrupt as stop:
        hint = "" if output.existing == "replace" else "; go on with --skip-existing"
        stop.add_note(f"{num_done} of {len(cases)} cases are done{hint}")
        raise
    finally:
        remove_unfinished(out, names={path.name for path in results})
        if output.volumes:
            volumes = [steps.volumes.get(case.id, []) for case in cases]
            write_volumes(out, chain.from_iterable(volumes))


def predict_inputs(
    models: Path | Sequence[Path],
    inputs: Sequence[Path],
    out: Path,
    *,
    output: Output = AS_NIFTI,
    settings: Sequence[str] = (),
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
    bundles = [_load(model, settings) for model in models]
    recipe = bundles[0].recipe
    if recipe.predict.keep_memory:
        keep_memory()
    output = plan_output(output, models, recipe)
    cases = find_inputs(inputs, recipe.images)
    yield from predict_cases(bundles, cases, out, output=output, progress=progress)


def _load(model: Path, settings: Sequence[str]) -> Bundle:
    loaded = load_bundle(model)
    recipe = override_section(loaded.recipe, settings)
    if recipe.network != loaded.recipe.network:
        loaded = reuse_weights(loaded, recipe)
    return Bundle(loaded.net.to(choose_device(recipe.predict.device)), recipe, loaded.version)


def _require_own_names(cases: Sequence[Case], results: Sequence[Path]) -> None:
    sources = {path.resolve() for case in cases for path in case.images.values()}
    if own := [path.name for path in results if path.resolve() in sources]:
        raise ConfigError(
            f"the result of '{own[0]}' would replace the image it is made from; "
            "choose another --out than the folder of the images"
        )
    if len({*results}) < len(results):
        doubled = next(path.name for path in results if results.count(path) > 1)
        raise ConfigError(
            f"two cases would both be written to '{doubled}'; segment them into different folders"
        )


def _kept(out: Path, results: Sequence[Path], output: Output) -> Sequence[Path]:
    """Give the files that must not be there yet."""
    if output.existing != "refuse":
        return []
    return [*results, out / TABLE] if output.volumes else results


@dataclass(frozen=True, slots=True, eq=False)
class _Steps:
    """What is done with each case."""

    recipe: Recipe
    engine: Engine
    files: Mapping[str, CaseFiles]
    output: Output
    todo: Sequence[str]
    report: Report | None
    volumes: dict[str, list[LabelVolume]] = field(default_factory=dict)
    """Those of cases that are done; filled as they are."""

    def look(self, case: Case) -> Attempt[Path | None]:
        """Take a result that is there already for what it is."""
        return Attempt(case, self.files[case.id].label_map).then("reading", self._measured)

    def _measured(self, case: Case, path: Path) -> Path | None:
        if self.output.volumes and self.output.format == "nifti":
            self._measure(case, read_label_map(path, self.recipe.labels))
        elif self.output.volumes:
            log.warning("'%s' was there already and is not in %s: it is DICOM", path, TABLE)
        return path

    def _measure(self, case: Case, label_map: Volume) -> None:
        self.volumes[case.id] = measure_volumes(case.id, label_map, self.recipe.labels)

    def _images(self, case: Case) -> list[Path]:
        return [case.images[channel] for channel in self.recipe.images]

    def read(self, case: Case) -> Prepared:
        """Read and preprocess a case."""
        images = self._images(case)
        require_source(images[0], self.output)
        return prepare_case(images, self.recipe)

    def compute(self, case: Case, prepared: Prepared) -> tuple[Predicted, Prepared]:
        """Run the networks; of what was prepared, only the way back is left."""
        with self._watched(case) as progress:
            predicted = predict_prepared(
                self.engine,
                prepared,
                self.recipe,
                with_probs=self.output.probabilities,
                progress=progress,
            )
        return predicted, _without_image(prepared)

    def write(self, case: Case, computed: tuple[Predicted, Prepared]) -> Path | None:
        """Bring results onto the grid of the images and write them; None where there is no file."""
        predicted, prepared = computed
        files = self.files[case.id]
        label_map = restore_label_map(predicted, prepared, self.recipe)
        written = write_case(
            label_map,
            files,
            predicted=predicted,
            prepared=prepared,
            image=self._images(case)[0],
            recipe=self.recipe,
            output=self.output,
        )
        if self.output.volumes:
            self._measure(case, label_map)
        return files.label_map if written else None

    @contextmanager
    def _watched(self, case: Case) -> Iterator[Progress | None]:
        """Tell of the tiles of a case, and of how much of all cases that is."""
        report, number, num_cases = self.report, self.todo.index(case.id), len(self.todo)
        if report is None:
            yield None
            return

        def watch(done: int, total: int) -> None:
            report("cases", number + done / total, num_cases)
            report(case.id, done, total)

        report("cases", number, num_cases)
        try:
            yield watch
        finally:
            report(case.id, 1, 1)  # also where it failed half way


def _without_image(prepared: Prepared) -> Prepared:
    """Let go of an image; the way back needs no more than its grid."""
    volume = prepared.preprocessed.volume
    empty = np.broadcast_to(np.float32(0), volume.array_CIJK.shape)
    preprocessed = replace(prepared.preprocessed, volume=Volume(empty, volume.affine))
    return Prepared(preprocessed, None)
