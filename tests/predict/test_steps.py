"""What a run does with each case: plans that hold for all that follow."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medseg3d.data.cases import Case
from medseg3d.errors import ConfigError
from medseg3d.io.files import write_volume
from medseg3d.nets.bundle import Bundle
from medseg3d.predict.output import AS_NIFTI
from medseg3d.predict.stages import WAITING
from medseg3d.predict.steps import Steps
from medseg3d.volume import Volume

Build = Callable[..., Bundle]


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    """Give a small, a large and a small case."""
    found = []
    for name, length in (("a", 16), ("b", 96), ("c", 16)):
        path = tmp_path / f"{name}.nii"
        write_volume(Volume(np.ones((1, length, length, length), np.int16), np.eye(4)), path)
        found.append(Case(name, {"t1": path}))
    return found


def prepare(bundle: Bundle, cases: list[Case]) -> Steps:
    files = {case.id: AS_NIFTI.files(Path(), case) for case in cases}
    return Steps.prepare([bundle], files, AS_NIFTI, todo=cases, memory=None, report=None)


def need_of(steps: Steps, case: Case) -> int:
    """Count what a case takes with no other beside it."""
    alone = replace(steps, budget=replace(steps.budget, waiting=0, host=None), plans=[])
    (_, plan) = alone.plan(case)
    assert plan
    return sum(plan.host.values())


def test_the_largest_case_so_far_says_how_many_others_there_may_be(
    build_bundle: Build, cases: list[Case]
) -> None:
    steps = prepare(build_bundle("t1"), cases)
    just = need_of(steps, cases[1])
    steps = replace(steps, budget=replace(steps.budget, host=just, asked=just))

    counts = [steps.waiting()]
    for case in cases:
        steps.plan(case)
        counts.append(steps.waiting())

    assert [plan.waiting for plan in steps.plans] == [WAITING, 0, WAITING]
    assert counts == [WAITING, WAITING, 0, 0]


def test_a_case_of_unknown_size_counts_once_it_is_read(
    build_bundle: Build, cases: list[Case]
) -> None:
    steps = prepare(build_bundle("t1", crop="nonzero"), cases)

    planned = steps.plan(cases[0])
    assert not steps.plans
    _, plan = steps.read(cases[0], planned)

    assert steps.plans == [plan]


def test_a_case_that_does_not_fit_is_refused_before_it_is_read(
    build_bundle: Build, cases: list[Case]
) -> None:
    steps = prepare(build_bundle("t1"), cases)
    steps = replace(steps, budget=replace(steps.budget, host=2**20, asked=2**20))

    with pytest.raises(ConfigError, match="give --memory"):
        steps.plan(cases[0])
