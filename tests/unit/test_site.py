"""classes.yml: what a right one means, and what is said about each way in which one can be wrong."""

import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from course.curriculum import find_module, modules
from hub import paths
from hub.config import site as site_module
from hub.config import switches
from hub.config.__main__ import SCHEMA
from hub.config.document import Document
from hub.config.people import Person, Student
from hub.config.site import Site, SiteError

RIGHT = """\
site:
  title: Hub
  url: http://127.0.0.1:8000
  timezone: Europe/Berlin
  admins: [ada]
  idle_minutes: 60
classes:
  - id: ml101
    title: Systems
    plan: 16
    start: 2026-09-07
    due: {02_tensor: 2026-09-25T12:00}
    late: accept
    instructors: [grace]
    graders: [gus]
    roster: ml101.csv
    image: default
    limits: {cpu: 1, memory: 1G, pids: 256, disk: 2G, network: none}
    autograder: {jobs_per_day: 20, parallel: 2}
    solutions: hidden
  - id: ml201
    title: Systems, intensive
    instructors: [grace]
    roster: ml201.csv
"""
ROSTER = "username,first_name,last_name,email\nalice,Alice,Arnold,alice@example.org\nbob,Bob,Becker,bob@example.org\n"
ROSTER_2 = "username,first_name,last_name,email\nalice,Alice,Arnold,alice@example.org\ncarol,,,\n"
HERE = "# <--"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(text: str = RIGHT, first: str | bytes | None = ROSTER, second: str = ROSTER_2) -> None:
    Path("classes.yml").write_text(text)
    if first is not None:
        Path("ml101.csv").write_bytes(first if isinstance(first, bytes) else first.encode())
    Path("ml201.csv").write_text(second)


def load(**files: Any) -> Site:
    save(**files)
    return Site.load("classes.yml")


def problems(**files: Any) -> list[str]:
    with pytest.raises(SiteError) as caught:
        load(**files)
    return str(caught.value).splitlines()


def changed(old: str, new: str) -> str:
    assert RIGHT.count(old) == 1, old
    return RIGHT.replace(old, new)


def line_of(text: str, mark: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if mark in line)


