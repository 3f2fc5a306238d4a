"""The part of a tab that is the same everywhere: buttons, progress, results and the download."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from cascade.errors import CascadeError
from cascade.imaging.credentials import Signer
from cascade.ui import showing
from cascade.ui.device_queue import DeviceQueue
from cascade.ui.jobs import Job, View
from cascade.ui.limits import Limits
from cascade.ui.sessions import Sessions

LOOK_S = 0.15  # between looks at a job
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Site:
    """What all tabs of a page share.

    Attributes:
        sessions: the visits.
        queue: the jobs that use the device.
        limits: limits of uploads.
        device: name of the device; None for the best one.
        signer: who signs all results; None for nobody.
        is_local: whether only this computer can open the page.
    """

    sessions: Sessions
    queue: DeviceQueue
    limits: Limits
    device: str | None = None
    signer: Signer | None = None
    is_local: bool = True


class Panel:
    """Buttons that begin and cancel the job of a tab, and what it shows of the job.

    Create `buttons` and `results` where they should appear, then `connect` them.

    Args:
        site: what all tabs share.
        tab: name of the tab.
    """

    def __init__(self, site: Site, tab: str) -> None:
        self.site = site
        self.tab = tab

    def buttons(self, label: str) -> None:
        """Add the buttons."""
        with gr.Row():
            self.run = gr.Button(label, variant="primary", elem_id=f"{self.tab}-run")
            self.cancel = gr.Button("Cancel", visible=False, elem_id=f"{self.tab}-cancel")

    def results(self, hint: str) -> None:
        """Add progress, download and results; the hint is shown until there are any."""
        empty = f'<div class="empty">{hint}</div>'
        self.progress = gr.HTML(empty, elem_id=f"{self.tab}-progress")
        self.download = gr.DownloadButton(
            "Download all (zip)", visible=False, elem_id=f"{self.tab}-download"
        )
        self.pictures = gr.HTML("", elem_id=f"{self.tab}-results")

    def connect(
        self,
        inputs: Sequence[Any],
        work: Callable[..., None],
        *,
        js: str | None = None,
    ) -> None:
        """Connect the buttons.

        Args:
            inputs: the fields whose values the work gets.
            work: does the work, called as `work(job, site, *values)` in a thread.
            js: JavaScript that changes the values in the browser before they are sent.
        """

        async def run(request: gr.Request, *values: Any) -> AsyncIterator[dict[Any, Any]]:
            async for update in self._follow(request.session_hash, work, values):
                yield update

        def cancel(request: gr.Request) -> None:
            self.site.sessions.cancel(request.session_hash)

        outputs = [self.run, self.cancel, self.progress, self.download, self.pictures]
        self.run.click(
            run,
            list(inputs),
            outputs,
            js=js,
            concurrency_limit=None,
            show_progress="hidden",
            api_visibility="private",
        )
        self.cancel.click(cancel, None, None, queue=False, api_visibility="private")

    async def _follow(
        self, visitor: str | None, work: Callable[..., None], values: Sequence[Any]
    ) -> AsyncIterator[dict[Any, Any]]:
        """Do the work in a job, and yield what changes on the page until it is over."""
        job: Job | None = None
        try:

            def make_job(folder: Path) -> Job:
                return Job(folder, self.site.queue, lambda job: work(job, self.site, *values))

            job = self.site.sessions.begin(visitor, self.tab, make_job)
        except CascadeError as error:
            yield self._shown(View(status="failed", faults=(str(error),)), None)
            return
        try:
            last: View | None = None
            while last is None or not job.is_over:
                view = job.view()
                if view != last:
                    yield self._shown(view, last)
                    last = view
                await asyncio.sleep(LOOK_S)
            yield self._shown(job.view(), last)
        finally:  # also if the visitor has left
            job.cancel()

    def _shown(self, view: View, last: View | None) -> dict[Any, Any]:
        """What a view changes on the page."""
        is_over = view.status in showing.OVER
        changes: dict[Any, Any] = {self.progress: showing.progress(view)}
        if last is None or is_over:
            changes[self.run] = gr.update(interactive=is_over)
            changes[self.cancel] = gr.update(visible=not is_over)
            has_archive = view.archive is not None
            archive = str(view.archive) if has_archive else None
            changes[self.download] = gr.update(visible=has_archive, value=archive)
        if last is None or view.results != last.results or is_over:
            changes[self.pictures] = showing.results(view.results)
        return changes
