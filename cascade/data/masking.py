"""Which stages can mask missing values: fill them, and leave them out of the loss."""

from __future__ import annotations

from cascade.contract import Contract
from cascade.errors import DataError


def encoded_kind(contract: Contract) -> str:
    """What encoders make of the training images of a stage, `latents` or `embeddings`; or empty."""
    if contract.space.kind != "pixels":
        return contract.space.kind
    has_embeddings = any(each.encoded_space is not None for each in contract.conditions)
    return "embeddings" if has_embeddings else ""


def check_masks(contract: Contract) -> None:
    """Check that the missing values of a stage's images can be left out of its loss.

    Raises:
        DataError: if they cannot.
    """
    encoded = encoded_kind(contract)
    if encoded:
        raise DataError(
            f"missing=mask leaves values of images out of the loss, but the {encoded} of an image "
            "depend on all of it; use missing=refuse, and crop or fill such areas."
        )
    if not contract.space.has_bands:
        raise DataError(
            "missing=mask is for bands, but the stage makes colour images, which have no missing "
            "values; leave it out."
        )
