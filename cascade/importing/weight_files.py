"""Reads files of weights of other projects without running code that they may contain."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cascade.conditioning.labels import Labels
from cascade.errors import WeightsError, first_line
from cascade.networks.embedding import ConditionEmbedding
from cascade.saving.components import WEIGHTS, read_json

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
MOST_NAMES = 5  # in a message
Weights = dict[str, Tensor]


def read_weights(file: Path) -> Weights:
    """Read all tensors of a file; those of nested dictionaries get names with dots.

    Raises:
        WeightsError: if the file is missing or damaged, or cannot be read without unpickling
            objects, which can run code.
    """
    if not file.is_file():
        raise WeightsError(f"{file} does not exist or is not a file.")
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except (SafetensorError, OSError, ValueError) as error:
            raise WeightsError(
                f"{file} is damaged ({first_line(error)}); fetch it again."
            ) from error
    try:
        values = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{file} holds more than tensors, and reading it could run code; save its state_dict "
            "alone, best as safetensors."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
        raise WeightsError(f"{file} is not a file of weights ({first_line(error)}).") from error
    if isinstance(values, Tensor) or not isinstance(values, Mapping):
        raise WeightsError(f"{file} holds a {type(values).__name__}, not named tensors.")
    return dict(_flat(values, ""))


def _flat(values: Mapping[Any, Any], prefix: str) -> list[tuple[str, Tensor]]:
    pairs: list[tuple[str, Tensor]] = []
    for name, value in values.items():
        if isinstance(value, Tensor):
            pairs.append((f"{prefix}{name}", value))
        elif isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{name}.")
    return pairs


def read_component_weights(folder: Path) -> Weights:
    """Read the weights of one component of a diffusers pipeline.

    Of several variants, the plain one is read, or else the first, such as fp16.

    Raises:
        WeightsError: if there are none as safetensors, or a file is damaged or missing.
    """
    index = folder / f"{WEIGHTS}.index.json"
    if (folder / WEIGHTS).is_file():
        return read_weights(folder / WEIGHTS)
    if index.is_file():
        shards = sorted(set(read_json(index).get("weight_map", {}).values()))
        return {name: t for each in shards for name, t in read_weights(folder / each).items()}
    stem, suffix = WEIGHTS.split(".")
    variants = sorted(folder.glob(f"{stem}.*.{suffix}"))
    if variants:
        return read_weights(variants[0])
    raise WeightsError(
        f"no {WEIGHTS} in {folder}; pickled weights (.bin) are not read, because they can run code."
    )


def fill(module: nn.Module, weights: Mapping[str, Tensor], source: Path) -> None:
    """Load all weights of a module, in its own precision.

    Raises:
        WeightsError: listing what is missing, unknown, or of another shape.
    """
    own = module.state_dict()
    _refuse(source, "lacks weights of this layout", sorted(own.keys() - weights.keys()))
    _refuse(source, "holds weights unknown to this layout", sorted(weights.keys() - own.keys()))
    shapes = [
        f"{name} {tuple(weights[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if weights[name].shape != tensor.shape
    ]
    _refuse(source, "holds weights of other shapes", shapes)
    module.load_state_dict(weights)  # converts half precision


def _refuse(source: Path, fault: str, names: Sequence[str]) -> None:
    if names:
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        raise WeightsError(f"{source} {fault}: {', '.join(names[:MOST_NAMES])}{more}.")


def fill_classes(embedding: ConditionEmbedding, table: Tensor, source: Path) -> None:
    """Load the embeddings (K, E) of the classes of one field; that of "any" becomes their mean.

    Raises:
        WeightsError: if the network takes another number of classes or other embeddings.
    """
    tables: Any = embedding.parts[Labels.name]
    weights = tables[0].weight
    rows = torch.cat([table, table.float().mean(dim=0, keepdim=True).to(table)])
    if rows.shape != weights.shape:
        raise WeightsError(
            f"{source} has embeddings {tuple(table.shape)} of classes, but this network takes "
            f"{len(weights) - 1} of length {weights.shape[1]}."
        )
    with torch.no_grad():
        weights.copy_(rows)


def silence(embedding: ConditionEmbedding, name: str) -> None:
    """Let the level of a condition add nothing, since the weights were trained without it."""
    part: Any = embedding.parts[name]
    nn.init.zeros_(part.linear_2.weight)
    nn.init.zeros_(part.linear_2.bias)
