"""The figures of a set of images beside a set of real ones."""

from __future__ import annotations

from typing import Any

import torch

from cascade.evaluation.bootstrap import frechet_estimate, kernel_estimate, mean_estimate
from cascade.evaluation.coverage import (
    density_coverage,
    diversity,
    inception_score,
    nearest_neighbours,
    precision_recall,
)
from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.observation import Observation
from cascade.evaluation.scores import Score

FEWEST_FOR_COVERAGE = 6


def distance_scores(
    extractor: FeatureExtractor, seen: Observation, real: Observation, reference: str
) -> list[Score]:
    """Fréchet distance and KID, with intervals.

    Args:
        extractor: that saw both sets.
        seen: at least 2 images.
        real: the same.
        reference: what the real ones are, in words.
    """
    basis = _basis(extractor, seen, real, reference)
    pair = seen.features.double(), real.features.double()
    return [
        Score(name=name, better="lower", **estimate._asdict(), **basis)
        for name, estimate in (
            (f"FD-{extractor.name}", frechet_estimate(*pair)),
            (f"KID-{extractor.name} x1000", kernel_estimate(*pair)),
        )
    ]


def coverage_scores(
    extractor: FeatureExtractor, seen: Observation, real: Observation, reference: str
) -> list[Score]:
    """Precision, recall, density, coverage, diversity and, with a classifier, its score.

    The intervals of the first four are of the images that are averaged, with the balls as they are.
    Diversity is left out where all real images are the same.

    Args:
        extractor: that saw both sets.
        seen: at least 6 images.
        real: the same.
        reference: what the real ones are, in words.
    """
    basis = _basis(extractor, seen, real, reference)
    alone = basis | {"reference": "", "n_reference": 0}
    shares = precision_recall(seen.features, real.features)._asdict()
    shares |= density_coverage(seen.features, real.features)._asdict()
    scores = [
        Score(name=name, better="higher", **mean_estimate(values.tolist())._asdict(), **basis)
        for name, values in shares.items()
    ]
    ours, theirs = (diversity(each.features.double()) for each in (seen, real))
    if theirs > 0:
        name = "diversity, share of real"
        scores.append(Score(name=name, value=ours / theirs, better="nearer to 1", **basis))
    if seen.probabilities is not None:
        value = inception_score(seen.probabilities)
        scores.append(Score(name=f"IS-{extractor.name}", value=value, better="higher", **alone))
    return scores


def colour_scores(seen: Observation, real: Observation, reference: str) -> list[Score]:
    """Drift of mean and spread of the channel that drifts most, and colourfulness.

    Above 0 the images are too bright, or have too much contrast, in that channel.
    """
    basis = {"n": len(seen), "reference": reference, "n_reference": len(real)}
    drifts = {
        "colour mean drift, 8-bit": seen.colour_mean - real.colour_mean,
        "colour spread drift, 8-bit": seen.colour_spread - real.colour_spread,
    }
    scores = [
        Score(name=name, value=float(drift[drift.abs().argmax()]), better="nearer to 0", **basis)
        for name, drift in drifts.items()
    ]
    alone = float(seen.colourfulness.mean())
    scores.append(Score(name="colourfulness", value=alone, n=len(seen)))
    theirs = float(real.colourfulness.mean())
    if theirs > 0:
        scores.append(
            Score(
                name="colourfulness, share of real",
                value=alone / theirs,
                better="nearer to 1",
                **basis,
            )
        )
    return scores


def copy_scores(
    extractor: FeatureExtractor, seen: Observation, real: Observation, training: Observation
) -> list[Score]:
    """How near samples come to training pictures, beside how near held-out pictures come to them.

    A share well below 1 means that samples are nearer to training pictures than other real
    pictures of the same kind are: the pipeline repeats what it was trained on.
    """
    basis = _basis(extractor, seen, training, "training pictures")
    ours = nearest_neighbours(seen.features, training.features).distances.median()
    theirs = nearest_neighbours(real.features, training.features).distances.median()
    scores = [Score(name="distance to nearest training picture", value=float(ours), **basis)]
    if theirs > 0:
        share = float(ours / theirs)
        name = "the same, share of held-out pictures'"
        scores.append(Score(name=name, value=share, better="nearer to 1", **basis))
    return scores


def halves(real: Observation) -> tuple[Observation, Observation]:
    """Every other image of a set, and the others."""
    return _part(real, slice(0, None, 2)), _part(real, slice(1, None, 2))


def _part(seen: Observation, chosen: slice) -> Observation:
    return Observation(
        features=seen.features[chosen],
        probabilities=None,
        colourfulness=seen.colourfulness[chosen],
        colour_mean=seen.colour_mean,
        colour_spread=seen.colour_spread,
        shown=torch.empty(0),
    )


def _basis(
    extractor: FeatureExtractor, seen: Observation, real: Observation, reference: str
) -> dict[str, Any]:
    return {
        "n": len(seen),
        "reference": reference,
        "n_reference": len(real),
        "extractor": extractor.name,
        "resizing": extractor.resizing,
    }
