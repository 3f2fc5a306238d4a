"""The page in a real browser: what an archivist does, and what a visitor must not see."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHECKOUT = Path(__file__).parents[2]
PHOTO = CHECKOUT / "tests" / "pinned" / "input.photo.png"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
WAIT_MS = 120_000
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason=f"no browser: none of {', '.join(NAMES)} is there"),
]


class Server:
    """`cascade ui` in a process of its own, with its own folder for temporary files."""

    def __init__(self, temporary: Path, *arguments: str) -> None:
        self.temporary = temporary
        environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "TMPDIR": str(temporary)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cascade.cli", "ui", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        line = self.process.stdout.readline()
        match = re.search(r"the page is at (http\S+/);", line)
        assert match, line + self.process.stdout.read()
        self.address = match[1]

    def files(self) -> list[Path]:
        """All files of visitors that have content."""
        return [
            path for path in self.temporary.rglob("*") if path.is_file() and path.stat().st_size
        ]

    def stop(self, number: int) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        self.process.stdout.read()
        return self.process.wait(60)


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"), "--max-mib", "1", "--device", "cpu")
    yield server
    code = server.stop(signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert list(server.temporary.glob("cascade-ui-*")) == []


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(server, browser):
    """A function that opens the page as a new visitor; it must ask no other server for anything."""
    contexts, elsewhere = [], []

    def note(request) -> None:
        if not request.url.startswith((server.address, "data:", "blob:")):
            elsewhere.append(request.url)

    def open_page(width_px: int = 1280):
        context = browser.new_context(viewport={"width": width_px, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("request", note)
        page.goto(server.address)
        page.wait_for_selector("#upscale-run")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert elsewhere == []


def use_steps(page, tab: str, steps: int) -> None:
    page.click(f"#{tab}-more button")
    page.locator(f"#{tab}-more").get_by_label("Steps").fill(str(steps))


def run(page, tab: str) -> str:
    """Press the button of a tab, wait until its job is over, and return what the page says."""
    page.click(f"#{tab}-run")
    page.wait_for_selector(f"#{tab}-progress .state.done, #{tab}-progress .state.failed")
    return page.inner_text(f"#{tab}-progress")


def downloaded(page, tab: str, folder: Path) -> dict[str, bytes]:
    """The files of the zip that a tab offers."""
    with page.expect_download() as download:
        page.click(f"#{tab}-download")
    file = folder / "all.zip"
    download.value.save_as(file)
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_upscaling_a_picture_gives_a_slider_and_the_command_s_file(visit, command, tmp_path):
    page = visit()
    page.set_input_files("#upscale-files input[type=file]", [PHOTO])
    page.wait_for_selector("text=1 image ready")
    use_steps(page, "upscale", 3)
    assert "Done." in run(page, "upscale")
    slider = page.locator("#upscale-results .pair input").first
    pair = page.locator("#upscale-results .pair").first
    assert "--cut" not in pair.get_attribute("style")
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    cut = float(re.search(r"--cut: ?([\d.]+)%", pair.get_attribute("style"))[1])
    assert 10 < cut < 30
    loaded = "image => image.complete && image.naturalWidth > 0"
    assert page.locator("#upscale-results .pair img").first.evaluate(loaded)
    done = command("upscale", PHOTO, "-o", tmp_path / "out", "--steps", 3, "--device", "cpu")
    assert done.code == 0, done.err
    expected = (tmp_path / "out" / PHOTO.name).read_bytes()
    assert downloaded(page, "upscale", tmp_path) == {PHOTO.name: expected}
    with page.expect_download() as download:
        page.click("#upscale-results a[download]")
    assert Path(download.value.path()).read_bytes() == expected


def test_broken_and_large_files_are_one_line_each(visit, tmp_path):
    broken, large, text = (tmp_path / name for name in ("broken.png", "large.png", "notes.txt"))
    broken.write_bytes(PHOTO.read_bytes()[:-300])
    large.write_bytes(PHOTO.read_bytes() + bytes(2 * 2**20))
    text.write_text("no picture")
    page = visit()
    page.set_input_files("#upscale-files input[type=file]", [broken, text])
    page.wait_for_selector("text=notes.txt: not a readable image")
    use_steps(page, "upscale", 1)
    said = run(page, "upscale")
    assert "Nothing was made." in said
    assert "failed: broken.png: not a readable image" in said
    assert "Traceback" not in page.content()
    page = visit()
    page.set_input_files("#upscale-files input[type=file]", [large])
    page.wait_for_selector("text=/maximum allowed size|exceeds|too large/i")
    assert "Traceback" not in page.content()


def test_a_job_can_be_cancelled_and_the_next_one_begins(visit, tmp_path):
    picture = tmp_path / "large.png"
    Image.open(PHOTO).resize((200, 160)).save(picture)
    page = visit()
    page.set_input_files("#upscale-files input[type=file]", [picture])
    page.wait_for_selector("text=1 image ready")
    use_steps(page, "upscale", 60)  # so many that the job cannot end before it is cancelled
    page.click("#upscale-run")
    page.wait_for_selector("#upscale-progress .preview img")
    assert page.locator("#upscale-run").is_disabled()
    page.click("#upscale-cancel")
    page.wait_for_selector("#upscale-progress .state.cancelled", timeout=60_000)
    page.wait_for_selector("#upscale-cancel", state="hidden")
    page.click("#upscale-run")
    page.wait_for_selector("#upscale-progress .bar-outer")
    page.click("#upscale-cancel")
    page.wait_for_selector("#upscale-progress .state.cancelled")


def test_colours_can_be_painted_on_the_picture(visit, command, tmp_path):
    page = visit()
    page.get_by_role("tab", name="Colourise").click()
    page.set_input_files("#colourise-files input[type=file]", [PHOTO])
    canvas = page.locator("#colour-hints canvas")
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    page.click("#colour-hints [data-swatch] >> nth=3")
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.6)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.7, steps=6)
    page.mouse.up()
    use_steps(page, "colourise", 2)
    assert "Done." in run(page, "colourise")
    files = downloaded(page, "colourise", tmp_path)
    hints = tmp_path / "cascade-hints.png"
    hints.write_bytes(files[hints.name])
    colours = Image.open(hints).convert("RGBA").getcolors(2**20)
    assert max(colours)[1][3] == 0  # most of it is transparent
    assert (0x3F, 0x6B, 0x35, 255) in [colour for _, colour in colours]
    options = ("--hints", hints, "--steps", 2, "--device", "cpu")
    done = command("colourise", PHOTO, "-o", tmp_path / "out", *options)
    assert done.code == 0, done.err
    assert files[PHOTO.name] == (tmp_path / "out" / PHOTO.name).read_bytes()


def test_generating_shows_pictures_and_keeps_the_seed(visit):
    page = visit()
    page.get_by_role("tab", name="Generate").click()
    use_steps(page, "generate", 1)
    page.get_by_label("number input for Images").fill("2")
    assert "Done." in run(page, "generate")
    assert page.locator("#generate-results img").count() == 2
    assert "seed 1" in page.inner_text("#generate-results")
    assert page.get_by_label("Seed").last.input_value() is not None


def test_a_visitor_s_files_are_theirs_and_go_when_they_leave(visit, server, tmp_path):
    picture = tmp_path / "private-photo.png"
    Image.open(PHOTO).resize((24, 20)).save(picture)
    page, other = visit(), visit()
    page.set_input_files("#upscale-files input[type=file]", [picture])
    page.wait_for_selector("text=1 image ready")
    use_steps(page, "upscale", 1)
    run(page, "upscale")
    assert any("private-photo" in path.name for path in server.files())
    assert "private-photo" not in other.content()
    link = page.get_attribute("#upscale-results a[download]", "href")
    folder = next(path for path in server.temporary.glob("cascade-ui-*"))
    for guess in (
        folder,
        folder / "visit-",
        Path(link.split("file=")[1]).parent,
        Path("/etc/passwd"),
    ):
        answer = other.request.get(f"{server.address}gradio_api/file={guess}")
        assert answer.status in (403, 404)
    page.close()
    end = time.monotonic() + 60
    while any("private-photo" in path.name for path in server.files()):
        assert time.monotonic() < end, server.files()
        time.sleep(0.3)


def test_a_phone_shows_everything_without_scrolling_sideways(visit):
    page = visit(390)
    width_px = page.evaluate("document.documentElement.scrollWidth")
    assert width_px <= 390
    for name in ("Colourise", "Generate", "Edit", "Upscale"):
        page.get_by_role("tab", name=name).click()
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
