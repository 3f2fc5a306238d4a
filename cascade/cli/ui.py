"""`cascade ui`."""

from __future__ import annotations

from typing import Annotated

import typer

from cascade.cli import completing, signing

Pipeline = Annotated[
    str | None,
    typer.Argument(
        help="A bundled pipeline, a Hub id, or the folder of a pipeline, a stage or a run. "
        "Default: all bundled pipelines.",
        autocompletion=completing.pipelines,
    ),
]
Host = Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets the whole network in.")]
Port = Annotated[
    int | None,
    typer.Option(min=1, max=65535, help="Default: the first free one from 7860."),
]
Share = Annotated[
    bool,
    typer.Option("--share", help="Make a public link, which goes through Gradio's servers."),
]
OpensBrowser = Annotated[bool, typer.Option("--open", help="Open the page in your browser.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or mps. Default: the best one available.")
]
MaxMib = Annotated[float, typer.Option(min=0.1, help="Largest size of an uploaded file, in MiB.")]
MaxMegapixels = Annotated[
    float,
    typer.Option(min=0.1, help="Largest number of millions of pixels in an uploaded file."),
]
MaxResultMegapixels = Annotated[
    float,
    typer.Option(min=0.1, help="Largest number of millions of pixels in an upscaled result."),
]
MaxGib = Annotated[
    float,
    typer.Option(min=0.1, help="Disk space in GiB above which no job starts."),
]
MaxWaiting = Annotated[
    int, typer.Option(min=0, help="Largest number of jobs that wait for the device.")
]


def ui(
    pipeline: Pipeline = None,
    host: Host = "127.0.0.1",
    port: Port = None,
    share: Share = False,
    opens_browser: OpensBrowser = False,
    device: Device = None,
    max_mib: MaxMib = 200,
    max_megapixels: MaxMegapixels = 100,
    max_result_megapixels: MaxResultMegapixels = 250,
    max_gib: MaxGib = 50,
    max_waiting: MaxWaiting = 20,
    c2pa_certificate: signing.Certificate = None,
    c2pa_key: signing.Key = None,
) -> None:
    """Serve a web page that upscales, colourises, generates and edits images.

    It also shows the samples and curves of a training run, live. Only this computer can open it,
    unless --host or --share allow more. One job at a time uses the device. Each visitor's files are
    deleted at the end of the visit. Stop it with Ctrl-C.

    Examples:

    cascade ui --open

    cascade ui photo-x4 --port 8000

    cascade ui runs/my-stage

    cascade ui --host 0.0.0.0 --max-mib 20 --max-megapixels 4

    cascade ui --c2pa-certificate archive.pem --c2pa-key archive.key
    """
    from cascade.cli.verbosity import note
    from cascade.errors import ContractError
    from cascade.extras import EXTRAS, install_command

    if not EXTRAS["ui"].is_installed:
        raise ContractError(
            f"the page needs gradio, which is not installed: {install_command('ui')}"
        )
    from cascade.ui.limits import Limits
    from cascade.ui.server import Serving, serve

    limits = Limits(
        file_mib=max_mib,
        megapixels=max_megapixels,
        result_megapixels=max_result_megapixels,
        disk_gib=max_gib,
    )
    serving = Serving(
        pipeline=pipeline,
        host=host,
        port=port,
        share=share,
        device=device,
        limits=limits,
        most_waiting=max_waiting,
        opens_browser=opens_browser,
        signer=signing.signer_of(c2pa_certificate, c2pa_key),
    )
    serve(serving, lambda address: note(f"the page is at {address}; stop it with Ctrl-C"))
