import pytest
import torch

from cascade.networks.embedding import ConditionEmbedding


@pytest.fixture
def embedding():
    torch.manual_seed(0)
    return ConditionEmbedding(label_sizes=[3, 2], level=True, dim=16)


def test_labels_and_level_are_summed(embedding):  # trap 15
    labels, level = torch.tensor([[1, 0], [2, 1]]), torch.tensor([0.2, 0.9])
    both = embedding(labels, level)
    by_hand = embedding.tables[0].weight[[1, 2]] + embedding.tables[1].weight[[0, 1]]
    torch.testing.assert_close(both, by_hand + embedding(None, level))
    assert not both.allclose(embedding(labels, level.flip(0)))


def test_minus_1_is_a_row_of_its_own(embedding):
    dropped = embedding(torch.tensor([[-1, -1]]), torch.zeros(1))
    last = embedding.tables[0].weight[3] + embedding.tables[1].weight[2]
    torch.testing.assert_close(dropped[0], last + embedding(None, torch.zeros(1))[0])
    for subject in range(3):
        for style in range(2):
            kept = embedding(torch.tensor([[subject, style]]), torch.zeros(1))
            assert not kept.allclose(dropped)


def test_a_label_of_minus_1_trains_only_the_row_of_dropped_labels(embedding):
    embedding(torch.tensor([[-1, 1]]), torch.zeros(1)).sum().backward()
    assert embedding.tables[0].weight.grad.abs().sum(dim=1).ne(0).tolist() == [False] * 3 + [True]
    assert embedding.tables[1].weight.grad.abs().sum(dim=1).ne(0).tolist() == [False, True, False]
