from __future__ import annotations

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cascade.conditioning.batch import Batch
from cascade.conditioning.inputs import Inputs, Request
from cascade.conditioning.labels import Labels, LabelVocabulary
from cascade.conditioning.slots import Classes, Slots
from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError
from cascade.space import Space

FIELDS = {"animal": ["cat", "dog", "owl"], "style": ["noto", "twemoji"]}
VOCABULARY = LabelVocabulary(FIELDS)
SPACE = Space(size_px=8)


@given(st.tuples(st.integers(-1, 2), st.integers(-1, 1)))
def test_decoding_undoes_encoding(indices):
    assert VOCABULARY.encode(VOCABULARY.decode(indices)) == list(indices)


def test_indices_follow_the_order_of_names_and_missing_fields_are_minus_1():
    batch = VOCABULARY.batch([{"style": "twemoji", "animal": "owl"}, {"animal": "cat"}, {}])
    assert batch.tolist() == [[2, 1], [0, -1], [-1, -1]]
    assert VOCABULARY.sizes == [3, 2]


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("cat", "did you mean 'cat-face'?"),  # similar too: face-hat and heart
        ("monky-face", "did you mean 'monkey-face'?"),
        ("horse", "known: cat-face, face-hat, heart, monkey-face"),
    ],
)
def test_only_near_names_are_suggested(text, end):
    vocabulary = LabelVocabulary({"class": ["cat-face", "face-hat", "heart", "monkey-face"]})
    with pytest.raises(ContractError, match=f"^unknown class '{text}': {re.escape(end)}$"):
        vocabulary.parse(text)


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
def test_a_name_that_appears_twice_is_refused(fields):
    with pytest.raises(ContractError, match="'cat' appears in both"):
        LabelVocabulary(fields)


def test_a_name_with_a_comma_is_refused():
    with pytest.raises(ContractError, match="'cat,dog' must not contain a comma"):
        LabelVocabulary({"a": ["cat,dog"]})


# ---- the condition ------------------------------------------------------------------------------


def batch_of(indices: Tensor) -> Batch:
    count = len(indices)
    return Batch(
        images=torch.zeros(count, 3, 8, 8),
        seeds=tuple(range(count)),
        conditions={"labels": indices},
    )


def trained_with(condition: Labels, batch: Batch) -> Tensor:
    """The indices that a network receives in training."""
    noise = SeededNoise(batch.seeds, "train labels")
    return condition.of_batch(batch, SPACE, noise).vectors["labels"]


def sampled_with(condition: Labels, labels, count: int) -> Tensor:
    """The indices that a network receives in sampling."""
    request = Request(
        inputs=Inputs({"labels": labels}),
        previous=None,
        space=SPACE,
        size_px=(8, 8),
        augmentation_level=0.0,
        noise=SeededNoise(range(count)),
    )
    return condition.of_request(request).vectors["labels"]


def test_labels_enter_as_one_vector_of_classes():
    condition = Labels(fields=FIELDS)
    assert condition.slots(SPACE) == Slots(vector=Classes((3, 2)))
    assert condition.classes == FIELDS
    assert condition.annotation_fields == ["animal", "style"]
    assert condition.facts() == {"animal": "cat, dog, owl", "style": "noto, twemoji"}
    assert condition.image_space(SPACE) is None
    assert condition.description(SPACE) == ""
    assert not condition.accepts_size((8, 8), SPACE)
    assert condition.result_size(Inputs(), None, SPACE) is None


@pytest.mark.parametrize(
    ("drop", "field", "all_fields"), [(0, 0, 0), (1, 1, 1), (0.2, 0.36, 0.232)]
)
def test_all_labels_are_dropped_together_and_each_field_also_on_its_own(drop, field, all_fields):
    """A field stays with probability (1 - drop)^2; both go with drop + (1 - drop) drop^2."""
    indices = torch.tensor([[2, 1]]).expand(2000, 2)
    received = trained_with(Labels(fields=FIELDS, drop=drop), batch_of(indices))
    hidden = received == -1
    assert received[~hidden].equal(indices[~hidden])
    for share, expected in (
        *((hidden[:, place], field) for place in range(2)),
        (hidden.all(dim=1), all_fields),
    ):
        tolerance = 5 * math.sqrt(expected * (1 - expected) / 2000)
        assert share.float().mean().item() == pytest.approx(expected, abs=tolerance)


