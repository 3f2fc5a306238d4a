import pytest
import torch

from cascade.conditioning.conditions import Conditions


@pytest.fixture
def conditions():
    """Three images with two label fields and a conditioning image at level 0.3."""
    return Conditions(
        labels=torch.tensor([[0, 1], [2, 0], [1, -1]]),
        image=torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0)),
        level=torch.full((3,), 0.3),
    )


def test_dropped_labels_are_minus_1_for_the_chosen_images_and_fields(conditions):
    per_image = conditions.dropped(labels=torch.tensor([[True], [False], [False]]))
    assert per_image.labels.tolist() == [[-1, -1], [2, 0], [1, -1]]
    per_field = torch.tensor([[True, False], [False, True], [False, False]])
    assert conditions.dropped(labels=per_field).labels.tolist() == [[-1, 1], [2, -1], [1, -1]]
    assert conditions.dropped(labels=True).labels.tolist() == [[-1, -1]] * 3


def test_a_dropped_image_is_zero_at_the_level_of_pure_noise(conditions):
    dropped = conditions.dropped(image=torch.tensor([False, True, False]))
    assert dropped.level.tolist() == pytest.approx([0.3, 1.0, 0.3])
    assert not dropped.image[1].any()
    assert dropped.image[[0, 2]].equal(conditions.image[[0, 2]])
    assert dropped.labels.equal(conditions.labels)


def test_dropping_nothing_changes_nothing_and_the_original_is_never_changed(conditions):
    copies = [tensor.clone() for tensor in (conditions.labels, conditions.image, conditions.level)]
    same = conditions.dropped()
    conditions.dropped(labels=True, image=True)
    for ours, theirs, copied in zip(
        (same.labels, same.image, same.level),
        (conditions.labels, conditions.image, conditions.level),
        copies,
        strict=True,
    ):
        assert ours.equal(copied)
        assert theirs.equal(copied)


def test_concatenation_stacks_batches_and_leaves_out_what_neither_has(conditions):
    both = conditions.concatenate(conditions.dropped(labels=True))
    assert both.labels.tolist() == conditions.labels.tolist() + [[-1, -1]] * 3
    assert both.image.equal(torch.cat([conditions.image, conditions.image]))
    assert both.level.shape == (6,)
    assert Conditions().concatenate(Conditions()) == Conditions()
