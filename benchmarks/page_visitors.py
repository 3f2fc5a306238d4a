"""Visitors of `cascade ui` who upload an image and upscale it, without a browser.

They speak as the page does in a browser: upload, join the queue, follow the events, download.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import uuid
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

WAIT_S = 900.0
RETRY_S = 1.0  # after the page has refused a job, because too many wait


def visits(address: str, pictures: Sequence[Path]) -> dict[str, int]:
    """Let one visitor for each picture upscale it, all at once, and try again if refused.

    Args:
        address: of the page.
        pictures: files of one size, none like another.

    Returns:
        How many visitors got their own result, and what else happened, by names.
    """
    return asyncio.run(_visits(address, pictures))


async def _visits(address: str, pictures: Sequence[Path]) -> dict[str, int]:
    limits = httpx.Limits(max_connections=4 * len(pictures))
    async with httpx.AsyncClient(base_url=address, timeout=WAIT_S, limits=limits) as client:
        config = (await client.get("config")).json()
        run = _Run(config)
        inputs = np.stack([_small(path.read_bytes()) for path in pictures])
        visitors = [
            _visit(client, run, path, number, inputs) for number, path in enumerate(pictures)
        ]
        ends = await asyncio.gather(*visitors)
    counts = Counter(end for end, _ in ends)
    return {**counts, "refusals on the way": sum(refusals for _, refusals in ends)}


class _Run:
    """What the page sends when its button "Upscale" is pressed.

    Args:
        config: how Gradio describes the page.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        parts = {each["id"]: each["props"] for each in config["components"]}
        names = {props.get("elem_id"): number for number, props in parts.items()}
        button, files = names["upscale-run"], names["upscale-files"]
        self.function = next(
            each for each in config["dependencies"] if [button, "click"] in each["targets"]
        )
        self.trigger = button
        self._inputs = self.function["inputs"]
        self._values = [parts[number].get("value") for number in self._inputs]
        self._place = self._inputs.index(files)

    def request(self, visitor: str, upload: str, name: str) -> dict[str, Any]:
        """The request of a visitor for an upload."""
        file = {"path": upload, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
        values = list(self._values)
        values[self._place] = [file]
        return {
            "data": values,
            "fn_index": self.function["id"],
            "session_hash": visitor,
            "trigger_id": self.trigger,
        }


async def _visit(
    client: httpx.AsyncClient, run: _Run, path: Path, number: int, inputs: np.ndarray
) -> tuple[str, int]:
    """Upload and upscale; returns what came of it, and how often the page refused at first."""
    visitor = uuid.uuid4().hex
    files = {"files": (path.name, path.read_bytes(), "image/png")}
    answer = await client.post("gradio_api/upload", files=files)
    if answer.status_code != httpx.codes.OK:
        return "uploads refused", 0
    request = run.request(visitor, answer.json()[0], path.name)
    refusals = 0
    while True:
        told = await _events(client, request)
        if "jobs are waiting already; try again later." not in told:
            break
        refusals += 1
        await asyncio.sleep(RETRY_S)
    archive = re.search(r'"path": ?"([^"]+\.zip)"', told)
    if archive is None:
        return "without a result", refusals
    data = (await client.get(f"gradio_api/file={archive[1]}")).content
    return _judged(data, path.name, number, inputs), refusals


async def _events(client: httpx.AsyncClient, request: dict[str, Any]) -> str:
    """Press the button and follow what the page answers to its end; returns all of it."""
    joined = await client.post("gradio_api/queue/join", json=request)
    joined.raise_for_status()
    told = []
    parameters = {"session_hash": request["session_hash"]}
    async with client.stream("GET", "gradio_api/queue/data", params=parameters) as events:
        async for line in events.aiter_lines():
            told.append(line)
            if line.startswith("data:") and json.loads(line[5:])["msg"] == "process_completed":
                break
    return "\n".join(told)


def _judged(data: bytes, name: str, number: int, inputs: np.ndarray) -> str:
    """Whether a download is the result of a visitor's own picture."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if archive.testzip() is not None or name not in archive.namelist():
            return "with a damaged download"
        result = _small(archive.read(name), inputs.shape[1])
    nearest = int(np.square(inputs - result).mean(axis=(1, 2, 3)).argmin())
    return "got their own result" if nearest == number else "GOT ANOTHER'S RESULT"


def _small(data: bytes, side_px: int | None = None) -> np.ndarray:
    """A picture, (H, W, 3) from 0 to 255, at a side in pixels or its own."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    if side_px is not None:
        image = image.resize((side_px, side_px), Image.Resampling.BOX)
    return np.asarray(image).astype(np.float32)
