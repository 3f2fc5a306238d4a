"""Reads and writes the weights of one component in diffusers layout, without pickle."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cascade.errors import WeightsError
from cascade.networks.component import Component, is_diffusers_model

Model = TypeVar("Model", bound=nn.Module)
CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
PARTS_INDEX = f"{WEIGHTS}.index.json"  # diffusers divides models of more than 10 GB
PARTS = "diffusion_pytorch_model-?????-of-?????.safetensors"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def save_component(model: nn.Module, folder: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write `config.json` and `diffusion_pytorch_model.safetensors`.

    Args:
        model: a `Component`, a model of diffusers, or a module whose attribute `config` holds the
            keyword arguments of its constructor as plain values.
        folder: the component's folder, normally inside an `atomic_folder`.
        dtype: floating-point type of the file's tensors, such as bfloat16 for publishing; default:
            the model's own.
    """
    if dtype is not None:
        model = copy.deepcopy(model)
        nn.Module.to(model, dtype)  # diffusers' own warns of float32 modules that are not there
    if is_diffusers_model(type(model)):
        model.save_pretrained(folder)  # pyright: ignore[reportCallIssue]
        return
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})  # as diffusers does
    config: Any = model.config
    if isinstance(model, Component):
        names = {"_class_name": model.saved_as or type(model).__name__}
        names["_diffusers_version"] = version("diffusers")
        config = dict(sorted((names | config).items()))
    text = json.dumps(config, indent=2) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")


def load_component(model_class: type[Model], folder: Path) -> Model:
    """Build a model from its `config.json` and fill it from its safetensors files, in float32.

    Raises:
        WeightsError: if a file is missing, truncated, pickled, or belongs to another model.
    """
    config = read_json(folder / CONFIG)
    buildable: Any = model_class  # diffusers has no type for ModelMixin and ConfigMixin together
    is_diffusers = is_diffusers_model(model_class)
    if issubclass(model_class, Component):  # names of its class and of versions begin so
        config = {name: value for name, value in config.items() if not name.startswith("_")}
    try:
        model: Model = buildable.from_config(config) if is_diffusers else buildable(**config)
    except (
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RuntimeError,
        MemoryError,
    ) as error:
        raise WeightsError(
            f"{folder / CONFIG} does not describe a {model_class.__name__}: {error}."
        ) from error
    tensors = load_tensors(folder)
    expected = model.state_dict()
    for name, tensor in expected.items():
        if name not in tensors:
            raise WeightsError(
                f"{folder}: tensor {name!r} is missing; the weights are of another model."
            )
        if tensors[name].shape != tensor.shape:
            raise WeightsError(
                f"{folder}: tensor {name!r} has shape {tuple(tensors[name].shape)}, "
                f"the config asks for {tuple(tensor.shape)}."
            )
    extra = set(tensors) - set(expected)
    if extra:
        raise WeightsError(
            f"{folder}: unknown tensor {min(extra)!r}; the weights are of another model."
        )
    model.load_state_dict(tensors)
    return model.float().eval()


def component_entries(folder: Path) -> list[str]:
    """The names of the files in the folder of a component that `save_component` may have written.

    The folder need not exist.
    """
    return [CONFIG, WEIGHTS, PARTS_INDEX, *(path.name for path in folder.glob(PARTS))]


def load_tensors(folder: Path) -> dict[str, Tensor]:
    """Read all safetensors files of a folder.

    Raises:
        WeightsError: if there is none, or one is damaged.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLED)
        if pickled:
            raise WeightsError(
                f"{folder} holds pickled weights ({pickled[0]}), which can run code when loaded; "
                "convert them to safetensors first."
            )
        raise WeightsError(f"no .safetensors file in {folder}; the folder is incomplete.")
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError, ValueError) as error:
            raise WeightsError(
                f"{file} is damaged or truncated ({error}); fetch it again."
            ) from error
    return tensors


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        WeightsError: if the file is missing or is not a JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"{path} is missing or unreadable; is this the right folder?") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{path} must hold a JSON object.")
    return values


def own_record(path: Path, keys: Collection[str]) -> dict[str, Any]:
    """The JSON file by which a folder shows that Cascade wrote it, and may replace it.

    Returns:
        Its values; empty if it is missing or damaged, or lacks one of the keys.
    """
    try:
        record = read_json(path)
    except WeightsError:
        return {}
    return record if set(keys) <= record.keys() else {}


def weights_digest(*modules: nn.Module) -> str:
    """Hash the names and values of all weights of one or more modules.

    Returns:
        64 hexadecimal digits; equal weights in another precision give other digits.
    """
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
