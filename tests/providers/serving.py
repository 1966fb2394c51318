"""A provider as a thread that answers on loopback, and the key with which it signs."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa


class Key:
    """An RSA key with a name, as it stands in a provider's key set."""

    def __init__(self, kid: str):
        self.kid, self.private = kid, rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def public(self) -> dict:
        return {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.private.public_key())), "kid": self.kid, "use": "sig", "alg": "RS256"}

    def sign(self, claims: dict, **header) -> str:
        named = {key: value for key, value in {"kid": self.kid, **header}.items() if value is not None}
        return jwt.encode(claims, self.private, algorithm="RS256", headers=named)


class Provider:
    """Answers requests by `answer(method, path, query, headers, body) -> (status, headers, body)`; `close()` ends it."""

    def __init__(self, port: int = 0):
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                status, headers, text = provider.answer(self.command, parts.path, parts.query, dict(self.headers), body)
                data = text.encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET

            def log_message(self, *words):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.key = Key("first")
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def answer(self, method: str, path: str, query: str, headers: dict, body: str) -> tuple[int, dict, str]:
        raise NotImplementedError

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def as_json(document: object, status: int = 200) -> tuple[int, dict, str]:
    return status, {"Content-Type": "application/json"}, json.dumps(document)


def fields(text: str) -> dict[str, str]:
    return dict(parse_qsl(text, keep_blank_values=True))


def now() -> int:
    return int(time.time())
