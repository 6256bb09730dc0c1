"""A form asks for what the signature says, and reads what comes back as Python would have it."""

from typing import Literal

import pytest

from optogram.core.form import fields
from optogram.core.technique import techniques
from optogram.pictures import RequestError


def made(network, unit: str, *, steps: int = 3, kind: Literal["a", "b"] = "a", on: bool = True):
    """Make it.

    Args:
        steps: how many.
    """


def test_a_signature_becomes_fields_in_its_order():
    asked = fields(made)
    assert [(f.name, f.kind) for f in asked] == [
        ("unit", "unit"), ("steps", "whole"), ("kind", "choice"), ("on", "switch"),
    ]  # fmt: skip
    assert [f.positional for f in asked] == [True, False, False, False]
    assert asked[1].explanation == "how many."
    assert asked[2].read("b") == "b"
    with pytest.raises(RequestError, match="'c' is none of a, b"):
        asked[2].read("c")


@pytest.mark.parametrize("name", list(techniques()))
def test_every_technique_can_be_asked_for_by_a_form(name):
    technique = techniques()[name]
    asked = {field.name for field in fields(technique.function)}
    silent = set(list(technique.signature.parameters)[1:]) - asked
    assert silent <= {"masks"}, f"{name} has options that no form shows: {silent}"
