from __future__ import annotations

import json

import pytest

from cascade.saving.differences import Difference, differences, flat

SETTINGS = {"train": {"seed": 0, "betas": (0.9, 0.99)}, "name": "a", "only": None}


def test_nested_values_get_keys_with_dots():
    assert flat(SETTINGS) == {
        "train.seed": 0,
        "train.betas": (0.9, 0.99),
        "name": "a",
        "only": None,
    }
    assert flat({"a": {}}) == {}


def test_settings_do_not_differ_from_what_json_makes_of_them():
    assert differences(SETTINGS, json.loads(json.dumps(SETTINGS))) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"name": "b"}, [Difference("name", "a", "b")]),
        ({"train": {"seed": 0}}, [Difference("train.betas", (0.9, 0.99), None)]),
        ({"new": {"key": 1}}, [Difference("new.key", None, 1)]),
        ({"new": None}, []),
        ({"only": 1, "name": 2}, [Difference("name", "a", 2), Difference("only", None, 1)]),
    ],
)
def test_every_key_that_differs_is_listed_once_in_order(change, expected):
    assert differences(SETTINGS, SETTINGS | change) == expected


def test_a_difference_reads_as_before_and_now():
    assert str(Difference("train.seed", 0, 1)) == "train.seed=0 (now 1)"
    assert Difference("a.b", None, True).as_change() == "a.b=true, which was null"
    assert str(Difference("a", ["x", [1, 0.5]], (False,))) == "a=[x, [1, 0.5]] (now [false])"
