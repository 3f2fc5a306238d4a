"""Opens training images: a folder, webdataset shards, or a Hugging Face data set.

Every source is indexed once and then read by index. A folder and shards of the same images have
the same order, so both give the same batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from cascade.data.folder import FolderSource
from cascade.data.joining import BESIDE, Pairing, join
from cascade.data.remote import is_remote, without_secrets
from cascade.data.roles import Role
from cascade.data.shards import ShardSource
from cascade.data.source import ImageSource, with_labels
from cascade.data.stacks import StackSource
from cascade.errors import DataError
from cascade.imaging.opening import IMAGE_SUFFIXES
from cascade.imaging.rasters.layout import Layout
from cascade.imaging.rasters.reading import RASTER_SUFFIXES

HUGGING_FACE = "hf:"


def open_source(
    path: str,
    *,
    only: Mapping[str, Sequence[str]] | None = None,
    name_pattern: str | None = None,
    cache_dir: str | None = None,
    damaged_shards: list[str] | None = None,
    layout: Layout | None = None,
    pairing: Pairing | None = None,
) -> ImageSource:
    """Open a folder, shards or a Hugging Face data set.

    Args:
        path: a folder; or a pattern of shards that ends in `.tar`, or of URLs; or `hf:NAME` or
            `hf:NAME:SPLIT`, see `HuggingFaceSource`.
        only: the class names to keep, by label field; default: all images.
        name_pattern: a regular expression on file names whose named groups are labels.
        cache_dir: folder for copies of remote shards; default: the user's cache folder.
        damaged_shards: a list that receives one message per damaged shard, which is then left out.
            Default: the first damaged shard raises.
        layout: for bands of measured numbers: how a file is divided into images, each of which is
            one of the source. Default: a file is one colour picture.
        pairing: for pairs, where the inputs are; the images of `path` are the results. Default: no
            pairs.

    Raises:
        DataError: if there is nothing to read; if a shard is damaged or has a name that leads out
            of it, and there is no list `damaged_shards`; or, for pairs, if two images or two inputs
            have the same name, or no image has a partner.
    """
    cache = None if cache_dir is None else Path(cache_dir)
    is_beside = pairing is not None and pairing.path == BESIDE
    opened = partial(_open, cache_dir=cache, damaged_shards=damaged_shards)
    role: Role | None = "high" if is_beside else None
    source = opened(path, layout=layout, name_pattern=name_pattern, role=role)
    pattern = [] if name_pattern is None else ["--name-pattern", name_pattern]
    source.check_words = ("cascade", "data", "check", without_secrets(path), *pattern)
    if layout is not None:
        source = StackSource(source, layout, joined_by_name=pairing is not None)
    if pairing is not None:
        inputs = opened(
            path if is_beside else pairing.path,
            layout=pairing.layout,
            role="low" if is_beside else None,
        )
        if pairing.layout is not None:
            inputs = StackSource(inputs, pairing.layout, joined_by_name=True)
        place = without_secrets(path if is_beside else pairing.path)
        join(source, inputs, place)
        source.check_words = (*source.check_words, "--pairs", without_secrets(pairing.path))
    return with_labels(source, only) if only else source


def _open(
    path: str,
    *,
    layout: Layout | None,
    cache_dir: Path | None,
    damaged_shards: list[str] | None,
    name_pattern: str | None = None,
    role: Role | None = None,
) -> ImageSource:
    suffixes = IMAGE_SUFFIXES if layout is None else RASTER_SUFFIXES
    if not path.strip():
        raise DataError("the path of the images is empty; give a folder, or shards (*.tar).")
    if path.startswith(HUGGING_FACE) and not is_remote(path):
        if role is not None:
            raise DataError("pairs beside each other are read from folders and shards, not hf:.")
        from cascade.data.hugging_face import HuggingFaceSource

        return HuggingFaceSource(path.removeprefix(HUGGING_FACE))
    if path.endswith(".tar") or is_remote(path):
        return ShardSource(
            path,
            name_pattern=name_pattern,
            cache_dir=cache_dir,
            damaged_shards=damaged_shards,
            suffixes=suffixes,
            role=role,
        )
    return FolderSource(Path(path), name_pattern=name_pattern, suffixes=suffixes, role=role)
