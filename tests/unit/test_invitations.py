"""Invitations: links that hold once, for some days and for one person; their page and command on a real hub, on PostgreSQL if there."""

import asyncio
import csv
import io
import stat
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from jupyterhub import orm
from nativeauthenticator.orm import UserInfo
from sqlalchemy import create_engine, text

from hub import paths
from hub.accounts import invitations, signin
from hub.config.people import Person
from tests import postgres
from tests.need import need
from tests.running import Person as Visitor
from tests.running import browser
from tests.small_hub import launch, page, restart, small_hub

PEOPLE = {"ada": Person("ada", admin=True), "alice": Person("alice", email="alice@example.org", student_of=["ml101"]),
          "bob": Person("bob", student_of=["ml101"])}
GOOD = "correct horse battery"


@pytest.fixture
def file(tmp_path):
    return f"sqlite:///{tmp_path / 'hub.sqlite'}"


@pytest.fixture
def start(file, tmp_path, monkeypatch):
    """The authenticator of a served site, as the hub makes it at each of its starts."""
    monkeypatch.setattr(signin, "ANSWER_SECONDS", 0)

    def start(people=PEOPLE, invites=True):
        made = signin.accounts(people, invites)(_deprecated_db_session=orm.new_session_factory(file)(),
                                                signins_file=str(tmp_path / "signins.csv"))
        made.minimum_password_length, made.check_common_password = 12, True
        made.allowed_failed_logins, made.seconds_before_next_try = 5, 300
        return made
    return start


def links(file, *names, days=7):
    """Made by another process than the hub's, as by the command."""
    with create_engine(file).begin() as connection:
        return {each.person.username: each for each in invitations.invite(connection, [PEOPLE[name] for name in names], days)}


def sign_in(authenticator, name, password):
    return asyncio.run(authenticator.authenticate(None, {"username": name, "password": password}))


def accept(authenticator, name, code, password=GOOD):
    try:
        asyncio.run(authenticator.accept(name, code, password))
    except invitations.Invalid as reason:
        return str(reason)
    return "accepted"


def test_nobody_has_an_account_or_a_password_in_a_file_until_they_choose_one(start, file, tmp_path):
    authenticator = start()
    assert UserInfo.all_users(authenticator.db) == []
    assert not (tmp_path / "signins.csv").exists()
    made = links(file, "alice")["alice"]
    assert sign_in(authenticator, "alice", made.code) is None
    assert accept(authenticator, "alice", made.code) == "accepted"
    assert sign_in(authenticator, "alice", GOOD) == "alice"
    assert sign_in(start(), "alice", GOOD) == "alice"                # and after a restart
    assert not (tmp_path / "signins.csv").exists()


def test_a_link_holds_once_for_its_person_only_and_the_newest_alone(start, file):
    authenticator = start()
    first, second = links(file, "alice", "bob"), links(file, "alice")
    assert "holds no more" in accept(authenticator, "alice", first["alice"].code)
    assert "holds no more" in accept(authenticator, "alice", first["bob"].code)
    assert "holds no more" in accept(authenticator, "ada", second["alice"].code)
    assert "holds no more" in accept(authenticator, "nobody", second["alice"].code)
    assert "holds no more" in accept(authenticator, "alice", "")
    assert accept(authenticator, "alice", second["alice"].code) == "accepted"
    assert "holds no more" in accept(authenticator, "alice", second["alice"].code, "another password")
    assert sign_in(authenticator, "alice", GOOD) == "alice"


def test_a_link_expires(start, file):
    authenticator = start()
    late = links(file, "alice", days=-0.001)["alice"]
    assert accept(authenticator, "alice", late.code) == "This link has expired. Ask your instructor or the site's admin for a new one."
    assert sign_in(authenticator, "alice", GOOD) is None


