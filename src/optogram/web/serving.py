"""`optogram serve`: a folder becomes a web site on this machine."""

import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from optogram.pictures.errors import RequestError

PORT = 8411
EVERYWHERE = ("0.0.0.0", "::", "")


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
        server = _server(site)
        address = _address(host, listener.getsockname()[1], token)
        if live:
            threading.Thread(target=_warm, args=(site,), daemon=True).start()
        say(address)
        server.run(sockets=[listener])


def _ready() -> Any:
    """The application's module, or a sentence where what it needs is not installed."""
    try:
        import python_multipart  # noqa: F401 - which reads forms
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as problem:
        raise RequestError(
            f"the explorer needs {problem.name}, which is not installed: "
            f"pip install 'optogram[serve]'"
        ) from problem
    from optogram.web import app

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


def _warm(site: Any) -> None:
    """Load the network while the visitor reads the first page."""
    with suppress(Exception):  # whoever asks for it is told what is wrong
        from optogram.web import asking

        asking.explaining()
        site.app.app.state.explorers[0].network()
