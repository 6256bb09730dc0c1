"""Who may ask the explorer, and what a browser may do with its pages.

A server on the own machine is reached by every page that the browser shows. So the name that was
asked for must be ours (a foreign one means DNS rebinding), what changes something must come from
our own pages, and a page may load nothing but what this server sends.
"""

import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")
COOKIE = "optogram"
READING = ("GET", "HEAD")
NONCE = "optogram.nonce"


@dataclass(frozen=True)
class Limits:
    """What the explorer takes: bytes of a request, pixels of an image, uploads, jobs, listeners."""

    body: int = 12_000_000
    pixels: int = 20_000_000
    uploads: int = 64
    jobs: int = 16
    listeners: int = 64


@dataclass(frozen=True)
class Guard:
    """An ASGI application around another that lets through what is allowed.

    Args:
        app: the application.
        hosts: the names under which we may be asked, without ports.
        token: what a visitor must show once, in the address; None asks for nothing.
        most: how many bytes a request may have.
    """

    app: ASGIApp
    hosts: frozenset[str]
    token: str | None = None
    most: int = field(default=Limits.body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with a limited body and the headers that hold the page in."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        nonce = scope[NONCE] = secrets.token_urlsafe(12)
        speak = _with_headers(send, nonce)
        refusal = self._refusal(Request(scope))
        if refusal is not None:
            await refusal(scope, receive, speak)
            return
        await self.app(scope, _counted(receive, self.most), speak)

    def _refusal(self, request: Request) -> Response | None:
        names = request.headers.getlist("host")
        if len(names) != 1 or hostname(names[0]) not in self.hosts:
            return refused(400, "this explorer is not asked by that name")
        if request.method not in READING and not same_origin(request, names[0]):
            return refused(403, "only the explorer's own pages may change something")
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > self.most:
            return too_long(self.most)
        return self._stranger(request) if self.token else None

    def _stranger(self, request: Request) -> Response | None:
        """What a visitor without the token is told; a token in the address becomes a cookie."""
        assert self.token
        pairs = parse_qsl(request.url.query, keep_blank_values=True)
        shown = [value for name, value in pairs if name == "token"]
        if shown and _equal(shown[0], self.token) and request.method in READING:
            rest = urlencode([pair for pair in pairs if pair[0] != "token"])
            path = "/" + request.url.path.lstrip("/")
            answer = RedirectResponse(f"{path}?{rest}" if rest else path, 303)
            answer.set_cookie(COOKIE, self.token, httponly=True, samesite="strict", path="/")
            return answer
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if _equal(_cookie(request), self.token) or _equal(bearer, self.token):
            return None
        return refused(403, "open the address that 'optogram serve' printed, with its token")


def hosts_of(names: Iterable[str]) -> frozenset[str]:
    """Loopback's names and some more."""
    return frozenset({*LOOPBACK, *(name.lower().strip("[]") for name in names)})


def hostname(header: str) -> str:
    """The name in a Host header, without its port and brackets; empty if there is none."""
    if any(letter in header for letter in "/\\@?#%, \t"):
        return ""
    try:
        parts = urlsplit(f"//{header}")
        return (parts.hostname or "") if parts.port != 0 else ""
    except ValueError:
        return ""


def same_origin(request: Request, host: str) -> bool:
    """Whether a request comes from a page of ours, or from no page at all."""
    origins = request.headers.getlist("origin")
    site = request.headers.get("sec-fetch-site", "same-origin")
    if site not in ("same-origin", "none") or len(origins) > 1:
        return False
    if not origins:
        return True
    scheme, separator, name = origins[0].partition("://")
    return bool(separator) and scheme in ("http", "https") and name.lower() == host.lower()


def refused(status: int, sentence: str) -> Response:
    """A refusal in one sentence."""
    return PlainTextResponse(sentence + "\n", status)


def too_long(most: int) -> Response:
    """The refusal of a request with too many bytes."""
    return refused(413, f"at most {most / 1e6:.0f} MB can be sent")


def policy(nonce: str) -> str:
    """The content policy of a page: nothing but what this server sends."""
    return (
        "default-src 'none'; script-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        f"style-src 'self' 'nonce-{nonce}'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )


def _with_headers(send: Send, nonce: str) -> Send:
    fixed = {
        "content-security-policy": policy(nonce),
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "x-frame-options": "DENY",
    }
    lines = [(name.encode(), value.encode()) for name, value in fixed.items()]

    async def speak(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *lines]}
        await send(message)

    return speak


def _counted(receive: Receive, most: int) -> Receive:
    """A body that may go on longer than it said it would, but not longer than `most` bytes."""
    left = most

    async def heard() -> Message:
        nonlocal left
        message = await receive()
        if message["type"] == "http.request":
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, f"at most {most / 1e6:.0f} MB can be sent")
        return message

    return heard


def _cookie(request: Request) -> str:
    try:
        found = SimpleCookie(request.headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _equal(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), token.encode())
