from __future__ import annotations

import pytest

from cascade.data.broken import BrokenImages
from cascade.errors import DataError


def reasons(count: int) -> list[str]:
    return [f"{number}.png: not a readable image (damaged)." for number in range(count)]


@pytest.mark.parametrize(
    ("total", "share", "allowed"),
    [(50, 0.01, 3), (299, 0.01, 3), (400, 0.01, 4), (1000, 0.5, 500), (1000, 0.0, 0)],
)
def test_it_raises_at_the_first_image_over_the_share_or_over_three(total, share, allowed):
    broken = BrokenImages(total, share)
    broken.add(reasons(allowed))
    assert broken.names == reasons(allowed)
    with pytest.raises(DataError, match=rf"^{allowed + 1} of {total} images are broken"):
        broken.add(reasons(allowed + 1))


def test_an_image_that_is_met_again_counts_once():
    broken = BrokenImages(50, 0.01)
    for _ in range(10):
        broken.add(reasons(3))
    assert len(broken.names) == 3


def test_the_line_names_the_first_three_and_the_command_that_lists_all():
    with pytest.raises(DataError) as error:
        BrokenImages(100, 0.02).add(reasons(5))
    message = str(error.value)
    assert "max_broken_share=0.02 allows 3" in message
    assert [f"{number}.png:" in message for number in range(5)] == [True, True, True, False, False]
    assert message.endswith("cascade data check PATH lists them all.")
    assert "\n" not in message
