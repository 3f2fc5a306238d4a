"""Opens training images: a folder, webdataset shards, or a Hugging Face data set.

Every source is indexed once and then read by index. A folder and shards of the same images have
the same order, so both give the same batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cascade.data.folder import FolderSource
from cascade.data.remote import is_remote, without_secrets
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
    damaged_shards: list[str] | None = None,
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

    Raises:
        DataError: if there is nothing to read.
    """
    cache = None if cache_dir is None else Path(cache_dir)
    source = _open(path, name_pattern, cache, damaged_shards)
    pattern = [] if name_pattern is None else ["--name-pattern", name_pattern]
    source.check_words = ("cascade", "data", "check", without_secrets(path), *pattern)
    return SelectedSource(source, only) if only else source


def _open(
    path: str, name_pattern: str | None, cache_dir: Path | None, damaged_shards: list[str] | None
) -> ImageSource:
    if not path.strip():
        raise DataError("the path of the images is empty; give a folder, or shards (*.tar).")
    if path.startswith(HUGGING_FACE) and not is_remote(path):
        from cascade.data.hugging_face import HuggingFaceSource

        return HuggingFaceSource(path.removeprefix(HUGGING_FACE))
    if path.endswith(".tar") or is_remote(path):
        return ShardSource(
            path, name_pattern=name_pattern, cache_dir=cache_dir, damaged_shards=damaged_shards
        )
    return FolderSource(Path(path), name_pattern=name_pattern)
