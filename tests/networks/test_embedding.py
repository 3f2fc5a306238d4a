from __future__ import annotations

import json

import pytest
import torch

from cascade.conditioning.slots import Classes, Dense, Level, Slots
from cascade.networks.embedding import ConditionEmbedding, embedding_for, vectors_of

VECTORS = {
    "labels": {"kind": "classes", "sizes": [3, 2]},
    "low_resolution": {"kind": "level"},
    "clip": {"kind": "dense", "width": 5},
}
SLOTS = {
    "labels": Slots(vector=Classes((3, 2))),
    "edges": Slots(channels=1),
    "low_resolution": Slots(channels=3, vector=Level()),
    "clip": Slots(vector=Dense(5)),
    "text": Slots(tokens=768),
}


def make_embedding(*names: str) -> ConditionEmbedding:
    """With the same weights for each of the conditions, whichever others there are."""
    chosen = {name: VECTORS[name] for name in names}
    embedding = ConditionEmbedding(vectors=chosen, dim=16)
    with torch.no_grad():
        for name in names:
            torch.manual_seed(len(name))
            for parameter in embedding.parts[name].parameters():
                parameter.normal_()
    return embedding


@pytest.fixture
def embedding():
    """Of labels, a level and a dense vector."""
    return make_embedding(*VECTORS)


@pytest.fixture
def values():
    """Vectors of two images."""
    return {
        "labels": torch.tensor([[1, 0], [2, 1]]),
        "low_resolution": torch.tensor([0.2, 0.9]),
        "clip": torch.randn(2, 5, generator=torch.Generator().manual_seed(0)),
    }


def test_the_vectors_of_all_conditions_are_summed(embedding, values):
    single = [make_embedding(name)(values) for name in VECTORS]
    torch.testing.assert_close(embedding(values), sum(single))
    assert embedding(values).shape == (2, 16)


def test_labels_are_the_sum_of_their_rows(values):
    labels = make_embedding("labels")
    first, second = labels.parts["labels"]
    by_hand = first.weight[[1, 2]] + second.weight[[0, 1]]
    torch.testing.assert_close(labels(values), by_hand)


def test_a_dense_vector_passes_a_linear_layer(values):
    dense = make_embedding("clip")
    layer = dense.parts["clip"]
    torch.testing.assert_close(dense(values), values["clip"] @ layer.weight.T + layer.bias)


def test_levels_that_differ_by_a_thousandth_are_told_apart():
    level = make_embedding("low_resolution")
    near = level({"low_resolution": torch.tensor([0.5, 0.501])})
    assert (near[0] - near[1]).abs().max() > 0.01


@pytest.mark.parametrize("name", VECTORS)
def test_every_condition_matters(embedding, values, name):
    changed = embedding(values | {name: values[name].flip(0)})
    assert ((embedding(values) - changed).abs().amax(dim=1) > 1e-3).all()


def test_minus_1_is_a_row_of_its_own():
    labels = make_embedding("labels")
    first, second = labels.parts["labels"]
    dropped = labels({"labels": torch.tensor([[-1, -1]])})
    torch.testing.assert_close(dropped[0], first.weight[3] + second.weight[2])
    for subject in range(3):
        for style in range(2):
            kept = labels({"labels": torch.tensor([[subject, style]])})
            assert not kept.allclose(dropped)


def test_a_label_of_minus_1_trains_only_the_row_of_dropped_labels():
    labels = make_embedding("labels")
    labels({"labels": torch.tensor([[-1, 1]])}).sum().backward()
    first, second = (table.weight.grad.abs().sum(dim=1).ne(0) for table in labels.parts["labels"])
    assert first.tolist() == [False] * 3 + [True]
    assert second.tolist() == [False, True, False]


def test_vectors_follow_from_slots_and_survive_json():
    assert vectors_of(SLOTS) == VECTORS
    embedding = embedding_for(SLOTS, 16)
    assert embedding is not None
    vectors = json.loads(json.dumps(embedding.config["vectors"]))
    again = ConditionEmbedding(vectors=vectors, dim=16)
    again.load_state_dict(embedding.state_dict())
    assert again.slots == embedding.slots


def test_without_vectors_there_is_no_embedding():
    assert embedding_for({"edges": Slots(channels=1)}, 16) is None
    assert embedding_for({}, 16) is None