# --------------------------------------------------------------------------------------------------- wrong classes.yml
# what is replaced, by what, then what must be said: key, value, what is wrong, fix. True: the JSON schema refuses it too.
WRONG = {
    "unknown key": (
        "  title: Hub", "  titel: Hub", "site.titel", "'Hub'", "there is no such key", "did you mean title?", True),
    "unknown key of a class": (
        "    late: accept", "    lates: accept", "classes.ml101.lates", "'accept'", "there is no such key", "did you mean late?", True),
    "unknown key far from any": (
        "cpu: 1", "swap: 1", "classes.ml101.limits.swap", "1",
        "there is no such key", "the keys here are cpu, memory, pids, disk, network, hosts", True),
    "key of another section": (
        "  idle_minutes: 60", "  plan: 16", "site.plan", "16", "there is no such key here", "move it to classes", True),
    "title missing": (
        "  - id: ml101\n    title: Systems\n", "  - id: ml101  # <--\n", "classes.ml101.title", "(missing)",
        "is needed", "add title: Machine learning systems", True),
    "title empty": (
        "title: Systems\n", "title:  # <--\n", "classes.ml101.title", "(empty)",
        "has no value", "write title: Machine learning systems", True),
    "title too long": (
        "title: Hub", f"title: {'x' * 101}", "site.title", "'" + "x" * 56 + "...",
        "must be one line of 1 to 100 visible characters", "shorten or replace it", True),
    "optional key empty": (
        "graders: [gus]", "graders:", "classes.ml101.graders", "(empty)",
        "has no value", "write graders: [gus], or remove the line", True),
    "no such plan": (
        "plan: 16", "plan: 12", "classes.ml101.plan", "12", "must be 4, 8 or 16", "write plan: 16", True),
    "plan as text": (
        "plan: 16", 'plan: "8"', "classes.ml101.plan", "'8'", "must be 4, 8 or 16", "write plan: 8", True),
    "start is no day": (
        "start: 2026-09-07", "start: 2026-09-31", "classes.ml101.start", "'2026-09-31'",
        "there is no such day in the calendar", "correct the month or the day", False),
    "start the other way round": (
        "start: 2026-09-07", "start: 7.9.2026", "classes.ml101.start", "'7.9.2026'",
        "not a date", "write it as year-month-day, such as 2026-09-07", True),
    "start with a time": (
        "start: 2026-09-07", "start: 2026-09-07T08:00:00", "classes.ml101.start", "'2026-09-07T08:00:00'",
        "not a date", "write it as year-month-day, such as 2026-09-07", True),
    "due of an unknown module": (
        "02_tensor: 2026-09-25T12:00", "02_tensr: 2026-09-25T12:00", "classes.ml101.due.02_tensr", "'2026-09-25T12:00'",
        "there is no module '02_tensr'", "write 02_tensor", False),
    "due of an ungraded module": (
        "02_tensor: 2026-09-25T12:00", "introduction: 2026-09-25", "classes.ml101.due.introduction", "'2026-09-25'",
        "00_introduction is not graded, so it has no due date", "remove this line", False),
    "due in words": (
        "2026-09-25T12:00", "next week", "classes.ml101.due.02_tensor", "'next week'", "not a date and time",
        "write it as 2026-09-20T23:59 (the site's time zone) or 2026-09-20T23:59+02:00", True),
    "due at an hour that is none": (
        "2026-09-25T12:00", "2026-09-25T24:30", "classes.ml101.due.02_tensor", "'2026-09-25T24:30'",
        "there is no such day or time", "correct the month, the day or the hour", False),
    "due empty": (
        "02_tensor: 2026-09-25T12:00", "02_tensor: ", "classes.ml101.due.02_tensor", "(empty)",
        "has no value", "write 02_tensor: 2026-09-20T23:59, or remove the line", True),
    "due twice under two names": (
        "{02_tensor: 2026-09-25T12:00}", "{02: 2026-09-25, tensor: 2026-09-26}", "classes.ml101.due.tensor",
        "'2026-09-26'", "the same module as 02", "keep one of the two", False),
    "due before the start": (
        "2026-09-25T12:00", "2025-09-25T12:00", "classes.ml101.due.02_tensor", "'2025-09-25T12:00'",
        "due before the class starts (2026-09-07)", "correct this date or start", False),
    "late misspelt": (
        "late: accept", "late: refused", "classes.ml101.late", "'refused'",
        "must be accept or refuse", "write late: refuse", True),
    "solutions is yes": (
        "solutions: hidden", "solutions: yes", "classes.ml101.solutions", "'yes'",
        "must be hidden, after_due or open", "write solutions: hidden", True),
    "another sign-in": (
        "  idle_minutes: 60", "  sign_in: oauth", "site.sign_in", "'oauth'", "must be native", "write sign_in: native", True),
    "nobody teaches": (
        "instructors: [grace]\n    graders", "instructors: []  # <--\n    graders", "classes.ml101.instructors", "[]",
        "must name at least one", "write instructors: [grace]", True),
    "instructors as text": (
        "instructors: [grace]\n    graders", "instructors: grace  # <--\n    graders", "classes.ml101.instructors", "'grace'",
        "must be a list, not text", "write instructors: [grace]", True),
    "a user name that is a number": (
        "graders: [gus]", "graders: [gus, 4711]", "classes.ml101.graders[1]", "4711",
        "must be text, not a number", 'put it in quotes: "4711"', True),
    "a user name in capitals": (
        "graders: [gus]", "graders: [Gus]", "classes.ml101.graders[0]", "'Gus'",
        "a user name has no capital letters (JupyterHub signs people in under lower case names)", "write gus", True),
    "a user name that is an address": (
        "graders: [gus]", "graders: [gus.w@example.org]", "classes.ml101.graders[0]", "'gus.w@example.org'",
        "not a valid user name: only a-z, 0-9, - and _, beginning with a letter or digit, ending with a letter or digit,"
        " no -- (it becomes part of URLs, folders and the names of groups and containers)", "write gus-w", True),
    "a user name with the separator of containers' names": (
        "graders: [gus]", "graders: [gus--ml101]", "classes.ml101.graders[0]", "'gus--ml101'",
        "no -- (it becomes part of URLs, folders and the names of groups and containers)", "write gus-ml101", True),
    "a user name that is too long": (
        "graders: [gus]", f"graders: [{'g' * 33}]", "classes.ml101.graders[0]", f"'{'g' * 33}'",
        "a user name has at most 32 characters, this has 33 (it becomes part of longer names)", "shorten it", True),
    "a user named like a service": (
        "graders: [gus]", "graders: [ngshare]", "classes.ml101.graders[0]", "'ngshare'",
        "and what begins with grader-, formgrade, nbgrader are the site's own names", "choose another user name", False),
    "a user named like a formgrader": (
        "graders: [gus]", "graders: [grader-ml101]", "classes.ml101.graders[0]", "'grader-ml101'",
        "one name must mean one thing on a site", "choose another user name", False),
    "a grader named twice": (
        "graders: [gus]", "graders: [gus, gus]", "classes.ml101.graders[1]", "'gus'", "named twice", "remove this one", False),
    "an instructor among the graders": (
        "graders: [gus]", "graders: [gus, grace]", "classes.ml101.graders[1]", "'grace'",
        "an instructor of this class already, and instructors may grade", "remove this one", False),
    "class id twice": (
        "id: ml201", "id: ml101  # <--", "classes.ml101.id", "'ml101'",
        "the class in line 8 has this id already", "give each class its own id", False),
    "class id with a space": (
        "id: ml201", "id: ML 201", "classes.ML 201.id", "'ML 201'", "not a valid class id: only a-z, 0-9, - and _,"
        " beginning with a letter", "write ml-201", True),
    "class id that is a number": (
        "id: ml201", "id: 201", "classes[1].id", "201", "not a valid class id: only a-z, 0-9, - and _,"
        " beginning with a letter", "choose one such as ml101", True),
    "class named like a service": (
        "id: ml201", "id: idle-culler", "classes.idle-culler.id", "'idle-culler'",
        "one name must mean one thing on a site: ngshare, exchange, idle-culler,", "choose another class id", False),
    "class named like an instructor": (
        "id: ml201", "id: grace", "classes.grace.id", "'grace'",
        "is also a person's name (classes.yml:23), and the exchange knows classes and people by name only",
        "rename the class", False),
    "class named like a student": (
        "id: ml201", "id: bob", "classes.bob.id", "'bob'",
        "is also a person's name (ml101.csv:3), and the exchange knows classes and people by name only",
        "rename the class", False),
    "class that is no section": (
        "  - id: ml201\n    title: Systems, intensive\n    instructors: [grace]\n    roster: ml201.csv\n",
        "  - ml201  # <--\n", "classes[1]", "'ml201'",
        "must be a section of `key: value` lines, not text", "write a section such as {id: ml101}", True),
    "network without TLS": (
        "url: http://127.0.0.1:8000", "url: http://hub.example.org", "site.url", "'http://hub.example.org'",
        "http:// would send passwords and session cookies unencrypted over the network",
        "write https://hub.example.org, or http://127.0.0.1:8000 for a site that only this machine reaches", False),
    "all interfaces without TLS": (
        "url: http://127.0.0.1:8000", "url: http://0.0.0.0:8000", "site.url", "'http://0.0.0.0:8000'",
        "http:// would send passwords and session cookies unencrypted over the network",
        "write https://HOST, or http://127.0.0.1:8000 for a site that only this machine reaches",
        False),
    "url without a scheme": (
        "url: http://127.0.0.1:8000", "url: localhost:8000", "site.url", "'localhost:8000'",
        "not an address of a site", "write one such as http://127.0.0.1:8000 or https://hub.example.org", True),
    "url with a path": (
        "url: http://127.0.0.1:8000", "url: https://example.org/hub", "site.url", "'https://example.org/hub'",
        "more than scheme, host and port (a site has its host to itself)", "write https://example.org", True),
    "url with a password": (
        "url: http://127.0.0.1:8000", "url: https://ada:secret@example.org", "site.url", "'https://ada:secret@example.org'",
        "more than scheme, host and port (a site has its host to itself)", "write https://example.org", True),
    "url with a port that is none": (
        "url: http://127.0.0.1:8000", "url: http://127.0.0.1:80000", "site.url", "'http://127.0.0.1:80000'",
        "not an address of a site (Port out of range 0-65535)",
        "write one such as http://127.0.0.1:8000 or https://hub.example.org", False),
    "url with root's port": (
        "url: http://127.0.0.1:8000", "url: http://localhost", "site.url", "'http://localhost'",
        "the port must be from 1024 to 65000 (lower ones need root, and the site's own processes use the next ones)",
        "write http://localhost:8000", False),
    "names below an address": (
        "  timezone: Europe/Berlin", "  subdomains: true", "site.subdomains", "true",
        "there are no names below 127.0.0.1, which is an address and no name",
        "give the site a name in site.url (http://hub.localhost:8000 to try it), or write subdomains: false", False),
    "names below a certificate for one": (
        "url: http://127.0.0.1:8000", "url: https://hub.example.org\n  subdomains: true  # <--", "site.subdomains", "true",
        "an automatic certificate is for hub.example.org alone",
        "write tls.certificates: files, with a certificate for hub.example.org and *.hub.example.org, or internal", False),
    "time zone by city": (
        "timezone: Europe/Berlin", "timezone: Zurich", "site.timezone", "'Zurich'",
        "no time zone of that name", "write Europe/Zurich", False),
    "time zone misspelt": (
        "timezone: Europe/Berlin", "timezone: Europe/Berln", "site.timezone", "'Europe/Berln'",
        "no time zone of that name", "write Europe/Berlin", False),
    "time zone that escapes": (
        "timezone: Europe/Berlin", "timezone: ../../etc/passwd", "site.timezone", "'../../etc/passwd'",
        "no time zone of that name", "write one such as UTC or Europe/Berlin", False),
    "idle minutes as text": (
        "idle_minutes: 60", "idle_minutes: 1h", "site.idle_minutes", "'1h'",
        "must be a whole number, not text", "write idle_minutes: 60", True),
    "idle minutes too few": (
        "idle_minutes: 60", "idle_minutes: 0", "site.idle_minutes", "0", "must be at least 5", "write idle_minutes: 60", True),
    "admins as text": (
        "admins: [ada]", "admins: ada", "site.admins", "'ada'", "must be a list, not text", "write admins: [ada]", True),
    "cpu as text": (
        "cpu: 1", "cpu: one", "classes.ml101.limits.cpu", "'one'", "must be a number, not text", "write cpu: 1", True),
    "cpu without end": (
        "cpu: 1", "cpu: .inf", "classes.ml101.limits.cpu", "inf", "must be at most 128", "write cpu: 1", True),
    "cpu that is no number": (
        "cpu: 1", "cpu: .nan", "classes.ml101.limits.cpu", "nan", "must be at most 128", "write cpu: 1", False),
    "cpu that is true": (
        "cpu: 1", "cpu: true", "classes.ml101.limits.cpu", "true", "must be a number, not true or false", "write cpu: 1", True),
    "memory with another unit": (
        "memory: 1G", "memory: 512 MiB", "classes.ml101.limits.memory", "'512 MiB'",
        "not a size: a number followed by M or G", "write 512M", True),
    "memory without a unit": (
        "memory: 1G", "memory: 1", "classes.ml101.limits.memory", "1",
        "not a size: a number followed by M or G", "write 1G", True),
    "memory without a unit, in the hundreds": (
        "memory: 1G", "memory: 512", "classes.ml101.limits.memory", "512",
        "not a size: a number followed by M or G", "write 512M", True),
    "memory too small": (
        "memory: 1G", "memory: 64M", "classes.ml101.limits.memory", "'64M'",
        "must be at least 256M", "write 256M or more", False),
    "half a process": (
        "pids: 256", "pids: 2.5", "classes.ml101.limits.pids", "2.5",
        "must be a whole number, not a decimal number", "write pids: 256", True),
    "network misspelt": (
        "network: none", "network: intrenet", "classes.ml101.limits.network", "'intrenet'",
        "must be none or internet", "write network: internet", True),
    "limits as a number": (
        "limits: {cpu: 1, memory: 1G, pids: 256, disk: 2G, network: none}", "limits: 5", "classes.ml101.limits", "5",
        "must be a section of `key: value` lines, not a number", "write limits: {cpu: 1, memory: 1G}", True),
    "no jobs": (
        "jobs_per_day: 20", "jobs_per_day: 0", "classes.ml101.autograder.jobs_per_day", "0",
        "must be at least 1", "write jobs_per_day: 20", True),
    "image that is an option": (
        "image: default", "image: --privileged", "classes.ml101.image", "'--privileged'",
        "not the name of a container image", "write default, or one such as example.org/course/student:2026-09", True),
    "roster that is not there": (
        "roster: ml101.csv", "roster: rosters/ml101.csv", "classes.ml101.roster", "'rosters/ml101.csv'",
        "there is no such file (rosters/ml101.csv)",
        "correct the path, or make the file with username,first_name,last_name,email as its first line", False),
    "roster that is a folder": (
        "roster: ml101.csv", "roster: .", "classes.ml101.roster", "'.'",
        "cannot be read (Is a directory)", "name a CSV file that you may read", False),
    "roster missing": (
        "    graders: [gus]\n    roster: ml101.csv\n", "    graders: [gus]\n", "classes.ml101.roster", "(missing)",
        "is needed", "add roster: rosters/ml101.csv", True),
    "roster empty": (
        "roster: ml101.csv", "roster:", "classes.ml101.roster", "(empty)",
        "has no value", "write roster: rosters/ml101.csv", True),
    "a key twice": (
        "    late: accept\n", "    late: accept\n    late: refuse  # <--\n", "classes.ml101.late", "'refuse'",
        "the same key stands in line 13 already", "keep one of the two", False),
    "a tag": (
        "title: Hub", "title: !!python/name:os.system Hub", "site.title", "'tag:yaml.org,2002:python/name:os.system'",
        "a tag, and tags mean nothing here", "remove the word that begins with !", False),
    "merge key": (
        "cpu: 1", "<<: {cpu: 1}", "classes.ml101.limits.<<", "{cpu: 1}",
        "there is no such key", "the keys here are cpu, memory, pids, disk, network, hosts", True),
    "unknown sign-in": (
        "  idle_minutes: 60", "  sign_in: oidcc", "site.sign_in", "'oidcc'", "must be native, oidc or lti13", "write sign_in: oidc", True),
    "sign-in without its section": (
        "  idle_minutes: 60", "  sign_in: oidc", "site.sign_in", "'oidc'", "nothing says who vouches for people",
        "add a section oidc with issuer, client_id", False),
    "a section that is not in force": (
        "  idle_minutes: 60", "  oidc: {issuer: 'https://login.example.org', client_id: hub}", "site.oidc",
        "{issuer: https://login.example.org, client_id: hub}", "not in force, since sign_in is native",
        "write sign_in: oidc, or remove the section", False),
    "a client secret in the file": (
        "  idle_minutes: 60", "  sign_in: oidc\n  oidc:\n    match: username\n    issuer: 'https://login.example.org'\n    client_id: hub\n"
        "    client_secret: x  # <--", "site.oidc.client_secret", "'x'", "a secret has no place in this file",
        "remove this line; it goes into a file of the secrets folder", True),
    "an issuer without TLS": (
        "  idle_minutes: 60", "  sign_in: oidc\n  oidc:\n    match: username\n    client_id: hub\n"
        "    issuer: 'http://login.example.org/x'  # <--",
        "site.oidc.issuer", "'http://login.example.org/x'", "http:// would let anybody on the way say who people are",
        "write https://login.example.org/x", False),
    "a platform without keys": (
        "  idle_minutes: 60", "  sign_in: lti13\n  lti13:  # <--\n    match: username\n    issuer: 'https://moodle.example.org'\n"
        "    client_id: a\n    authorize_url: 'https://moodle.example.org/auth'", "site.lti13.jwks_url", "(missing)", "is needed",
        "add jwks_url: https://moodle.example.org/mod/lti/certs.php", True),
    "an address of nobody": (
        "  idle_minutes: 60", "  emails: {alice: alice@example.org}", "site.emails.alice", "'alice@example.org'",
        "neither an admin nor an instructor or grader", "remove this line; a student's address stands in the roster", False),
    "an address that is none": (
        "  idle_minutes: 60", "  emails: {grace: grace}", "site.emails.grace", "'grace'", "not an e-mail address",
        "write one such as ada@example.org, or leave it empty", True),
    "a database's password in the file": (
        "  idle_minutes: 60", "  database: 'postgresql://hub:secret@db.example.org:5433/tinytorch'", "site.database",
        "'postgresql://hub:secret@db.example.org:5433/tinytorch'", "a password has no place in this file",
        "write postgresql://hub@db.example.org:5433/tinytorch, and the password into database_password in the secrets folder", True),
    "another kind of database": (
        "  idle_minutes: 60", "  database: 'mysql://hub@db.example.org/hub'", "site.database", "'mysql://hub@db.example.org/hub'",
        "not the address of a database", "write sqlite, or an address such as postgresql://tinytorch@db.example.org/hub", True),
    "monitoring for nobody": (
        "  idle_minutes: 60", "  monitoring: {alertmanagers: [alerts.example.org]}", "site.monitoring.alertmanagers[0]",
        "'alerts.example.org'", "not a host and port", "write one such as alerts.example.org:9093", True),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_with_line_value_and_fix(name):
    old, new, key, value, what, fix, _ = WRONG[name]
    text = changed(old, new)
    mark = HERE if HERE in new else new.splitlines()[0]
    line = line_of(text, "- id: ml101") if name == "roster missing" else line_of(text, mark)
    (said,) = problems(text=text)
    assert said.startswith(f"classes.yml:{line}: {key}: {value}: "), said
    assert what in said, said
    assert said.endswith(f"; {fix}"), said


@pytest.mark.parametrize("name", WRONG)
def test_the_schema_refuses_what_a_schema_can(name):
    import jsonschema

    old, new, *_, refused = WRONG[name]
    Path("classes.yml").write_text(changed(old, new))
    errors = list(jsonschema.Draft202012Validator(Site.schema()).iter_errors(Document(Path("classes.yml")).data))
    assert bool(errors) == refused, errors


# ---------------------------------------------------------------------------------------------------------- wrong YAML
NOT_YAML = {
    "tab": (changed("  title: Hub", "\ttitle: Hub"), 2, "'title: Hub'",
            "a tab stands where only spaces may", "indent with spaces"),
    "tab after spaces": (changed("    plan: 16", "  \tplan: 16"), 10, "'plan: 16'",
                         "a tab stands where only spaces may", "indent with spaces"),
    "colon in a title": (changed("title: Hub", "title: Hub: the site"), 2, "'title: Hub: the site'",
                         "a colon too many, or more indented than its neighbours",
                         "put text with a colon in quotes; indent the keys of one section equally"),
    "indentation": (changed("    plan: 16", "     plan: 16"), 10, "'plan: 16'",
                    "a colon too many, or more indented than its neighbours", "indent the keys of one section equally"),
    "bracket not closed": (changed("[ada]", "[ada"), 6, "'idle_minutes: 60'",
                           "is not YAML: expected ',' or ']', but got ':' (it began in line 5)",
                           "check brackets, quotes and the indentation here and above"),
    "quote not closed": (changed("title: Hub", 'title: "Hub'), 25, "''",
                         "a quote or bracket is never closed (it began in line 2)", "close it"),
    "at sign": (changed("title: Hub", "title: @Hub"), 2, "'title: @Hub'",
                "found character '@' that cannot start any token", "put the text in quotes"),
    "asterisk": (changed("title: Hub", "title: *Hub"), 2, "'title: *Hub'",
                 "found undefined alias 'Hub', a word that begins with *", "put it in quotes"),
    "two documents": (RIGHT + "---\nsite: {}\n", 25, "'---'",
                      "a second document begins (---)", "keep everything in one document"),
    "anchor in itself": (changed("admins: [ada]", "admins: &a [*a]"), 5, "'admins: &a [*a]'",
                         "an anchor (&name, *name) unfolds without end", "write the values out instead"),
    "anchor twice": (changed("admins: [ada]", "admins: &a [ada]").replace("graders: [gus]", "graders: &a [gus]"), 15,
                     "'graders: &a [gus]'", "an anchor (&name) of this name stands above already",
                     "give each anchor its own name"),
    "list as a key": (changed("  title: Hub", "  [title]: Hub"), 2, "'[title]: Hub'",
                      "a list or a section stands where a key should", "put the key in quotes"),
    "control character": (changed("title: Hub", "title: H\x07ub"), 2, "'title: H\\x07ub'",
                          "the character '\\x07' may not stand in YAML", "remove it"),
}


@pytest.mark.parametrize("name", NOT_YAML)
def test_what_is_not_yaml_is_said_with_line_text_and_fix(name):
    text, line, value, what, fix = NOT_YAML[name]
    (said,) = problems(text=text)
    assert said.startswith(f"classes.yml:{line}: YAML: {value}: "), said
    assert what in said, said
    assert said.endswith(fix), said


def test_other_encodings_are_named():
    save()
    Path("classes.yml").write_bytes(RIGHT.replace("Hub", "Höh").encode("latin-1"))
    with pytest.raises(SiteError, match=r"^classes\.yml:2: YAML: .*: is not UTF-8 text; save the file with the encoding UTF-8$"):
        Site.load("classes.yml")


def test_anchors_that_multiply_are_cut_off():
    levels = "".join(f"  {b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    (said,) = problems(text="site:\n  a: &a [x, x]\n" + levels)
    assert "an anchor (&name, *name) unfolds without end; write the values out instead" in said


@pytest.mark.parametrize(("text", "line", "rest"), [
    ("", 1, "file: (empty): there is nothing in it; start from the example: cp -r "),
    ("# only a comment\n", 1, "file: (empty): there is nothing in it; start from the example: cp -r "),
    ("- ml101\n", 1, "file: [ml101]: must be a section of `key: value` lines, not a list; write site: ..., classes: ..."),
    ("ml101\n", 1, "file: 'ml101': must be a section of `key: value` lines, not text; write site: ..., classes: ..."),
    ("site: {}\n", 1, "classes: (missing): is needed; add classes: [{id: ml101}]"),
    ("site: {}\nclasses: []\n", 2, "classes: []: must name at least one; write classes: [{id: ml101}]"),
    ("site: {}\nclasses: {}\n", 2, "classes: {}: must be a list, not a section; write classes: [{id: ml101}]"),
    ("site: []\nclasses: []\n", 1, "site: []: must be a section of `key: value` lines, not a list; write site: {title: "),
])
def test_a_file_without_classes(text, line, rest):
    said = problems(text=text)
    assert said[0].startswith(f"classes.yml:{line}: {rest}"), said


def test_a_file_that_is_not_there_says_how_to_get_one():
    with pytest.raises(SiteError) as caught:
        Site.load("classes.yml")
    said = str(caught.value)
    assert said.startswith("classes.yml: file: (missing): there is no such file; start from the example: cp -r ")
    assert said.endswith("hub/example/. .")
    with pytest.raises(SiteError, match="cannot be read"):
        Site.load(".")


# ------------------------------------------------------------------------------------------------------- wrong rosters
HEAD = "username,first_name,last_name,email\n"
WRONG_ROSTERS: dict[str, tuple[str | bytes, int, str, str, str, str]] = {
    "empty": ("", 1, "file", "''", "the roster is empty", "write username,first_name,last_name,email as its first line"),
    "no header": ("alice,Alice,Arnold,\n", 1, "header", "'alice,Alice,Arnold,'",
                  "the first line must name the columns", "write username,first_name,last_name,email above the students"),
    "semicolons": ("username;first_name;last_name;email\nalice;;;\n", 1, "header", "'username;first_name;last_name;email'",
                   "the columns are separated by ';'", "save the file with commas between the columns"),
    "column misspelt": ("username,fist_name\nalice,\n", 1, "header", "'fist_name'", "there is no such column", "write first_name"),
    "column unknown": ("username,seminar\nalice,\n", 1, "header", "'seminar'",
                       "there is no such column", "the columns are username,first_name,last_name,email"),
    "column twice": ("username,email,email\nalice,,\n", 1, "header", "'email'",
                     "the column stands there twice", "remove one of the two"),
    "no column username": ("first_name,email\nAlice,\n", 1, "header", "'first_name,email'",
                           "the column username is missing", "write username,first_name,last_name,email"),
    "too few values": (HEAD + "alice,,,\nbob\n", 3, "row", "'bob'",
                       "1 values where the first line names 4 columns", "add the missing commas"),
    "too many values": (HEAD + "alice,Alice,Arnold, PhD,\n", 2, "row", "'alice,Alice,Arnold,PhD,'",
                        "5 values where the first line names 4 columns", "put a value with a comma in quotes"),
    "no user name": (HEAD + ",Alice,Arnold,\n", 2, "username", "''",
                     "no user name", "write the name under which this student signs in"),
    "capitals": (HEAD + "Alice,,,\n", 2, "username", "'Alice'", "a user name has no capital letters", "write alice"),
    "a space inside": (HEAD + "alice arnold,,,\n", 2, "username", "'alice arnold'", "not a valid user name", "write alice-arnold"),
    "an umlaut": (HEAD + "jürgen,,,\n", 2, "username", "'jürgen'", "not a valid user name", "write jurgen"),
    "a service's name": (HEAD + "autograder,,,\n", 2, "username", "'autograder'",
                         "are the site's own names", "choose another user name"),
    "twice": (HEAD + "alice,,,\n\nbob,,,\nalice,,,\n", 5, "username", "'alice'", "the same student as in line 2",
              "remove one of the rows, or give this person another user name"),
    "no address": (HEAD + "alice,,,alice at example\n", 2, "email", "'alice at example'", "not an e-mail address",
                   "write one such as ada@example.org, or leave it empty"),
    "name over two lines": (HEAD + 'alice,"A\nB",,\n', 2, "first_name", r"'A\nB'",
                            "must be one line of 1 to 100 visible characters", "shorten or replace it"),
    "quote not closed": (HEAD + 'alice,,,\nbob,"Bob,,\ncarol,,,\n', 3, "row", "'bob,\"Bob,,'", "not CSV (unexpected end of data)",
                         'close the quotes; a " inside quotes is written ""'),
    "a workbook": (b"PK\x03\x04" + bytes(40), 1, "file", "'PK'", "a spreadsheet or archive, not CSV",
                   "in the spreadsheet, choose Save as and then CSV UTF-8"),
    "another encoding": ((HEAD + "alice,Zoë,,\n").encode("latin-1"), 2, "file", "'alice,Zo\ufffd,,'", "not UTF-8 text",
                         "in the spreadsheet, choose Save as and then CSV UTF-8"),
    "UTF-16": ((HEAD + "alice,,,\n").encode("utf-16-be"), 1, "file", r"'\x00'", "not text",
               "in the spreadsheet, choose Save as and then CSV UTF-8"),
    "a student who teaches": (HEAD + "bob,,,\ngrace,,,\n", 3, "username", "'grace'",
                              "a student and an instructor of the same class (classes.ml101), who would grade themselves",
                              "remove this row, or the name from classes.ml101.instructors"),
    "a student who grades": (HEAD + "gus,,,\n", 2, "username", "'gus'",
                             "a student and a grader of the same class (classes.ml101), who would grade themselves",
                             "remove this row, or the name from classes.ml101.graders"),
    "a student who is admin": (HEAD + "ada,,,\n", 2, "username", "'ada'",
                               "a student and an admin of the site, who can open everybody's work",
                               "remove this row, or the name from site.admins"),
}


@pytest.mark.parametrize("name", WRONG_ROSTERS)
def test_what_is_wrong_with_a_roster_is_said_with_its_own_line(name):
    content, line, key, value, what, fix = WRONG_ROSTERS[name]
    (said,) = problems(first=content)
    assert said.startswith(f"ml101.csv:{line}: {key}: {value}: "), said
    assert what in said, said
    assert said.endswith(f"; {fix}"), said


OIDC = "  idle_minutes: 60\n  sign_in: oidc\n  oidc: {issuer: 'https://login.example.org', client_id: hub}"


def test_whoever_is_found_by_an_address_needs_one_of_their_own():
    text = changed("  idle_minutes: 60", OIDC + "\n  emails: {ada: ALICE@example.org, grace: g@example.org}")
    said = problems(text=text, second=HEAD + "alice,,,\ncarol,,,\n")
    what = "has no e-mail address"
    assert [line.partition(", by which")[0] for line in said] == [
        f"classes.yml:18: classes.ml101.graders[0]: 'gus': {what} here",
        "ml101.csv:2: email: 'alice@example.org': the address of ada too, and an address must mean one person; give each their own address",
        f"ml201.csv:3: username: 'carol': {what}"]
    right = text.replace("ALICE@", "ada@").replace("g@example.org", "g@example.org, gus: gus@example.org")
    site = load(text=right, second=HEAD + "alice,,,\ncarol,,,carol@example.org\n")
    assert site.provider.issuer == "https://login.example.org"
    assert (site.people()["ada"].email, site.people()["alice"].email) == ("ada@example.org", "alice@example.org")
    by_name = changed("  idle_minutes: 60", OIDC.replace("hub}", "hub, match: username}"))
    assert load(text=by_name).provider.match == "username"


@pytest.mark.parametrize(("url", "kind", "invites"), [
    ("http://127.0.0.1:8000", "auto", False), ("https://hub.example.org", "auto", True), ("http://127.0.0.1:8000", "link", True),
    ("https://hub.example.org", "generated", False),
])
def test_links_are_for_sites_that_are_served(url, kind, invites):
    text = changed("http://127.0.0.1:8000", f"{url}\n  first_password: {kind}")
    assert load(text=text).invites is invites
    assert not load(text=changed("  idle_minutes: 60", OIDC.replace("hub}", "hub, match: username}"))).invites


@pytest.mark.parametrize("address", ["sqlite", "postgresql://hub@db/tinytorch", "postgresql://hub@[::1]:5433/t?sslmode=verify-full"])
def test_databases_that_may_be_used(address):
    assert load(text=changed("  idle_minutes: 60", f"  database: '{address}'")).database == address


def test_one_name_is_one_person():
    said = problems(second=HEAD + "alice,Alicia,Arnold,alice@example.com\n")
    assert [line.split(": ")[:3] for line in said] == [
        ["ml201.csv:2", "first_name", "'Alicia'"], ["ml201.csv:2", "email", "'alice@example.com'"]]
    assert "alice is 'Alice' in ml101.csv:2, and a user name is one person on a site; make the two rows equal" in said[0]


def test_everything_that_is_wrong_is_said_at_once_in_reading_order():
    text = changed("title: Hub", "titel: Hub").replace("id: ml201", "id: ml101").replace("plan: 16", "plan: 5")
    text = text.replace("roster: ml201.csv", "roster: nowhere.csv").replace("cpu: 1", "cpu: none").replace("ada]", "Ada]")
    said = problems(text=text, first=HEAD + "Bob,,,\ngrace,,,\nann,,,x\n")
    assert [line.split(": ")[0] for line in said] == [
        "classes.yml:2", "classes.yml:5", "classes.yml:10", "classes.yml:18", "classes.yml:21", "classes.yml:24",
        "ml101.csv:2", "ml101.csv:3", "ml101.csv:4"]
    assert all("; " in line for line in said)


def said_about(path: str) -> list[str]:
    """What is wrong with a file, if anything is."""
    try:
        Site.load(path)
    except SiteError as error:
        return str(error).split("\n")
    return []


LINES = [*RIGHT.splitlines(), "", "\t", "- x", "a: &a [*a]", "roster: ml101.csv", "  - {}", "id: [1]", "'", "{", "? x", "null"]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(LINES), max_size=12), st.integers(0, 24), st.text(max_size=5), st.integers(0, 24))
def test_no_file_ends_in_anything_but_a_site_or_its_problems(extra, at, junk, where):
    lines = RIGHT.splitlines()
    lines[at:at + len(extra)] = extra
    lines.insert(where, junk)
    save()
    Path("classes.yml").write_text("\n".join(lines), encoding="utf-8", errors="replace")
    assert all("; " in line for line in said_about("classes.yml"))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet='ab,"\n\r;\t\0é', max_size=30), st.booleans())
