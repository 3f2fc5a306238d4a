"""The figures of a set of images beside a set of real ones, as scores."""

from __future__ import annotations

from typing import Any

from cascade.evaluation.coverage import (
    density_coverage,
    diversity,
    inception_score,
    nearest_neighbours,
    precision_recall,
)
from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.figures import Score
from cascade.evaluation.image_set import ImageSet
from cascade.evaluation.intervals import mean_estimate
from cascade.evaluation.set_distances import frechet_estimate, kernel_estimate

FEWEST_FOR_COVERAGE = 6


def distance_scores(
    extractor: FeatureExtractor, images: ImageSet, real: ImageSet, reference: str
) -> list[Score]:
    """Score the Fréchet distance and KID, with intervals.

    Args:
        extractor: the extractor that computed the features of both sets.
        images: at least 2 samples.
        real: at least 2 real images.
        reference: name of the real images, such as `held-out pictures`.
    """
    basis = _basis(images, real, reference) | _by(extractor)
    features = images.features.double(), real.features.double()
    return [
        Score(name=name, better="lower", **estimate._asdict(), **basis)
        for name, estimate in (
            (f"FD-{extractor.name}", frechet_estimate(*features)),
            (f"KID-{extractor.name} x1000", kernel_estimate(*features)),
        )
    ]


def coverage_scores(
    extractor: FeatureExtractor, images: ImageSet, real: ImageSet, reference: str
) -> list[Score]:
    """Score precision, recall, density, coverage and diversity, and the inception score.

    The intervals of the first four come from the images over which a mean is taken; the balls stay
    the same. Diversity is left out if all real images are equal, and the inception score if the
    extractor is no classifier.

    Args:
        extractor: the extractor that computed the features of both sets.
        images: at least 6 samples.
        real: at least 6 real images.
        reference: name of the real images, such as `held-out pictures`.
    """
    basis = _basis(images, real, reference) | _by(extractor)
    parts = precision_recall(images.features, real.features)._asdict()
    parts |= density_coverage(images.features, real.features)._asdict()
    scores = [
        Score(name=name, better="higher", **mean_estimate(values.tolist())._asdict(), **basis)
        for name, values in parts.items()
    ]
    ours, theirs = (diversity(each.features.double()) for each in (images, real))
    scores += _share("diversity, share of real", ours, theirs, basis)
    if images.probabilities is not None:
        value = inception_score(images.probabilities)
        by = {"n": len(images), **_by(extractor)}
        scores.append(Score(name=f"IS-{extractor.name}", value=value, better="higher", **by))
    return scores


def colour_scores(images: ImageSet, real: ImageSet, reference: str) -> list[Score]:
    """Score the drift of colours, in the channel that drifts most, and the colourfulness.

    With a drift above 0, the images are too bright or have too much contrast in that channel.

    Args:
        images: the samples.
        real: the real images.
        reference: name of the real images, such as `held-out pictures`.
    """
    basis = _basis(images, real, reference)
    drifts = {
        "colour mean drift, 8-bit": images.colour_mean - real.colour_mean,
        "colour spread drift, 8-bit": images.colour_spread - real.colour_spread,
    }
    scores = [
        Score(name=name, value=float(drift[drift.abs().argmax()]), better="nearer to 0", **basis)
        for name, drift in drifts.items()
    ]
    ours, theirs = (float(each.colourfulness.mean()) for each in (images, real))
    scores.append(Score(name="colourfulness", value=ours, n=len(images)))
    return scores + _share("colourfulness, share of real", ours, theirs, basis)


def copy_scores(
    extractor: FeatureExtractor, images: ImageSet, real: ImageSet, training: ImageSet
) -> list[Score]:
    """Score how near samples are to training pictures, also compared with held-out pictures.

    A share well below 1 means that samples are nearer to training pictures than other real
    pictures are: the pipeline repeats what it was trained on.

    Args:
        extractor: the extractor that computed the features of all sets.
        images: the samples.
        real: held-out pictures.
        training: the pictures that the pipeline was trained on.
    """
    basis = _basis(images, training, "training images") | _by(extractor)
    ours, theirs = (
        float(nearest_neighbours(each.features, training.features).distances.median())
        for each in (images, real)
    )
    distance = Score(name="distance to nearest training image", value=ours, **basis)
    return [distance, *_share("the same, share of held-out images'", ours, theirs, basis)]


def _share(name: str, ours: float, theirs: float, basis: dict[str, Any]) -> list[Score]:
    """Score ours / theirs; no score if theirs is 0."""
    if theirs <= 0:
        return []
    return [Score(name=name, value=ours / theirs, better="nearer to 1", **basis)]


def _basis(images: ImageSet, real: ImageSet, reference: str) -> dict[str, Any]:
    return {"n": len(images), "reference": reference, "n_reference": len(real)}


def _by(extractor: FeatureExtractor) -> dict[str, Any]:
    return {"extractor": extractor.name, "resizing": extractor.resizing}
