"""The Hub, stood in for by a small server on this machine, and a Hub that cannot be reached."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard

from cascade.errors import OutputError, WeightsError
from cascade.pipeline import CascadePipeline
from cascade.saving.hub import download, upload

COMMIT = "a" * 40


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as one upload of small files and its download need."""

    protocol_version = "HTTP/1.1"
    files: dict[str, bytes]

    def log_message(self, *values: object) -> None:
        pass

    def answer(self, body: object, status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def do_POST(self) -> None:
        body, page = self.body(), f"http://{self.headers['Host']}/me/cascade"
        if self.path == "/api/repos/create":
            self.answer({"url": page, "name": "me/cascade", "id": "me/cascade"})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            paths = [file["path"] for file in json.loads(body)["files"]]
            modes = [
                {"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths
            ]
            self.answer({"files": modes, "commitOid": COMMIT})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    self.files[value["path"]] = base64.b64decode(value["content"])
            self.answer({"commitUrl": f"{page}/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self.answer({"error": f"no POST {self.path}"}, 404)

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if "/resolve/" in path:
            data = self.files[path.split("/resolve/")[1].split("/", 1)[1]]
            tag = hashlib.sha256(data).hexdigest()
            self.answer(data, ETag=f'"{tag}"', X_Repo_Commit=COMMIT)
        elif "/tree/" in path:
            self.answer(
                [
                    {"type": "file", "path": name, "size": len(data), "oid": "b" * 40}
                    for name, data in self.files.items()
                ]
            )
        elif path.startswith("/api/models/me/cascade"):
            names = [{"rfilename": name} for name in self.files]
            self.answer({"id": "me/cascade", "sha": COMMIT, "siblings": names})
        else:
            self.answer({"error": f"no GET {path}"}, 404)

    do_HEAD = do_GET  # noqa: N815


def point_to(address: str, monkeypatch) -> None:
    """Let huggingface_hub, which read its environment when it was imported, talk to an address."""
    official = huggingface_hub.constants.ENDPOINT
    for name in ("ENDPOINT", "HUGGINGFACE_CO_URL_TEMPLATE"):
        value = getattr(huggingface_hub.constants, name)
        monkeypatch.setattr(huggingface_hub.constants, name, value.replace(official, address))
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", address)


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[dict[str, bytes]]:
    """The files of a Hub on this machine, which is the one that is talked to."""
    handler = type("FreshHub", (Hub,), {"files": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    point_to(f"http://127.0.0.1:{server.server_port}", monkeypatch)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield handler.files
    server.shutdown()
    server.server_close()


@pytest.fixture
def no_hub(monkeypatch) -> None:
    point_to("http://127.0.0.1:9", monkeypatch)  # the port "discard", where nothing listens


@pytest.fixture
def pipeline(base_stage, upsampler) -> CascadePipeline:
    return CascadePipeline.from_stages({"base": base_stage, "up": upsampler})


def test_a_pushed_pipeline_comes_back_the_same_with_its_card(hub, pipeline, tmp_path):
    address = pipeline.push_to_hub("me/cascade", token="hf_x")
    assert address.endswith(f"/me/cascade/commit/{COMMIT}")
    pipeline.save_pretrained(tmp_path / "saved")
    saved = {
        str(path.relative_to(tmp_path / "saved")): path.read_bytes()
        for path in (tmp_path / "saved").rglob("*")
        if path.is_file()
    }
    assert hub == saved
    card = ModelCard(hub["README.md"].decode())
    assert card.data.library_name == "diffusers"
    assert "| up | 16 px | 32 px |" in card.text
    loaded = CascadePipeline.from_pretrained("me/cascade", token="hf_x")
    for name, tensor in pipeline.stages.state_dict().items():
        assert loaded.stages.state_dict()[name].equal(tensor)


def test_a_card_and_a_dtype_are_pushed(hub, pipeline):
    pipeline.push_to_hub("me/cascade", token="hf_x", card="# Mine\n", dtype=torch.bfloat16)
    assert hub["README.md"] == b"# Mine\n"
    (header_size,) = {int.from_bytes(d[:8], "little") for n, d in hub.items() if "up/unet/d" in n}
    header = hub["stages/up/unet/diffusion_pytorch_model.safetensors"][8 : 8 + header_size]
    assert b'"BF16"' in header
    assert b'"F32"' not in header


def test_saving_can_push_the_saved_folder(hub, pipeline, tmp_path):
    pipeline.save_pretrained(
        tmp_path / "saved", push_to_hub=True, repo_id="me/cascade", token="hf_x"
    )
    assert hub["model_index.json"] == (tmp_path / "saved" / "model_index.json").read_bytes()


def test_only_files_of_a_pipeline_are_fetched(hub, pipeline):
    pipeline.push_to_hub("me/cascade", token="hf_x")
    hub |= {"evil.bin": b"\x80", "stages/up/setup.py": b"raise SystemExit", "big.ckpt": b"x"}
    folder = download("me/cascade", token="hf_x")
    fetched = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert fetched == {".json", ".safetensors", ".md", ".py"}
    assert [path.name for path in folder.rglob("*.py")] == ["pipeline.py"]


@pytest.mark.parametrize(
    "name", ["me/cascade", "me/nothing/here", "not a name!", "x" * 200, "x" * 300]
)
def test_an_id_that_cannot_be_fetched_is_one_clear_line(no_hub, name):
    with pytest.raises(WeightsError, match="neither a folder nor") as error:
        CascadePipeline.from_pretrained(name)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_id_is_one_clear_line(hub):
    with pytest.raises(WeightsError, match="'me/other' is neither a folder") as error:
        CascadePipeline.from_pretrained("me/other", token="hf_x")
    assert "\n" not in str(error.value)


def test_pushing_without_a_hub_is_one_clear_line_and_leaves_nothing(
    no_hub, pipeline, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for push in (
        lambda: pipeline.push_to_hub("me/cascade", token="hf_x"),
        lambda: upload(tmp_path, "not a name!", token="hf_x"),
    ):
        with pytest.raises(OutputError, match="could not be uploaded to the Hub") as error:
            push()
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_the_commands_load_a_pipeline_by_its_id_unless_a_folder_has_that_name(
    hub, pipeline, tmp_path, monkeypatch
):
    pipeline.push_to_hub("me/cascade", token="hf_x")
    monkeypatch.chdir(tmp_path)
    assert CascadePipeline.from_pretrained("me/cascade").stages.names == ["base", "up"]
    hub.clear()
    pipeline.save_pretrained("me/cascade")
    assert CascadePipeline.from_pretrained("me/cascade").stages.names == ["base", "up"]