def test_no_roster_ends_in_anything_but_a_site_or_its_problems(rows, head):
    save(first=(HEAD if head else "") + rows)
    assert all("; " in line for line in said_about("classes.yml"))


# -------------------------------------------------------------------------------------------------------- right files
def test_a_right_file_is_a_site():
    site = load()
    assert (site.title, site.url, site.host, site.port) == ("Hub", "http://127.0.0.1:8000", "127.0.0.1", 8000)
    assert (site.timezone, site.admins, site.idle_minutes) == ("Europe/Berlin", ["ada"], 60)
    first, second = site.classes
    assert (first.id, first.title, first.plan, first.start) == ("ml101", "Systems", 16, date(2026, 9, 7))
    assert first.staff == ["grace", "gus"]
    assert first.students == [Student("alice", "Alice", "Arnold", "alice@example.org"),
                              Student("bob", "Bob", "Becker", "bob@example.org")]
    assert (first.limits.cpu, first.limits.memory_mb, first.limits.disk_mb) == (1.0, 1024, 2048)
    assert (first.limits.pids, first.limits.network) == (256, "none")
    assert (first.autograder.jobs_per_day, first.autograder.parallel) == (20, 2)
    assert (first.late, first.solutions, first.image) == ("accept", "hidden", "default")
    assert site.class_("ml201") is second
    with pytest.raises(KeyError, match="there is no class 'ml999'; there are ml101, ml201"):
        site.class_("ml999")