def test_of_two_requests_at_the_same_moment_one_wins(start, file):
    made, both = links(file, "alice")["alice"], [start(), start()]
    gate, outcomes = threading.Barrier(2), []

    def run(authenticator, password):
        gate.wait()
        try:
            outcomes.append((accept(authenticator, "alice", made.code, password), password))
        except Exception as error:                                   # a busy SQLite refuses; it must not accept
            outcomes.append((type(error).__name__, password))

    threads = [threading.Thread(target=run, args=(each, f"password number {n}")) for n, each in enumerate(both)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [password for outcome, password in outcomes if outcome == "accepted"]
    assert len(won) == 1, outcomes
    assert sign_in(start(), "alice", won[0]) == "alice"


def test_the_database_holds_no_link(file, tmp_path):
    made = links(file, "alice", "bob")
    stored = (tmp_path / "hub.sqlite").read_bytes()
    assert all(each.code.encode() not in stored for each in made.values())
    assert len({each.code for each in made.values()}) == 2
    assert all(len(each.code) >= 43 for each in made.values())       # 256 bits
    link = urlsplit(made["alice"].link("https://hub.example.org"))
    assert (link.path, link.query) == ("/hub/invitation", "")        # what servers and logs see of it
    assert made["alice"].code in link.fragment


def test_who_forgot_gets_a_new_link_and_keeps_the_old_password_until_it_is_used(start, file):
    authenticator = start()
    accept(authenticator, "alice", links(file, "alice")["alice"].code)
    again = links(file, "alice")["alice"]
    for _ in range(6):
        sign_in(authenticator, "alice", "wrong")
    assert sign_in(authenticator, "alice", GOOD) is None             # locked
    assert accept(authenticator, "alice", again.code, "a new one of hers") == "accepted"
    assert sign_in(authenticator, "alice", "a new one of hers") == "alice"


def test_who_left_has_no_link_either(start, file):
    start()
    made = links(file, "bob")["bob"]
    gone = start({name: person for name, person in PEOPLE.items() if name != "bob"})
    assert "holds no more" in accept(gone, "bob", made.code)
    assert "holds no more" in accept(start(), "bob", made.code)      # nor when they come back


def test_a_demonstration_s_passwords_end_when_the_site_is_served(start, file, tmp_path):
    demo = start(invites=False)
    passwords = demo.signins.read()
    demo.change_password("alice", GOOD)
    served = start()
    assert sign_in(served, "bob", passwords["bob"]) is None
    assert sign_in(served, "alice", GOOD) == "alice"                 # what she chose herself
    assert not (tmp_path / "signins.csv").exists()
    with create_engine(file).connect() as connection:
        assert [person.username for person in invitations.without_password(connection, PEOPLE)] == ["ada", "bob"]


# --------------------------------------------------------------------------------------------- a real hub
@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A served site: https in its address, TLS being somebody else's in front of it. On PostgreSQL where that is installed."""
    if postgres.programs() is None:
        with small_hub(tmp_path_factory.mktemp("invited"), served) as site:
            yield site
        return
    with postgres.running() as (address, password):
        def change(text):
            return served(text).replace("  database: sqlite", f"  database: {address}")
        with small_hub(tmp_path_factory.mktemp("invited"), change, database_password=password + "\n") as site:
            site.password_of_database, site.address = password, address
            yield site


def served(text):
    return text.replace("http://127", "https://127")


def invite(hub, *words):
    return subprocess.run([str(paths.env_bin("hub", "python")), "-m", "hub.accounts.invitations", *words], cwd=paths.REPO, env=hub.env,
                          capture_output=True, text=True, timeout=60)


class Invited(Visitor):
    """Somebody with a link in a browser: what stands behind # is put into the form by the page's script."""

    def __init__(self, hub, link):
        parts = urlsplit(link)
        self.site, self.session = hub, browser()
        self.name, self.code = parts.fragment.split("/")
        self.shown = self.get(parts.path)

    def choose(self, new, again=None):
        return self.send("POST", "/hub/invitation", allow_redirects=False, data={
            "username": self.name, "code": self.code, "new": new, "again": new if again is None else again, "_xsrf": self.xsrf("/hub/")})


@pytest.mark.site
def test_a_person_chooses_a_password_behind_the_link_and_is_in(hub):
    made = invite(hub)
    assert made.returncode == 0, made.stderr
    rows = {row["username"]: row for row in csv.DictReader(io.StringIO(made.stdout))}
    assert set(rows) == {"ada", "alice", "bob", "carol", "grace", "gus"}
    assert rows["alice"]["link"].startswith(f"https://127.0.0.1:{hub.port}/hub/invitation#alice/")
    alice = Invited(hub, rows["alice"]["link"])
    assert "Choose your password" in page(alice.shown)
    for new, again, words in (("short", None, "must have 12 to 72 characters"), ("x" * 80, None, "must have 12 to 72 characters"),
                              (GOOD, GOOD + "x", "The two passwords differ.")):
        answer = alice.choose(new, again)
        assert answer.status_code == 400
        assert words in page(answer)
        assert "your link still holds" in page(answer)
    done = alice.choose(GOOD)
    assert (done.status_code, done.headers["Location"]) == (302, "/hub/home")
    assert "ml101, you are a student" in page(alice.get("/hub/home"))
    assert "holds no more" in page(Invited(hub, rows["alice"]["link"]).choose("another password"))
    assert Visitor(hub, "alice", GOOD).signed_in.status_code == 302
    assert Visitor(hub, "alice", alice.code).signed_in.status_code == 403
    assert alice.code not in hub.log("hub") + hub.log("proxy")
    forged = Invited(hub, rows["bob"]["link"])
    forged.session.cookies.clear()
    assert forged.choose(GOOD).status_code == 403                    # a form of another site


@pytest.mark.site
def test_the_command_writes_a_private_file_and_refuses_what_it_cannot_do(hub, tmp_path):
    file = tmp_path / "links.csv"
    assert invite(hub, "grace", "bob", "--csv", str(file), "--days", "2").returncode == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [row["username"] for row in csv.DictReader(file.open())] == ["grace", "bob"]
    assert invite(hub, "mallory").stderr.startswith("there is nobody named mallory in classes.yml or a roster")
    assert "at most 90" in invite(hub, "bob", "--days", "365").stderr
    assert "Choose" in page(requests.get(f"http://127.0.0.1:{hub.port}/hub/invitation", timeout=30))


@pytest.mark.site
def test_the_hub_keeps_its_data_in_postgresql_and_its_password_to_itself(hub):
    need("PostgreSQL", postgres.programs(), "apt-get install postgresql")
    assert not (hub.state / "hub" / "jupyterhub.sqlite").exists()
    password = hub.password_of_database
    launch(hub, "autograder")                                        # one switch leads both
    deadline = time.monotonic() + 60
    while not postgres.asked(hub.address, password, "select to_regclass('autograder.version')::text")[0][0]:
        assert hub.processes["autograder"].poll() is None, hub.log("autograder")
        assert time.monotonic() < deadline, hub.log("autograder")
        time.sleep(0.2)
    engine = create_engine(hub.address.replace("postgresql:", "postgresql+psycopg:"), connect_args={"password": password})
    with engine.connect() as connection:
        assert connection.execute(text("select count(*) from users")).scalar() >= 6
        connection.execute(text("insert into user_group_map select u.id, g.id from users u, groups g "
                                "where u.name = 'bob' and g.name = 'nbgrader-ml201'"))
        connection.commit()
    restart(hub)
    with engine.connect() as connection:                             # who is in no class any more is out of its group there too
        assert connection.execute(text("select count(*) from user_group_map m join users u on u.id = m.user_id join groups g "
                                       "on g.id = m.group_id where u.name = 'bob' and g.name = 'nbgrader-ml201'")).scalar() == 0
    engine.dispose()
    assert Visitor(hub, "alice", GOOD).signed_in.status_code == 302   # still there
    shown = b"".join(file.read_bytes() for number in Path("/proc").glob("[0-9]*") for file in [number / "cmdline"] if readable(file))
    assert password not in hub.log("hub") + hub.log("autograder")
    assert not list((hub.state / "autograder").glob("jobs.sqlite*"))
    assert password.encode() not in shown
    (hub.state / "secrets" / "database_password").write_text("wrong")
    refused = invite(hub, "bob")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"the hub's database {hub.address} cannot be used (")
    started = hub.command("up")                                      # says so at once, and starts nothing
    assert started.returncode == 1
    assert f"make up: the jobs' database {hub.address} cannot be used (" in started.stdout
    assert "Traceback" not in started.stdout + started.stderr
    (hub.state / "secrets" / "database_password").chmod(0o644)
    assert "others can read this secret: chmod 600 it" in invite(hub, "bob").stderr


def readable(file):
    try:
        return bool(file.read_bytes())
    except OSError:
        return False
