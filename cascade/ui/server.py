"""Serves the page until it is stopped, and removes all that its visitors leave."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import gradio as gr

from cascade.devices import find_device
from cascade.errors import ContractError, DataError, OutputError
from cascade.imaging.credentials import Signer
from cascade.training.run_record import read_run
from cascade.ui.device_queue import DeviceQueue
from cascade.ui.limits import MIB, Limits
from cascade.ui.models import Model, models_for, try_models_for
from cascade.ui.page import build_page, theme
from cascade.ui.page_folder import ended_by_signals, page_folder
from cascade.ui.panel import Site
from cascade.ui.sessions import Sessions
from cascade.ui.style import HEAD

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
TEMPORARY = "GRADIO_TEMP_DIR"  # environment variable, read by Gradio when a page is made
LOOK_S = 0.2
FIRST_PORT, TRIED_PORTS = 7860, 100


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What to serve, and to whom.

    Attributes:
        pipeline: name of a pipeline, or folder of a run; None for all bundled pipelines.
        host: address to listen at.
        port: port to listen at; None for the first free one from 7860.
        share: whether to make a public link by Gradio's servers.
        device: name of the device; None for the best one.
        limits: limits of uploads.
        most_waiting: largest number of waiting jobs.
        opens_browser: whether to open the page in a browser.
        signer: who signs all results; None for nobody.
    """

    pipeline: str | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    share: bool = False
    device: str | None = None
    limits: Limits = field(default_factory=Limits)
    most_waiting: int = 20
    opens_browser: bool = False
    signer: Signer | None = None


def serve(serving: Serving, on_start: Callable[[str], None]) -> None:
    """Serve the page until the process is interrupted.

    Args:
        serving: what to serve.
        on_start: called with the address of the page once it can be opened.

    Raises:
        CascadeError: if the pipeline, the device or the port cannot be used.
    """
    with ended_by_signals(), served(serving) as address:
        on_start(address)
        while True:
            time.sleep(LOOK_S)


@contextmanager
def served(serving: Serving) -> Iterator[str]:
    """Serve the page in the `with` block; its address is the value.

    Raises:
        CascadeError: as `serve`.
    """
    find_device(serving.device)
    run = _run_of(serving.pipeline)
    models = models_for(serving.pipeline) if run is None else try_models_for(str(run))
    with page_folder() as root, _uploads_in(root):
        yield from _served(serving, root, models, run)


def _served(
    serving: Serving, root: Path, models: Sequence[Model], run: Path | None
) -> Iterator[str]:
    """Serve the page from a folder, until the generator is closed."""
    sessions = Sessions(root, serving.limits.disk_gib)
    page: gr.Blocks | None = None
    try:
        site = Site(
            sessions=sessions,
            queue=DeviceQueue(serving.most_waiting),
            limits=serving.limits,
            device=serving.device,
            signer=serving.signer,
            is_local=serving.host in LOCAL_HOSTS and not serving.share,
        )
        page = build_page(site, models, run)
        sessions.keep_sweeping()
        yield _launch(page, serving)
    finally:
        if page is not None:
            page.close(verbose=False)
        sessions.close()


@contextmanager
def _uploads_in(root: Path) -> Iterator[None]:
    """Let Gradio put uploads into a folder."""
    before = os.environ.get(TEMPORARY)
    os.environ[TEMPORARY] = str(root)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(TEMPORARY, None)
        else:
            os.environ[TEMPORARY] = before


def _run_of(pipeline: str | None) -> Path | None:
    """The folder of a training run, if a name is that of one."""
    if pipeline is None or not Path(pipeline).is_dir():
        return None
    try:
        read_run(Path(pipeline))
    except DataError:
        return None
    return Path(pipeline)


def _launch(page: gr.Blocks, serving: Serving) -> str:
    """Begin to serve; returns the address.

    Raises:
        OutputError: if the port cannot be used.
        ContractError: if there is no public link.
    """
    port = free_port(serving.host, serving.port)
    try:
        _, local, shared = page.queue(default_concurrency_limit=None).launch(
            server_name=serving.host,
            server_port=port,
            share=serving.share,
            inbrowser=serving.opens_browser,
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,
            max_file_size=round(serving.limits.file_mib * MIB),
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            theme=theme(),
            head=HEAD,
        )
    except OSError as error:
        raise _no_place(serving.host, serving.port, error) from error
    if serving.share and not shared:
        raise ContractError("Gradio's servers give no public link now; serve without one.")
    return shared or local


def free_port(host: str, port: int | None) -> int:
    """Find a port to listen at, since Gradio tries an address that does not exist for minutes.

    Args:
        host: name or number of an address of this computer.
        port: the port to use; None for the first free one.

    Raises:
        OutputError: if there is none.
    """
    ports = [port] if port is not None else range(FIRST_PORT, FIRST_PORT + TRIED_PORTS)
    fault: OSError | None = None
    for number in ports:
        try:
            family, kind, _, _, place = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(place)
            return number
        except OSError as error:
            fault = error
    raise _no_place(host, port, fault) from fault


def _no_place(host: str, port: int | None, error: OSError | None) -> OutputError:
    place = host if port is None else f"{host}:{port}"
    cause = "" if error is None else f" ({(error.strerror or str(error)).lower()})"
    return OutputError(f"{place} cannot be used{cause}; choose another host or port.")
