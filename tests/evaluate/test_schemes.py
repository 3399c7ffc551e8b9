"""The table of schemes, and schemes from files."""

from pathlib import Path

import pytest

from medseg3d.datasets import DATASETS
from medseg3d.errors import ConfigError
from medseg3d.evaluate.protocols import PROTOCOLS
from medseg3d.evaluate.schemes import SCHEMES, find_scheme, scheme_of_values
from medseg3d.labels import LabelScheme
from medseg3d.terms import TERMS


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_is_found_by_the_name_it_bears(name):
    scheme = find_scheme(name)
    assert scheme is SCHEMES[name]
    assert scheme.name == name
    assert scheme.protocol.hausdorff in scheme.policy


def test_every_protocol_of_a_challenge_has_its_labels():
    challenges = {*PROTOCOLS} - {"whole"}
    assert challenges < {*DATASETS} == {*SCHEMES}
    for name in challenges:
        assert SCHEMES[name].protocol == PROTOCOLS[name]
    for name, labels in DATASETS.items():
        assert SCHEMES[name].regions == labels.regions
        assert SCHEMES[name].codes == labels.codes


@pytest.mark.parametrize("name", ["hippocampus", "btcv", "amos", "flare22"])
def test_organs_are_scored_as_wholes(name: str):
    assert SCHEMES[name].protocol == PROTOCOLS["whole"]


@pytest.mark.parametrize(
    ("name", "whole", "core", "enhancing"),
    [
        ("brats2015", {1, 2, 3, 4}, {1, 3, 4}, {4}),
        ("brats2021", {1, 2, 4}, {1, 4}, {4}),
        ("brats2023", {1, 2, 3}, {1, 3}, {3}),
        ("brats2023-gli", {1, 2, 3}, {1, 3}, {3}),
        ("brats2024-gli", {1, 2, 3}, {1, 3}, {3}),
        ("brats2024-ped", {1, 2, 3, 4}, {1, 2, 3}, {1}),
        ("brats2025-met", {1, 2, 3}, {1, 3}, {3}),
        ("brats2026-goat", {1, 2, 3}, {1, 3}, {3}),
    ],
)
def test_brats_regions(name, whole, core, enhancing):
    regions = {region: set(values) for region, values in SCHEMES[name].regions.items()}
    assert (regions["WT"], regions["TC"], regions["ET"]) == (whole, core, enhancing)


@pytest.mark.parametrize(
    ("name", "regions"),
    [
        ("brats2023-met", "WT TC ET"),
        ("brats2024-gli", "WT TC NETC SNFH ET RC"),
        ("brats2024-met", "WT TC ET"),
        ("brats2025-met", "WT TC ET RC"),
        ("brats2025-ped", "WT TC ET NETC CC ED"),
        ("brats2025-men-rt", "GTV"),
        ("brats2026-menrt", "GTV"),
    ],
)
def test_regions_of_the_challenges(name, regions):
    assert [*SCHEMES[name].regions] == regions.split()


def test_a_label_scheme_takes_the_default_rules():
    labels = LabelScheme(name="organs", values={1: "liver", 2: "spleen"}, regions={"both": (1, 2)})
    scheme = find_scheme(labels)
    assert (scheme.name, scheme.regions) == ("organs", {"both": (1, 2)})
    assert scheme.protocol == PROTOCOLS["whole"]
    assert find_scheme(scheme) is scheme


def test_a_yaml_file_holds_labels_and_rules(tmp_path: Path):
    path = tmp_path / "liver.yaml"
    path.write_text(
        "values: {1: liver, 2: tumour}\nregions: {organ: [1, 2], tumour: [2]}\n"
        "protocol: {hausdorff: max_directed, one_empty: 50, both_empty: nan}\n"
    )
    for scheme in (find_scheme(path), find_scheme(str(path))):
        assert (scheme.name, scheme.regions) == ("liver", {"organ": (1, 2), "tumour": (2,)})
        rules = scheme.protocol
        assert (rules.hausdorff, rules.one_empty, rules.both_empty) == ("max_directed", 50, "nan")


