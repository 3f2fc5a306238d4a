"""The floors of the package, and what recipes and sources may hold."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cascade

PACKAGE = Path(__file__).parents[1] / "cascade"
CHECKOUT = PACKAGE.parent
# A floor imports only from the floors below it; two modules of one floor do not know each other.
FLOORS = (
    ("cli",),
    ("sweeping", "ui", "mapping"),
    ("generation", "diagnosis", "inspection", "bulk", "evaluation"),
    ("building", "diffusers_pipeline"),
    ("pipeline",),
    ("edit_call", "picture_calls"),
    ("staged_pipeline", "call_arguments"),
    ("training", "call", "call_inputs", "engines", "starting"),
    ("chain",),
    ("tasks", "chain_settings"),
    ("restoration", "stage_kinds", "importing"),
    ("diffusion_stage", "autoencoder_stage"),
    ("sampling_run",),
    ("stage", "prediction"),
    ("data",),
    ("imaging",),
    ("saving",),
    ("recipe", "networks"),
    ("contract",),
    ("sampling",),
    ("conditioning",),
    ("vision",),
    ("space", "text"),
    ("diffusion", "devices", "reporting", "resizing"),
    ("arguments", "familiar_names", "kept_files", "mapped_arrays"),
    ("errors", "extras"),
)
LEVEL = {name: len(FLOORS) - number for number, floor in enumerate(FLOORS) for name in floor}
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part_of(module: str) -> str:
    """`cascade.conditioning.batch` -> `data`."""
    return module.split(".")[1]


def imported(tree: ast.AST) -> list[str]:
    """Full names of the modules of Cascade that a file imports, wherever in it."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found += [node.module or ""]
    return [name for name in found if name.startswith("cascade.")]


def test_every_module_stands_on_a_floor():
    paths = [path for path in PACKAGE.iterdir() if path.name[0] != "_" and path.suffix != ".typed"]
    inside = {path.name.removesuffix(".py") for path in paths}
    assert inside == set(LEVEL)


def test_a_floor_imports_only_from_the_floors_below():
    for path in SOURCES:
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for module in imported(ast.parse(path.read_text(encoding="utf-8"))):
            other = part_of(module)
            assert other == own or LEVEL[other] < LEVEL[own], f"{path} imports {module}"


def test_recipes_are_data():
    allowed = {".yaml", ".json", ".safetensors", ".md", ".png"}
    for folder in ("stages", "pipelines"):
        for path in (CHECKOUT / folder).rglob("*"):
            if path.is_file() and path.name != "pipeline.py":
                assert path.suffix in allowed, path


def test_the_python_file_of_a_pipeline_is_the_one_that_saving_writes():
    from cascade.saving.pipelines import PIPELINE_FILE

    for path in (CHECKOUT / "pipelines").rglob("*.py"):
        assert path.name == "pipeline.py"
        assert path.read_text(encoding="utf-8") == PIPELINE_FILE


def test_no_source_or_recipe_names_a_place_of_somebody_s_computer():
    place = re.compile(r"""(?<![\w.])(/home/|/root/|/Users/|/tmp/|/var/|~/|[A-Z]:\\\\)""")
    files = [path for path in CHECKOUT.glob("*/**/*") if path.suffix in (".py", ".yaml", ".json")]
    checked = [
        path
        for path in files
        if path.relative_to(CHECKOUT).parts[0] in ("cascade", "stages", "pipelines", "benchmarks")
    ]
    assert len(checked) > 40
    for path in checked:
        found = place.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path} names {found and found.group()}"


def test_importing_cascade_imports_nothing_heavy():
    code = (
        "import sys, cascade\n"
        "heavy = {'torch', 'numpy', 'diffusers', 'PIL', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there():
    assert sorted(cascade._HOMES) == sorted(cascade.__all__)
    assert all(getattr(cascade, name) is not None for name in cascade.__all__)
    assert set(cascade.__all__) <= set(dir(cascade))
    with pytest.raises(AttributeError, match="no attribute 'Cascade'"):
        _ = cascade.Cascade
