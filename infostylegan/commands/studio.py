"""`python -m infostylegan studio`: a page with the generator's controls, and attribute studies."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import click

from dnnlib.cli import Failure
from infostylegan.commands.common import SnapshotPath


@click.command()
@click.argument("snapshot", type=SnapshotPath())
@click.option("--data", help="A data set (a name, a folder or a zip) whose images can be projected.")
@click.option(
    "--studies", type=click.Path(path_type=Path, file_okay=False),
    help="Where attribute studies are kept.  [default: the folder studies beside SNAPSHOT]",
)  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0: any that is free."
)
@click.option("--name", "names", multiple=True, help="A further name by which browsers call this machine.")
@click.option("--open", "open_browser", is_flag=True, help="Open the page in a browser.")
@click.option("--threads", type=click.IntRange(1), help="Threads for drawing.  [default: PyTorch's choice]")
def studio(
    snapshot: Path,
    data: str | None,
    studies: Path | None,
    host: str,
    port: int,
    names: tuple[str, ...],
    open_browser: bool,
    threads: int | None,
) -> None:
    """Play with the generator in SNAPSHOT on a page, and hold attribute studies (ACM).

    The page is served to this machine alone, and only to who opens it by the address that is printed.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise Failure(f"the studio needs {error.name}: pip install '.[studio]'") from None
    import torch

    from infostylegan.commands.data.shared import Bar
    from infostylegan.data.catalogue import open_dataset
    from infostylegan.studio.model import Model
    from infostylegan.studio.security import Access, allowed_hosts, is_loopback
    from infostylegan.studio.server import make_app

    if threads is not None:
        torch.set_num_threads(threads)
    model = Model(snapshot)
    if data is not None:
        model.data = open_dataset(
            data, resolution=model.resolution, channels=model.G.channels, progress=Bar("reading images")
        )
    with listen(host, port) as listener:
        port = listener.getsockname()[1]
        access = Access(cookie=f"studio-{port}", hosts=allowed_hosts(host, names))
        app = make_app(model, studies or snapshot.parent / "studies", access)
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        address = f"http://{shown}:{port}/?token={access.token}"
        if not is_loopback(host):
            click.echo(
                f"Warning: listening on {host}, for other machines too, and unencrypted: whoever can read "
                "the traffic can use this studio. An ssh tunnel (ssh -L) needs no --host.",
                err=True,
            )
        click.echo(f"The studio is at {address}\nCtrl-C ends it.")
        if open_browser:
            click.launch(address)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,  # it would hold the token
            server_header=False,
            ws="none",
            limit_concurrency=256,
            timeout_keep_alive=10,
            timeout_graceful_shutdown=3,
        )
        with contextlib.suppress(KeyboardInterrupt):  # raised again once everything is closed
            uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address, so that it is known to be free before anything is printed."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise Failure(f"--host {host}: no address of this machine ({error.strerror})") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)  # whoever opens the address at once waits, and is not turned away
    except OSError as error:
        listener.close()
        raise Failure(
            f"--host {host} --port {port}: cannot listen there ({error.strerror}); --port 0 takes a free one"
        ) from None
    return listener
