"""The page: its tabs follow the models, a run is shown live, and mistakes are one line."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from cascade.conditioning.text import KNOWN_TEXTS
from cascade.contract import Contract
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError, OutputError
from cascade.extras import Extra
from cascade.pipeline import CascadePipeline
from cascade.space import Space
from cascade.ui import showing
from cascade.ui.models import bundled_models, models_for

gradio = pytest.importorskip("gradio")


def labels(page) -> list[str]:
    """The labels of all tabs, fields and buttons of a page."""
    values = [each["props"] for each in page.get_config_file()["components"]]
    return [props.get("label") or props.get("value") for props in values]


def test_bundled_pipelines_are_sorted_to_the_tabs():
    tabs = {model.name: list(model.tabs) for model in bundled_models()}
    assert next(iter(tabs)) == "photo-x4-restore"  # as of the command
    assert tabs["photo-x4"] == tabs["photo-x4-restore"] == ["upscale"]
    assert tabs["photo-colour"] == ["colourise"]
    assert tabs["emoji-1024"] == ["generate", "edit"]
    assert models_for("emoji-1024")[0].fields.keys() == {"class", "style"}
    assert models_for("photo-x4")[0].scale == 4


def test_the_example_prompts_need_no_text_encoder():
    from cascade.ui.subject_fields import EXAMPLE_PROMPT

    checkout = Path(__file__).parents[2]
    file = checkout / "pipelines" / "emoji-1024" / "stages" / "base" / KNOWN_TEXTS
    with safe_open(file, framework="np") as opened:
        known = bytes(opened.get_tensor("texts")).decode().split("\n")
    page = (checkout / "docs" / "page.md").read_text(encoding="utf-8")
    (example,) = re.findall(r'`emoji-1024` \("(.+)"\)', page)
    assert {EXAMPLE_PROMPT, example} <= set(known)


def test_a_page_has_the_tabs_that_its_model_can_serve(site, pipelines):
    from cascade.ui.page import build_page

    words = labels(build_page(site, models_for(pipelines["tiny-x2"])))
    assert "Upscale" in words
    assert not {"Colourise", "Generate", "Edit", "Training run"} & set(words)
    words = labels(build_page(site, models_for(pipelines["tiny-draw"])))
    assert {"Generate", "Edit", "Animal", "Style"} <= set(words)
    assert not {"Upscale", "Colourise", "Restore"} & set(words)
    assert models_for(pipelines["tiny-pairs"])[0].tabs == ["restore"]


@pytest.mark.parametrize(
    "space",
    [
        Space(size_px=16, kind="latents"),
        Space(size_px=16, channels=2, range=(0, 1000)),
    ],
    ids=["latents", "bands"],
)
def test_what_is_no_picture_is_refused(base_stage, space, tmp_path):
    stage = DiffusionStage.build(
        Contract(space), base_stage.process, network_options={"channels": (8,), "blocks": 1}
    )
    CascadePipeline.from_stages({"base": stage}).save_pretrained(tmp_path)
    with pytest.raises(ContractError, match="makes no images that the page could show"):
        models_for(str(tmp_path))


def test_a_run_is_shown_and_refreshed_when_its_log_grows(site, tmp_path):
    from cascade.ui.page import build_page
    from cascade.ui.run_tab import run_page, stamp

    assert "no run in" in run_page(tmp_path)
    assert str(tmp_path.parent) not in run_page(tmp_path)
    log = tmp_path / "log.jsonl"
    lines = [{"images": n * 100, "seconds": n, "loss": 1 / n, "images_per_s": 9} for n in (1, 2, 3)]
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    before = stamp(tmp_path)
    assert "Images seen" in run_page(tmp_path)
    assert "<svg" in run_page(tmp_path)
    assert "Training run" in labels(build_page(site, [], tmp_path))
    os.utime(log, ns=(1, 1))
    assert stamp(tmp_path) != before


def test_without_gradio_one_line_says_what_to_install(command, monkeypatch):
    from cascade import extras

    monkeypatch.setitem(extras.EXTRAS, "ui", Extra("serves the web page", ("no_such_module",)))
    done = command("ui")
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "gradio, which is not installed: pip install" in done.err
    assert "[ui]" in done.err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("no-such-pipeline",), "no pipeline 'no-such-pipeline'"),
        (("--device", "abacus"), "device 'abacus' cannot be used"),
        (("photo-x4", "--host", "192.0.2.1"), "192.0.2.1 cannot be used (cannot assign"),
    ],
)
def test_what_cannot_be_served_is_one_line(command, tmp_path, monkeypatch, arguments, text):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    done = command("ui", *arguments)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert text in done.err
    assert [path for path in tmp_path.iterdir() if "cascade-ui" in path.name] == []


def test_other_commands_do_not_import_gradio():
    code = "import sys, cascade.cli.main; sys.exit('gradio' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, timeout=120)
    assert done.returncode == 0


def test_a_port_in_use_is_one_line():
    from cascade.ui.server import free_port

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(OutputError, match=rf"127\.0\.0\.1:{port} cannot be used \(address"):
            free_port("127.0.0.1", port)
    assert free_port("127.0.0.1", None) >= 7860


@pytest.mark.parametrize("tab", ["edit", "generate"])
def test_the_work_gets_the_fields_of_the_model_that_was_chosen(site, pipelines, monkeypatch, tab):
    from cascade.ui import editing_tab, generating_tab
    from cascade.ui.page import build_page
    from cascade.ui.panel import Panel

    connected, calls = {}, []
    monkeypatch.setattr(
        Panel,
        "connect",
        lambda self, inputs, work, **_: connected.update({self.tab: (inputs, work)}),
    )
    for module, name in ((editing_tab, "edit"), (generating_tab, "generate")):
        monkeypatch.setattr(module, name, lambda job, site, *values: calls.append(values))
    names = ("tiny-draw", "tiny-student") if tab == "generate" else ("tiny-draw", "tiny-fill")
    draw, other = (models_for(pipelines[name])[0] for name in names)
    build_page(site, [draw, other])
    inputs, work = connected[tab]
    menu = next(each for each in inputs if getattr(each, "label", "") == "Model")
    assert [name for _, name in menu.choices] == (
        [draw.name, other.name] if tab == "generate" else [other.name, draw.name]
    )
    assert menu.visible
    values = [f"{number} {each.label}" for number, each in enumerate(inputs)]
    for model in (draw, other):
        values[inputs.index(menu)] = model.name
        work(None, site, *values)
        start, count = 5 if tab == "generate" else 7, 2 + len(model.fields)
        words = [each.split(" ", 1)[1] for each in calls[-1][start : start + count]]
        assert words == ["Prompt", "Negative prompt", *map(str.capitalize, model.fields)]
        assert calls[-1][:start] == tuple(values[:start])
        assert len(calls[-1]) == start + count + (tab == "edit")
        assert calls[-1][-1] == (values[-1] if tab == "edit" else calls[-1][-1])
    own = [call[start : start + 2] for call in calls]
    assert own[0] != own[1]


@pytest.fixture
def client(site, monkeypatch):
    """Sends requests to a page, without a browser and without a connection that is kept open."""
    from starlette.testclient import TestClient

    from cascade.ui.page import build_page

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(site.sessions.root))
    page = build_page(site, [])
    return TestClient(gradio.routes.App.create_app(page.queue()))


def test_a_file_is_served_at_its_own_address_alone(site, client):
    file = site.sessions.of("one").folder / "edit-1" / "a.png"
    file.parent.mkdir()
    file.write_bytes(b"private")
    assert client.get(showing.address(file)).content == b"private"
    root, visit = site.sessions.root, file.parent.parent
    changed = visit.with_name(visit.name[:-1] + ("0" if visit.name[-1] != "0" else "1"))
    for guess in (
        root,
        root / ".lock",
        visit,
        file.parent,
        changed / "edit-1" / "a.png",
        root / "visit-" / "a.png",
        site.sessions.of("two").folder / ".." / "*" / "edit-1" / "a.png",
        root.parent / "uploads",
        Path("/etc/passwd"),
    ):
        assert client.get(showing.address(guess)).status_code in (403, 404), guess


def test_a_visit_that_never_connected_ends(site, client, monkeypatch):
    dependency = next(each for each in client.app.get_blocks().fns.values() if each.name == "hear")
    site.sessions.of("invented")
    body = {"data": [], "fn_index": dependency._id, "session_hash": "invented"}
    for name in ("invented", "another"):
        assert client.post("gradio_api/run/predict", json=body | {"session_hash": name}).is_success
    assert len(list(site.sessions.root.glob("visit-*"))) == 1  # a report makes no visit
    monkeypatch.setattr("cascade.ui.sessions.IDLE_S", 0.0)
    site.sessions.sweep()
    assert list(site.sessions.root.glob("visit-*")) == []


def test_pictures_are_looked_at_one_at_a_time(site, pipelines):
    from cascade.ui.page import build_page

    models = [model for name in pipelines for model in models_for(pipelines[name])]
    page = build_page(site, models)
    looks = [each for each in page.fns.values() if each.name == "look"]
    assert len(looks) == 4
    assert {(each.concurrency_limit, each.concurrency_id) for each in looks} == {(1, "look")}


def test_signals_end_the_page_in_good_order_unless_they_are_ignored():
    from cascade.ui.page_folder import ended_by_signals

    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            with pytest.raises(SystemExit, match=str(128 + number)), ended_by_signals():
                signal.raise_signal(number)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with ended_by_signals():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_folders_of_killed_pages_go_and_those_of_others_stay(tmp_path, monkeypatch):
    from cascade.ui.page_folder import page_folder

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    killed, new = tmp_path / "cascade-ui-killed", tmp_path / "cascade-ui-new"
    for folder in (killed, new):
        folder.mkdir()
    (killed / ".lock").touch()
    (killed / "private.png").write_text("")
    with page_folder() as served:
        assert not killed.exists()
        with page_folder() as other:
            assert served.is_dir()
            assert new.is_dir()  # its process may be about to lock it
            assert other.name.startswith("cascade-ui-")
    assert list(tmp_path.iterdir()) == [new]


def test_the_space_serves_the_page_with_low_limits(monkeypatch):
    from cascade.ui import server

    folder = Path(__file__).parents[2] / "docs" / "integrations" / "space"
    served = []
    monkeypatch.setattr(server, "serve", lambda serving, on_start: served.append(serving))
    runpy.run_path(str(folder / "app.py"), run_name="__main__")
    (serving,) = served
    assert (serving.host, serving.port) == ("0.0.0.0", 7860)
    assert serving.limits.megapixels < server.Serving().limits.megapixels
    head = (folder / "README.md").read_text(encoding="utf-8").split("---\n")[1]
    assert "app_file: app.py" in head
    assert re.search(r"^sdk_version: (\d+)", head, flags=re.MULTILINE)[1] == gradio.__version__[0]
