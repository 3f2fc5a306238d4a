"""Every command and snippet of the documentation runs, page by page, on small inputs."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from page_commands import arguments_of, parts_of, reduced, reduced_statement

from cascade.extras import EXTRAS, install_command
from cascade.pipeline import CascadePipeline

EXTRA_OF_MODULE = {
    "c2pa": "c2pa",
    "distributed": "engines",
    "nibabel": "medical",
    "openvino": "openvino",
    "peft": "lora",
    "ray": "engines",
    "spandrel": "spandrel",
    "transformers": "text",
}
CHECKOUT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(CHECKOUT)): path
    for path in (
        CHECKOUT / "README.md",
        CHECKOUT / "CONTRIBUTING.md",
        *sorted((CHECKOUT / "docs").rglob("*.md")),
        *sorted((CHECKOUT / "pipelines").rglob("*.md")),
    )
    if list(parts_of(path))
}
NOT_HERE = {  # part of a command or statement: why it does not run
    "docker ": "needs Docker; tests/test_packaging.py reads the Dockerfile",
    "uvx --from": "needs uv and a package index",
    "uv tool install": "needs uv and a package index",
    "cascade ui": "serves until it is stopped; tests/ui opens the page in a browser",
    "cascade import google/": "needs the Hub; tests/importing reads the same layout",
    "cascade import 64": "needs weights of 1 GB; tests/importing reads small ones",
    "cascade import model.pt": "needs weights of others; tests/importing reads small ones",
    "s3://": "needs an object store; tests/bulk, tests/mapping and tests/data use others",
    "--engine openvino": "compiles networks for minutes; the next lines export a smaller model",
    "{000000..000999}": "needs the shards of a cluster",
    "/data/photos": "needs the folder and the variables of a cluster",
    "push_to_hub": "needs the Hub",
    "me/mine": "needs the Hub",
    "cuda:1": "needs two accelerators",
    "enable_model_cpu_offload": "needs an accelerator",
    "scheduler:8786": "needs a Dask cluster; tests/mapping starts one",
    "client.gather": "needs a Dask cluster; tests/mapping starts one",
    "spark.read": "needs Spark; tests/mapping runs the part with pandas",
    "files.mapInPandas": "needs Spark; tests/mapping runs the part with pandas",
}
STAGE = "cascade train tiny-16 data.path=photos --out runs/my-base"
PIPELINE = [
    STAGE,
    "cascade train tiny-16-to-32 data.path=photos --out runs/my-upsampler",
    "cascade chain tiny-32 --stage base=runs/my-base --stage upsampler=runs/my-upsampler "
    "--out my-pipeline",
]
FIRST = {  # commands that make what a page takes from other pages
    "docs/command-line.md": [
        "cascade train emoji-64-text --out runs/base",
        "cascade chain base.yaml --stage base=runs/base --out my-pipeline",
        "cascade upscale photo.jpg -o large/photo.jpg",
    ],
    "docs/editing.md": ["cascade train photo-inpaint data.path=photos --out my-inpainter"],
    "docs/evaluation.md": PIPELINE,
    "docs/importing.md": [
        "cascade copy tiny-16 my-base.yaml",
        *PIPELINE,
        "cascade train tiny-16 data.path=photos --out faces",
        "cascade train tiny-16 data.path=photos --out imagenet-64",
        "cascade train tiny-16-to-32 data.path=photos --out imagenet-64-to-256",
    ],
    "docs/python.md": [
        "cascade train emoji-64-to-256 space.size_px=256 condition.low_resolution.size_px=64 "
        "--out runs/upsampler"
    ],
    "docs/scaling-out.md": [
        "cascade copy tiny-16 my-base.yaml",
        *(f"cascade upscale photos -o large-{part} --part {part}/3" for part in (1, 2, 3)),
    ],
    "docs/scaling-python.md": ["cascade copy tiny-16 my-base.yaml"],
}


def is_left_out(text: str) -> bool:
    """Whether the table names a command or statement."""
    return any(each in text for each in NOT_HERE)


def run_command(command: Any, line: str) -> None:
    """Run a command of a page, reduced."""
    arguments, target = arguments_of(line)
    done = command(*reduced(arguments))
    assert done.code == 0, f"{line}\n{done.out}{done.err}"
    if target is not None:
        target.write_text(done.out)


def write_recipe(command: Any, text: str) -> None:
    """Write a recipe of a page under its name, and check it if it is that of a stage."""
    recipe = yaml.safe_load(text)
    path = Path(f"{recipe['name']}.yaml")
    path.write_text(text)
    if recipe["kind"] == "stage":
        run_command(command, f"cascade validate {path} --no-data")


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A fresh working folder and cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


@pytest.fixture
def quick_pipelines(monkeypatch) -> None:
    """Pipelines that snippets load take one step unless a call asks for more."""
    load = CascadePipeline.from_pretrained.__func__

    def from_pretrained(kind: type, *arguments: Any, **options: Any) -> CascadePipeline:
        return load(kind, *arguments, **options).with_sampling(steps=1)

    monkeypatch.setattr(CascadePipeline, "from_pretrained", classmethod(from_pretrained))


def missing_extras() -> str:
    """What to install before the pages can run; empty if nothing is missing."""
    missing = {name: extra for name, extra in EXTRA_OF_MODULE.items() if find_spec(name) is None}
    if not missing:
        return ""
    extras = ",".join(sorted(set(missing.values())))
    return f"no page was run, because they use {', '.join(missing)}: {install_command(extras)}"


@pytest.fixture(scope="module")
def _all_extras() -> None:
    """Skip if an extra is missing, and warn, because pytest shows reasons only with `-rs`."""
    if reason := missing_extras():
        warnings.warn(reason, stacklevel=1)
        pytest.skip(reason)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("_all_extras", "quick_pipelines")
def test_the_commands_and_snippets_of_a_page_run(page, place, command):
    from page_inputs import write_inputs

    write_inputs(place, page)
    for line in FIRST.get(page, []):
        run_command(command, line)
    names: dict[str, Any] = {"__name__": "page"}
    for part in parts_of(PAGES[page]):
        if is_left_out(part.text):
            continue
        print(f"--- {part.text}")
        torch.manual_seed(0)
        if part.language == "sh":
            run_command(command, part.text)
        elif part.language == "yaml":
            write_recipe(command, part.text)
        else:
            exec(compile(reduced_statement(part.text), page, "exec"), names)


def test_missing_extras_are_named_with_the_command_that_installs_them(monkeypatch):
    assert set(EXTRA_OF_MODULE.values()) <= EXTRAS.keys()
    for module, extra in {"no_such": "engines", "nor_this": "openvino"}.items():
        monkeypatch.setitem(EXTRA_OF_MODULE, module, extra)
    reason = missing_extras()
    assert "no_such, nor_this: pip install" in reason
    names = reason.partition("[")[2].rstrip('"]').split(",")
    assert {"engines", "openvino"} <= set(names)


def test_what_is_left_out_is_on_a_page():
    texts = [part.text for page in PAGES.values() for part in parts_of(page)]
    for each in NOT_HERE:
        assert any(each in text for text in texts), each
