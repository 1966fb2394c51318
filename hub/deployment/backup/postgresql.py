"""Databases on a PostgreSQL server: asked, checked and put back by that server's own clients."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from .settings import PASSWORD, Problem, Settings

SCHEMAS = ("public", "autograder")         # on a PostgreSQL server: the hub's tables, the autograder's jobs


def postgresql(settings: Settings, program: str, *words: str, password: str | None = None) -> str:
    """Run a client of PostgreSQL; the password goes by environment, from the secrets folder if none is given."""
    if not shutil.which(program):
        raise Problem(f"the site's database is PostgreSQL, and {program} is missing here: apt-get install postgresql-client")
    secret = settings.state / PASSWORD
    if password is None and secret.exists():
        password = secret.read_text().strip()
    env = {**os.environ, "PGCONNECT_TIMEOUT": "10", **({"PGPASSWORD": password} if password else {})}
    done = subprocess.run([program, "--no-password", "--dbname", settings.postgresql, *words], env=env, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip()
        if "no password supplied" in said:
            said = f"there is no password for {settings.postgresql}: write it into {secret}, mode 600"
        raise Problem(f"{program} failed: {said}")
    return done.stdout


def statement(settings: Settings, text: str, password: str | None = None) -> str:
    """What the server answers to a statement: rows as lines, columns parted by |. All of it holds, or nothing."""
    words = ("--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--single-transaction", "--set", "ON_ERROR_STOP=1", "--command", text)
    return postgresql(settings, "psql", *words, password=password).strip()


def check(settings: Settings, password: str | None = None) -> str:
    """That the database server answers and this host's clients can back it up: pg_dump refuses a server newer than itself."""
    if not settings.postgresql:
        return "the databases are files of this host"
    server = int(statement(settings, "SHOW server_version_num", password)) // 10_000
    for program in ("pg_dump", "pg_restore"):
        if not shutil.which(program):
            raise Problem(f"the site's database is PostgreSQL, and {program} is missing here: apt-get install postgresql-client")
        told = subprocess.run([program, "--version"], capture_output=True, text=True).stdout     # pg_dump (PostgreSQL) 15.14 (Debian ...)
        client = int((re.findall(r"\) (\d+)", told) or ["0"])[0])
        if client < server:
            raise Problem(f"{settings.postgresql} is PostgreSQL {server}, which {program} {client} of this host cannot back up: install "
                          f"postgresql-client-{server} here (PostgreSQL's own package archive has what the distribution lacks)")
    return f"{settings.postgresql} answers: PostgreSQL {server}"


def forms_on_server(settings: Settings) -> dict[str, str]:
    """The forms of the hub's and the autograder's tables, where there are any yet."""
    found = {}
    for name, table, column in (("hub", "public.alembic_version", "version_num"), ("jobs", "autograder.version", "version")):
        if statement(settings, f"SELECT to_regclass('{table}')"):
            found[f"PostgreSQL ({name})"] = ",".join(sorted(statement(settings, f"SELECT {column} FROM {table}").split()))
    return found


def tables_on_server(settings: Settings, password: str) -> int:
    schemas = ", ".join(f"'{name}'" for name in SCHEMAS)
    return int(statement(settings, f"SELECT count(*) FROM pg_tables WHERE schemaname IN ({schemas})", password))


def put_back(settings: Settings, dump: Path, password: str) -> None:
    """Replace all that this user has in the two schemas, also what a newer version has added since, by what the dump holds."""
    statement(settings, """
        SET client_min_messages TO warning; SET lock_timeout TO '30s';
        DROP SCHEMA IF EXISTS autograder CASCADE;
        CREATE SCHEMA autograder;
        DO $$ DECLARE each text; BEGIN
            FOR each IN
                SELECT format('%s IF EXISTS public.%I',
                              CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, relname)
                    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'S')
                                    AND pg_get_userbyid(relowner) = current_user
                UNION ALL SELECT format('TYPE IF EXISTS public.%I', typname)
                    FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype IN ('d', 'e')
                                   AND pg_get_userbyid(typowner) = current_user
            LOOP EXECUTE 'DROP ' || each || ' CASCADE'; END LOOP;
        END $$""", password)
    only = [word for name in SCHEMAS for word in ("--schema", name)]
    try:
        postgresql(settings, "pg_restore", *only, "--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error", str(dump),
                   password=password)
    except Problem as problem:
        raise Problem(f"{problem}. The site's tables on the server are empty now, and nothing else was changed: mend that, then restore "
                      "again, this backup or the one that was made just before") from None
