"""Ray Data and Dask map over pictures on workers of this machine, one of which is killed.

The results must be those of the command: none lost, none made twice.
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cascade import Generator, Upscaler

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
COUNT = 8
KILLED_AFTER = "5.png"
pytestmark = pytest.mark.slow


@pytest.fixture
def many(tmp_path) -> Path:
    """A folder of small pictures."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(COUNT):
        pixels = np.random.default_rng(number).integers(0, 255, (9, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def expected(command, enlarging, many, tmp_path) -> dict[str, bytes]:
    """What the command makes of these pictures."""
    outcome = command("upscale", many, "-o", tmp_path / "expected", "--model", enlarging)
    assert outcome.code == 0, outcome.err
    return {path.name: path.read_bytes() for path in (tmp_path / "expected").glob("*.png")}


@pytest.fixture
def dies_once(tmp_path):
    """A function that wraps an object so that one worker dies, and the file that says so."""
    from interrupted import DiesOnce

    marker = tmp_path / "died"
    return (lambda call: DiesOnce(call, marker, KILLED_AFTER)), marker


# ---- Ray Data -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ray():
    """Ray on two workers of this machine."""
    ray = pytest.importorskip("ray", reason="needs ray[data]")
    pytest.importorskip("ray.data", reason="needs ray[data]")
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {"env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}}
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        runtime_env=environment,
        log_to_driver=False,
    )
    yield ray
    ray.shutdown()


def test_ray_data_loses_nothing_if_a_worker_dies(ray, enlarging, many, expected, dies_once):
    wrapped, marker = dies_once
    files = ray.data.read_binary_files(str(many), include_paths=True, override_num_blocks=4)
    rows = files.map_batches(wrapped(Upscaler(enlarging)), batch_size=2).take_all()
    assert marker.exists()
    assert sorted(row["name"] for row in rows) == sorted(expected)
    assert {row["name"]: row["bytes"] for row in rows} == expected
    assert {row["error"] for row in rows} == {""}


def test_ray_actors_write_each_result_once(ray, enlarging, many, expected, dies_once, tmp_path):
    wrapped, marker = dies_once

    class Actor:
        def __init__(self, model: str, out: str) -> None:
            self.upscale = wrapped(Upscaler(model, out=out))

        def __call__(self, batch):
            return self.upscale(batch)

    files = ray.data.read_binary_files(str(many), include_paths=True, override_num_blocks=4)
    arguments = [str(enlarging), str(tmp_path / "out")]
    mapped = files.map_batches(Actor, fn_constructor_args=arguments, concurrency=1, batch_size=2)
    rows = mapped.take_all()
    assert marker.exists()
    assert sorted(row["name"] for row in rows) == sorted(expected)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == expected
    made_before = [p for p in (tmp_path / "out").iterdir() if p.stat().st_mtime < died_at(marker)]
    assert KILLED_AFTER in {path.name for path in made_before}  # and not written again


def test_the_script_with_ray_data_runs(ray, capsys, enlarging, many, expected, tmp_path):
    main = runpy.run_path(str(EXAMPLES / "ray_data.py"))["main"]
    main(str(many), str(tmp_path / "out"), str(enlarging))
    assert capsys.readouterr().out.splitlines()[-1] == f"{COUNT} upscaled, 0 failed"
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == expected


def died_at(marker: Path) -> float:
    return marker.stat().st_mtime


# ---- Dask ---------------------------------------------------------------------------------------


@pytest.fixture
def client(monkeypatch):
    """Dask on two processes of this machine, which are started again if they die."""
    distributed = pytest.importorskip("distributed", reason="needs dask[distributed]")
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", paths)
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with cluster, distributed.Client(cluster) as client:
        yield client


def test_dask_loses_nothing_if_a_worker_dies(
    client, enlarging, many, expected, dies_once, tmp_path
):
    wrapped, marker = dies_once
    upscale = wrapped(Upscaler(enlarging, out=tmp_path / "out"))
    paths = sorted(str(path) for path in many.iterdir())
    batches = [{"path": paths[first : first + 2]} for first in range(0, len(paths), 2)]
    results = client.gather(client.map(upscale, batches))
    names = [name for result in results for name in result["name"]]
    assert marker.exists()
    assert sorted(names) == sorted(expected)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == expected
    assert (tmp_path / "out" / KILLED_AFTER).stat().st_mtime < died_at(marker)


def test_the_script_with_dask_runs(client, capsys, enlarging, many, expected, tmp_path):
    main = runpy.run_path(str(EXAMPLES / "dask_workers.py"))["main"]
    main(str(many), str(tmp_path / "out"), str(enlarging), client=client)
    assert capsys.readouterr().out.count(": upscaled") == COUNT
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == expected


def test_a_dask_bag_generates_what_one_process_does(client, generating):
    bag = pytest.importorskip("dask.bag")
    generator = Generator(generating, batch_size=1)
    rows = bag.from_sequence(range(4), npartitions=2)
    parts = rows.map_partitions(lambda seeds: [generator({"seed": list(seeds)})]).compute()
    pictures = [picture for part in parts for picture in part["bytes"]]
    assert pictures == generator({"seed": range(4)})["bytes"].tolist()
