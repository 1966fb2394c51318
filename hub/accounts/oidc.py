"""Sign-in with OpenID Connect: the provider's addresses by discovery, code with PKCE, a signed and fresh answer, and the roster.

Builds on oauthenticator's cookies, redirects and token request; what the provider says is checked here, signature included.
"""

import base64
import hashlib
import json
import secrets as random_source
import time
from typing import Any
from urllib.parse import urlsplit

from oauthenticator.generic import GenericOAuthenticator
from oauthenticator.oauth2 import OAuthCallbackHandler, OAuthLoginHandler, _deserialize_state, _serialize_state
from tornado import web
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest

from hub.accounts.directory import Directory, Refused, capital, enter, refuse
from hub.accounts.id_tokens import IdTokens
from hub.config import rules
from hub.config.problems import Wrong

DISCOVERED = 3600            # seconds that the provider's addresses are kept
TIMEOUT = 10                 # seconds for each answer of the provider


class Start(OAuthLoginHandler):
    """Sends people to the provider, with a request that only this browser can answer."""

    async def get(self) -> None:
        try:
            await self.authenticator.discover()
        except Refused as reason:
            await refuse(self, reason)
            return
        request = {"state_id": random_source.token_urlsafe(32), "code_verifier": random_source.token_urlsafe(48),
                   "nonce": random_source.token_urlsafe(32), "next_url": self._get_next_url()}
        self.set_state_cookie(_serialize_state(request))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(request["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        self.authorize_redirect(
            redirect_uri=self.authenticator.oauth_callback_url, client_id=self.authenticator.client_id, scope=self.authenticator.scope,
            response_type="code", extra_params={"state": _serialize_state({"state_id": request["state_id"]}), "nonce": request["nonce"],
                                                "code_challenge": challenge, "code_challenge_method": "S256"})


class Callback(OAuthCallbackHandler):
    """Takes the provider's answer. Only what this finds out signs somebody in."""

    async def get(self) -> None:
        await enter(self)

    async def check(self) -> Any:
        if error := self.get_argument("error", ""):
            raise Refused(f"{capital(self.authenticator.provider.name)} did not sign you in: "
                          f"{self.get_argument('error_description', error)[:200]}", "the provider said no")
        try:
            self.check_arguments()
        except web.HTTPError:
            raise Refused("This is not the answer to a sign-in that was begun in this browser a moment ago. Try again.",
                          "the state does not fit") from None
        request = _deserialize_state(self.get_state_cookie())
        return await self.authenticator.ask(self, str(request.get("nonce", "")))


class OidcSignIn(GenericOAuthenticator):
    """People of the site, by what the provider says of them."""

    people: Any = None                   # user name -> Person, and the section of classes.yml; set by `hub.accounts.signin.for_site`
    provider: Any = None
    login_handler, callback_handler = Start, Callback

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.directory = Directory(self.people, self.provider)
        self.tokens = IdTokens(self.provider.name, self.provider.issuer, self.client_id, self.read)
        self.discovered = float("-inf")
        self.document: dict[str, Any] = {}

    async def read(self, url: str, **headers: str) -> bytes:
        """Refused if the provider does not answer."""
        try:
            return (await AsyncHTTPClient().fetch(HTTPRequest(url, headers=headers, request_timeout=TIMEOUT, connect_timeout=TIMEOUT,
                                                              follow_redirects=False))).body
        except (HTTPClientError, OSError) as error:
            self.log.error("%s: %s", url, error)
            raise self.silent() from None

    def silent(self) -> Refused:
        return Refused(f"{capital(self.provider.name)} does not answer, so nobody can be signed in. Try again in a minute.",
                       "the provider does not answer", 503)

    async def discover(self) -> None:
        """Find the provider's addresses. Refused if it does not answer, or names another issuer or an address without TLS."""
        if time.monotonic() - self.discovered < DISCOVERED:
            return
        body = await self.read(f"{self.provider.issuer.rstrip('/')}/.well-known/openid-configuration")
        try:
            document = json.loads(body)
            if document["issuer"] != self.provider.issuer:
                raise Refused(f"The sign-in service names itself {document['issuer']}, and this site trusts {self.provider.issuer} only. "
                              "Tell the site's admin.", "discovery names another issuer")
            for key in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
                rules.endpoint(document[key])
            if "userinfo_endpoint" in document:
                rules.endpoint(document["userinfo_endpoint"])
        except (ValueError, KeyError, TypeError, Wrong) as error:
            self.log.error("the configuration of %s cannot be used: %s", self.provider.issuer, error)
            raise self.silent() from None
        self.authorize_url, self.token_url = document["authorization_endpoint"], document["token_endpoint"]
        # RFC 6749 wants every provider to take the secret by HTTP basic; some say that they take it in the body only
        self.basic_auth = "client_secret_basic" in document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        self.document, self.discovered = document, time.monotonic()

    async def ask(self, handler: Callback, nonce: str) -> dict[str, Any]:
        """What the provider says about the person: the signed token, and where that lacks the claim, its userinfo."""
        await self.discover()
        try:
            answer = await self.get_token_info(handler, self.build_access_tokens_request_params(handler))
            token, access = answer["id_token"], answer["access_token"]
        except (web.HTTPError, HTTPClientError, OSError, KeyError, TypeError, ValueError) as error:
            self.log.error("%s: %s", urlsplit(self.token_url).hostname, type(error).__name__)
            raise Refused(f"{capital(self.provider.name)} did not confirm this sign-in. Try again; if it stays like this, tell the "
                          "site's admin.", "no token for the code") from None
        claims = await self.tokens.check(token, nonce, self.document["jwks_uri"])
        if not self.directory.says(claims) and "userinfo_endpoint" in self.document:
            try:
                more = json.loads(await self.read(self.document["userinfo_endpoint"], Authorization=f"Bearer {access}"))
            except ValueError:
                raise self.silent() from None
            if not isinstance(more, dict) or more.get("sub") != claims["sub"]:     # OpenID Connect Core 5.3.2
                raise self.tokens.untrusted("it speaks of somebody else")
            claims = {**more, **claims}
        return claims

    async def authenticate(self, handler: Any, data: Any = None, **kwargs: Any) -> str | None:
        """Of everything that may sign somebody in, only the checked answer does: a form posted to /login does not."""
        return self.directory.name(handler.claims) if isinstance(handler, Callback) else None

    async def refresh_user(self, user: Any, handler: Any = None, **kwargs: Any) -> bool:
        """Sessions and tokens of somebody who left end with the hub's next start."""
        return user.name in self.people or user.name == rules.CHECK