def test_a_yaml_file_holds_codes(tmp_path: Path):
    path = tmp_path / "liver.yaml"
    path.write_text(
        "values: {1: liver, 2: tumour}\n"
        "codes:\n"
        "  liver: liver\n"
        "  tumour: {category: 49755003 |Morphologically Abnormal Structure|,\n"
        "           type: 108369006 |Neoplasm|, region: 10200004 |Liver|}\n"
    )
    scheme = find_scheme(path)
    assert scheme.term_of("liver") == TERMS["liver"]
    assert str(scheme.term_of("tumour").region) == "10200004 |Liver|"


def test_a_yaml_file_may_name_the_rules_of_a_challenge(tmp_path: Path):
    path = tmp_path / "spots.yaml"
    path.write_text("values: {1: spot}\nprotocol: brats2023-met\n")
    assert find_scheme(path).protocol == PROTOCOLS["brats2023-met"]
    path.write_text("values: {1: spot}\nprotocol: brats2024-gli\n")
    assert find_scheme(path).protocol == PROTOCOLS["brats2024-gli"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("value: {1: liver}", r"did you mean 'values'\?"),
        ("values: {1: liver}\nprotocol: {hausdorf: pooled}", r"did you mean 'hausdorff'\?"),
        ("values: {1: liver}\nprotocol: {one_empty: far}", "one_empty"),
        ("values: {1: liver}\nprotocol: {one_empty: -1}", "one_empty"),
        ("values: {1: liver}\nprotocol: {one_empty: .inf}", "one_empty"),
        ("values: {1: liver}\nprotocol: {both_empty: diagonal}", "both_empty"),
        (
            "values: {1: liver}\nprotocol: {lesions: {kind: dilated, dilations_of: {lever: 2}}}",
            r"protocol\.lesions names \['lever'\], regions are \['liver'\]",
        ),
        ("values: {1: liver}\nprotocol: brats", "no protocol 'brats'; known are whole, brats2015"),
        ("values: {1: liver}\nregions: {all: [1, 2]}", r"region 'all' holds \[2\]"),
        ("values: {1: liver}\ncodes: {liver: {typ: 1 |Liver|}}", r"typ: .*did you mean 'type'\?"),
        ("values: {1: liver}\ncodes: {liver: {type: Liver}}", r"codes\.liver\.type: a code is wri"),
        ("- 1\n- 2", "holds list, expected keys with values"),
        ("values: {1: liver", "is not YAML"),
    ],
)
def test_a_faulty_file_is_refused_with_its_name(tmp_path: Path, text, said):
    path = tmp_path / "mine.yml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as raised:
        find_scheme(path)
    assert "mine.yml" in str(raised.value)


def test_seasons_until_2022_are_scored_alike():
    for year in (2017, 2018, 2019, 2020, 2022):
        assert find_scheme(f"brats{year}").protocol == PROTOCOLS["brats2021"]
        assert find_scheme(f"brats{year}").regions == SCHEMES["brats2021"].regions


def test_a_missing_file_and_an_unknown_name_are_refused_with_what_is_known(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"cannot be read.*No such file"):
        find_scheme(tmp_path / "none.yaml")
    with pytest.raises(
        ConfigError, match=r"'brats2032', did you mean 'brats2023'\? known are brats"
    ):
        find_scheme("brats2032")
    with pytest.raises(
        ConfigError, match=r"'brats2024' has several tracks; name one of brats2024-"
    ):
        find_scheme("brats2024")
    with pytest.raises(ConfigError, match=r"unknown scheme 'xyz'; known are brats2015, .*YAML"):
        find_scheme("xyz")


def test_without_a_scheme_each_value_is_a_region():
    assert scheme_of_values([4, 0, 2]).regions == {"label_2": (2,), "label_4": (4,)}
    assert scheme_of_values([0]).regions == {"label_1": (1,)}