def test_people_are_everybody_with_an_account():
    people = load().people()
    assert list(people) == ["ada", "alice", "bob", "carol", "grace", "gus"]
    assert people["alice"] == Person("alice", "Alice", "Arnold", "alice@example.org", student_of=["ml101", "ml201"])
    assert people["grace"] == Person("grace", staff_of=["ml101", "ml201"])
    assert people["ada"] == Person("ada", admin=True)
    filled = load(second=HEAD + "carol,,Castro,\nalice,,,\n").people()
    assert filled["alice"].email == "alice@example.org"


def test_a_student_of_one_class_may_help_in_another():
    site = load(text=changed("graders: [gus]", "graders: [carol]"))
    assert site.people()["carol"] == Person("carol", student_of=["ml201"], staff_of=["ml101"])


def test_a_plan_s_week_ends_on_its_seventh_day_in_the_site_s_time_zone():
    class_ = load(text=changed("    due: {02_tensor: 2026-09-25T12:00}\n", "")).class_("ml101")
    due = class_.due(find_module("01"))
    assert due == datetime(2026, 9, 13, 23, 59, tzinfo=ZoneInfo("Europe/Berlin"))
    assert class_.due("02_tensor") == datetime(2026, 9, 20, 21, 59, tzinfo=UTC)
    last = class_.due("20_capstone")
    assert last
    assert last.date() == date(2026, 9, 7) + timedelta(days=16 * 7 - 1)
    assert last.utcoffset() == timedelta(hours=1)      # the clocks went back in between
    assert class_.due("00_introduction") is None


