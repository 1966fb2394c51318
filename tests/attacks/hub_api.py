"""The one answer of the hub's API that the autograder asks for, on loopback: whose a token is and what it may do."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def server_token(name, class_id, *groups, scopes=("access:services!service=autograder",)):
    """The model of the token of one server, as JupyterHub 5.5 answers it (tests/integration/test_denials.py asks a real one)."""
    return {"kind": "user", "name": name, "admin": False, "groups": list(groups or [f"nbgrader-{class_id}"]), "scopes": [
        f"access:servers!server={name}/{class_id}", *scopes, f"read:users:activity!user={name}", f"read:users:groups!user={name}",
        f"read:users:name!user={name}", f"users:activity!user={name}"]}


class HubApi:
    """Serves `tokens` (token -> model); a token that is not in it is nobody's. `ill` answers 500 to everybody."""

    def __init__(self, tokens):
        api, self.tokens, self.asked, self.ill = self, tokens, 0, False

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                api.asked += 1
                model = api.tokens.get(self.headers.get("Authorization", "").removeprefix("token "))
                status = 500 if api.ill else 200 if model and self.path == "/hub/api/user" else 403
                body = json.dumps(model if status == 200 else {"status": status, "message": "no"}).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hub/api"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
