"""What a provider signed about somebody: its keys, its issuer, for whom, since when, and that nobody shows it twice."""

import hmac
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import jwt

from hub.accounts.directory import Refused, capital

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]   # none that shares a secret
LEEWAY = 60                  # seconds that two clocks may differ
OLDEST = 600                 # seconds since it was signed: a sign-in takes less
KEYS_LAST = 3600             # seconds that keys are kept; an unknown one is looked up anew
KEYS_ANEW = 30               # seconds between two look-ups of unknown ones
MOST_USED = 10_000           # nonces remembered

Fetch = Callable[[str], Awaitable[bytes]]


class IdTokens:
    """Checks the tokens of one provider, for one client."""

    def __init__(self, name: str, issuer: str, client_id: str, fetch: Fetch) -> None:
        self.name, self.issuer, self.client_id, self.fetch = name, issuer, client_id, fetch
        self.keys: jwt.PyJWKSet | None = None
        self.looked_up = float("-inf")
        self.used: dict[str, float] = {}

    async def check(self, token: str, nonce: str, jwks_url: str) -> dict[str, Any]:
        """The claims of a token that is the provider's, ours, fresh, and the answer to this very request. Refused otherwise."""
        try:
            try:
                claims = await self.decode(token, jwks_url)
            except jwt.InvalidSignatureError:
                if time.monotonic() - self.looked_up < KEYS_ANEW:
                    raise
                self.keys = None                             # the provider may have a new key under the old name
                claims = await self.decode(token, jwks_url)
        except jwt.ExpiredSignatureError:
            raise self.too_late("the token has expired") from None
        except jwt.InvalidIssuerError:
            raise self.untrusted("the token is of another issuer") from None
        except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
            raise self.untrusted(f"the token does not hold ({type(error).__name__})") from None
        if claims["iat"] < time.time() - OLDEST - LEEWAY:
            raise self.too_late("the token is old")
        if isinstance(claims["aud"], list) and len(claims["aud"]) > 1 and claims.get("azp") != self.client_id:
            raise self.untrusted("the token was made for another site")
        if not hmac.compare_digest(str(claims["nonce"]).encode(), nonce.encode()):
            raise self.untrusted("the token answers another request")
        self.use(nonce)
        return claims

    async def decode(self, token: str, jwks_url: str) -> dict[str, Any]:
        key = await self.key(jwt.get_unverified_header(token), jwks_url)
        return jwt.decode(token, key, algorithms=ALGORITHMS, audience=self.client_id, issuer=self.issuer, leeway=LEEWAY,
                          options={"require": ["exp", "iat", "iss", "aud", "sub", "nonce"]})

    async def key(self, header: Mapping[str, Any], jwks_url: str) -> jwt.PyJWK:
        """The key that the token names; KeyError if the provider has none of that name."""
        now = time.monotonic()
        if self.keys is None or now - self.looked_up > KEYS_LAST:
            await self.look_up(jwks_url)
        wanted = header.get("kid")
        if wanted and wanted not in {key.key_id for key in self.keys or ()} and now - self.looked_up > KEYS_ANEW:
            await self.look_up(jwks_url)                     # the provider may have changed its keys
        keys = list(self.keys or ())
        if not wanted and len(keys) == 1:
            return keys[0]
        return {key.key_id: key for key in keys}[str(wanted)]

    async def look_up(self, jwks_url: str) -> None:
        self.keys, self.looked_up = jwt.PyJWKSet.from_dict(json.loads(await self.fetch(jwks_url))), time.monotonic()

    def use(self, nonce: str) -> None:
        """A nonce holds once, also for somebody who kept cookie and token."""
        now = time.monotonic()
        if len(self.used) > MOST_USED:
            self.used = {each: then for each, then in self.used.items() if now - then < OLDEST + 2 * LEEWAY}
        if self.used.setdefault(nonce, now) != now:
            raise self.untrusted("the token was used before")

    def untrusted(self, log: str) -> Refused:
        return Refused(f"What {self.name} said about you cannot be trusted: {log}. Try again; if it stays like this, "
                       "tell the site's admin.", log)

    def too_late(self, log: str) -> Refused:
        return Refused(f"{capital(self.name)} answered too late: {log}. Try again; if it stays like this, the clock of one of the "
                       "two machines is wrong.", log)
