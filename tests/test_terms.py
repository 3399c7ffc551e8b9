"""Coded terms: every code is one that DICOM's tables hold, in the place they prescribe."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from medseg3d.terms import ABNORMAL, ANATOMY, LEFT, RIGHT, TARGET, TERMS, TISSUE, Code, Term

ELSEWHERE = {
    # TotalSegmentator, resources/totalsegmentator_snomed_mapping.csv
    "110765007": "Portal vein and splenic vein",
    "74281007": "Myocardium",
}
"""SNOMED CT codes that PS3.16 does not hold, each with its source."""

TYPES_OF = {ANATOMY: 7192, ABNORMAL: 7194, TISSUE: 7191, TARGET: 9534}
"""Category -> the context group of its types, as CID 7150 (RT Target: CID 9580) prescribes."""

CODES = {
    code
    for term in TERMS.values()
    for code in (term.category, term.type, term.modifier, term.region)
    if code
}


@pytest.fixture(scope="module")
def dictionary() -> dict[tuple[str, str], tuple[set[str], set[int]]]:
    """Give pydicom's dictionary: scheme and value -> meanings, and context groups of PS3.16."""
    concepts = pytest.importorskip("pydicom.sr._concepts_dict").concepts
    found: dict[tuple[str, str], tuple[set[str], set[int]]] = {}
    for scheme, entries in concepts.items():
        for entry in entries.values():
            for value, (meaning, groups) in entry.items():
                meanings, all_groups = found.setdefault((scheme, value), (set(), set()))
                meanings.add(meaning)
                all_groups.update(groups)
    return found


@pytest.fixture(scope="module")
def groups_of(dictionary) -> Callable[[Code], set[int]]:
    """Give a function that names the context groups that hold a code."""
    return lambda code: dictionary.get((code.scheme, code.value), (set(), set()))[1]


def check_digit_holds(identifier: str) -> bool:
    """Check the last digit of a SNOMED CT identifier: Verhoeff's sum in the dihedral group D5."""

    def product(a: int, b: int) -> int:
        turned = (a + b) % 5 if a < 5 else (a - b) % 5
        return turned + 5 * ((a < 5) != (b < 5))

    def permuted(digit: int, times: int) -> int:
        for _ in range(times % 8):
            digit = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)[digit]
        return digit

    total = 0
    for place, digit in enumerate(reversed(identifier)):
        total = product(total, permuted(int(digit), place))
    return total == 0


def test_every_code_means_what_dicom_says(dictionary):
    assert len(CODES) > 80
    for code in CODES:
        if code.value in ELSEWHERE:
            assert code.meaning == ELSEWHERE[code.value]
            assert ("SCT", code.value) not in dictionary, f"{code}: check it by the dictionary now"
        else:
            assert code.meaning in dictionary[code.scheme, code.value][0], code


def test_every_snomed_ct_code_has_its_check_digit():
    assert [c for c in CODES if c.scheme == "SCT" and not check_digit_holds(c.value)] == []


@pytest.mark.parametrize("name", TERMS)
def test_a_term_is_built_as_dicom_prescribes(name: str, groups_of):
    term = TERMS[name]
    assert groups_of(term.category) & {7150, 9580}
    assert term.type.value in ELSEWHERE or TYPES_OF[term.category] in groups_of(term.type)
    assert (term.region is None) == (term.category in (ANATOMY, TARGET))
    assert term.region is None or 4 in groups_of(term.region), "an anatomic region"


@pytest.mark.parametrize(("side", "modifier"), [("left", LEFT), ("right", RIGHT)])
def test_a_name_tells_the_side(side: str, modifier: Code):
    named = [name for name in TERMS if name.endswith(f"_{side}")]
    coded = [
        name
        for name, term in TERMS.items()
        if term.modifier == modifier or side in term.type.meaning.lower().split()
    ]
    assert named == coded
    assert len(named) > 25


def test_no_two_names_mean_the_same_but_those_of_two_seasons():
    names: dict[Term, list[str]] = {}
    for name, term in TERMS.items():
        names.setdefault(term, []).append(name)
    assert [same for same in names.values() if len(same) > 1] == [["NET", "NETC"], ["ED", "SNFH"]]


def test_the_check_digit_finds_a_wrong_digit_and_two_that_were_swapped():
    assert check_digit_holds("10200004")
    assert not check_digit_holds("10200005")
    assert not check_digit_holds("10020004")


@given(
    value=st.from_regex(r"[A-Za-z0-9._-]{1,16}", fullmatch=True),
    meaning=st.from_regex(r"[^|\\\x00-\x1f]{1,64}", fullmatch=True),
    scheme=st.from_regex(r"[A-Za-z0-9._-]{1,16}", fullmatch=True),
)
def test_a_code_is_what_its_notation_says(value: str, meaning: str, scheme: str):
    code = Code(value=value, meaning=meaning, scheme=scheme)
    assert Code.model_validate(str(code)) == code
    assert Code.model_validate(code.model_dump()) == code


def test_snomed_ct_is_the_scheme_unless_said():
    liver, target = (Code.model_validate(c) for c in ("10200004 |Liver|", "DCM:130041 |RT Target|"))
    assert (liver.scheme, liver.value, liver.meaning) == ("SCT", "10200004", "Liver")
    assert (target.scheme, str(target)) == ("DCM", "DCM:130041 |RT Target|")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("10200004", "a code is written as '10200004 |Liver|' or 'DCM:130041 |RT Target|'"),
        ("10200004 Liver", "a code is written as"),
        ("10200004 || Liver", "a code is written as"),
        ("10200004 ||", "meaning"),
        ("10200004 |" + "x" * 65 + "|", "meaning"),
        ("1" * 17 + " |Liver|", "value"),
        ({"value": "10200004"}, "meaning"),
        ({"value": "1", "meaning": "Liver", "color": "red"}, "Extra inputs"),
    ],
)
def test_what_is_no_code_is_refused(code: object, said: str):
    with pytest.raises(ValidationError, match=re.escape(said)):
        Code.model_validate(code)


def test_a_term_is_written_in_codes():
    term = Term.model_validate(
        {"category": "123037004 |Body structure|", "type": "10200004 |Liver|", "color": "#dd8265"}
    )
    assert term.type == TERMS["liver"].type
    assert Term.model_validate(term.model_dump(mode="json")) == term
    with pytest.raises(ValidationError, match="category"):
        Term.model_validate({"type": "10200004 |Liver|"})
