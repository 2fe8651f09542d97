"""The dashboard's server: where it listens, and that it answers until it is told to end."""

from __future__ import annotations

import asyncio
import os
import socket
from threading import Event

from tornado.httpserver import HTTPServer

from mongosplit.errors import Failed
from producer.dashboard.pages import Dashboard, application

TOLD_SECONDS = 0.2
"""How often it is looked whether to end."""


def listen(host: str, port: int) -> socket.socket:
    """The socket to listen on; port 0 takes a free one.

    Raises:
        Failed: nothing can listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        found = socket.create_server((host, port), family=family)
    except OSError as error:
        # What Python says of a socket repeats the address.
        known = error.errno and not isinstance(error, socket.gaierror)
        said = os.strerror(error.errno or 0) if known else error.strerror or "no such host"
        raise Failed(
            f"the dashboard cannot be served at {host}:{port}: {said.lower()}",
            hint="give another --port or --host",
        ) from error
    found.setblocking(False)
    return found


def serve(dashboard: Dashboard, listening: socket.socket, told: Event) -> None:
    """Answer until told to end."""
    asyncio.run(_serve(dashboard, listening, told))


async def _serve(dashboard: Dashboard, listening: socket.socket, told: Event) -> None:
    pages = application(dashboard)
    server = HTTPServer(pages)
    server.add_socket(listening)
    while not told.is_set():
        await asyncio.sleep(TOLD_SECONDS)
    server.stop()
    await pages.settings["watches"].end()
    await server.close_all_connections()
