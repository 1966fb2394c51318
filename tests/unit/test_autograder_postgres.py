"""Jobs on a PostgreSQL server: what a site is told when it cannot be used, and what an outage costs who works with it."""

import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from autograder.jobs import Result, Verdict
from autograder.quotas import Quotas
from autograder.service import database, presence, worker
from autograder.service import store as stores
from autograder.service.database import Unavailable, Unfit
from autograder.service.store import Store
from tests.unit.test_autograder_store import put


@pytest.fixture
def store(tmp_path, jobs_address):
    store = Store(tmp_path / "jobs.sqlite", jobs_address)
    yield store
    store.db.close()


# --------------------------------------------------------------------------------------------- one line, and an end
def refused(folder, address):
    """What the service says to a database that it cannot use, and with which code it ends."""
    done = subprocess.run([sys.executable, "-m", "autograder.service", "--state", str(folder), "--port", "1", "--workers", "1"],
                          env={**os.environ, "AUTOGRADER_TOKEN": "a token for this test only", "AUTOGRADER_DATABASE": address},
                          capture_output=True, text=True, timeout=240)
    assert done.stdout == ""
    [said] = done.stderr.splitlines()
    return done.returncode, said


def test_a_wrong_password_is_said_in_one_line_without_it(postgres_server, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("*:*:*:*:not-the-password\n")
    wrong.chmod(0o600)
    code, said = refused(tmp_path, f"{postgres_server.address}?passfile={wrong}")
    assert code == 1
    assert said.startswith(f"autograder: the jobs' database {postgres_server.address} cannot be used (")
    assert 'password authentication failed for user "tinytorch"' in said
    assert "see whether it runs, whether site.database in classes.yml names it, and whether database_password in the secrets folder" in said
    assert "not-the-password" not in said


def test_a_server_that_is_not_there_is_said_in_one_line(tmp_path):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))                                      # bound and not listening: refused, and nobody else's
        code, said = refused(tmp_path, f"postgresql://tinytorch@127.0.0.1:{nobody.getsockname()[1]}/hub")
    assert code == 1
    assert "Connection refused" in said
    assert "see whether it runs" in said


