"""What is done with each of many cases: read, compute, write; in memory that is planned ahead."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import SupportsFloat, TypeAlias

import numpy as np

from medseg3d.config.recipe import Recipe
from medseg3d.data.cases import Case
from medseg3d.io.files import read_label_map
from medseg3d.nets.bundle import Bundle
from medseg3d.predict.budget import Budget, plan_budget, tile_size_of
from medseg3d.predict.case import (
    Predicted,
    Prepared,
    predict_prepared,
    prepare_case,
    restore_label_map,
)
from medseg3d.predict.compose import compose_engine
from medseg3d.predict.engine import Engine
from medseg3d.predict.memory import MemoryPlan, plan_after, plan_before
from medseg3d.predict.output import CaseFiles, Output, require_source, write_case
from medseg3d.predict.sliding import Progress
from medseg3d.predict.stages import WAITING, Attempt
from medseg3d.predict.tiles import require_divisible
from medseg3d.predict.volumes import TABLE, LabelVolume, measure_volumes
from medseg3d.volume import Volume

log = logging.getLogger(__name__)

Report: TypeAlias = Callable[[str, SupportsFloat, int], None]
"""Called with what is being done, the number done, of which a part may be half done, and the number
in all: the tiles of each case, and the `cases`."""

Planned: TypeAlias = tuple[list[Path | None], MemoryPlan | None]
"""The images of a case, None for those it lacks, and how it is run where their headers tell."""


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """What is done with each case of a run, and what is known of all."""

    engine: Engine
    budget: Budget
    files: Mapping[str, CaseFiles]
    output: Output
    todo: Sequence[str]
    report: Report | None
    volumes: dict[str, list[LabelVolume]] = field(default_factory=dict)
    """Those of cases that are done; filled as they are."""
    plans: list[MemoryPlan] = field(default_factory=list)
    """Of cases whose size is known."""

    @classmethod
    def prepare(
        cls,
        bundles: Sequence[Bundle],
        files: Mapping[str, CaseFiles],
        output: Output,
        *,
        todo: Sequence[Case],
        memory: int | None,
        report: Report | None,
    ) -> "Steps":
        """Make networks ready and find out what memory there is; `files` are those of all cases.

        Raises:
            ConfigError: as `compose_engine`.
            GridError: the tile is no multiple of the network's divisor.
        """
        engine = compose_engine(bundles, uncertainty=output.uncertainty)
        tile_size = tile_size_of(bundles[0].recipe)
        require_divisible(tile_size, engine.divisor or (1, 1, 1), name="predict.tile_size")
        budget = plan_budget(
            bundles,
            memory=memory,
            uncertainty=output.uncertainty,
            with_probs=output.probabilities,
            waiting=WAITING,
        )
        return cls(engine, budget, files, output, [case.id for case in todo], report)

    @property
    def recipe(self) -> Recipe:
        """What the models were trained to do."""
        return self.budget.recipe

    def waiting(self) -> int:
        """Count the other cases that memory suffices for, by the largest case so far."""
        return min((plan.waiting for plan in self.plans), default=WAITING)

    def look(self, case: Case) -> Attempt[Path | None]:
        """Take a result that is there already for what it is."""
        return Attempt(case, self.files[case.id].label_map).then("reading", self._looked_at)

    def _looked_at(self, case: Case, path: Path) -> Path | None:
        if missing := [one.name for one in self.files[case.id].paths if not one.exists()]:
            log.warning(
                "'%s' was there already, %s not: remove the former to have both made",
                path,
                " and ".join(missing),
            )
        if self.output.format == "nifti":
            label_map = read_label_map(path, self.recipe.labels)
            if self.output.volumes:
                self._measure(case, label_map)
        elif self.output.volumes:
            log.warning("'%s' was there already and is not in %s: it is DICOM", path, TABLE)
        return path

    def _measure(self, case: Case, label_map: Volume) -> None:
        self.volumes[case.id] = measure_volumes(case.id, label_map, self.recipe.labels)

    def _images(self, case: Case) -> list[Path | None]:
        return [case.images.get(channel) for channel in self.recipe.images]

    def plan(self, case: Case) -> Planned:
        """Plan a case by the headers of its images, before it is begun."""
        images = self._images(case)
        require_source(_first(images), self.output)
        plan = plan_before(self.budget, images)
        self.plans.extend([plan] if plan else [])
        return images, plan

    def read(self, _: Case, planned: Planned) -> tuple[Prepared, MemoryPlan]:
        """Read and preprocess a case; where headers did not tell its size, plan it now."""
        images, plan = planned
        prepared = prepare_case(images, self.recipe)
        if plan is None:
            plan = plan_after(self.budget, prepared.preprocessed)
            self.plans.append(plan)
        return prepared, plan

    def compute(self, case: Case, read: tuple[Prepared, MemoryPlan]) -> tuple[Predicted, Prepared]:
        """Run the networks; of what was prepared, only the way back is left."""
        prepared, plan = read
        with self._watched(case) as progress:
            predicted = predict_prepared(
                self.engine,
                prepared,
                self.recipe,
                plan=plan,
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
            image=_first(self._images(case)),
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


def _first(images: Sequence[Path | None]) -> Path:
    return next(path for path in images if path is not None)


def _without_image(prepared: Prepared) -> Prepared:
    """Let go of an image; the way back needs no more than its grid."""
    volume = prepared.preprocessed.volume
    empty = np.broadcast_to(np.float32(0), volume.array_CIJK.shape)
    preprocessed = replace(prepared.preprocessed, volume=Volume(empty, volume.affine))
    return Prepared(preprocessed, None)
