"""The captions that `emoji-1024` knows without a text encoder, one per line.

    python benchmarks/datasets/known_captions.py --data "data/emoji/train-*.tar" --out known.txt
    cascade chain emoji-1024 --known-texts known.txt ... --out pipelines/emoji-1024

The name of every emoji that the base stage trains on, as it is ("cat face") and as people type it
("a cat face"), in the order of the recipe's classes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import webdataset
from emoji_captions import with_article

from cascade.errors import CascadeError
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_stage_recipe


def main() -> None:
    """Read the shards and write the list."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data/emoji/train-*.tar", help="the training shards")
    parser.add_argument("--stage", default="emoji-64-text", help="recipe that says which classes")
    parser.add_argument("--out", type=Path, default=Path("known.txt"))
    options = parser.parse_args()
    try:
        recipe = load_stage_recipe(find_recipe(options.stage, "stages"))
    except CascadeError as error:
        sys.exit(f"known_captions.py: error: {error}")
    order = {name: place for place, name in enumerate(recipe.data.only["class"])}
    classes = {each["caption"]: each["class"] for each in read_annotations(options.data)}
    names = sorted((n for n in classes if classes[n] in order), key=lambda n: order[classes[n]])
    texts = dict.fromkeys(text for name in names for text in (name, with_article(name)))
    options.out.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    print(f"{len(texts)} captions of {len(names)} emoji in {options.out}")


def read_annotations(pattern: str) -> Iterator[dict[str, Any]]:
    """The JSON of each picture of some shards."""
    shards = sorted(Path(pattern).parent.glob(Path(pattern).name))
    if not shards:
        sys.exit(f"known_captions.py: error: no shards match {pattern}.")
    for sample in webdataset.WebDataset([str(each) for each in shards], shardshuffle=False):
        yield json.loads(sample["json"])


if __name__ == "__main__":
    main()
