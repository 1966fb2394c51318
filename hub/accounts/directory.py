"""From what a provider says about somebody to the person of this site, or to the reason why there is none. Default deny."""

from collections.abc import Mapping
from typing import Any

from hub.config.people import Person
from hub.config.switches import Lti13, Oidc

LTI = "https://purl.imsglobal.org/spec/lti/claim/"
STANDARD = {("oidc", "email"): "email", ("oidc", "username"): "preferred_username",
            ("lti13", "email"): "email", ("lti13", "username"): "ext.user_username"}


class Refused(Exception):
    """Somebody is not signed in: what they read, and what the log says, in which there are no addresses and no tokens."""

    def __init__(self, said: str, log: str, status: int = 403) -> None:
        super().__init__(said)
        self.said, self.log, self.status = said, log, status


class Directory:
    """Finds people by one claim of a provider."""

    def __init__(self, people: Mapping[str, Person], provider: Oidc | Lti13) -> None:
        self.provider, self.kind = provider, "oidc" if isinstance(provider, Oidc) else "lti13"
        self.claim = provider.claim or STANDARD[self.kind, provider.match]
        self.by_email = provider.match == "email"
        self.names = {person.email.casefold() if self.by_email else name: name for name, person in people.items()}
        self.names.pop("", None)

    def says(self, claims: Mapping[str, Any]) -> str:
        """The value of the claim; `custom.login` means `login` inside LTI's claim `custom`. Empty if it is not there."""
        outer, dot, inner = self.claim.partition(".")
        found = claims.get(self.claim)
        if found is None and dot:
            around = claims.get(LTI + outer, claims.get(outer))
            found = around.get(inner) if isinstance(around, Mapping) else None
        return str(found).strip() if isinstance(found, (str, int)) and not isinstance(found, bool) else ""

    def name(self, claims: Mapping[str, Any]) -> str:
        """The user name of whom the claims are about. Refused if that is nobody of this site."""
        said, who = self.says(claims), self.provider.name
        if not said:
            raise Refused(f"{capital(who)} did not say your {self.claim}, by which this site knows people. "
                          "The site's admin can ask it to do so.", f"the claim {self.claim} is not there")
        if isinstance(self.provider, Oidc) and self.by_email:
            verified = claims.get("email_verified")
            verified = {"true": True, "false": False}.get(verified, verified) if isinstance(verified, str) else verified
            if verified is False or (verified is not True and self.provider.email_verified == "required"):
                raise Refused(f"{capital(who)} has not checked that {said} is your e-mail address. Confirm it there, then try again.",
                              "the address is not verified")
        name = self.names.get(said.casefold() if self.by_email else said.lower())
        if name is None:
            what = "e-mail address" if self.by_email else "user name"
            raise Refused(f"{capital(who)} says that you are {said}, and nobody with that {what} is in a class of this site. "
                          "Ask your instructor to put you on the roster.", "nobody of this site")
        return name


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


async def enter(handler: Any) -> None:
    """The end of each way in: whom the handler's `check` lets in lands where they wanted to, whom it refuses hears why."""
    try:
        handler.claims = await handler.check()
        user = await handler.login_user()
        if user is None:
            raise Refused("You may not use this site.", "not allowed")
    except Refused as reason:
        await refuse(handler, reason)
        return
    handler.redirect(handler.get_next_url(user))


async def refuse(handler: Any, reason: Refused) -> None:
    """The page that says why somebody is not signed in."""
    handler.log.warning("sign-in refused: %s", reason.log)
    handler.set_status(reason.status)
    handler.set_header("Cache-Control", "no-store")
    handler.finish(await handler.render_template("refused.html", reason=reason.said, again=handler.settings["login_url"]))
