"""What several kinds of tests share: one running site for the whole session, and one PostgreSQL server."""

import pytest

from autograder.sandbox.processes import bubblewrap
from tests import postgres
from tests.need import need
from tests.running import Site

CLOSED = "03_activations"       # due long ago in ml201, which refuses what is late


def close(text: str) -> str:
    """The example's classes.yml, with one assignment of the second class closed."""
    roster = "    roster: rosters/ml201.csv"
    return text.replace(roster, f"    late: refuse\n    due: {{{CLOSED}: 2025-01-31}}\n{roster}")


def isolation() -> str:
    """Empty where bubblewrap works here, else what it said."""
    try:
        bubblewrap.find()
    except bubblewrap.SandboxUnavailable as lacking:
        return str(lacking)
    return ""


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The example site, running; stopped at the end of the session. On failure its logs are in the temporary folder."""
    said = isolation()
    need("bubblewrap", not said, said)
    running = Site(tmp_path_factory.mktemp("site"), change=close)
    try:
        running.first_up = running.up()
        yield running
    finally:
        running.down()


@pytest.fixture(scope="session")
def postgres_server():
    need("PostgreSQL", postgres.programs(), "apt-get install postgresql")
    with postgres.server() as server:
        # as an administrator may have set it; who then waits for a turn must not see what was before it
        server.sql("ALTER ROLE tinytorch SET default_transaction_isolation TO 'repeatable read'")
        yield server


@pytest.fixture
def jobs_address(postgres_server):
    """Where an autograder can keep its jobs, as hub/database.py gives it; no jobs are there yet."""
    postgres_server.sql("DROP SCHEMA IF EXISTS autograder CASCADE")
    return postgres_server.complete
