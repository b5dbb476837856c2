"""What passes by itself and what has to be allowed."""

from __future__ import annotations

import pytest

from preceptor.licences import OPEN, Terms, canonical, objection, objections


@pytest.mark.parametrize(
    ("written", "name"),
    [("apache-2.0", "Apache-2.0"), ("Apache 2.0", "Apache-2.0"), ("odc-by", "ODC-By-1.0"), ("cc_by_4.0", "CC-BY-4.0"), (" mit ", "MIT"), ("Llama3", "Llama3")],
)  # fmt: skip
def test_names_are_read_as_the_hub_and_people_write_them(written: str, name: str) -> None:
    assert canonical(written) == name


@pytest.mark.parametrize(
    ("licence", "why"),
    [
        ("cc-by-nc-4.0", "CC-BY-NC-4.0 is non-commercial"),
        ("CC-BY-NC-SA-3.0", "is non-commercial"),
        ("PolyForm-Noncommercial-1.0.0", "is non-commercial"),
        ("CC-BY-ND-4.0", "forbids derivatives"),
        ("other", "unknown"),
        ("unknown", "unknown"),
        ("", "unknown"),
        ("GPL-3.0", "not in the list"),
        ("llama3", "not in the list"),
    ],
)
def test_what_does_not_pass_says_why(licence: str, why: str) -> None:
    assert why in str(objection(licence))


def test_open_licences_pass_in_any_letter_case() -> None:
    assert not any(objection(name.lower()) for name in OPEN)


def test_silence_is_not_permission_and_every_licence_counts() -> None:
    assert objections(Terms((), None), ()) == ("its licence is unknown",)
    assert objections(Terms(("mit", "cc-by-nc-4.0"), False), ()) == ("CC-BY-NC-4.0 is non-commercial",)
    assert objections(Terms(("mit",), True), ()) == ("it is gated",)


def test_a_licence_is_allowed_by_name_and_a_gate_is_not() -> None:
    assert objections(Terms(("cc-by-nc-4.0",), False), ("CC-BY-NC-4.0",)) == ()
    assert objections(Terms((), None), ("unknown",)) == ()
    assert objections(Terms(("cc-by-nc-4.0",), True), ("CC-BY-NC-4.0", "MIT")) == ("it is gated",)
    assert objections(Terms(("cc-by-nc-4.0",), False), ("CC-BY-NC-3.0",)) != ()
