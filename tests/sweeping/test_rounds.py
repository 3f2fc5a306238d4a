"""Successive halving: how many settings are measured on how many images."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cascade.errors import ContractError
from cascade.sweeping.rounds import FEWEST_IMAGES, Round, plan_rounds


def images_of(rounds: list[Round]) -> int:
    before = [0, *(each.images for each in rounds)]
    return sum(r.candidates * (r.images - b) for r, b in zip(rounds, before, strict=False))


def test_without_a_budget_all_are_measured_on_all():
    assert plan_rounds(7, most_images=50, budget_images=None) == [Round(7, 50)]


def test_a_third_goes_on_with_three_times_the_images():
    rounds = plan_rounds(27, most_images=1000, budget_images=27 * 10 + 9 * 20 + 3 * 60)
    assert rounds == [Round(27, 10), Round(9, 30), Round(3, 90)]


def test_no_round_has_more_images_than_there_are():
    rounds = plan_rounds(27, most_images=50, budget_images=10_000)
    assert rounds == [Round(27, 50)]
    assert plan_rounds(27, most_images=50, budget_images=900)[-1].images == 50


@given(st.integers(1, 300), st.integers(2, 400), st.integers(1, 30_000))
def test_the_budget_is_kept_and_used(candidates, most, budget):
    try:
        rounds = plan_rounds(candidates, most_images=most, budget_images=budget)
    except ContractError as error:
        least = int(str(error).split("at least ")[1].split(",")[0])
        assert least > budget
        assert images_of(plan_rounds(candidates, most_images=most, budget_images=least)) <= least
        return
    assert images_of(rounds) <= budget
    assert rounds[0].candidates == candidates
    assert rounds[0].images >= min(FEWEST_IMAGES, most)
    assert all(r.images <= most for r in rounds)
    if rounds[0].images < most:  # one image more would be too many
        more = [Round(r.candidates, min(most, (rounds[0].images + 1) * 3**i)) for i, r in
                enumerate(rounds)]  # fmt: skip
        assert images_of(more) > budget or len(more) > len(rounds) or rounds[-1].images == most
