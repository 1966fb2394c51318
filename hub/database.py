"""Where the hub keeps accounts, servers and tokens: SQLite in the state folder, or PostgreSQL with its password in a file.

The address that JupyterHub is given holds no password: it goes into configuration, messages and temporary files. libpq reads
the password itself, from a file of mode 0600.
"""

from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from hub import paths, secrets
from hub.config.site import Site


def sqlite(site: Site) -> bool:
    return site.database == "sqlite"


def url(site: Site) -> str:
    """The address for SQLAlchemy. For PostgreSQL its password file is written anew: a changed password holds from the next start on."""
    if sqlite(site):
        return f"sqlite:///{paths.HUB / 'jupyterhub.sqlite'}"
    parts = urlsplit(site.database)
    options = {**dict(parse_qsl(parts.query)), "application_name": "tinytorch-hub", "connect_timeout": "10"}
    store = secrets.load()
    password = store.given(secrets.DATABASE_PASSWORD)
    if password:
        escaped = password.replace("\\", "\\\\").replace(":", "\\:")
        options["passfile"] = str(store.write("pgpass", f"*:*:*:*:{escaped}\n"))
    return f"postgresql+psycopg://{parts.netloc}{quote(parts.path)}?{urlencode(options)}"


def problem(site: Site, error: Exception) -> str:
    """Why the database cannot be used, in a sentence for the log. The driver's own words hold no password."""
    why = str(getattr(error, "orig", error)).strip().splitlines()
    return (f"the hub's database {site.database} cannot be used ({why[0] if why else type(error).__name__}): see whether it runs, whether "
            f"site.database in classes.yml names it, and whether {secrets.DATABASE_PASSWORD} in the secrets folder is its password")