@pytest.mark.parametrize(("written", "meant"), [
    ("2026-09-25T12:00", datetime(2026, 9, 25, 10, 0, tzinfo=UTC)),
    ("2026-09-25 12:00:30", datetime(2026, 9, 25, 10, 0, 30, tzinfo=UTC)),
    ("2026-09-25T12:00Z", datetime(2026, 9, 25, 12, 0, tzinfo=UTC)),
    ("2026-09-25T12:00:00-05:00", datetime(2026, 9, 25, 17, 0, tzinfo=UTC)),
    ("2026-09-25", datetime(2026, 9, 25, 21, 59, tzinfo=UTC)),
])
def test_a_due_date_overrides_the_plan(written, meant):
    class_ = load(text=changed("2026-09-25T12:00", written)).class_("ml101")
    assert class_.due("02_tensor") == meant


def test_without_a_start_only_what_is_named_is_due():
    class_ = load(text=changed("    start: 2026-09-07\n", "")).class_("ml101")
    assert class_.due("02_tensor") is not None
    assert class_.due("03_activations") is None
    assert all(load().class_("ml201").due(module) is None for module in modules())


@pytest.mark.parametrize(("url", "host", "port"), [
    ("https://hub.example.org", "hub.example.org", 443), ("https://hub.example.org:8443/", "hub.example.org", 8443),
    ("http://localhost:9000", "localhost", 9000), ("http://hub.localhost:9000", "hub.localhost", 9000),
    ("http://[::1]:8000", "::1", 8000), ("http://127.0.0.7:8000/", "127.0.0.7", 8000),
])
def test_urls_that_may_be_used(url, host, port):
    site = load(text=changed("http://127.0.0.1:8000", f'"{url}"'))
    assert (site.url, site.host, site.port) == (url.rstrip("/"), host, port)


