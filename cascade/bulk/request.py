"""Request: what a user asks of a bulk command, and what does not go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cascade.bulk.inputs import InputListing
from cascade.bulk.jobs import ImageFormat, PageChoice
from cascade.bulk.parts import Part
from cascade.data.file_reading import FileReading, check_effects
from cascade.data.remote import is_remote
from cascade.errors import ContractError
from cascade.imaging.credentials import Signer, check_signer
from cascade.imaging.picture_reading import Truncated
from cascade.pipeline import CascadePipeline
from cascade.restoration.doubt import check_seeds
from cascade.sampling.overrides import Overrides


@dataclass(frozen=True, kw_only=True)
class Request:
    """The pictures to work on, the model, and the place of the results.

    Attributes:
        inputs: names of files, folders and shards, and patterns; see `find_pictures`.
        out: a folder, or for a single input the file of its result; as a text, the address of one
            in an object store.
        model: a bundled pipeline, the folder of a saved one, or a Hub id.
        overrides: changes to the sampling settings of the model's stages.
        device: the device to compute on, such as `cuda`; None for the best one available.
        engine: `openvino` or a folder of `cascade export`, to run the networks on the CPU; None for
            PyTorch.
        image_format: file format of all results; None keeps the formats of the inputs.
        compare: whether to write before/after sheets into `OUT/compare`.
        metadata: whether to write EXIF, resolution and settings into the results.
        signer: who signs the results; None for nobody.
        overwrite: whether to replace existing files that differ from the results.
        range: the numbers of a picture that are taken for black and white, from 0 to 255 or 65535;
            results have the same numbers. None takes all that the picture's bits allow.
        pages: whether to work on all pages and frames of a file, or on the first alone.
        truncated: whether to take a JPEG whose end is missing as far as it goes.
        adapters: folders of adapters, each with the factor of its change.
        axis: for bands, axis of a volume along which it is cut into slices; None for the last one.
        nodata: for bands, a number that stands for a missing one besides what files say; None for
            none.
        part: the part of the inputs to work on; None for all. See `cascade/bulk/parts.py`.
        seeds: number of seeds for each picture, counted up from that of the settings.
        map: whether to write the mean over these seeds and the standard deviation, instead of a
            result per seed.
        listing: the pictures, if they are known already; `inputs` are then not searched.
        pipeline: the model, if it is loaded already.
        dry_run: whether to write nothing; `Bulk.rehearse` then tells what a run would do.
    """

    inputs: Sequence[str]
    out: Path | str
    model: str
    overrides: Overrides = field(default_factory=Overrides)
    device: str | None = None
    engine: str | None = None
    image_format: ImageFormat | None = None
    compare: bool = False
    metadata: bool = True
    signer: Signer | None = None
    overwrite: bool = False
    range: tuple[int, int] | None = None
    pages: PageChoice = "all"
    truncated: Truncated = "refuse"
    adapters: Sequence[tuple[str, float]] = ()
    axis: int | None = None
    nodata: float | None = None
    part: Part | None = None
    seeds: int = 1
    map: bool = False
    listing: InputListing | None = None
    pipeline: CascadePipeline | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.map:
            check_seeds(self.seeds)
        check_signer(self.signer, metadata=self.metadata)
        self.reading.check_values()

    @property
    def reading(self) -> FileReading:
        """How the numbers of the inputs are read."""
        return FileReading(self.range, self.nodata, self.axis)

    def of_bands(self) -> dict[str, Any]:
        """How files of bands are read and made; arguments of `BandFiles`."""
        return {
            "axis": self.reading.slicing_axis,
            "nodata": self.nodata,
            "seeds": self.seeds if self.map else 1,
            "metadata": self.metadata,
        }


def check_options(request: Request, *, bands: bool) -> None:
    """Refuse options that have no effect on bands, or on colour pictures.

    Raises:
        ContractError: naming the option.
    """
    colours = {
        "a file format for all results": request.image_format,
        "before/after sheets": request.compare or None,
        **request.reading.for_colours,
        "a signature": request.signer,
    }
    check_effects(colours, request.reading.for_bands, bands=bands)


def check_store(request: Request) -> None:
    """Refuse what results in a store cannot have: files that are made of several results.

    Raises:
        ContractError: naming the option.
    """
    options = {
        "before/after sheets": request.compare,
        "several seeds": request.seeds > 1 and not request.map,
    }
    for name, value in options.items():
        if value and is_remote(str(request.out)):
            raise ContractError(
                f"a store takes one result per image, without {name}; leave them out, or name a "
                "folder of this machine."
            )


def check_shards(request: Request) -> None:
    """Refuse what shards of results cannot hold: one result per picture, and nothing beside it.

    Raises:
        ContractError: naming the option.
    """
    options = {"before/after sheets": request.compare, "several seeds": request.seeds > 1}
    for name, value in options.items():
        if value:
            raise ContractError(
                f"the results of a shard are a shard with one result per image, without {name}; "
                "leave them out, or unpack the shard first."
            )