def test_a_server_that_takes_connections_and_says_nothing_does_not_hold_up_the_start(tmp_path, monkeypatch):
    monkeypatch.setitem(database.CONNECTION, "connect_timeout", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(Unavailable, match="timeout"):
            Store(tmp_path / "jobs.sqlite", f"postgresql://tinytorch@127.0.0.1:{silent.getsockname()[1]}/hub")
        assert time.monotonic() - begun < 20
        tried = database.Postgres(f"postgresql://tinytorch@127.0.0.1:{silent.getsockname()[1]}/hub")
        for _ in range(20):                                                # what has just failed is not tried again at once
            with pytest.raises(Unavailable, match="timeout"):
                tried.ask("SELECT 1")
        assert time.monotonic() - begun < 40


def test_too_old_a_server_is_refused_with_both_versions(tmp_path, jobs_address, monkeypatch):
    monkeypatch.setattr(database, "OLDEST", 99)
    with pytest.raises(Unfit, match=r"it is PostgreSQL \d+, and 99 or newer is needed: upgrade that server") as told:
        Store(tmp_path / "jobs.sqlite", jobs_address)
    assert "passfile" not in str(told.value)


def test_a_user_who_may_make_no_schema_and_a_database_that_cannot_hold_all_names(tmp_path, postgres_server):
    for statement in ("CREATE ROLE guest LOGIN PASSWORD 'guest'",
                      "CREATE DATABASE other ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"):
        postgres_server.sql(statement)
    passfile = tmp_path / "guest"
    passfile.write_text("*:*:*:*:guest\n")
    passfile.chmod(0o600)
    guest = postgres_server.address.replace("tinytorch@", "guest@")
    postgres_server.sql("DROP SCHEMA IF EXISTS autograder CASCADE")
    with pytest.raises(Unfit, match='GRANT CREATE ON DATABASE "postgres" TO "guest"'):
        Store(tmp_path / "jobs.sqlite", f"{guest}?passfile={passfile}")
    postgres_server.sql('GRANT CREATE ON DATABASE "postgres" TO "guest"')   # what the line says mends it
    allowed = Store(tmp_path / "jobs.sqlite", f"{guest}?passfile={passfile}")
    put(allowed, 1, "ann")
    allowed.db.close()
    postgres_server.sql("DROP SCHEMA autograder CASCADE")
    with pytest.raises(Unfit, match="it keeps text as LATIN1"):
        Store(tmp_path / "jobs.sqlite", postgres_server.complete.replace("/postgres?", "/other?"))


# --------------------------------------------------------------------------------------------- a server that goes and comes
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tinytorch-autograder'"


def test_a_connection_that_was_cut_is_made_anew_unseen(store, postgres_server):
    put(store, 1, "ann")
    for cut in (lambda: postgres_server.sql(CUT), lambda: (postgres_server.stop("fast"), postgres_server.start())):
        cut()
        assert store.count() == {"queued": 1}
        cut()
        claim = store.claim("w")
        store.give_back(claim)


def test_a_change_that_is_cut_off_is_undone_and_not_gone_on_with_on_another_connection(store, postgres_server):
    put(store, 1, "ann")

    def change():
        with store.change() as db:
            db.execute("UPDATE jobs SET state = 'done'")
            postgres_server.sql(CUT)
            store.ask("SELECT 1")

    with pytest.raises(Unavailable):
        change()
    assert store.count() == {"queued": 1}


def test_a_server_that_was_demoted_is_left_for_the_one_that_can_be_written_to(store):
    put(store, 1, "ann")
    store.db.connection.execute("SET default_transaction_read_only = on")
    with pytest.raises(Unavailable, match="read-only"):
        store.claim("w")
    assert store.claim("w")


def test_who_stands_still_in_the_middle_of_a_change_holds_up_the_others_for_a_while_only(store, tmp_path, jobs_address, monkeypatch):
    monkeypatch.setattr(database, "SESSION", database.SESSION.replace("30s", "1s"))
    still = Store(tmp_path / "jobs.sqlite", jobs_address)
    put(store, 1, "ann")

    def change():
        with still.change() as db:
            db.execute("UPDATE jobs SET state = 'done'")
            assert store.claim("w")

    with pytest.raises(Unavailable, match="connection"):
        change()
    assert still.count() == {"running": 1}


def test_a_worker_waits_for_the_server_and_writes_down_what_it_did(store, postgres_server, tmp_path, jobs_address, monkeypatch, caplog):
    """The server is away when the job ends, longer than a lease: its holder still renews it before anybody else takes it."""
    monkeypatch.setattr(stores, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(worker, "RENEW_SECONDS", 2.0)
    put(store, 1, "ann")
    began, goes_on, ran = threading.Event(), threading.Event(), []

    def carry_out(claim, watch):
        ran.append(claim.id)
        if len(ran) == 1:
            began.set()
            goes_on.wait(60)
        return Result(job=claim.job.id, verdict=Verdict.ok), False

    monkeypatch.setattr(worker, "carry_out", carry_out)
    one = worker.Worker(lambda: Store(tmp_path / "jobs.sqlite", jobs_address), "one", Quotas(None), 1)
    thread = threading.Thread(target=one.work)
    thread.start()
    assert began.wait(30)
    postgres_server.stop()
    goes_on.set()                                                          # the job ends while nobody can note it
    other = worker.Worker(lambda: Store(tmp_path / "jobs.sqlite", jobs_address), "other", Quotas(None), 1)
    second = threading.Thread(target=other.work)                           # starts while there is no server
    second.start()
    time.sleep(1.5)
    postgres_server.start()

    def done(count):
        deadline = time.monotonic() + 60
        while store.count() != {"done": count} and time.monotonic() < deadline:
            time.sleep(0.1)
        assert store.count() == {"done": count}

    done(1)
    monkeypatch.setattr(stores, "LEASE_SECONDS", 60)
    put(store, 2, "bob")
    done(2)
    for each, run in ((one, thread), (other, second)):
        each.ended.set()
        each.news.set()
        run.join(10)
    assert len(ran) == len(set(ran)) == 2
    assert [attempts for (attempts,) in store.ask("SELECT attempts FROM jobs")] == [1, 1]
    assert not caplog.records                                              # the service says it, once


def test_the_service_says_once_that_its_database_is_away_and_once_that_it_is_back(store, postgres_server, caplog, monkeypatch):
    import asyncio
    monkeypatch.setattr(presence, "AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(database, "AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(presence, "WAIT_SECONDS", 0.5)
    caplog.set_level("INFO", "autograder")

    async def live():
        there = presence.Presence(store)
        watching = asyncio.create_task(there.watch())
        assert await there.comes()
        await asyncio.to_thread(postgres_server.stop)
        while there.here.is_set():
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        assert not await there.comes()
        monkeypatch.setattr(presence, "WAIT_SECONDS", 30)
        coming = asyncio.create_task(there.comes())
        await asyncio.to_thread(postgres_server.start)
        assert await coming
        watching.cancel()

    asyncio.run(asyncio.wait_for(live(), 60))
    lost, back = [record.getMessage() for record in caplog.records]
    assert lost.startswith(f"the jobs' database {postgres_server.address} cannot be used (")
    assert lost.endswith("Nothing is lost: what runs goes on, what was submitted waits until it answers")
    assert back == "the jobs' database answers again"