def test_names_that_may_be_used():
    names = ["a", "7", "20231234", "ada-lovelace", "a_b", "no", "null-1", "x" * 32]
    site = load(first="\ufeffUserName , email\r\n" + "".join(f'"{name}", {name}@example.org\r\n' for name in names))
    assert [student.username for student in site.class_("ml101").students] == names
    assert load(text=changed("graders: [gus]", 'graders: [no, "4711", off]')).class_("ml101").graders == ["no", "4711", "off"]


def test_an_anchor_may_be_used_twice():
    text = changed("limits: {cpu: 1,", "limits: &small {cpu: 1,") + "    limits: *small\n"
    assert load(text=text).class_("ml201").limits.memory_mb == 1024


# ----------------------------------------------------------------------------------- the example, the schema, the tool
def sections(model: type[BaseModel] = Site) -> list[type[BaseModel]]:
    return [model, site_module.Settings, site_module.Class, site_module.Limits, site_module.Autograder,
            switches.Oidc, switches.Lti13, switches.Monitoring]


def test_the_example_is_what_the_readme_promises():
    site = Site.load(Site.example_path)
    assert [(c.id, c.plan, c.start) for c in site.classes] == [("ml101", 16, None), ("ml201", 8, None)]
    people = site.people()
    assert sorted(people) == ["ada", "alice", "bob", "carol", "grace", "gus"]
    assert people["alice"].student_of == people["grace"].staff_of == ["ml101", "ml201"]
    assert (people["gus"].staff_of, people["bob"].student_of, people["carol"].student_of) == (["ml101"], ["ml101"], ["ml201"])
    assert [name for name, person in people.items() if person.admin] == ["ada"]


