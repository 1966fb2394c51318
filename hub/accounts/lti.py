"""Sign-in by a link in a learning platform: LTI 1.3, a launch that is signed, fresh, the platform's, and of somebody on a roster.

Builds on ltiauthenticator's handlers and on its check of a launch's claims. It takes a launch of whomever the platform signs for;
here only the people of classes.yml enter, and only by a launch.
"""

from typing import Any

from ltiauthenticator.lti13.auth import LTI13Authenticator
from ltiauthenticator.lti13.error import ValidationError
from ltiauthenticator.lti13.handlers import LTI13CallbackHandler, LTI13ConfigHandler, LTI13LoginInitHandler, get_nonce
from ltiauthenticator.lti13.validator import LTI13LaunchValidator
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.web import HTTPError

from hub.accounts.directory import LTI, Directory, Refused, capital, enter, refuse
from hub.accounts.id_tokens import IdTokens
from hub.config import rules

TIMEOUT = 10                 # seconds for the platform's keys


class Start(LTI13LoginInitHandler):
    """The platform announces a launch; it is asked to sign it."""

    async def post(self) -> None:
        provider = self.authenticator.provider
        try:
            if self.get_argument("iss", "") != provider.issuer:
                raise Refused(f"This link is of a platform that this site does not know; it takes people from {provider.issuer} only.",
                              "a launch of another platform")
            if self.get_argument("client_id", provider.client_id) != provider.client_id:
                raise Refused("This link was made for another site: tell your instructor.", "a launch for another client")
            super().post()
        except HTTPError:
            await refuse(self, Refused("This link lacks something that every launch has: tell your instructor.", "an incomplete launch"))
        except Refused as reason:
            await refuse(self, reason)

    get = post

    def authorize_redirect(self, *args: Any, **kwargs: Any) -> None:
        super().authorize_redirect(*args, **{**kwargs, "client_id": self.authenticator.provider.client_id})

    def get_redirect_uri(self) -> str:
        return f"{self.authenticator.site_url}/hub/lti13/oauth_callback"

    def _set_oauth_cookie(self, key: str, value: str) -> None:
        """The platform posts the answer, and browsers send no other cookies with what another site posts."""
        secure = self.authenticator.site_url.startswith("https:")
        self._set_cookie(key, value, expires_days=1 / 48, encrypted=True, httponly=True,
                         **({"samesite": "None", "secure": True} if secure else {}))


class Launch(LTI13CallbackHandler):
    """The signed launch. Only what is found out here signs somebody in."""

    async def get(self) -> None:
        await refuse(self, Refused("Open this site by its link in your course.", "a launch that is not posted"))

    async def post(self) -> None:
        await enter(self)

    async def check(self) -> dict[str, Any]:
        try:
            self.check_state()
        except HTTPError:
            raise Refused("This launch was not begun in this browser a moment ago. Open the link in your course again; your browser "
                          "must allow cookies.", "the state does not fit") from None
        nonce = get_nonce(self._get_nonce_state_cookie())
        claims = await self.authenticator.tokens.check(self.get_argument("id_token", ""), nonce, self.authenticator.provider.jwks_url)
        try:
            LTI13LaunchValidator(parent=self.app).validate_id_token(claims)
        except (ValidationError, AttributeError) as error:
            raise Refused("This launch lacks something that every launch has: tell your instructor.",
                          f"an incomplete launch ({error})") from None
        known = self.authenticator.provider.deployment_ids
        if known and claims[f"{LTI}deployment_id"] not in known:
            raise Refused("This link is of a course that this site does not serve: tell your instructor.", "a launch of another deployment")
        return claims


class Config(LTI13ConfigHandler):
    """What a platform reads to install this site; it names no person and no secret."""


class LtiSignIn(LTI13Authenticator):
    """People of the site, by what the platform says of them."""

    people: Any = None                   # user name -> Person, the section of classes.yml, site.url; set by `hub.accounts.signin.for_site`
    provider: Any = None
    site_url = ""
    login_handler, callback_handler, config_handler = Start, Launch, Config

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.authorize_url = self.provider.authorize_url
        self.directory = Directory(self.people, self.provider)
        self.tokens = IdTokens(self.provider.name, self.provider.issuer, self.provider.client_id, self.read)

    async def read(self, url: str) -> bytes:
        try:
            return (await AsyncHTTPClient().fetch(HTTPRequest(url, request_timeout=TIMEOUT, connect_timeout=TIMEOUT))).body
        except (HTTPClientError, OSError) as error:
            self.log.error("%s: %s", url, error)
            raise Refused(f"{capital(self.provider.name)} does not answer, so nobody can be signed in. Try again in a minute.",
                          "the platform does not answer", 503) from None

    async def authenticate(self, handler: Any, data: Any = None) -> str | None:
        """Only a checked launch signs somebody in. ltiauthenticator takes `data`, which a form posted to /login brings as well."""
        return self.directory.name(handler.claims) if isinstance(handler, Launch) else None

    async def refresh_user(self, user: Any, handler: Any = None) -> bool:
        """Sessions and tokens of somebody who left end with the hub's next start."""
        return user.name in self.people or user.name == rules.CHECK
