"""`optogram serve`: a folder becomes a web site on this machine."""

import math
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from optogram.pictures.errors import RequestError

PORT = 8411
EVERYWHERE = ("0.0.0.0", "::", "")
QUIET = 1.0


def serve(
    folders: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    token: str | None = None,
    live: bool = True,
    source: tuple[str, str | None] | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Show atlases in a browser until Ctrl-C.

    Args:
        folders: atlases; the first is shown, the others are there to compare with.
        host: where to listen. Anywhere but on loopback a token is asked for.
        port: which port; None for the usual one, or another that is free, 0 for any that is free.
        token: the token; made up where one is needed and none is given.
        live: whether notes may be kept and work be asked for.
        source: (name, weights file) of the network, where it is not what the atlas says.
        say: is told the address, once it can be opened.

    Raises RequestError for folders that are no atlas, ports that are taken, and where what a server
    needs is not installed.
    """
    app = _ready()
    from optogram.atlas import open as opened
    from optogram.web.safety import LOOPBACK

    atlases = [opened(folder) for folder in folders]
    if host.lower().strip("[]") not in LOOPBACK and token is None:
        token = secrets.token_urlsafe(24)
    site = app.create(*atlases, hosts=_names(host), token=token, live=live, source=source)
    with _listening(host, port) as listener:
        heard = _Heard(site)
        server = _server(heard)
        address = _address(host, listener.getsockname()[1], token)
        if live:
            threading.Thread(target=_warm, args=(site, heard), daemon=True).start()
        say(address)
        server.run(sockets=[listener])


def _ready() -> Any:
    """The application's module, or a sentence where what it needs is not installed.

    What the first page needs is loaded now, so that its visitor does not wait for it.
    """
    try:
        import python_multipart  # noqa: F401 - which reads forms
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as problem:
        raise RequestError(
            f"the explorer needs {problem.name}, which is not installed: "
            f"pip install 'optogram[serve]'"
        ) from problem
    import PIL.Image
    import pyarrow.parquet  # noqa: F401 - which reads where pictures lie

    from optogram.web import app, drawing

    PIL.Image.init()
    for page in ("network", "layer", "unit"):
        drawing.environment().get_template(f"{page}.html")
    return app


def _server(site: Any) -> Any:
    import uvicorn

    config = uvicorn.Config(
        site,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        http="h11",
        loop="asyncio",
        lifespan="on",
        timeout_graceful_shutdown=2,
        limit_concurrency=256,
    )
    return uvicorn.Server(config)


def _listening(host: str, port: int | None) -> socket.socket:
    """A listening socket. Raises RequestError where none can be had."""
    bare = host.strip("[]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    for wanted in (PORT, 0) if port is None else (port,):
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((bare, wanted))
        except (OSError, OverflowError) as problem:
            listener.close()
            if port is None and wanted:
                continue
            reason = getattr(problem, "strerror", None) or problem
            raise RequestError(f"cannot listen on {host}:{wanted}: {reason}") from problem
        listener.listen(128)
        return listener
    raise RequestError(f"no port is free on {host}")


def _address(host: str, port: int, token: str | None) -> str:
    name = socket.gethostname() if host in EVERYWHERE else host
    name = f"[{name}]" if ":" in name and not name.startswith("[") else name
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


def _names(host: str) -> list[str]:
    """The names under which a server on that host is asked."""
    if host not in EVERYWHERE:
        return [host]
    names = {socket.gethostname(), socket.getfqdn()}
    with suppress(OSError):
        found = socket.getaddrinfo(socket.gethostname(), None)
        names |= {str(address[4][0]) for address in found}
    return sorted(names)


class _Heard:
    """Passes every request on, and knows for how long there has been none."""

    def __init__(self, app: Any) -> None:
        self.app, self.last = app, math.inf

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        self.last = time.monotonic()
        try:
            await self.app(scope, receive, send)
        finally:
            self.last = time.monotonic()

    def quiet(self) -> float:
        """Seconds since the last request; below 0 before the first."""
        return time.monotonic() - self.last


def _warm(site: Any, heard: _Heard) -> None:
    """Load the network once the first page is there, while the visitor looks at it."""
    while heard.quiet() < QUIET:
        time.sleep(0.1)
    with suppress(Exception):  # whoever asks for it is told what is wrong
        from optogram.web import asking

        asking.explaining()
        site.app.app.state.explorers[0].network()
