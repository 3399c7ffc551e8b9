"""Rules for label maps: which values they speak of, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from medseg3d.config.load import load_config, override_section, parse_section
from medseg3d.config.postprocess import RegionRule, plan_steps
from medseg3d.config.recipe import Recipe, build_recipe
from medseg3d.config.run import RunConfig
from medseg3d.datasets import DATASETS
from medseg3d.errors import ConfigError
from medseg3d.labels import LabelScheme

BRATS = DATASETS["brats2023"]
RULES = """
TC: {fill_holes: NCR, smallest_component_mm3: 100}
ET: {smallest_region_mm3: 500, becomes: NCR}
ED: {keep: largest}
"""


def parse(rules: str) -> dict[str, RegionRule]:
    return {name: RegionRule.model_validate(rule) for name, rule in yaml.safe_load(rules).items()}


def a_run(postprocess: Any, labels: Any = "brats2023") -> dict[str, Any]:
    """Give the least that makes a run with rules."""
    data = {"folder": "cases", "images": {"t1": "{case}.nii.gz"}, "labels": labels}
    predict = {"postprocess": postprocess}
    return {"data": data, "network": {"kind": "resunet"}, "predict": predict}


def refusal(rules: str) -> str:
    with pytest.raises(ConfigError) as refused:
        plan_steps(parse(rules), BRATS)
    return str(refused.value)


def test_names_are_looked_up_and_the_order_stays():
    steps = plan_steps(parse(RULES), BRATS)
    assert [(step.values, step.fill, step.becomes) for step in steps] == [
        ((1, 3), 1, 0),
        ((3,), None, 1),
        ((2,), None, 0),
    ]


def test_a_hole_of_one_value_is_filled_with_it():
    assert plan_steps(parse("NCR: {fill_holes: true}"), BRATS)[0].fill == 1
    assert plan_steps(parse("NCR: {fill_holes: NCR}"), BRATS)[0].fill == 1
    assert plan_steps(parse("NCR: {fill_holes: false}"), BRATS)[0].fill is None


def test_a_name_of_both_a_region_and_a_value_is_the_regions():
    scheme = LabelScheme(values={1: "rim", 2: "tumour"}, regions={"tumour": (1, 2)})
    assert plan_steps(parse("tumour: {becomes: null}"), scheme)[0].values == (1, 2)


@pytest.mark.parametrize(
    ("rules", "fault"),
    [
        ("NRC: {}", "NRC: no region or value; did you mean 'NCR'?"),
        ("liver: {}", "liver: no region or value; known are NCR, ED, ET, WT, TC"),
        ("TC: {fill_holes: true}", "TC.fill_holes: true names no value; name one of NCR, ET"),
        ("TC: {fill_holes: ED}", "TC.fill_holes: 'ED' is not in it; name one of NCR, ET"),
        ("TC: {fill_holes: TC}", "TC.fill_holes: no value 'TC'; known are NCR, ED, ET"),
        ("ET: {becomes: WT}", "ET.becomes: no value 'WT'; known are NCR, ED, ET"),
        ("TC: {becomes: NCR}", "TC.becomes: 'NCR' is in it; name a value outside NCR, ET"),
    ],
)
def test_a_rule_that_the_labels_contradict_is_refused(rules: str, fault: str):
    assert refusal(rules) == f"predict.postprocess.{fault}"


def test_all_faults_are_told_at_once():
    said = refusal("NRC: {}\nET: {becomes: ET}\nWT: {keep: largest}")
    assert "postprocess.NRC: no region or value" in said
    assert "; predict.postprocess.ET.becomes: 'ET' is in it" in said
    assert "WT" not in said


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ({"smallest_mm3": 5}, "TC.smallest_mm3: unknown key; did you mean 'smallest_region_mm3'?"),
        ({"keep": "biggest"}, "TC.keep: input should be 'all' or 'largest' (got 'biggest')"),
        ({"smallest_region_mm3": -1}, "TC.smallest_region_mm3: input should be greater than or"),
        (
            {"smallest_component_mm3": float("inf")},
            "TC.smallest_component_mm3: input should be a fin",
        ),
        ({"becomes": "TC"}, "(top): predict.postprocess.TC.becomes: no value 'TC'; known are NCR"),
    ],
)
def test_a_faulty_rule_is_refused_with_the_run_it_stands_in(rule: dict[str, Any], fault: str):
    with pytest.raises(ConfigError) as refused:
        parse_section(RunConfig, a_run({"TC": rule}), source="run.yaml")
    assert fault in str(refused.value)


def test_a_model_takes_its_rules_along_and_a_setting_changes_or_drops_them(tmp_path: Path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(a_run(yaml.safe_load(RULES)), sort_keys=False))
    recipe = build_recipe(load_config(path))

    again = Recipe.model_validate_json(recipe.model_dump_json())
    softer = override_section(again, ["predict.postprocess.ET.smallest_region_mm3=50"])
    none = override_section(again, ["predict.postprocess={}"])

    assert [*again.predict.postprocess] == ["TC", "ET", "ED"]
    assert softer.predict.postprocess["ET"] == RegionRule(smallest_region_mm3=50, becomes="NCR")
    assert not none.predict.postprocess
    with pytest.raises(ConfigError, match=r"postprocess\.NRC: no region or value; did you mean"):
        override_section(again, ["predict.postprocess.NRC.keep=largest"])
