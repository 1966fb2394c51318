"""What a single value of classes.yml or of a roster may be. Each rule returns the value to use, or raises Wrong."""

import ipaddress
import re
import unicodedata
import zoneinfo
from datetime import date, datetime, time
from urllib.parse import SplitResult, urlsplit

from hub.config.problems import Wrong, near

# A name becomes part of URLs, folders, groups, containers and DNS names; what is valid in all of them is this.
# `--` separates user and class in the names of containers, so that neither may hold it.
USER = r"^(?!.*--)[a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?$"
CLASS = r"^(?!.*--)[a-z]([a-z0-9_-]{0,30}[a-z0-9])?$"
SIZE = r"^[0-9]+(\.[0-9]+)?[MG]$"
DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
MOMENT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2})?)?$"
HOST = r"^(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]$"
IMAGE = r"^[a-z0-9][a-z0-9._/-]*(:[0-9]+/[a-z0-9._/-]+)?(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?(@sha256:[0-9a-f]{64})?$"
EMAIL = r"^[^@\s,;<>]+@[^@\s,;<>]+$"
CLAIM = r"^[A-Za-z0-9_:/.-]{1,200}$"
DATABASE = r"^(sqlite|postgresql://[^:@/\s]+@[^@\s]+/[^/\s]+)$"
ADDRESS = r"^[A-Za-z0-9.-]+:[0-9]{1,5}$"

# The exchange looks only at the name that a token belongs to, whether a person's or a service's: they must differ.
# hub and proxy are hosts beside which a class's services run.
CHECK = "health-check"                   # with it a deployment tries itself out (hub/deployment/health.py)
RESERVED = ("ngshare", "exchange", "idle-culler", "autograder", "hub", "proxy", "jupyterhub", "prometheus", CHECK)
PREFIXES = ("grader-", "formgrade", "nbgrader")
SOME_URL = "write one such as http://127.0.0.1:8000 or https://hub.example.org"


def user_name(name: str) -> str:
    return _name(name, "user name", USER, "a letter or digit")


def class_id(name: object) -> str:
    if not isinstance(name, (str, int, float)):
        raise Wrong("must be text", "choose one such as ml101")
    return _name(str(name), "class id", CLASS, "a letter")


def _name(name: str, kind: str, pattern: str, first: str) -> str:
    slug = _slug(name, pattern)
    instead = f"write {slug}" if slug else f"choose one such as {'ada' if kind == 'user name' else 'ml101'}"
    if name != name.lower() and re.fullmatch(pattern, name.lower()):
        why = "JupyterHub signs people in under lower case names"
        raise Wrong(f"a {kind} has no capital letters ({why})", f"write {name.lower()}")
    if len(name) > 32:
        why = "it becomes part of longer names"
        raise Wrong(f"a {kind} has at most 32 characters, this has {len(name)} ({why})", "shorten it")
    if not re.fullmatch(pattern, name):
        why = "it becomes part of URLs, folders and the names of groups and containers"
        form = f"only a-z, 0-9, - and _, beginning with {first}, ending with a letter or digit, no --"
        raise Wrong(f"not a valid {kind}: {form} ({why})", instead)
    if name in RESERVED or name.startswith(PREFIXES):
        mine = f"{', '.join(RESERVED)} and what begins with {', '.join(PREFIXES)} are the site's own names"
        raise Wrong(f"one name must mean one thing on a site: {mine}", f"choose another {kind}")
    return name


def _slug(name: str, pattern: str) -> str:
    """The nearest valid name, or nothing."""
    plain = unicodedata.normalize("NFKD", name.split("@")[0]).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"-{2,}", "-", re.sub(r"[^a-z0-9_]+", "-", plain)).strip("-_")[:32].strip("-_")
    return slug if re.fullmatch(pattern, slug) else ""


def email(text: str) -> str:
    if text and not re.fullmatch(r"[^@\s,;<>]+@[^@\s,;<>]+", text):
        raise Wrong("not an e-mail address", "write one such as ada@example.org, or leave it empty")
    return text


def some_email(text: str) -> str:
    return email(text or "@@")


def endpoint(text: str) -> str:
    """An address at which somebody vouches for people: what is read there must not be changed on the way."""
    some = "write one such as https://login.example.org/realms/university"
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise Wrong("not an address", some) from None
    if parts.scheme not in ("http", "https") or not host or re.search(r"\s", text):
        raise Wrong("not an address", some)
    if parts.username or parts.password or parts.fragment:
        raise Wrong("an address with a name, a password or a # in it", f"write {parts.scheme}://{host}{parts.path}")
    if parts.scheme == "http" and not is_loopback(host):
        raise Wrong("http:// would let anybody on the way say who people are", f"write https://{text.removeprefix('http://')}")
    return text


def claim(text: str) -> str:
    if not re.fullmatch(CLAIM, text):
        raise Wrong("not the name of a claim", "write one such as email, preferred_username or custom.login")
    return text