def test_the_example_explains_every_key_and_shows_its_default():
    text = Site.example_path.read_text()
    site = Site.load(Site.example_path)
    for section in sections():
        for name, field in section.model_fields.items():
            line = next(line for line in text.splitlines() if line.strip(" -#").startswith(f"{field.alias or name}:"))
            assert "#" in line or section is Site, f"{name} is not explained in the example"
    assert site.class_("ml101").limits == site.class_("ml201").limits      # written out in one, left to the defaults in the other
    assert site.class_("ml101").autograder == site.class_("ml201").autograder
    assert all(getattr(site.class_("ml101"), key) == getattr(site.class_("ml201"), key) for key in ("late", "image", "solutions"))


def test_every_key_says_what_it_is_and_why_its_default_is_safe():
    for section in sections():
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name} has no description"
            assert field.examples, f"{section.__name__}.{name} has no example for its error messages"


def test_every_section_refuses_unknown_keys():
    assert all(section.model_config["extra"] == "forbid" for section in sections())
    definitions = [Site.schema(), *Site.schema()["$defs"].values()]
    assert all(definition["additionalProperties"] is False for definition in definitions)


def test_the_committed_schema_is_in_step():
    committed = json.loads(SCHEMA.read_text())
    assert committed == Site.schema(), "run: python -m hub.config schema"


