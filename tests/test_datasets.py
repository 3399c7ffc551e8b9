"""Public data sets: the values that their own documents give, and a code for every name."""

import pytest

from medseg3d.datasets import DATASETS

BTCV = """spleen, right kidney, left kidney, gallbladder, esophagus, liver, stomach, aorta,
inferior vena cava, portal vein and splenic vein, pancreas, right adrenal gland,
left adrenal gland"""
AMOS = """spleen, right kidney, left kidney, gallbladder, esophagus, liver, stomach, aorta,
inferior vena cava, pancreas, right adrenal gland, left adrenal gland, duodenum, bladder,
prostate/uterus"""
FLARE22 = """liver, right kidney, spleen, pancreas, aorta, inferior vena cava, right adrenal gland,
left adrenal gland, gallbladder, esophagus, stomach, duodenum, left kidney"""


@pytest.mark.parametrize("name", DATASETS)
def test_every_name_has_a_code(name: str):
    scheme = DATASETS[name]
    assert scheme.name == name
    assert {*scheme.codes} == {*scheme.names}
    for label in scheme.names:
        assert scheme.term_of(label) is scheme.codes[label]


@pytest.mark.parametrize(("name", "listed"), [("btcv", BTCV), ("amos", AMOS), ("flare22", FLARE22)])
def test_organs_have_the_values_of_their_data_set(name: str, listed: str):
    """Names as their authors list them, in the order of the values from 1."""
    organs = [" ".join(organ.split()) for organ in listed.split(",")]
    scheme = DATASETS[name]
    assert [*scheme.values] == [*range(1, len(organs) + 1)]
    for organ, label in zip(organs, scheme.values.values(), strict=True):
        words = organ.replace("portal vein and", "portal and").replace("/", " or ").split()
        assert {*words} <= {*label.split("_")}


@pytest.mark.parametrize("name", [name for name in DATASETS if name.startswith("brats")])
def test_a_name_means_the_same_in_every_season(name: str):
    scheme = DATASETS[name]
    types = {label: term.type.meaning for label, term in scheme.codes.items()}
    expected = {
        "WT": "Lesion", "TC": "Neoplasm", "ET": "Enhancing Lesion", "NCR": "Necrosis",
        "NET": "Non-Enhancing Lesion", "NETC": "Non-Enhancing Lesion", "ED": "Edema",
        "SNFH": "Edema", "CC": "Cyst", "RC": "Lesion", "GTV": "GTV",
    }  # fmt: skip
    assert types == {label: expected[label] for label in types}


def test_parts_of_the_hippocampus_are_told_apart():
    terms = DATASETS["hippocampus"].codes
    assert terms["anterior"].type == terms["posterior"].type
    assert str(terms["anterior"].modifier) == "255549009 |Anterior|"
    assert str(terms["posterior"].modifier) == "255551008 |Posterior|"
