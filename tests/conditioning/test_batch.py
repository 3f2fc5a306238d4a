import pytest
import torch

from cascade.conditioning.batch import Batch


@pytest.fixture
def batch():
    """Five images with labels."""
    return Batch(
        images=torch.arange(5.0).view(5, 1, 1, 1),
        seeds=(10, 11, 12, 13, 14),
        conditions={"labels": torch.arange(5).view(5, 1)},
        broken=("a.png: truncated",),
    )


@pytest.mark.parametrize(("count", "sizes"), [(1, [5]), (2, [3, 2]), (3, [2, 2, 1]), (9, [1] * 5)])
def test_parts_hold_every_image_once_with_all_that_belongs_to_it(batch, count, sizes):
    parts = batch.parts(count)
    assert [len(each) for each in parts] == sizes
    assert torch.cat([each.images for each in parts]).equal(batch.images)
    assert sum((each.seeds for each in parts), ()) == batch.seeds
    assert torch.cat([each.conditions["labels"] for each in parts]).equal(
        batch.conditions["labels"]
    )
    assert [each.broken for each in parts] == [()] * len(parts)


def test_moving_a_batch_moves_every_tensor(batch):
    moved = batch.to("meta")
    assert moved.images.device.type == "meta"
    assert moved.conditions["labels"].device.type == "meta"
    assert (moved.seeds, moved.broken) == (batch.seeds, batch.broken)
