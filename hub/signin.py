"""Sign-in: everybody in classes.yml has an account with a generated first password, and nobody else has one.

The hub's database holds bcrypt hashes. The first passwords lie in clear in one file of mode 0600 for whoever hands them out;
a password that its owner has changed is no longer there.
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

from hub.people import Person

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
    signins_file = Unicode(help="Where first passwords are written.").tag(config=True)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.enable_signup = self.open_signup = False
        self.signins = SignIns(Path(self.signins_file))
        self.make_accounts()

    def make_accounts(self) -> None:
        """Give an account to whoever has none, and take it from whoever is no longer in classes.yml."""
        passwords = self.signins.read()
        known = {info.username for info in UserInfo.all_users(self.db)}
        fresh = self.people.keys() - known
        for name in fresh:                       # a start that was cut off has left its passwords: they are used
            passwords[name] = passwords.get(name) or new_password()
        self.signins.write(passwords, self.people)
        for name in fresh:
            hashed = bcrypt.hashpw(passwords[name].encode(), bcrypt.gensalt(GENERATED_ROUNDS))
            self.db.add(UserInfo(username=name, password=hashed, is_authorized=True))
        for info in UserInfo.all_users(self.db):
            if info.username not in self.people:
                self.db.delete(info)
        self.db.commit()

    async def authenticate(self, handler: BaseHandler, data: dict[str, str]) -> str | None:
        """The user name, if the password is right and the name is not locked. Tells nobody which names exist."""
        name, password = self.normalize_username(data.get("username", "")), data.get("password", "").encode()
        account = self.get_user(name) if name in self.people else None
        right, _ = await asyncio.gather(fits(account, password), asyncio.sleep(ANSWER_SECONDS))
        if not right or self.is_blocked(name):
            self.add_login_attempt(name)
            return None
        self.successful_login(name)
        return name

    async def refresh_user(self, user: Any, handler: BaseHandler | None = None) -> bool:
        """Sessions and tokens of somebody who left end with the hub's next start."""
        return user.name in self.people

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
        self.signins.write({**self.signins.read(), username: ""}, self.people)
        return True

    def get_handlers(self, app: Any) -> list[tuple[str, type]]:
        """Sign-in and change of password. What native offers besides changes accounts by a link, or is closed here."""
        return [("/login", LoginHandler), ("/change-password", ChangePassword),
                ("/change-password/([^/]+)", ChangePasswordAdminHandler)]


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
            await self.show(f"The new password must have {shortest} to {MOST_BYTES} characters and must not be a common one. "
                            "Nothing was changed.")
        else:
            await self.show(changed=True)

    async def show(self, problem: str = "", changed: bool = False) -> None:
        if problem:
            self.set_status(400)
        self.finish(await self.render_template("change-password.html", problem=problem, changed=changed))


def accounts(people: Mapping[str, Person]) -> type[ClassSignIn]:
    """The authenticator for these people."""
    return type("ClassSignIn", (ClassSignIn,), {"people": people})