def test_the_example_fits_the_schema():
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(Site.schema())
    jsonschema.validate(Document(Site.example_path).data, Site.schema(), cls=jsonschema.Draft202012Validator)
    save()
    jsonschema.validate(Document(Path("classes.yml")).data, Site.schema(), cls=jsonschema.Draft202012Validator)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=Path.cwd(),
                          env={"PYTHONPATH": str(paths.REPO), "PATH": "/usr/bin:/bin"})


def test_check_prints_a_table_or_every_problem():
    save()
    done = run("-m", "hub.config", "check", "classes.yml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("OK: classes.yml: 2 classes, 6 people, http://127.0.0.1:8000\n")
    assert "ml201" in done.stdout
    save(text=changed("plan: 16", "plan: 5").replace("cpu: 1", "cpu: x"))
    done = run("-m", "hub.config", "check", "classes.yml")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == ("classes.yml:10: classes.ml101.plan: 5: must be 4, 8 or 16; write plan: 16\n"
                           "classes.yml:18: classes.ml101.limits.cpu: 'x': must be a number, not text; write cpu: 1\n")
    assert run("-m", "hub.config", "chekc").returncode == 2


def test_schema_writes_the_schema():
    assert run("-m", "hub.config", "schema", "out.json").returncode == 0
    assert json.loads(Path("out.json").read_text()) == Site.schema()


def test_import_is_quick_and_needs_no_hub():
    code = ("import sys, time; start = time.process_time(); import hub.config.site; spent = time.process_time() - start;"
            "assert not {'jupyterhub', 'rich', 'ruamel', 'yaml', 'sqlalchemy'} & set(sys.modules), sorted(sys.modules);"
            "print(spent)")
    assert min(float(run("-c", code).stdout) for _ in range(3)) < 0.3


@pytest.mark.parametrize(("solutions", "when", "opened"), [
    ("hidden", "2030-01-01T00:00+00:00", []),
    ("open", "2020-01-01T00:00+00:00", ["01_setup", "02_tensor", "03_activations"]),
    ("after_due", "2026-09-01T00:00+00:00", []),
    ("after_due", "2026-09-14T00:00+00:00", ["01_setup"]),              # week 1 ends on Sunday, 13 September
    ("after_due", "2026-09-28T00:00+00:00", ["01_setup", "02_tensor", "03_activations"]),
])
def test_reference_solutions_open_when_the_class_says(tmp_path, solutions, when, opened):
    text = (paths.REPO / "hub" / "example" / "classes.yml").read_text()
    text = re.sub(r"solutions: hidden[^\n]*", f"solutions: {solutions}", text, count=1)
    text = text.replace("    plan: 16", "    plan: 16\n    start: 2026-09-07", 1)
    (tmp_path / "classes.yml").write_text(text)
    shutil.copytree(paths.REPO / "hub" / "example" / "rosters", tmp_path / "rosters")
    class_ = Site.load(tmp_path / "classes.yml").classes[0]
    ready = [module.slug for module in class_.opened(datetime.fromisoformat(when)) if module.number <= "03"]
    assert ready == opened
