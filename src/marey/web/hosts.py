"""A check of the Host header, so that a page of another site cannot reach the server through a name
of its own.

Without the check, any web page whose name is made to resolve to 127.0.0.1 (DNS rebinding) may talk
to a server that listens on this machine alone.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse

from marey.errors import UserError

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
"""Always allowed."""
EVERYWHERE = ("0.0.0.0", "::", "")
"""Addresses that listen on every interface."""
UNKNOWN_HOST = (
    "this server is not known by the name in the address; its operator can add one with "
    "--allowed-host"
)
ANY_ADDRESS = "any address"
"""Stands in a list of hosts for every IPv4 and IPv6 address."""


def hosts_of(address: str) -> list[str]:
    """Return the names and addresses that mean a server listening on `address`.

    On every interface these are this machine's own names, and "any address": a rebound request
    carries a name, so an address written out is as good as the right one.
    """
    if address not in EVERYWHERE:
        return [f"[{address}]" if ":" in address else address]
    name = socket.gethostname().lower()
    return [ANY_ADDRESS, name, f"{name.split('.')[0]}.local"]


def checked_hosts(hosts: Sequence[str]) -> list[str]:
    """Return the list as it is.

    Raises:
        UserError: if a host has a port, or a "*" anywhere but before a domain.
    """
    for host in hosts:
        bare = host.removeprefix("*.") if host != "*" else "all"
        if (
            not bare
            or "*" in bare
            or "/" in bare
            or (":" in bare and not bare.startswith("["))
            or "]:" in bare
        ):
            raise UserError(
                f"allowed host '{host}': expected a name or an address without scheme and port, "
                "such as 'lab.example.org', '*.example.org', '[::1]', or '*' for all"
            )
    return list(hosts)


class HostCheck:
    """Answer 400 to a request whose Host is not in the list.

    Args:
        app: the application behind it.
        allowed_hosts: names and addresses without port; "*.example.org" for a whole domain, "*" for
            no check, `ANY_ADDRESS` for every IP address.
    """

    def __init__(self, app: Any, allowed_hosts: Sequence[str]) -> None:
        self.app = app
        self.any_address = ANY_ADDRESS in allowed_hosts
        self.names = [host for host in allowed_hosts if host != ANY_ADDRESS]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on, or refuse it."""
        host = dict(scope.get("headers", ())).get(b"host", b"").decode("latin-1")
        if self.any_address and is_address(host):
            await self.app(scope, receive, send)
            return
        is_known = False

        async def passed(scope: Any, receive: Any, send: Any) -> None:
            nonlocal is_known
            is_known = True
            await self.app(scope, receive, send)

        async def say(message: Any) -> None:
            if is_known:
                await send(message)

        await TrustedHostMiddleware(passed, self.names, www_redirect=False)(scope, receive, say)
        if not is_known:
            await JSONResponse({"detail": UNKNOWN_HOST}, 400)(scope, receive, send)


def is_address(host: str) -> bool:
    """Return whether a Host header holds an IP address, with or without a port.

    >>> hosts = ("192.168.1.7:7860", "[fe80::1]:80", "10.0.0.1.example.org")
    >>> tuple(map(is_address, hosts))
    (True, True, False)
    """
    try:
        ipaddress.ip_address(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False
    return True
