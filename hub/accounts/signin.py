"""Sign-in: everybody in classes.yml has an account or may make one by an invitation, and nobody else has one.

The hub's database holds bcrypt hashes. On a laptop first passwords are generated and lie in clear in one file of mode 0600 for
whoever hands them out; a password that its owner has changed is no longer there. On a served site there is no such file: people
choose their first password behind a link (hub/accounts/invitations.py). Providers of accounts: oidc.py and lti.py beside this file.
"""

import asyncio
import csv
import io
import os
import secrets as random_source
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bcrypt
from jupyterhub.handlers import BaseHandler
from jupyterhub.handlers.login import LoginHandler
from nativeauthenticator.handlers import ChangePasswordAdminHandler
from nativeauthenticator.nativeauthenticator import NativeAuthenticator
from nativeauthenticator.orm import UserInfo
from tornado import web
from traitlets import Unicode

from hub.accounts import invitations
from hub.config.people import Person
from hub.config.rules import CHECK
from hub.config.site import Site
from hub.secrets import OIDC_CLIENT_SECRET, Secrets

ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"     # without what looks alike in print: 0 o 1 l i
GROUPS, GROUP = 3, 5                             # 15 characters of 31: 74 bits
GENERATED_ROUNDS = 6                             # 74 bits need no slow hash, and a roster of hundreds would wait for it
ATTEMPTS_KEPT = 10_000                           # names whose failed attempts are remembered
ANSWER_SECONDS = 0.6                             # every attempt takes that long, so that time tells nothing about a name
MOST_BYTES = 72                                  # all that bcrypt looks at; newer versions refuse more
COLUMNS = ["username", "password", "role", "classes"]


def new_password() -> str:
    """Such as h4kwm-9tzcp-2peqx."""
    return "-".join("".join(random_source.choice(ALPHABET) for _ in range(GROUP)) for _ in range(GROUPS))


def role(person: Person) -> str:
    return "admin" if person.admin else "staff" if person.staff_of else "student"


class SignIns:
    """The file of first passwords. An empty password means: changed by its owner."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def read(self) -> dict[str, str]:
        """User names and first passwords."""
        if not self.file.exists():
            return {}
        with self.file.open(encoding="utf-8", newline="") as stream:
            return {row["username"]: row["password"] or "" for row in csv.DictReader(stream)}

    def write(self, passwords: Mapping[str, str], people: Mapping[str, Person]) -> None:
        """Replace the file by a whole new one; people who left are not in it."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(COLUMNS)
        for name in sorted(people, key=lambda name: (["admin", "staff", "student"].index(role(people[name])), name)):
            person = people[name]
            rows.writerow([name, passwords.get(name, ""), role(person), " ".join([*person.staff_of, *person.student_of])])
        fresh = self.file.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text.getvalue())
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(self.file)


