"""What all cases of a run have in common."""

from collections.abc import Callable
from dataclasses import replace

from medseg3d.nets.bundle import Bundle
from medseg3d.predict.budget import plan_budget


def test_what_networks_take_is_counted_before_kernels_are_compiled(
    build_bundle: Callable[..., Bundle],
) -> None:
    bundle = build_bundle("t1")
    compiled = bundle.recipe.predict.model_copy(update={"kernels": "inductor"})
    recipe = bundle.recipe.model_copy(update={"predict": compiled})

    budget = plan_budget([replace(bundle, recipe=recipe)])

    assert budget.passes == plan_budget([bundle]).passes
