"""Chooses the stage at which a run of a chain starts, by what the user gives it to start from.

Shapes: B images, c channels of latents, h and w their size.
"""

from __future__ import annotations

from typing import Any

from cascade.chain import StageChain
from cascade.conditioning.image_embedding import ImageEmbedding
from cascade.conditioning.latents import Latents
from cascade.errors import ContractError
from cascade.space import Size

READERS = {  # of inputs that a run starts from
    ImageEmbedding.input_name: "variations of an image need a stage with an image embedding",
    Latents.input_name: "only the decoder of an autoencoder takes latents",
}
AS_INPUT = f'inputs={{"{Latents.input_name}": tensor}}'


def check_takes_image(chain: StageChain, start_at: str | None) -> None:
    """Check that a run can start from an image of some size.

    Args:
        chain: the stages of the pipeline.
        start_at: name of the stage; None for any stage.

    Raises:
        ContractError: if the stage takes no image, or none does.
    """
    names = chain.names if start_at is None else [start_at]
    contracts = {name: chain[name].contract for name in names}
    if any(contract.needs_image for contract in contracts.values()):
        return
    for name, contract in contracts.items():
        if Latents.input_name in contract.input_names:
            raise ContractError(
                f"stage {name!r} takes {contract.description}, and no image; give latents as "
                f"{AS_INPUT}, or leave image out."
            )
    if start_at is None:
        raise ContractError("no stage of this pipeline takes an image; leave it out.")
    raise ContractError(f"stage {start_at!r} is a base stage and takes no image.")


def starting_stage(chain: StageChain, size_px: Size | None, start_at: str | None) -> str:
    """Choose the stage that a run starts at.

    Args:
        chain: the stages of the pipeline.
        size_px: height and width of the image to start from; None to start from noise.
        start_at: name of the stage; None for the first one that takes the size.

    Raises:
        ContractError: if the stage does not take such an image, or none does.
    """
    names = chain.names
    if size_px is None:
        if start_at is not None and start_at != names[0]:
            decodes = Latents.input_name in chain[start_at].contract.input_names
            needed = f"latents, {AS_INPUT}," if decodes else "an image"
            raise ContractError(f"start_at {start_at!r} needs {needed} to start from.")
        contract = chain.first.contract
        if contract.needs_image:
            raise ContractError(
                f"the first stage, {names[0]!r}, needs an image to start from: "
                f"{contract.description}."
            )
        return names[0]
    check_takes_image(chain, start_at)
    texts = {name: stage.contract for name, stage in chain.items()}
    if start_at is None:
        start_at = next((name for name, c in texts.items() if c.accepts_size(size_px)), None)
    if start_at is None:
        sizes = [f"{n} takes {c.description}" for n, c in texts.items() if c.needs_image]
        raise ContractError(
            f"no stage takes an image of {size_px[1]}x{size_px[0]} px "
            f"({', '.join(sizes)}); resize it, or call upscale or colourise, which take any "
            "size."
        )
    contract = chain[start_at].contract
    if not contract.accepts_size(size_px):
        raise ContractError(
            f"stage {start_at!r} takes {contract.description}, the image has "
            f"{size_px[1]}x{size_px[0]}; resize it."
        )
    return start_at


def reading_stage(chain: StageChain, input_name: str, start_at: str | None) -> str:
    """Choose the stage that a run starts at because it reads a user's input.

    Args:
        chain: the stages of the pipeline.
        input_name: name of the input, `like` or `latents`.
        start_at: name of the stage; None for the first one that reads the input.

    Raises:
        ContractError: if the stage does not read it, or none does.
    """
    readers = [n for n, stage in chain.items() if input_name in stage.contract.input_names]
    if not readers:
        raise ContractError(
            f"no stage of this pipeline has a condition that reads {input_name!r}; "
            f"{READERS[input_name]}."
        )
    if start_at is not None and chain[start_at] is not chain[readers[0]]:
        raise ContractError(
            f"start_at {start_at!r} does not fit {input_name!r}, with which a run starts at "
            f"{readers[0]!r}; leave start_at out."
        )
    return readers[0]


def check_latents(chain: StageChain, latents: Any, start_at: str | None) -> None:
    """Check latents that a user gives a pipeline.

    Args:
        chain: the stages of the pipeline.
        latents: anything; a decoder takes (B, c, h, w).
        start_at: name of the stage; None for the first one that reads latents.

    Raises:
        ContractError: if no stage decodes them, or they do not fit the one that does.
    """
    stage = chain[reading_stage(chain, Latents.input_name, start_at)]
    condition = stage.contract.condition(Latents.name)
    if isinstance(condition, Latents):  # not a condition of the user's own
        condition.check_latents(latents, stage.space)
