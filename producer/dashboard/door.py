"""Who may see the dashboard: its token, the cookie it is exchanged for, the hosts it answers as."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from mongosplit.errors import Refused, UsageError

LEAST_LETTERS = 16
LOOPBACK = ("localhost", "127.0.0.1", "::1")
VARIABLE = "MONGOSPLIT_DASHBOARD_TOKEN"


@dataclass(frozen=True)
class Door:
    """Where the dashboard listens, and the token that opens it."""

    host: str
    port: int
    token: str

    @property
    def url(self) -> str:
        """The address to open; its token is exchanged for a cookie at once."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/?token={quote(self.token, safe='')}"

    @property
    def cookie_name(self) -> str:
        """Cookies know no ports, and a second dashboard may stand beside this one."""
        return f"mongosplit_{self.port}"

    @property
    def cookie(self) -> str:
        """What the cookie holds: it proves the token, and does not give it away."""
        return hashlib.sha256(b"mongosplit dashboard\0" + self.token.encode()).hexdigest()

    def opens(self, token: str) -> bool:
        """Whether this is the token; how long the answer takes says nothing about it."""
        return hmac.compare_digest(token.encode(), self.token.encode())

    def remembers(self, cookie: str | None) -> bool:
        """Whether this is the cookie the token was exchanged for."""
        return hmac.compare_digest((cookie or "").encode(), self.cookie.encode())

    def answers_as(self, host: str) -> bool:
        """Whether a request that names this host is meant for us.

        Another site may have its name lead here (DNS rebinding), and a browser would then take it
        for the owner of the page. An address leads nowhere else, so where it listens on all
        addresses each of them is right. The port may be that of a tunnel.
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in (*LOOPBACK, self.host.lower()):
            return True
        everywhere = self.host in ("0.0.0.0", "::")
        return everywhere and _address(name) is not None


def door(host: str, port: int, token: str | None) -> Door:
    """The door of a dashboard; without a token it gets one of its own.

    Raises:
        UsageError: the token is too short, or the host is none. Refused: others could reach the
        page, and nobody has chosen its token.
    """
    host = host.strip("[]")
    if not host:
        raise UsageError("the host to listen on is empty", hint="give --host 127.0.0.1")
    if token is not None and len(token) < LEAST_LETTERS:
        raise UsageError(
            f"the token has fewer than {LEAST_LETTERS} letters",
            hint=f"set {VARIABLE} to a longer one, or to none: one is made then",
        )
    if token is None and not is_loopback(host):
        raise Refused(
            f"others could reach the dashboard at {host}, and no token was chosen for it",
            hint=f"set {VARIABLE}; or leave --host out and come by ssh -L {port}:localhost:{port}",
        )
    return Door(host, port, token or secrets.token_urlsafe(32))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    address = _address(host)
    return host.lower() == "localhost" or (address is not None and address.is_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
