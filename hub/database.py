"""Where the hub keeps accounts, servers and tokens, and the autograder its jobs: SQLite files of the state, or PostgreSQL with its
password in a file. One address leads both to one database, so that one dump holds both as they were at one moment; the jobs have a
schema of their own in it (autograder/service/database.py), so that no name of a table is taken twice.

The address that either is given holds no password: it goes into configuration, messages and temporary files. libpq reads the password
itself, from a file of mode 0600.
"""

from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from hub import paths, secrets
from hub.config.site import Site


def sqlite(site: Site) -> bool:
    return site.database == "sqlite"


def url(site: Site) -> str:
    """The hub's, for SQLAlchemy. For PostgreSQL its password file is written anew: a changed password holds from the next start on."""
    if sqlite(site):
        return f"sqlite:///{paths.HUB / 'jupyterhub.sqlite'}"
    return _address(site, paths.SECRETS / "pgpass", "postgresql+psycopg", application_name="tinytorch-hub", connect_timeout="10")


def of_jobs(site: Site) -> str:
    """The autograder's, for libpq; nothing where its jobs are in a file. In a container its secrets are read-only, hence another folder."""
    return "" if sqlite(site) else _address(site, paths.RUN / "pgpass", "postgresql")


def _address(site: Site, passfile: Path, scheme: str, **options: str) -> str:
    parts, password = urlsplit(site.database), secrets.load().given(secrets.DATABASE_PASSWORD)
    options = {**dict(parse_qsl(parts.query)), **options}
    if password:
        escaped = password.replace("\\", "\\\\").replace(":", "\\:")
        secrets.write(passfile, f"*:*:*:*:{escaped}\n".encode())
        options["passfile"] = str(passfile)
    # a space is %20: libpq reads + as a plus
    return f"{scheme}://{parts.netloc}{quote(parts.path)}{'?' if options else ''}{urlencode(options, quote_via=quote)}"


def problem(site: Site, error: Exception) -> str:
    """Why the database cannot be used, in a sentence for the log. The driver's own words hold no password."""
    why = str(getattr(error, "orig", error)).strip().splitlines()
    return (f"the hub's database {site.database} cannot be used ({why[0] if why else type(error).__name__}): see whether it runs, whether "
            f"site.database in classes.yml names it, and whether {secrets.DATABASE_PASSWORD} in the secrets folder is its password")
