"""Coverage against closed forms and against torch-fidelity and torchmetrics."""

from __future__ import annotations

import math

import pytest
import torch

from cascade.errors import ContractError
from cascade.evaluation import coverage
from cascade.evaluation.coverage import (
    density_coverage,
    diversity,
    inception_score,
    nearest_neighbours,
    precision_recall,
)


def on_a_line(*places: float) -> torch.Tensor:
    return torch.tensor(places, dtype=torch.float64)[:, None]


def means(parts: tuple[torch.Tensor, ...]) -> tuple[float, ...]:
    return tuple(float(each.mean()) for each in parts)


def gaussian(count: int, mean: float, seed: int, features: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return mean + torch.randn(count, features, generator=generator, dtype=torch.float64)


def test_precision_and_recall_on_a_line_are_counted_by_hand():
    # k = 1: the real balls are [-1, 1], [0, 2], [1, 3] and [2, 16]; 0.5 and 4 are in one, 100 not.
    # Those of the samples are [-3, 4], [0.5, 7.5] and [4, 196], which hold all real ones.
    truth, samples = on_a_line(0, 1, 2, 9), on_a_line(0.5, 4, 100)
    assert means(precision_recall(samples, truth, neighbours=1)) == pytest.approx((2 / 3, 1.0))
    far = precision_recall(on_a_line(0.5, 0.6), truth, neighbours=1)
    assert means(far) == pytest.approx((1.0, 0.0))


def test_density_and_coverage_on_a_line_are_counted_by_hand():
    # k = 1: balls [-1, 1], [0, 2], [1, 3], [2, 16]. 0.5 is in two, 2.5 in two, 50 in none.
    truth, samples = on_a_line(0, 1, 2, 9), on_a_line(0.5, 2.5, 50)
    density, coverage = density_coverage(samples, truth, neighbours=1)
    assert density.tolist() == [2, 2, 0]
    assert coverage.tolist() == [1, 1, 1, 1]
    alone = density_coverage(on_a_line(0.5), truth, neighbours=1)
    assert (alone.density.tolist(), alone.coverage.tolist()) == ([2], [1, 1, 0, 0])


def test_density_of_more_real_images_is_about_one_and_coverage_as_the_paper_says():
    # Naeem et al., section 3: expectations are 1, and 1 - (M-1)...(M-k) / ((M+N-1)...(M+N-k)).
    count, k = 400, 5
    parts = torch.tensor(
        [
            means(
                density_coverage(
                    gaussian(count, 0, 2 * s), gaussian(count, 0, 2 * s + 1), neighbours=k
                )
            )
            for s in range(5)
        ]
    ).mean(dim=0)
    expected = 1 - math.prod((count - i) / (2 * count - i) for i in range(1, k + 1))
    assert parts[0] == pytest.approx(1.0, abs=0.05)
    assert parts[1] == pytest.approx(expected, abs=0.02)


def test_a_set_covers_itself_and_nothing_that_is_far():
    features = gaussian(40, 0, 0)
    assert means(precision_recall(features, features)) == (1.0, 1.0)
    assert means(density_coverage(features, features))[1] == 1.0
    assert means(precision_recall(features, features + 100)) == (0.0, 0.0)
    assert means(density_coverage(features, features + 100)) == (0.0, 0.0)


def test_precision_and_recall_equal_torch_fidelity():
    prc = pytest.importorskip("torch_fidelity.metric_prc")
    samples, truth = gaussian(90, 0.4, 0), gaussian(70, 0, 1)
    expected = prc.prc_features_to_metric(
        samples, truth, prc_neighborhood=3, prc_batch_size=64, save_cpu_ram=False, verbose=False
    )
    assert means(precision_recall(samples, truth)) == pytest.approx(
        (expected["precision"], expected["recall"])
    )
    assert 0 < expected["recall"] < 1


def test_rows_at_a_time_do_not_change_anything(monkeypatch):
    samples, truth = gaussian(30, 0.4, 0), gaussian(25, 0, 1)
    measures = (precision_recall, density_coverage)
    whole = [f(samples, truth) for f in measures]
    nearest = nearest_neighbours(samples, truth)
    monkeypatch.setattr(coverage, "ROWS_AT_A_TIME", 7)
    for measure, before in zip(measures, whole, strict=True):
        torch.testing.assert_close(measure(samples, truth), before)
    torch.testing.assert_close(nearest_neighbours(samples, truth), nearest)


def test_the_nearest_neighbour_of_a_copy_is_its_original():
    training = gaussian(50, 0, 0)
    copies = training[[7, 31, 2]] + 0.01
    distances, indices = nearest_neighbours(copies, training)
    assert indices.tolist() == [7, 31, 2]
    torch.testing.assert_close(distances, torch.full_like(distances, 0.01 * math.sqrt(6)))


def test_diversity_is_the_mean_distance_of_two():
    assert diversity(on_a_line(0, 3, 9)) == pytest.approx((3 + 9 + 6) / 3)
    assert diversity(on_a_line(5, 5, 5)) == 0
    with pytest.raises(ContractError, match="at least 2"):
        diversity(on_a_line(1))


def test_the_inception_score_is_the_number_of_classes_that_are_surely_seen():
    assert inception_score(torch.eye(5)) == pytest.approx(5)
    assert inception_score(torch.full((7, 5), 0.2)) == pytest.approx(1)
    assert inception_score(torch.tensor([[1.0, 0], [1, 0], [0, 1]])) == pytest.approx(
        math.exp(math.log(3) - 2 / 3 * math.log(2))
    )


def test_the_inception_score_equals_torchmetrics():
    module = pytest.importorskip("torchmetrics.image.inception")
    logits = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    metric = module.InceptionScore(feature=torch.nn.Identity(), splits=1)
    metric.update(logits)
    expected, _ = metric.compute()
    assert inception_score(logits.softmax(dim=1)) == pytest.approx(float(expected), rel=1e-5)


def test_too_few_images_are_one_line():
    few, enough = gaussian(3, 0, 0), gaussian(10, 0, 1)
    with pytest.raises(ContractError, match="at least 4 images in each set, got 3"):
        precision_recall(few, enough)
    with pytest.raises(ContractError, match="at least 6 images in each set, got 3"):
        density_coverage(enough, few)
