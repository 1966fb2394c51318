"""What single values cannot show: two things under one name, one person in two places that exclude each other.

Works on the file's data as it is, so that these problems are told together with those of single values.
"""

import contextlib
import ipaddress
from collections import defaultdict
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from hub.config import rules
from hub.config.document import Document, Place
from hub.config.people import Roster, Student
from hub.config.problems import Problem, Wrong, show

Rosters = dict[int, Roster]        # index of the class -> its roster, where that could be read


def conflicts(document: Document, rosters: Rosters) -> Iterator[Problem]:
    """Every contradiction between values of the file and of its rosters."""
    yield from _repeated_ids(document)
    yield from _ids_that_name_people(document, rosters)
    yield from _repeated_names(document)
    yield from _students_with_other_duties(document, rosters)
    yield from _two_people_under_one_name(document, rosters)
    yield from _due_dates(document)
    yield from _emails_of_nobody(document)
    yield from _sign_in(document, rosters)
    yield from _certificate(document)
    yield from _subdomains(document)


def class_entries(document: Document) -> list[tuple[int, dict[str, Any]]]:
    """The entries of `classes` that are sections at all, with their index."""
    found = document.value(("classes",))
    return [(i, entry) for i, entry in enumerate(found) if isinstance(entry, dict)] if isinstance(found, list) else []


def _names(document: Document, *place: str | int) -> list[tuple[Place, str]]:
    """The texts of a list, each with its place."""
    found = document.value(place)
    items = enumerate(found) if isinstance(found, list) else ()
    return [((*place, i), name) for i, name in items if isinstance(name, str)]


def _staff(document: Document, i: int) -> list[tuple[Place, str]]:
    return _names(document, "classes", i, "instructors") + _names(document, "classes", i, "graders")


def _repeated_ids(document: Document) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for i, entry in class_entries(document):
        name, place = entry.get("id"), ("classes", i, "id")
        if isinstance(name, str) and name in first:
            what = f"the class in line {first[name]} has this id already"
            yield document.problem(place, name, what, "give each class its own id")
        elif isinstance(name, str):
            first[name] = document.line(place)


def _ids_that_name_people(document: Document, rosters: Rosters) -> Iterator[Problem]:
    people = {name: f"{document.shown}:{document.line(place)}" for place, name in _all_named(document)}
    for roster in rosters.values():
        people |= {name: f"{roster.shown}:{line}" for name, line in roster.lines.items()}
    for i, entry in class_entries(document):
        name = entry.get("id")
        if isinstance(name, str) and name in people:
            what = f"is also a person's name ({people[name]}), and the exchange knows classes and people by name only"
            yield document.problem(("classes", i, "id"), name, what, "rename the class")


def _all_named(document: Document) -> list[tuple[Place, str]]:
    found = _names(document, "site", "admins")
    for i, _ in class_entries(document):
        found += _staff(document, i)
    return found


def _repeated_names(document: Document) -> Iterator[Problem]:
    lists = [_names(document, "site", "admins")]
    for i, _ in class_entries(document):
        lists.append(_staff(document, i))
    for names in lists:
        first: dict[str, Place] = {}
        for place, name in names:
            if name in first:
                both = first[name][-2] != place[-2]
                what = "an instructor of this class already, and instructors may grade" if both else "named twice"
                yield document.problem(place, name, what, "remove this one")
            first.setdefault(name, place)


def _students_with_other_duties(document: Document, rosters: Rosters) -> Iterator[Problem]:
    admins = {name for _, name in _names(document, "site", "admins")}
    for i, roster in rosters.items():
        staff = {name: str(place[-2]).removesuffix("s") for place, name in _staff(document, i)}
        for name, line in roster.lines.items():
            if name in staff:
                where = document.key(("classes", i))
                what = f"a student and {_a(staff[name])} of the same class ({where}), who would grade themselves"
                fix = f"remove this row, or the name from {where}.{staff[name]}s"
                yield Problem(roster.shown, line, "username", show(name), what, fix)
            elif name in admins:
                what = "a student and an admin of the site, who can open everybody's work"
                fix = "remove this row, or the name from site.admins"
                yield Problem(roster.shown, line, "username", show(name), what, fix)


