"""Outcomes of candidates: their figures, how they rank, and which one is the best.

Shapes: M real images, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor

from cascade.errors import ContractError
from cascade.evaluation.alignment.judge import AlignmentJudge
from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.figures import Better, Score
from cascade.evaluation.intervals import mean_interval
from cascade.evaluation.measuring_pairs import BETTER, better_of
from cascade.evaluation.set_distances import frechet_estimate, kernel_estimate
from cascade.sampling.settings import SamplingSettings
from cascade.sweeping.candidate_images import CandidateImages
from cascade.sweeping.candidates import Candidate

Preference = Literal["quality", "speed"]
COLOURFULNESS, REAL_COLOURFULNESS = "colourfulness", "colourfulness of the originals"
COLOURFULNESS_SHARE = f"{COLOURFULNESS}, share of real"
SPEED_TOLERANCE = 0.01  # share of the best figure, if it has no interval


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One candidate and its figures.

    Attributes:
        candidate: the settings.
        scores: figures of the images of its last round.
        first_scores: figures of the images of the first round, which all candidates went through.
        seconds_per_image: median time of an image, since the first image of a run takes longer;
            of the processors on a CPU, else wall time.
        samples: (8 or fewer, 3, H, W) uint8, its first images.
    """

    candidate: Candidate
    scores: tuple[Score, ...]
    first_scores: tuple[Score, ...]
    seconds_per_image: float
    samples: Tensor

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON, without the samples."""
        settings = self.candidate.settings
        return {
            "values": dict(self.candidate.values),
            "settings": {name: each.to_dict() for name, each in settings.items()},
            "scores": [asdict(each) for each in self.scores],
            "seconds_per_image": self.seconds_per_image,
        }


# ---- figures ------------------------------------------------------------------------------------


def scores_of(
    images: CandidateImages,
    real_features: Tensor | None,
    extractor: FeatureExtractor,
    reference: str,
    judge: AlignmentJudge | None = None,
    files: Sequence[str] = (),
) -> tuple[Score, ...]:
    """The figures of the images of a candidate.

    Args:
        images: features and figures of at least 2 images.
        real_features: (M, F) features of real pictures; None to compare with the originals.
        extractor: the extractor that computed the features.
        reference: name of the real pictures, such as `originals`.
        judge: computed the figures of single images; None if these compare with originals.
        files: the file of each original, at least as many as images; images of one file resemble
            each other, so that whole files decide the intervals.
    """
    truth = images.real_features if real_features is None else real_features
    basis = {"n": len(images), "reference": reference, "n_reference": len(truth)}
    distances = _distance_scores(images.features, truth, extractor, basis)
    if judge is not None:
        return (*distances, *judge.means(images.figures))
    return (*distances, *_pair_scores(images.figures, files, basis))


def _distance_scores(
    features: Tensor, truth: Tensor, extractor: FeatureExtractor, basis: Mapping[str, Any]
) -> list[Score]:
    pair = features.double(), truth.double()
    by: dict[str, Any] = {"extractor": extractor.name, "resizing": extractor.resizing}
    return [
        Score(name=name, better="lower", **estimate._asdict(), **basis, **by)
        for name, estimate in (
            (f"KID-{extractor.name} x1000", kernel_estimate(*pair)),
            (f"FD-{extractor.name}", frechet_estimate(*pair)),
        )
    ]


def _pair_scores(
    figures: Mapping[str, Tensor], files: Sequence[str], basis: Mapping[str, Any]
) -> list[Score]:
    """Mean figures with their intervals, in a fixed order: a file does not keep that of tensors."""
    names = sorted(figures, key=lambda name: (name not in BETTER, name))
    scores = []
    for name in names:
        if name in (COLOURFULNESS, REAL_COLOURFULNESS):
            continue
        low, high = mean_interval(figures[name].tolist(), files)
        value, better = float(figures[name].mean()), better_of(name)
        scores.append(Score(name=name, value=value, low=low, high=high, better=better, **basis))
    if COLOURFULNESS in figures:
        real = figures[REAL_COLOURFULNESS].mean().clamp(1e-6)
        share = float(figures[COLOURFULNESS].mean() / real)
        scores.append(Score(name=COLOURFULNESS_SHARE, value=share, better="nearer to 1", **basis))
    return scores


def named_figure(by: str, names: Sequence[str]) -> str:
    """The first figure whose name begins with `by`.

    Raises:
        ContractError: if there is none.
    """
    name = next((name for name in names if is_called(name, by)), None)
    if name is None:
        raise ContractError(f"no figure {by!r} of this pipeline; there are: {'; '.join(names)}.")
    return name


def is_called(name: str, by: str) -> bool:
    """Whether the name of a figure begins with `by`; case does not matter."""
    return bool(by) and name.lower().startswith(by.lower())


def find_score(scores: Sequence[Score], by: str) -> Score:
    """The first figure whose name begins with `by`; there must be one."""
    return next(score for score in scores if is_called(score.name, by))


# ---- ranking ------------------------------------------------------------------------------------


def badness(score: Score) -> float:
    """How far a figure is from perfect; only for comparison with figures of the same name."""
    values: dict[Better, float] = {
        "higher": -score.value,
        "nearer to 1": abs(score.value - 1),
        "nearer to 0": abs(score.value),
    }
    return values.get(score.better, score.value)


def badness_of(outcome: Outcome, by: str) -> float:
    """How far a candidate is from perfect by one of its figures."""
    return badness(find_score(outcome.scores, by))


def in_order(
    outcomes: Sequence[Outcome], by: str, current: Mapping[str, SamplingSettings]
) -> list[Outcome]:
    """Sort candidates, best first; those that were measured on fewer images come last.

    Of equal candidates the current settings come first, since without a gain nothing should change.
    """
    return sorted(
        outcomes,
        key=lambda each: (
            -each.scores[0].n,
            badness_of(each, by),
            each.candidate.settings != current,
        ),
    )


def choose(
    outcomes: Sequence[Outcome], by: str, prefer: Preference, tolerance: float | None = None
) -> int:
    """Choose the best candidate; returns its place.

    With `speed`, it is the fastest candidate of the last round whose figure is within a tolerance
    of the best one.

    Args:
        outcomes: the candidates, best first.
        by: beginning of the name of the figure that decides.
        prefer: `quality` or `speed`.
        tolerance: share of the best figure by which another one may be worse. None for half of the
            interval of the best figure, or one per cent of it if it has no interval. A figure whose
            interval holds zero, such as a small KID, has no shares: half of its interval counts.
    """
    if prefer == "quality":
        return 0
    margin, _ = margin_of(find_score(outcomes[0].scores, by), tolerance)
    places = [
        place
        for place, each in enumerate(outcomes)
        if each.scores[0].n == outcomes[0].scores[0].n
        and badness_of(each, by) <= badness_of(outcomes[0], by) + margin
    ]
    return min(places, key=lambda place: outcomes[place].seconds_per_image)


def margin_of(best: Score, tolerance: float | None) -> tuple[float, str]:
    """By how much a figure may be worse than the best one and still count as good.

    Args:
        best: the best figure.
        tolerance: see `choose`.

    Returns:
        The margin, in units of the figure, and in words: `5 %`.
    """
    if best.low is not None and best.high is not None:
        half, words = (best.high - best.low) / 2, "half of its interval"
        if tolerance is None:
            return half, words
        if best.low <= 0 <= best.high:
            return half, f"{words}, because it includes zero"
    share = SPEED_TOLERANCE if tolerance is None else tolerance
    return share * abs(best.value), f"{100 * share:g} %"