def test_a_single_field_is_dropped_with_the_probability_itself():
    condition = Labels(fields={"animal": FIELDS["animal"]}, drop=0.2)
    received = trained_with(condition, batch_of(torch.full((2000, 1), 2)))
    assert (received == -1).float().mean().item() == pytest.approx(0.2, abs=0.045)


def test_training_needs_labels_in_the_batch():
    batch = Batch(images=torch.zeros(1, 3, 8, 8), seeds=(0,))
    with pytest.raises(ContractError, match="class-conditional, but the batch has no labels"):
        trained_with(Labels(fields=FIELDS), batch)


def test_indices_names_and_nothing_are_read_in_sampling():
    condition = Labels(fields=FIELDS)
    indices = torch.tensor([[2, 1], [0, -1]])
    assert sampled_with(condition, indices, 2).equal(indices)
    named = [{"animal": "owl", "style": "twemoji"}, {"animal": "cat"}]
    assert sampled_with(condition, named, 2).equal(indices)
    assert sampled_with(condition, None, 2).tolist() == [[-1, -1]] * 2


def test_fields_of_other_stages_are_ignored_in_sampling_and_in_annotations():
    """Names that a stage does not know, another one may: what nobody knows, a pipeline refuses."""
    condition = Labels(fields={"style": FIELDS["style"]})
    assert sampled_with(condition, [{"animal": "cat", "style": "noto"}], 1).tolist() == [[0]]
    assert sampled_with(condition, [{"style": "fluent"}], 1).tolist() == [[-1]]
    entry = condition.of_annotations({"animal": "cat", "style": "twemoji", "width": "64"})
    assert entry.tolist() == [1]
    with pytest.raises(ContractError, match="unknown style 'cat'"):
        condition.of_annotations({"style": "cat"})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(1, 1).long(), r"labels must be \(1, 2\), got \(1, 1\)"),
        (torch.tensor([[3, 0]]), "indices of animal must be from -1 to 2"),
        (torch.tensor([[0, -2]]), "indices of style must be from -1 to 1"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, message):
    with pytest.raises(ContractError, match=message):
        sampled_with(Labels(fields=FIELDS), labels, 1)


def test_absent_labels_are_any():
    condition = Labels(fields=FIELDS)
    signals = condition.of_batch(batch_of(torch.tensor([[2, 1]])), SPACE, SeededNoise([0]))
    absent = condition.absent(signals).vectors["labels"]
    assert absent.tolist() == [[-1, -1]]
    assert absent.dtype == torch.long


def test_the_input_of_a_batch_is_its_labels():
    condition = Labels(fields=FIELDS)
    batch = batch_of(torch.tensor([[2, 1], [0, -1]]))
    for degraded in (False, True):
        assert condition.input_of(batch, SPACE, degraded=degraded) is batch.conditions["labels"]
    assert condition.input_of(Batch(images=batch.images, seeds=batch.seeds), SPACE) is None


def test_what_a_user_gives_is_completed_for_every_image():
    condition = Labels(fields=FIELDS)
    cat = {"animal": "cat"}
    for value in ("cat", cat, ["cat", cat]):
        assert condition.completed(value, [1, 2], draw=False) == [cat, cat]
    assert condition.completed(None, [1, 2], draw=False) == [{}, {}]
    with pytest.raises(ContractError, match="got 3 labels for 2 images"):
        condition.completed(["cat"] * 3, [1, 2], draw=False)
    with pytest.raises(ContractError, match="unknown class 'cow'"):
        condition.completed("cow", [1], draw=False)
    with pytest.raises(ContractError, match="unknown animal 'noto'"):
        condition.completed({"animal": "noto"}, [1], draw=False)


def test_missing_labels_are_drawn_from_the_seed_of_each_image():
    condition = Labels(fields=FIELDS)
    completed = condition.completed("dog", range(600), draw=True)
    assert {each["animal"] for each in completed} == {"dog"}
    styles = [each["style"] for each in completed]
    assert 240 < styles.count("noto") < 360
    assert condition.completed("dog", [17], draw=True) == [completed[17]]


@pytest.mark.parametrize("fields", [{}, {"animal": []}])
def test_a_stage_cannot_have_labels_without_classes(fields):
    with pytest.raises(ContractError, match="at least one field with at least one class"):
        Labels(fields=fields).check(SPACE)
