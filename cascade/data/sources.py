"""Where training images come from: a folder, webdataset shards, or a Hugging Face data set.

All are indexed once and read by index, and the first two in the order of their keys, so that they
give the same batches for the same pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cascade.data.folder import FolderSource
from cascade.data.remote import is_remote
from cascade.data.shards import ShardSource
from cascade.data.source import ImageSource, SelectedSource
from cascade.errors import DataError

HUGGING_FACE = "hf:"


def open_source(
    path: str,
    *,
    only: Mapping[str, Sequence[str]] | None = None,
    name_pattern: str | None = None,
    cache_dir: str | None = None,
    damaged: list[str] | None = None,
) -> ImageSource:
    """Open a folder, shards or a Hugging Face data set.

    Args:
        path: of a folder; a pattern of shards that ends in `.tar`, or URLs of them; or
            `hf:NAME` or `hf:NAME:SPLIT`, see `HuggingFaceSource`.
        only: for each label field the names to keep; default: all images.
        name_pattern: a regular expression on file names whose named groups are labels.
        cache_dir: where copies of remote shards are kept; default: the user's cache folder.
        damaged: a list for what is wrong with damaged shards; default: the first one is an error.

    Raises:
        DataError: if there is nothing to read.
    """
    cache = None if cache_dir is None else Path(cache_dir)
    source = _open(path, name_pattern, cache, damaged)
    return SelectedSource(source, only) if only else source


def _open(
    path: str, name_pattern: str | None, cache_dir: Path | None, damaged: list[str] | None
) -> ImageSource:
    if not path.strip():
        raise DataError("no pictures are named; give a folder, or shards that end in .tar.")
    if path.startswith(HUGGING_FACE) and not is_remote(path):
        from cascade.data.hugging_face import HuggingFaceSource

        return HuggingFaceSource(path.removeprefix(HUGGING_FACE))
    if path.endswith(".tar") or is_remote(path):
        return ShardSource(path, name_pattern=name_pattern, cache_dir=cache_dir, damaged=damaged)
    return FolderSource(Path(path), name_pattern=name_pattern)
