"""A student's server without a whole site: the real spawner, a stand-in for the hub's user, and a small hub API on loopback.

The API answers what a single-user server asks at its start, so that the server is the real one in all its parts.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

from jupyterhub import __version__
from jupyterhub.objects import Server

from hub.config.site import Site
from hub.spawning import spawner

TOKEN = "0123456789abcdef" * 2


class HubApi(BaseHTTPRequestHandler):
    """Version, activity, and whose TOKEN is: that of whichever server asks."""

    user, class_id = "alice", "ml101"

    def do_GET(self) -> None:
        model: dict[str, object] = {"version": __version__}
        if self.path.startswith("/hub/api/user"):
            if self.headers.get("Authorization") != f"token {TOKEN}":
                self.send_error(403)
                return
            model = {"kind": "user", "name": self.user, "admin": False, "groups": [], "session_id": None,
                     "scopes": [f"access:servers!server={self.user}/{self.class_id}"]}
        self.answer(model)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer({})

    def answer(self, model: dict[str, object]) -> None:
        body = json.dumps(model).encode()
        self.send_response(200)
        self.send_header("X-JupyterHub-Version", __version__)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def hub_api() -> Iterator[str]:
    """Serve it for a while; yields its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubApi)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hub/api"
    finally:
        server.shutdown()
        server.server_close()


def make(api_url: str = "http://127.0.0.1:9/hub/api", *, user: str = "alice", class_id: str = "ml101", isolated: bool = True,
         site: Site | None = None) -> spawner.ClassServer:
    """The spawner of one person and class of the example site, as the hub would make it."""
    base_url = f"/user/{user}/{class_id}/"
    kind = spawner.for_site(site or Site.load(Site.example_path), public_port=9, isolated=isolated)
    kind = type("ClassServer", (kind,), {"server": SimpleNamespace(base_url=base_url)})      # the hub keeps it in its database
    server = kind(
        user=SimpleNamespace(name=user, escaped_name=user, url=f"/user/{user}/"),
        hub=SimpleNamespace(api_url=api_url, base_url="/hub/", public_host="", server=Server(base_url="/hub/")),
        orm_spawner=SimpleNamespace(name=class_id, server=None), oauth_client_id=f"jupyterhub-user-{user}-{class_id}",
        public_url="", public_hub_url="")
    server.api_token = TOKEN
    server.oauth_client_allowed_scopes = []
    server.ip = "127.0.0.1"
    server.default_url = "/lab"
    server.start_timeout = 180
    return server
