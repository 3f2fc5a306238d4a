"""Data sets of the Hugging Face library `datasets`, which is an optional extra.

At least version 4 is required: earlier versions can run Python code that comes with a data set.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cascade.data.source import ImageSource, read_file
from cascade.errors import DataError, nearest
from cascade.extras import install_command

if TYPE_CHECKING:
    from datasets import Dataset  # pyright: ignore[reportMissingImports]

INSTALL_HINT = f"hf: needs the library datasets; {install_command('hf')}."


class HuggingFaceSource(ImageSource):
    """A data set on the Hub, a folder written by `save_to_disk`, or a parquet file.

    The images come from the first column of type `Image` and are decoded by Cascade's own rules.
    The labels are the text columns, and the columns of type `ClassLabel` by class name.

    Args:
        name: `NAME` or `NAME:SPLIT`, where NAME is a path or a name on the Hub. Without a split,
            the only one is used, or else `train`.

    Raises:
        DataError: if the library is missing, or the data cannot be loaded or contain no image.
    """

    def __init__(self, name: str) -> None:
        place, _, split = name.partition(":")
        self.place = place
        dataset = _choose_split(_load(place), split or None, place)
        self._images, self._column = _image_column(dataset, place)
        self._class_names = {
            column: feature.names
            for column, feature in dataset.features.items()
            if type(feature).__name__ == "ClassLabel"
        }
        texts = [
            column
            for column, feature in dataset.features.items()
            if getattr(feature, "dtype", None) in ("string", "large_string")
        ]
        self._labels = dataset.select_columns([*self._class_names, *texts])
        if not len(self):
            raise DataError(f"no images in hf:{name}.")

    def __len__(self) -> int:
        return len(self._images)

    def key(self, index: int) -> str:
        return f"{index:09d}"

    def name(self, index: int) -> str:
        return f"hf:{self.place}[{index}]"

    def read(self, index: int) -> bytes:
        file = self._images[index][self._column]
        if file is None or (file["bytes"] is None and file["path"] is None):
            raise DataError(f"{self.name(index)}: has no image.")
        if file["bytes"] is not None:
            return file["bytes"]
        return read_file(Path(file["path"]), self.name(index))

    def labels(self, index: int) -> dict[str, str]:
        texts = {column: self._text(column, value) for column, value in self._labels[index].items()}
        return {column: text for column, text in texts.items() if text}

    def _text(self, column: str, value: Any) -> str | None:
        """The label as text; class indices become names, and -1 means that there is no label."""
        if column not in self._class_names:
            return value
        return None if value is None or value < 0 else self._class_names[column][value]


def _load(place: str) -> Any:
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DataError(INSTALL_HINT) from error
    try:
        if Path(place).is_dir() and list(Path(place).glob("dataset*.json")):  # by save_to_disk
            return datasets.load_from_disk(place)
        if place.endswith(".parquet"):
            return datasets.load_dataset("parquet", data_files=place)
        return datasets.load_dataset(place)
    except Exception as error:  # the library raises network, arrow and its own errors
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"hf:{place}: cannot be loaded ({reason}).") from error


def _choose_split(dataset: Any, split: str | None, place: str) -> Dataset:
    splits = dataset if isinstance(dataset, dict) else {"train": dataset}
    if split is None:
        split = "train" if len(splits) > 1 else next(iter(splits))
    if split not in splits:
        raise DataError(f"hf:{place}: no split {split!r}; {nearest(split, splits)}")
    return splits[split]


def _image_column(dataset: Dataset, place: str) -> tuple[Dataset, str]:
    """The column of encoded images, and its name."""
    from datasets import Image  # pyright: ignore[reportMissingImports]

    for column, feature in dataset.features.items():
        if isinstance(feature, Image):
            undecoded = dataset.select_columns([column]).cast_column(column, Image(decode=False))
            return undecoded, column
    raise DataError(f"hf:{place}: no column of type Image; it has {', '.join(dataset.features)}.")
