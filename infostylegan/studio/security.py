"""Who may ask the studio for anything, and what every answer says to the browser.

The studio trusts whoever knows its token, and nobody else on the machine or in the browser:

- a page of another site that has got its name to resolve to this machine (DNS rebinding) is told apart by
  the Host header;
- a page of another site that sends requests here (CSRF) is told apart by Sec-Fetch-Site and Origin, and
  cannot add the header that every request which changes something must carry;
- another user of the machine does not know the token.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Everything comes from the studio itself. Pictures are also shown from memory (blob:), and no text ever
# becomes markup (trusted types).
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# A browser adds such a header for another site only after asking (CORS), and the studio never consents.
GUARD_HEADER = "X-Studio"
SAFE_METHODS = ("GET", "HEAD")
LOOPBACK_NAMES = frozenset(("localhost", "127.0.0.1", "::1"))


@dataclass(frozen=True)
class Access:
    """The secrets and names of one running studio.

    `token` stands in the start URL; whoever brings it gets `session` as a cookie. `hosts` are the names by
    which the studio may be called; None stands for any IP address, which DNS rebinding cannot forge.
    """

    cookie: str
    hosts: frozenset[str | None] = LOOPBACK_NAMES
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    session: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    def knows_host(self, host: str | None) -> bool:
        """Whether a Host header names this studio. Its port is no matter: a tunnel may change it."""
        name = host_name(host or "")
        return name is not None and (name in self.hosts or (None in self.hosts and is_address(name)))

    def knows_token(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self.token.encode())

    def knows_cookie(self, header: str) -> bool:
        # By hand: http.cookies gives up at the first cookie that it does not like, and other programs on
        # this machine set cookies for the same host.
        pairs = (part.strip().partition("=") for part in header.split(";"))
        session = self.session.encode()
        return any(
            hmac.compare_digest(value.encode(), session) for name, _, value in pairs if name == self.cookie
        )


def host_name(header: str) -> str | None:
    """The name or address in a Host header, in lower case, without port and brackets; or None."""
    header = header.strip().lower()
    if header.startswith("["):
        name, bracket, port = header[1:].partition("]")
        port = port[1:] if port.startswith(":") else port and "?"
        if not bracket or not is_address(name):
            return None
    else:
        name, _, port = header.partition(":")
    if not name or (port and not (port.isascii() and port.isdigit())):
        return None
    return name


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def allowed_hosts(host: str, more: Iterable[str] = ()) -> frozenset[str | None]:
    """The names by which a studio bound to `host` may be called."""
    names: set[str | None] = {*LOOPBACK_NAMES, host.lower(), *(name.lower() for name in more)}
    if is_address(host) and ipaddress.ip_address(host).is_unspecified:
        names |= {None, socket.gethostname().lower()}
    return frozenset(names)


class Gate:
    """Middleware: lets through what comes from the studio's own page, and dresses every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no web sockets here

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self.app)(scope, receive, dressed)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if len(headers.getlist("host")) != 1 or not self.access.knows_host(headers.get("host")):
            return refuse(421, "this is not the studio's address; use the one that it printed")
        if not self._same_site(headers, scope["method"]):
            return refuse(403, "a request from another site")
        if scope["path"] == "/" and scope["method"] in SAFE_METHODS:
            given = QueryParams(scope["query_string"]).get("token")
            if given is not None and self.access.knows_token(given):
                # The address bar, the history and a copied link are then free of the token.
                answer = RedirectResponse("/", status_code=303)
                answer.set_cookie(
                    self.access.cookie, self.access.session, httponly=True, samesite="lax", path="/"
                )
                return answer
        if not self.access.knows_cookie(headers.get("cookie", "")):
            return refuse(401, "open the studio by the address that it printed when it started")
        return None

    def _same_site(self, headers: Headers, method: str) -> bool:
        if method in SAFE_METHODS:
            return True
        origin = headers.get("origin")
        if headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return False
        if origin is not None and origin.partition("://")[2] != headers.get("host"):
            return False
        return GUARD_HEADER in headers


def refuse(status: int, message: str) -> JSONResponse:
    """An answer that says no, in one line."""
    return JSONResponse({"error": message}, status_code=status)