def _a(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def _two_people_under_one_name(document: Document, rosters: Rosters) -> Iterator[Problem]:
    seen: dict[str, list[tuple[str, Student]]] = defaultdict(list)
    for roster in {roster.shown: roster for roster in rosters.values()}.values():
        for student in roster.students:
            line = roster.lines[student.username]
            for where, other in seen[student.username]:
                for key in ("first_name", "last_name", "email"):
                    mine, theirs = getattr(student, key), getattr(other, key)
                    if mine and theirs and mine.casefold() != theirs.casefold():
                        what = f"{student.username} is {theirs!r} in {where}, and a user name is one person on a site"
                        fix = "make the two rows equal, or give one of the two another user name"
                        yield Problem(roster.shown, line, key, show(mine), what, fix)
            seen[student.username].append((f"{roster.shown}:{line}", student))


def _due_dates(document: Document) -> Iterator[Problem]:
    for i, entry in class_entries(document):
        due = entry.get("due")
        first: dict[str, str] = {}
        for key, value in due.items() if isinstance(due, dict) else ():
            place: Place = ("classes", i, "due", key)
            try:
                slug = rules.graded_module(key)
            except Wrong:
                continue                       # told where single values are checked
            if slug in first:
                yield document.problem(place, value, f"the same module as {first[slug]}", "keep one of the two")
            first.setdefault(slug, key)
            if _before(value, entry.get("start")):
                what = f"due before the class starts ({entry['start']})"
                yield document.problem(place, value, what, "correct this date or start")


def _before(due: Any, start: Any) -> bool:
    try:
        return rules.moment(due).date() < rules.day(start)
    except Wrong:
        return False


def _emails_of_nobody(document: Document) -> Iterator[Problem]:
    named = {name for _, name in _all_named(document)}
    emails = document.value(("site", "emails"))
    for name, value in emails.items() if isinstance(emails, dict) else ():
        if name not in named:
            what = "neither an admin nor an instructor or grader of a class"
            yield document.problem(("site", "emails", name), value, what, "remove this line; a student's address stands in the roster")


def _sign_in(document: Document, rosters: Rosters) -> Iterator[Problem]:
    """The switch and its section belong together, and whoever is found by an address must have one of their own."""
    chosen = document.value(("site", "sign_in"))
    chosen = chosen if isinstance(chosen, str) else "native"
    for key, example in (("oidc", "issuer, client_id"), ("lti13", "issuer, client_id, authorize_url, jwks_url")):
        section = document.value(("site", key))
        if chosen == key and not isinstance(section, dict):
            what = f"sign_in is {key}, and nothing says who vouches for people"
            yield document.problem(("site", "sign_in"), chosen, what, f"add a section {key} with {example}")
        elif chosen != key and isinstance(section, dict):
            what = f"not in force, since sign_in is {chosen}"
            yield document.problem(("site", key), section, what, f"write sign_in: {key}, or remove the section")
    section = document.value(("site", chosen))
    if chosen != "native" and isinstance(section, dict) and section.get("match", "email") == "email":
        yield from _addresses(document, rosters)


def _addresses(document: Document, rosters: Rosters) -> Iterator[Problem]:
    emails = document.value(("site", "emails"))
    emails = {name: text for name, text in emails.items() if isinstance(text, str)} if isinstance(emails, dict) else {}
    in_rosters = {student.username for roster in rosters.values() for student in roster.students if student.email}
    for place, name in {name: (place, name) for place, name in reversed(_all_named(document))}.values():
        if name not in emails and name not in in_rosters:
            what = "has no e-mail address here, by which people are found when they sign in"
            yield document.problem(place, name, what, f"add {name}: ADDRESS to site.emails, or choose match: username")
    owners: dict[str, str] = {}
    for name, text in emails.items():
        if owners.setdefault(text.casefold(), name) != name:
            what = f"the address of {owners[text.casefold()]} too, and an address must mean one person"
            yield document.problem(("site", "emails", name), text, what, "give each their own address")
    for roster in {roster.shown: roster for roster in rosters.values()}.values():
        for student in roster.students:
            line, key = roster.lines[student.username], student.email.casefold()
            if not key and student.username not in in_rosters and student.username not in emails:
                what = "has no e-mail address, by which people are found when they sign in"
                yield Problem(roster.shown, line, "username", show(student.username), what,
                              "add the address, or choose match: username")
            elif key and owners.setdefault(key, student.username) != student.username:
                what = f"the address of {owners[key]} too, and an address must mean one person"
                yield Problem(roster.shown, line, "email", show(student.email), what, "give each their own address")


def _certificate(document: Document) -> Iterator[Problem]:
    """Files are named where they are used, and only there."""
    section = document.value(("site", "tls"))
    if not isinstance(section, dict):
        return
    chosen = section.get("certificates", "automatic")
    for key in ("certificate", "key"):
        if chosen == "files" and key not in section:
            what = f"certificates are files, and none is named as {key}"
            yield document.problem(("site", "tls", "certificates"), chosen, what, f"add {key}: tls/{key}.pem, with the name of yours")
        elif chosen != "files" and key in section:
            what = f"not in force, since certificates are {chosen}"
            yield document.problem(("site", "tls", key), section[key], what, "write certificates: files, or remove this line")


def _subdomains(document: Document) -> Iterator[Problem]:
    """Names below the site's need a name above them, and a certificate that an authority gives to nobody over port 80."""
    if document.value(("site", "subdomains")) is not True:
        return
    url = document.value(("site", "url"))
    address = urlsplit(url) if isinstance(url, str) else urlsplit("http://127.0.0.1")
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(address.hostname or "")
        what = f"there are no names below {address.hostname}, which is an address and no name"
        fix = "give the site a name in site.url (http://hub.localhost:8000 to try it), or write subdomains: false"
        yield document.problem(("site", "subdomains"), True, what, fix)
    if address.scheme == "https" and document.value(("site", "tls", "certificates")) not in ("files", "internal"):
        what = f"an automatic certificate is for {address.hostname} alone"
        fix = f"write tls.certificates: files, with a certificate for {address.hostname} and *.{address.hostname}, or internal"
        yield document.problem(("site", "subdomains"), True, what, fix)
