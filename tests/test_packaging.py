"""The built distribution: installed away from the checkout, it finds every recipe and weight."""

from __future__ import annotations

import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from cascade.extras import EXTRAS

CHECKOUT = Path(__file__).parents[1]
IGNORED = ("runs/x", "stages/__pycache__/x.pyc", "stages/half.tmp", "pipelines/tiny-32/half.tmp")
# Compressing the weights would take most of the time of these tests.
UNCOMPRESSED = """
import sys, zlib
plain = zlib.compressobj
zlib.compressobj = lambda level, *rest: plain(0, *rest)
"""
REPORT = """
import json, cascade
from cascade.recipe.finding import list_recipes, recipe_name, recipes_root
print(json.dumps({
    "package": cascade.__file__,
    "root": str(recipes_root()),
    "names": [recipe_name(path) for kind in ("stages", "pipelines") for path in list_recipes(kind)],
}))
"""


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and an empty folder to run its commands from."""

    folder: Path
    away: Path

    def run(self, command: str, *arguments: str, cwd: Path | None = None) -> str:
        """Standard output of a command of the environment, which must succeed."""
        return _run(self.folder / "bin" / command, *arguments, cwd=cwd or self.away)

    def report(self, cwd: Path | None = None) -> dict:
        """Where the environment finds the package, and which recipes."""
        return json.loads(self.run("python", "-c", REPORT, cwd=cwd))


def _run(*command: str | Path, cwd: Path) -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean | {"COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}{done.stderr}"
    return done.stdout


def _environment(folder: Path, wheel: Path) -> Environment:
    """An environment with the wheel of its own, and everything else from the one of the tests."""
    away = folder / "away"
    away.mkdir(parents=True)
    environment = Environment(folder / "venv", away)
    _run(sys.executable, "-m", "venv", "--without-pip", environment.folder, cwd=away)
    pip = [sys.executable, "-m", "pip", "--python", environment.folder]
    _run(*pip, "install", "--no-deps", "--no-index", "--no-compile", wheel, cwd=away)
    site = next(environment.folder.glob("lib/python*/site-packages"))
    outer = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site / "dependencies.pth").write_text("\n".join(outer), encoding="utf-8")
    return environment


def _build(kind: str, source: Path, out: Path) -> Path:
    """Build an `sdist`, a `wheel` or an `editable` wheel, as any build front end does."""
    code = f"{UNCOMPRESSED}import hatchling.build; hatchling.build.build_{kind}(sys.argv[1])"
    before = set(out.iterdir())
    _run(sys.executable, "-c", code, out, cwd=source)
    (built,) = set(out.iterdir()) - before
    return built


def _recipe_files(root: Path) -> set[str]:
    return {
        path.relative_to(root).as_posix()
        for kind in ("stages", "pipelines")
        for path in (root / kind).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def files() -> list[str]:
    """What git tracks, or would track, in the checkout."""
    if not (CHECKOUT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs a git checkout, to know which files belong to the project")
    git = ["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", "-z"]
    names = _run(*git, cwd=CHECKOUT).split("\0")
    return [name for name in names if name and (CHECKOUT / name).is_file()]


@pytest.fixture(scope="module")
def source(files, tmp_path_factory) -> Path:
    """A copy of the checkout with a few git-ignored files in it."""
    folder = tmp_path_factory.mktemp("source")
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CHECKOUT / name, folder / name)
    for name in IGNORED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("ignored", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def dist(source, tmp_path_factory) -> Path:
    """The folder of the sdist and of the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(_build("sdist", source, folder)) as sdist:
        sdist.extractall(unpacked, filter="data")
    _build("wheel", next(unpacked.iterdir()), folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist) -> Path:
    return next(dist.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Environment:
    """An environment with the wheel."""
    return _environment(tmp_path_factory.mktemp("installed"), wheel)


@pytest.fixture(scope="module")
def editable(source, tmp_path_factory) -> Environment:
    """An environment with an editable installation of the copied checkout."""
    folder = tmp_path_factory.mktemp("editable")
    return _environment(folder, _build("editable", source, folder))


@pytest.fixture
def user_folder(tmp_path) -> Path:
    """A user's project with packages and recipes of the same names as ours."""
    for name in ("stages", "pipelines", "tests", "benchmarks"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("OWNER = 'user'\n", encoding="utf-8")
    (tmp_path / "stages" / "tiny-16.yaml").write_text("kind: broken\n", encoding="utf-8")
    (tmp_path / "pipelines" / "tiny-32").mkdir()
    (tmp_path / "pipelines" / "tiny-32" / "pipeline.yaml").write_text("kind: broken\n")
    return tmp_path


def test_wheel_has_one_top_level_package(wheel):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"cascade"}


def test_the_marker_of_type_hints_is_packed(wheel):
    assert "cascade/py.typed" in zipfile.ZipFile(wheel).namelist()


def test_ignored_files_are_packed_neither_in_sdist_nor_in_wheel(dist, wheel):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as sdist:
        packed = [*sdist.getnames(), *zipfile.ZipFile(wheel).namelist()]
    assert any(name.endswith("stages/tiny-16.yaml") for name in packed)
    leaves = {name.rsplit("/", 1)[-1] for name in IGNORED}
    assert not [name for name in packed if name.rsplit("/", 1)[-1] in leaves]


def test_sdist_holds_the_pages_that_the_readme_links_to(dist, source):
    text = (source / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    with tarfile.open(next(dist.glob("*.tar.gz"))) as sdist:
        packed = {name.partition("/")[2] for name in sdist.getnames()}
    assert links
    assert {link.rstrip("/") for link in links} <= packed


def _docker_context(source: Path, folder: Path) -> Path:
    """What `.dockerignore` lets through: everything below the names that it takes back in."""
    lines = (source / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    ignored = [each.removeprefix("**/") for each in patterns if each.startswith("**/")]
    for name in (each.removeprefix("!") for each in patterns if each.startswith("!")):
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name, ignore=shutil.ignore_patterns(*ignored))
        else:
            shutil.copyfile(source / name, folder / name)
    return folder


def test_wheel_built_by_the_dockerfile_is_the_same(source, wheel, tmp_path):
    (tmp_path / "context").mkdir()
    context = _docker_context(source, tmp_path / "context")
    assert not list(context.rglob("*.tmp"))
    built = _build("wheel", context, tmp_path)  # without an sdist
    assert built.name == wheel.name
    assert filecmp.cmp(built, wheel, shallow=False)


def test_the_dockerfile_installs_extras_that_exist_and_runs_the_command(source):
    text = (source / "Dockerfile").read_text(encoding="utf-8")
    arguments = dict(re.findall(r"^ARG (\w+)=(.+)$", text, flags=re.MULTILINE))
    assert set(arguments) == {"PYTHON", "TORCH", "EXTRAS"}
    assert set(arguments["EXTRAS"].split(",")) < set(EXTRAS)
    project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lowest = SpecifierSet(project["requires-python"])
    assert arguments["PYTHON"] in lowest
    assert next(each for each in project["dependencies"] if each.startswith("torch>")) in text
    assert json.loads(re.findall(r"^ENTRYPOINT (.+)$", text, flags=re.MULTILINE)[-1]) == [
        *project["scripts"]
    ]


def test_installed_recipes_and_weights_are_those_of_git(installed, files, source):
    root = Path(installed.report()["root"])
    belonging = {name for name in files if name.startswith(("stages/", "pipelines/"))}
    assert _recipe_files(root) == belonging
    changed = [n for n in belonging if not filecmp.cmp(root / n, source / n, shallow=False)]
    assert changed == []


def test_installed_package_is_found_in_its_own_environment(installed):
    report = installed.report()
    assert Path(report["package"]).is_relative_to(installed.folder)
    assert Path(report["root"]) == Path(report["package"]).parent / "_recipes"


def test_installed_command_lists_every_recipe(installed, files):
    expected = {Path(name).stem for name in files if name.startswith("stages/")}
    recipes = [name for name in files if name.startswith("pipelines/")]
    expected |= {Path(name).parent.name for name in recipes if name.endswith("/pipeline.yaml")}
    assert expected <= set(installed.run("cascade", "ls").split())
    assert expected == set(installed.report()["names"])


def test_editable_installation_finds_the_same_recipes(editable, installed, source):
    report = editable.report()
    assert Path(report["root"]) == source
    assert report["names"] == installed.report()["names"]


@pytest.mark.parametrize("mode", ["installed", "editable"])
def test_folders_of_the_user_shadow_nothing_and_are_not_shadowed(mode, user_folder, request):
    environment = request.getfixturevalue(mode)
    assert environment.report(cwd=user_folder) == environment.report()
    for name in ("tiny-16", "tiny-32"):
        environment.run("cascade", "copy", name, f"{name}.yaml", cwd=user_folder)
        assert f"name: {name}\n" in (user_folder / f"{name}.yaml").read_text(encoding="utf-8")
    owners = "import benchmarks, pipelines, stages, tests\n" + "".join(
        f"print({name}.OWNER)\n" for name in ("benchmarks", "pipelines", "stages", "tests")
    )
    assert environment.run("python", "-c", owners, cwd=user_folder).split() == ["user"] * 4


def test_bundled_pipelines_load_from_the_wheel(installed, files):
    bundled = [Path(name).parent.name for name in files if name.endswith("/model_index.json")]
    if not bundled:
        pytest.skip("no pipeline is bundled with weights")
    load = "import sys; from cascade import CascadePipeline as P\n"
    load += "for name in sys.argv[1:]: print(len(P.from_pretrained(name).stages.names) > 0)"
    assert installed.run("python", "-c", load, *bundled).split() == ["True"] * len(bundled)
