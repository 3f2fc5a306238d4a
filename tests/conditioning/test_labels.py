import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.conditioning.labels import LabelVocabulary
from cascade.errors import ContractError

VOCABULARY = LabelVocabulary({"animal": ["cat", "dog", "owl"], "style": ["noto", "twemoji"]})


@given(st.tuples(st.integers(-1, 2), st.integers(-1, 1)))
def test_decoding_undoes_encoding(indices):
    assert VOCABULARY.encode(VOCABULARY.decode(indices)) == list(indices)


def test_indices_follow_the_order_of_names_and_missing_fields_are_minus_1():
    batch = VOCABULARY.batch([{"style": "twemoji", "animal": "owl"}, {"animal": "cat"}, {}])
    assert batch.tolist() == [[2, 1], [0, -1], [-1, -1]]
    assert VOCABULARY.sizes == [3, 2]


def test_parsing_finds_the_field_of_each_name():
    assert VOCABULARY.parse("twemoji, dog") == {"style": "twemoji", "animal": "dog"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dogg", "unknown class 'dogg': did you mean 'dog'"),
        ("", "unknown class ''"),
        ("cat,dog", "'cat' and 'dog' are both a animal"),
    ],
)
def test_unknown_or_contradictory_text_is_refused(text, message):
    with pytest.raises(ContractError, match=message):
        VOCABULARY.parse(text)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"animals": "cat"}, "unknown label field 'animals': did you mean 'animal'"),
        ({"style": "cat"}, "unknown style 'cat': known: noto, twemoji"),
    ],
)
def test_unknown_fields_and_names_are_refused(labels, message):
    with pytest.raises(ContractError, match=message):
        VOCABULARY.encode(labels)


@pytest.mark.parametrize("fields", [{"a": ["cat", "cat"]}, {"a": ["cat"], "b": ["cat"]}])
def test_a_name_that_stands_twice_is_refused(fields):
    with pytest.raises(ContractError, match="'cat' stands in both"):
        LabelVocabulary(fields)