def database(text: str) -> str:
    """`sqlite`, or an address of PostgreSQL without a password."""
    some = "write sqlite, or an address such as postgresql://tinytorch@db.example.org/hub"
    if text == "sqlite":
        return text
    try:
        parts = urlsplit(text)
        name, port = parts.path.strip("/"), parts.port
    except ValueError:
        raise Wrong("not the address of a database", some) from None
    if parts.scheme in ("postgres", "postgresql") and parts.password is not None:
        where = f"{parts.hostname or 'db.example.org'}{f':{port}' if port else ''}"
        raise Wrong("a password has no place in this file, which others read",
                    f"write postgresql://{parts.username}@{where}/{name or 'hub'}, and the password into database_password in the"
                    " secrets folder")
    if parts.scheme != "postgresql" or not parts.hostname or not parts.username or not re.fullmatch(r"[^/\s]+", name) or parts.fragment:
        raise Wrong("not the address of a database", some)
    known = {"sslmode", "sslrootcert"}
    if odd := [pair for pair in parts.query.split("&") if pair and pair.partition("=")[0] not in known]:
        raise Wrong(f"{odd[0].partition('=')[0]} is not known here", "after ? there may be sslmode and sslrootcert")
    return text


def address(text: str) -> str:
    if not re.fullmatch(ADDRESS, text):
        raise Wrong("not a host and port", "write one such as alerts.example.org:9093")
    return text


def label(text: object) -> str:
    """Text that people see: a title or a person's name."""
    if not isinstance(text, str) or not text.strip() or not text.isprintable() or len(text) > 100:
        raise Wrong("must be one line of 1 to 100 visible characters", "shorten or replace it")
    return text.strip()


def url(text: str) -> str:
    """Where people reach the site. Without TLS only this machine itself may."""
    parts, port = _split(text)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not re.fullmatch(r"[a-z0-9.:-]+", host):
        raise Wrong("not an address of a site", SOME_URL)
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        fix = f"write {parts.scheme}://{_host_port(parts)}"
        raise Wrong("more than scheme, host and port (a site has its host to itself)", fix)
    if parts.scheme == "http" and not is_loopback(host):
        name = "HOST" if re.fullmatch(r"[0-9.]+|.*:.*", host) else host
        raise Wrong("http:// would send passwords and session cookies unencrypted over the network",
                    f"write https://{name}, or http://127.0.0.1:8000 for a site that only this machine reaches")
    if parts.scheme == "http" and not 1024 <= (port or 80) <= 65000:
        why = "lower ones need root, and the site's own processes use the next ones"
        fix = f"write http://{f'[{host}]' if ':' in host else host}:8000"
        raise Wrong(f"the port must be from 1024 to 65000 ({why})", fix)
    return f"{parts.scheme}://{_host_port(parts)}"


def _split(text: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(text)
        return parts, parts.port
    except ValueError as error:
        raise Wrong(f"not an address of a site ({error})", SOME_URL) from None


def _host_port(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2].lower()


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")           # RFC 6761: all of them are this machine


def time_zone(name: str) -> str:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = zoneinfo.available_timezones()
        by_city = {zone.rpartition("/")[2].lower(): zone for zone in sorted(known)}
        found = near(name, {zone.lower(): zone for zone in known}) or near(name, by_city)
        zone = {**{z.lower(): z for z in known}, **by_city}.get(found or "", "Europe/Berlin")
        fix = f"write {zone}" if found else f"write one such as UTC or {zone}"
        raise Wrong("no time zone of that name", fix) from None
    return name


def size_mb(value: object) -> int:
    """`512M` or `1.5G` in units of 1024 * 1024 bytes."""
    text = str(value)
    if not isinstance(value, str) or not re.fullmatch(SIZE, text):
        number = re.match(r"[0-9]+(\.[0-9]+)?", text)
        small = "m" not in text.lower() and ("g" in text.lower() or number is None or float(number[0]) < 64)
        raise Wrong("not a size: a number followed by M or G", f"write {number[0] if number else 1}{'G' if small else 'M'}")
    return int(float(text[:-1]) * (1024 if text[-1] == "G" else 1))


def image(text: str) -> str:
    if not re.fullmatch(IMAGE, text):
        fix = "write default, or one such as example.org/course/student:2026-09"
        raise Wrong("not the name of a container image", fix)
    return text


def host_name(text: str) -> str:
    if not re.fullmatch(HOST, text):
        raise Wrong("not the name of a host on the internet (no scheme, port, path, address or *)", "write one such as data.example.org")
    return text


def day(value: object) -> date:
    if not isinstance(value, str) or not re.fullmatch(DATE, value):
        raise Wrong("not a date", "write it as year-month-day, such as 2026-09-07")
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise Wrong("there is no such day in the calendar", "correct the month or the day") from None


def moment(value: object) -> datetime:
    """A date with or without time and zone. A date alone means the end of that day, as in the plans."""
    if not isinstance(value, str) or not re.fullmatch(MOMENT, value):
        fix = "write it as 2026-09-20T23:59 (the site's time zone) or 2026-09-20T23:59+02:00"
        raise Wrong("not a date and time", fix)
    try:
        if len(value) == len("2026-09-20"):
            return datetime.combine(date.fromisoformat(value), time(23, 59))
        return datetime.fromisoformat(value)
    except ValueError:
        raise Wrong("there is no such day or time", "correct the month, the day or the hour") from None


def graded_module(text: str) -> str:
    """The slug of the module that is meant."""
    from course.curriculum import UnknownName, find_module, modules

    try:
        module = find_module(text)
    except UnknownName as error:
        meant = near(text, [m.slug for m in modules()]) or "one such as 02_tensor"
        raise Wrong(str(error).partition(";")[0], f"write {meant}") from None
    if not module.graded:
        raise Wrong(f"{module.slug} is not graded, so it has no due date", "remove this line")
    return module.slug
