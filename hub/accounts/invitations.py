"""Invitations: a link for each person, behind which they choose their first password. It holds once, and for some days.

    python -m hub.accounts.invitations [NAME ...] [--days 7] [--csv FILE]

Without names: everybody who has no password yet. With names: also who forgot theirs; the old one holds until the new one is
chosen. A new link replaces the person's last one. The database keeps a hash only, and the secret part of a link stands behind
its #, which browsers send to no server: it is in no log.
"""

import argparse
import csv
import hashlib
import hmac
import io
import os
import secrets as random_source
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Float, MetaData, String, Table, create_engine, delete, insert, inspect, select
from sqlalchemy.exc import OperationalError

from hub import database, paths
from hub.config.people import Person
from hub.config.site import Site, SiteError

DAYS = 7                                 # a holiday week; somebody who finds the mail later gets a new link
COLUMNS = ["username", "email", "link", "until"]

table = Table("invitations", MetaData(), Column("username", String(128), primary_key=True),
              Column("hash", String(64), nullable=False), Column("until", Float, nullable=False))


class Invalid(Exception):
    """Why a link holds no more, for its owner."""


@dataclass(frozen=True)
class Invitation:
    person: Person
    code: str
    until: float                         # seconds since 1970

    def link(self, site_url: str) -> str:
        return f"{site_url}/hub/invitation#{self.person.username}/{self.code}"


def hashed(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()      # 256 random bits need no slow hash


def invite(connection: Any, people: Iterable[Person], days: float = DAYS) -> list[Invitation]:
    """A fresh invitation for each of them; their older ones hold no more."""
    table.create(connection, checkfirst=True)
    until = time.time() + days * 86400
    made = [Invitation(person, random_source.token_urlsafe(32), until) for person in people]
    for each in made:
        connection.execute(delete(table).where(table.c.username == each.person.username))
        connection.execute(insert(table).values(username=each.person.username, hash=hashed(each.code), until=until))
    return made


def redeem(connection: Any, name: str, code: str) -> None:
    """Use an invitation up. Invalid, with the reason, if it does not hold; of two requests at the same moment one wins."""
    found = connection.execute(select(table.c.hash, table.c.until).where(table.c.username == name)).one_or_none() \
        if inspect(connection).has_table(table.name) else None
    if found is None or not hmac.compare_digest(found.hash, hashed(code)):
        raise Invalid("This link holds no more: it was used already, or a newer one was made for you. "
                      "If you have a password, sign in with it; otherwise ask for a new link.")
    if found.until < time.time():
        raise Invalid("This link has expired. Ask your instructor or the site's admin for a new one.")
    if connection.execute(delete(table).where(table.c.username == name, table.c.hash == found.hash)).rowcount != 1:
        raise Invalid("This link was used a moment ago.")


def forget(connection: Any, people: Mapping[str, Person]) -> None:
    """Remove the invitations of who is no longer in classes.yml."""
    if inspect(connection).has_table(table.name):
        for (name,) in connection.execute(select(table.c.username)).all():
            if name not in people:
                connection.execute(delete(table).where(table.c.username == name))


def without_password(connection: Any, people: Mapping[str, Person]) -> list[Person]:
    accounts = Table("users_info", MetaData(), Column("username", String(128)))
    known = {name for (name,) in connection.execute(select(accounts.c.username))} if inspect(connection).has_table("users_info") else set()
    return [person for name, person in people.items() if name not in known]


# --------------------------------------------------------------------------------------------- the command
def chosen(connection: Any, site: Site, names: list[str]) -> list[Person]:
    people = site.people()
    if unknown := [name for name in names if name not in people]:
        sys.exit(f"there is nobody named {', '.join(unknown)} in classes.yml or a roster: add them there first; no link was made")
    return [people[name] for name in names] if names else without_password(connection, people)


def rows(site: Site, invitations: Iterable[Invitation]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for each in invitations:
        until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(each.until))
        writer.writerow([each.person.username, each.person.email, each.link(site.url), until])
    return text.getvalue()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m hub.accounts.invitations", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="user names; without any: everybody who has no password yet")
    parser.add_argument("--days", type=float, default=DAYS, help=f"how long the links hold (default: {DAYS})")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write them there, readable by you only, for a mail merge")
    chosen_options = parser.parse_args(arguments)
    if not 0 < chosen_options.days <= 90:
        parser.error("--days must be more than 0 and at most 90: a link that holds for long is a password in a mailbox")
    try:
        site = Site.load(paths.CLASSES_YML)
    except SiteError as error:
        sys.exit(str(error))
    if not site.invites:
        sys.exit("this site makes no links: that is for sign_in: native with first_password: link (or auto, where url is https://)")
    try:
        with create_engine(database.url(site)).begin() as connection:
            made = invite(connection, chosen(connection, site, chosen_options.names), chosen_options.days)
    except OperationalError as error:
        sys.exit(database.problem(site, error))
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")
    if not made:
        print("everybody has a password already; name somebody who forgot theirs", file=sys.stderr)
    elif chosen_options.csv:
        with os.fdopen(os.open(chosen_options.csv, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(rows(site, made))
        print(f"{len(made)} links are in {chosen_options.csv}; send each to its person only", file=sys.stderr)
    else:
        print(rows(site, made), end="")


if __name__ == "__main__":
    main()
