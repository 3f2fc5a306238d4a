"""Results of the page are signed with the certificate of whoever serves it."""

from __future__ import annotations

import zipfile
from dataclasses import replace

import pytest

from cascade.imaging.credentials import Signer, read_manifest
from cascade.imaging.opening import format_of
from cascade.ui.jobs import Job

pytest.importorskip("gradio")
pytest.importorskip("c2pa")
from certificates import write_certificate


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files of a certificate and its key."""
    return write_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def signers(site, files, tmp_path):
    """A function that does work on a signed page; who signed each picture of the zip, by name."""

    def run(work, *values):
        signed = replace(site, signer=Signer(*files))
        folder = tmp_path / "job"
        folder.mkdir()
        job = Job(folder, site.queue, lambda job: work(job, signed, *values))
        job.start()
        job.join()
        view = job.view()
        assert (view.status, view.faults) == ("done", ())
        with zipfile.ZipFile(view.archive) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
        manifests = {n: read_manifest(data, format_of(data, n)) for n, data in contents.items()}
        return {name: manifest and manifest.signer for name, manifest in manifests.items()}

    return run


def test_upscaled_pictures_are_signed(signers, pipelines, draw):
    from cascade.ui.upscaling_tab import upscale

    uploads = [str(draw("a.jpg")), str(draw("b.png"))]
    signer = "Archive, Signer"
    assert signers(upscale, uploads, pipelines["tiny-x2"], 2.0, 3, 1, "2") == {
        "a.jpg": signer, "b.png": signer
    }  # fmt: skip


def test_generated_pictures_are_signed(signers, pipelines):
    from cascade.ui.generating_tab import generate

    names = signers(generate, pipelines["tiny-draw"], 2, 0, "2", "", "", "", None, None)
    assert names == dict.fromkeys(["00000.png", "00001.png", "grid.png"], "Archive, Signer")


def test_the_options_reach_the_page(command, files, monkeypatch):
    servings = []
    monkeypatch.setattr("cascade.ui.server.serve", lambda serving, start: servings.append(serving))
    certificate, key = files
    done = command("ui", "--c2pa-certificate", certificate, "--c2pa-key", key)
    assert done.code == 0, done.err
    assert servings[0].signer.fingerprint == Signer(*files).fingerprint
    assert command("ui", "--c2pa-certificate", certificate).code == 2
    done = command("ui", "--c2pa-certificate", key, "--c2pa-key", key)
    assert done.code == 1
    assert "\n" not in done.err.strip()


def test_the_page_says_that_results_are_signed(site, files):
    from cascade.ui.page import build_page

    def texts(page) -> str:
        return " ".join(
            str(each.get("props", {}).get("value")) for each in page.config["components"]
        )

    assert "signed" not in texts(build_page(site, []))
    signed = replace(site, signer=Signer(*files))
    assert "Results are signed with the certificate" in texts(build_page(signed, []))
