"""Start the real exchange on a free loopback port, with names for tokens: run in the environment `exchange` by a test.

A token `alice` is the person, `alice@ml101` the token of her server in that class. Prints the port, then serves.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

for name in ("API_URL", "API_TOKEN", "CLIENT_ID", "SERVICE_PREFIX"):
    os.environ.setdefault(f"JUPYTERHUB_{name}", "/services/ngshare/")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "hub" / "exchange"))
import serve  # noqa: E402


def identify(token):
    if token.startswith("unknown"):
        return None
    name, _, class_ = token.partition("@")
    scopes = [f"access:servers!server={name}/{class_}"] if class_ else []
    owner = {"name": name, "scopes": scopes}
    return {**owner, "classes": serve.classes_of(owner)}


async def main(folder, document):
    app = serve.Exchange("/services/ngshare/", Path(folder), identify)
    app.follow(json.loads(document))
    sockets = serve.bind_sockets(0, "127.0.0.1")
    serve.HTTPServer(app, max_body_size=serve.MAX_BODY, max_buffer_size=serve.MAX_BODY).add_sockets(sockets)
    print(sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