class ClassSignIn(NativeAuthenticator):
    """Accounts for exactly the people of the site."""

    people: Any = None                           # user name -> Person; set by `accounts` in the hub's configuration
    invites = False                              # whether people choose their first password behind a link
    signins_file = Unicode(help="Where first passwords are written.").tag(config=True)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.enable_signup = self.open_signup = False
        self.signins = SignIns(Path(self.signins_file))
        self.make_accounts()

    def make_accounts(self) -> None:
        """Give an account to whoever has none, and take it from whoever is no longer in classes.yml."""
        passwords = self.signins.read()
        if self.invites:
            self.end_generated(passwords)
            invitations.forget(self.db.connection(), self.people)
        else:
            self.generate(passwords)
        for info in UserInfo.all_users(self.db):
            if info.username not in self.people:
                self.db.delete(info)
        self.db.commit()

    def end_generated(self, passwords: Mapping[str, str]) -> None:
        """A demonstration's passwords, in clear in a file, do not hold on a served site; what people chose themselves does."""
        for info in UserInfo.all_users(self.db):
            if passwords.get(info.username):
                self.log.warning("the generated password of %s holds no more: make invites", info.username)
                self.db.delete(info)
        self.db.commit()
        self.signins.file.unlink(missing_ok=True)

    def generate(self, passwords: dict[str, str]) -> None:
        known = {info.username for info in UserInfo.all_users(self.db)}
        fresh = self.people.keys() - known
        for name in fresh:                       # a start that was cut off has left its passwords: they are used
            passwords[name] = passwords.get(name) or new_password()
        self.signins.write(passwords, self.people)
        for name in fresh:
            hashed = bcrypt.hashpw(passwords[name].encode(), bcrypt.gensalt(GENERATED_ROUNDS))
            self.db.add(UserInfo(username=name, password=hashed, is_authorized=True))

    async def authenticate(self, handler: BaseHandler, data: dict[str, str]) -> str | None:
        """The user name, if the password is right and the name is not locked. Tells nobody which names exist."""
        name, password = self.normalize_username(data.get("username", "")), data.get("password", "").encode()
        account = self.get_user(name) if name in self.people or name == CHECK else None
        right, _ = await asyncio.gather(fits(account, password), asyncio.sleep(ANSWER_SECONDS))
        if not right or self.is_blocked(name):
            self.add_login_attempt(name)
            return None
        self.successful_login(name)
        return name

    async def refresh_user(self, user: Any, handler: BaseHandler | None = None) -> bool:
        """Sessions and tokens of somebody who left end with the hub's next start."""
        return user.name in self.people or user.name == CHECK

    def add_login_attempt(self, username: str) -> None:
        if len(self.login_attempts) > ATTEMPTS_KEPT:
            self.login_attempts.clear()
        count = 0 if self.can_try_to_login_again(username) else self.login_attempts[username]["count"]
        if count < self.allowed_failed_logins:   # further attempts do not prolong the lock
            self.login_attempts[username] = {"count": count + 1, "time": time.monotonic()}

    def can_try_to_login_again(self, username: str) -> bool:
        attempts = self.login_attempts.get(username)
        return not attempts or time.monotonic() - attempts["time"] > self.seconds_before_next_try

    def change_password(self, username: str, new_password: str) -> bool:
        """Set a password; True when it was strong enough. Its first one disappears from the file."""
        if len(new_password.encode()) > MOST_BYTES or not super().change_password(username, new_password):
            return False
        if not self.invites:
            self.signins.write({**self.signins.read(), username: ""}, self.people)
        return True

    def fits_the_rules(self, password: str) -> bool:
        return len(password.encode()) <= MOST_BYTES and self.is_password_strong(password)

    async def accept(self, name: str, code: str, password: str) -> None:
        """Use an invitation up and set the password. invitations.Invalid, with the reason, if it does not hold."""
        hashed = await asyncio.to_thread(bcrypt.hashpw, password.encode(), bcrypt.gensalt())
        try:
            invitations.redeem(self.db.connection(), name if name in self.people else "", code)
            account = self.get_user(name)
            if account is None:
                self.db.add(UserInfo(username=name, password=hashed, is_authorized=True))
            else:
                account.password = hashed
        except BaseException:
            self.db.rollback()
            raise
        self.db.commit()
        self.login_attempts.pop(name, None)      # who forgot the password has tried too often before

    def get_handlers(self, app: Any) -> list[tuple[str, type]]:
        """Sign-in and change of password. What native offers besides changes accounts by a link, or is closed here."""
        invited = [("/invitation", AcceptInvitation)] if self.invites else []
        return [("/login", LoginHandler), ("/change-password", ChangePassword),
                ("/change-password/([^/]+)", ChangePasswordAdminHandler), *invited]


async def fits(account: UserInfo | None, password: bytes) -> bool:
    """Whether that is the account's password; hashing runs beside the hub's other requests."""
    if account is None or len(password) > MOST_BYTES:
        return False
    return await asyncio.to_thread(bcrypt.checkpw, password, account.password)


class ChangePassword(BaseHandler):
    """The page on which people change their own password."""

    @web.authenticated
    async def get(self) -> None:
        await self.show()

    @web.authenticated
    async def post(self) -> None:
        old, new, again = (self.get_body_argument(name, "", strip=False) for name in ("old", "new", "again"))
        shortest = self.authenticator.minimum_password_length
        name = self.current_user.name
        if self.authenticator.is_blocked(name) or not await fits(self.authenticator.get_user(name), old.encode()):
            self.authenticator.add_login_attempt(name)
            await self.show("Your current password is not right. Nothing was changed.")
        elif new != again:
            await self.show("The two new passwords differ. Nothing was changed.")
        elif not self.authenticator.change_password(name, new):
            await self.show(f"{unfit(shortest)} Nothing was changed.")
        else:
            await self.show(changed=True)

    async def show(self, problem: str = "", changed: bool = False) -> None:
        if problem:
            self.set_status(400)
        self.finish(await self.render_template("change-password.html", problem=problem, changed=changed))


