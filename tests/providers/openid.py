"""An OpenID provider: discovery, authorization code with PKCE, client secret, signed id tokens, userinfo. oauthlib decides."""

import base64
import threading
from urllib.parse import unquote, urlencode

from oauthlib.openid import RequestValidator, Server

from tests.providers.serving import Provider, as_json, fields, now

CLIENT, SECRET = "tinytorch-hub", "a secret: with / and % in it"


class Rules(RequestValidator):
    """What the provider remembers of one client and its codes."""

    def __init__(self, provider):
        self.provider, self.codes, self.tokens = provider, {}, {}

    def validate_client_id(self, client_id, request, *args, **kwargs):
        return client_id == CLIENT

    def validate_redirect_uri(self, client_id, redirect_uri, request, *args, **kwargs):
        return redirect_uri == self.provider.redirect_uri

    def validate_response_type(self, client_id, response_type, client, request, *args, **kwargs):
        return response_type == "code"

    def validate_scopes(self, client_id, scopes, client, request, *args, **kwargs):
        return set(scopes) <= {"openid", "email", "profile"}

    def get_default_scopes(self, client_id, request, *args, **kwargs):
        return ["openid"]

    def is_pkce_required(self, client_id, request):
        return True

    def save_authorization_code(self, client_id, code, request, *args, **kwargs):
        self.codes[code["code"]] = {"redirect_uri": request.redirect_uri, "scopes": request.scopes, "nonce": request.nonce,
                                    "user": request.user, "challenge": request.code_challenge, "method": request.code_challenge_method}

    def client_authentication_required(self, request, *args, **kwargs):
        return True

    def authenticate_client(self, request, *args, **kwargs):
        given = (request.client_id, request.client_secret)
        if (header := request.headers.get("Authorization", "")).startswith("Basic "):
            given = tuple(map(unquote, base64.b64decode(header[6:]).decode().split(":", 1)))
        request.client = type("Client", (), {"client_id": CLIENT})
        request.client_id = CLIENT
        return given == (CLIENT, SECRET)

    def validate_grant_type(self, client_id, grant_type, client, request, *args, **kwargs):
        return grant_type == "authorization_code"

    def validate_code(self, client_id, code, client, request, *args, **kwargs):
        found = self.codes.get(code)
        if found:
            request.user, request.scopes = found["user"], found["scopes"]
            request.code_challenge, request.code_challenge_method = found["challenge"], found["method"]
        return found is not None

    def get_code_challenge(self, code, request):
        return self.codes[code]["challenge"]

    def get_code_challenge_method(self, code, request):
        return self.codes[code]["method"]

    def confirm_redirect_uri(self, client_id, code, redirect_uri, client, request, *args, **kwargs):
        return self.codes[code]["redirect_uri"] == redirect_uri

    def get_authorization_code_scopes(self, client_id, code, redirect_uri, request):
        return self.codes[code]["scopes"]

    def get_authorization_code_nonce(self, client_id, code, redirect_uri, request):
        return self.codes[code]["nonce"]

    def save_bearer_token(self, token, request, *args, **kwargs):
        self.tokens[token["access_token"]] = request.user

    def invalidate_authorization_code(self, client_id, code, request, *args, **kwargs):
        self.codes.pop(code, None)

    def validate_user_match(self, id_token_hint, scopes, claims, request):
        return True

    def finalize_id_token(self, id_token, token, token_handler, request):
        inside = {} if self.provider.userinfo_only else self.provider.claims(request.user)
        claims = {**id_token, "iss": self.provider.url, "sub": f"id-{request.user}", "exp": now() + 300, **inside}
        return self.provider.key.sign({**claims, **self.provider.lies}, **self.provider.header)

    def validate_bearer_token(self, token, scopes, request):
        request.user = self.tokens.get(token)
        return request.user is not None

    def get_userinfo_claims(self, request):
        return {"sub": self.provider.userinfo_of or f"id-{request.user}", **self.provider.claims(request.user)}


class OpenId(Provider):
    """`person` is who signs in there at the moment; `people` are their claims. `lies` change what is signed."""

    def __init__(self, redirect_uri: str, people: dict[str, dict]):
        self.redirect_uri, self.people, self.person = redirect_uri, people, next(iter(people))
        self.tell_truth()
        super().__init__()
        self.rules = Rules(self)
        self.server_side, self.lock = Server(self.rules), threading.Lock()

    def tell_truth(self) -> None:
        self.lies, self.header, self.issuer, self.userinfo_only, self.userinfo_of, self.refusal = {}, {}, None, False, "", ""
        self.seen = []

    def claims(self, user: str) -> dict:
        return self.people[user]

    def answer(self, method, path, query, headers, body):
        self.seen.append(f"{method} {path}")
        if path == "/.well-known/openid-configuration":
            return as_json({
                "issuer": self.issuer or self.url, "authorization_endpoint": f"{self.url}/authorize", "token_endpoint": f"{self.url}/token",
                "userinfo_endpoint": f"{self.url}/userinfo", "jwks_uri": f"{self.url}/keys", "response_types_supported": ["code"],
                "id_token_signing_alg_values_supported": ["RS256"], "subject_types_supported": ["public"]})
        if path == "/keys":
            return as_json({"keys": [self.key.public()]})
        url = f"{self.url}{path}?{query}"
        with self.lock:
            if path == "/authorize":
                asked = fields(query)
                if self.refusal:
                    back = {"error": "access_denied", "error_description": self.refusal, "state": asked["state"]}
                    return 302, {"Location": f"{self.redirect_uri}?{urlencode(back)}"}, ""
                scopes, credentials = self.server_side.validate_authorization_request(url.replace("http:", "https:"), method, body, headers)
                sent, text, status = self.server_side.create_authorization_response(
                    url.replace("http:", "https:"), method, body, headers, scopes, {**credentials, "user": self.person})
            elif path == "/token":
                sent, text, status = self.server_side.create_token_response(url.replace("http:", "https:"), method, body, headers)
            elif path == "/userinfo":
                sent, text, status = self.server_side.create_userinfo_response(url.replace("http:", "https:"), method, body, headers)
            else:
                return 404, {}, ""
        return status, sent, text or ""