class AcceptInvitation(BaseHandler):
    """The page behind an invitation's link. Looking at it changes nothing: mail programs open links to look at them."""

    async def get(self) -> None:
        await self.show()

    async def post(self) -> None:
        name, code, new, again = (self.get_body_argument(key, "", strip=False) for key in ("username", "code", "new", "again"))
        if new != again:
            await self.show("The two passwords differ. Nothing was set, and your link still holds.", name, code)
        elif not self.authenticator.fits_the_rules(new):
            await self.show(f"{unfit(self.authenticator.minimum_password_length)} Nothing was set, and your link still holds.", name, code)
        else:
            try:
                await self.authenticator.accept(name, code, new)
            except invitations.Invalid as reason:
                await self.show(str(reason), name)
                return
            user = await self.login_user({"username": name, "password": new})
            if user is None:                     # cannot be, unless somebody took the person out this very moment
                raise web.HTTPError(403)
            self._jupyterhub_user = user
            self.redirect(self.get_next_url(user))

    async def show(self, problem: str = "", name: str = "", code: str = "") -> None:
        self.set_header("Cache-Control", "no-store")
        if problem:
            self.set_status(400)
        self.finish(await self.render_template("invitation.html", problem=problem, invited=name, code=code,
                                               shortest=self.authenticator.minimum_password_length))


def unfit(shortest: int) -> str:
    return f"The new password must have {shortest} to {MOST_BYTES} characters and must not be a common one."


class NoPasswords(LoginHandler):
    """The sign-in page where a provider vouches for people: a way there, and nothing to be posted."""

    async def post(self) -> None:
        self.redirect(self.settings["login_url"])


def accounts(people: Mapping[str, Person], invites: bool = False) -> type[ClassSignIn]:
    """The authenticator for these people."""
    return type("ClassSignIn", (ClassSignIn,), {"people": people, "invites": invites})


def for_site(site: Site, people: Mapping[str, Person]) -> type[Any]:
    """The authenticator that classes.yml chooses."""
    if site.provider is None:
        return accounts(people, site.invites)
    base: Any
    if site.settings.sign_in == "oidc":
        from hub.accounts.oidc import OidcSignIn as base
    else:
        from hub.accounts.lti import LtiSignIn as base

    def get_handlers(self: Any, app: Any) -> list[tuple[str, type]]:
        return [("/login", NoPasswords), *base.get_handlers(self, app)]

    return type("ProviderSignIn", (base,), {
        "people": people, "provider": site.provider, "site_url": site.url, "get_handlers": get_handlers})


def configure(c: Any, site: Site, secret: Secrets) -> None:
    """Everything in JupyterHub's configuration that says who may enter."""
    people = site.people()
    c.JupyterHub.authenticator_class = for_site(site, people)
    c.Authenticator.allowed_users = set(site.accounts())
    c.Authenticator.allow_existing_users = False     # else whoever was here once could always come back
    c.Authenticator.delete_invalid_users = False
    c.ClassSignIn.signins_file = str(secret.signins_file)
    c.NativeAuthenticator.minimum_password_length = 12
    c.NativeAuthenticator.check_common_password = True
    c.NativeAuthenticator.allowed_failed_logins = 5
    c.NativeAuthenticator.seconds_before_next_try = 300
    if site.settings.sign_in == "oidc" and site.settings.oidc:
        c.OAuthenticator.client_id = site.settings.oidc.client_id
        c.OAuthenticator.client_secret = secret.must_be_given(OIDC_CLIENT_SECRET)
        c.OAuthenticator.scope = site.settings.oidc.scopes
        c.OAuthenticator.oauth_callback_url = f"{site.url}/hub/oauth_callback"
        c.OAuthenticator.manage_groups = False       # who is in a class is written in its roster only


def template_vars(site: Site) -> dict[str, Any]:
    """What the pages show of it."""
    return {"sign_in": site.settings.sign_in, "provider_name": site.provider.name if site.provider else "", "site_invites": site.invites}
