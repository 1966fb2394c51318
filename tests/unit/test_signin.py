"""Sign-in: who has an account, how it is made, lost and locked, and what the pages of a real hub answer."""

import asyncio
import csv
import json
import math
import re
import time
from types import SimpleNamespace

import bcrypt
import pytest
import requests
from jupyterhub import orm
from nativeauthenticator.orm import UserInfo

from hub.accounts import signin
from hub.config.people import Person
from tests.need import need
from tests.running import Person as Visitor
from tests.small_hub import page, small_hub

PEOPLE = {
    "ada": Person("ada", admin=True), "grace": Person("grace", staff_of=["ml101", "ml201"]),
    "alice": Person("alice", student_of=["ml101", "ml201"]), "bob": Person("bob", student_of=["ml101"]),
}


@pytest.fixture
def database(tmp_path):
    session = orm.new_session_factory(f"sqlite:///{tmp_path / 'hub.sqlite'}")()
    yield session
    session.close()


@pytest.fixture
def start(database, tmp_path):
    """Start the authenticator as the hub does at each of its starts, for these people."""
    def start(people=PEOPLE):
        authenticator = signin.accounts(people)(_deprecated_db_session=database, signins_file=str(tmp_path / "signins.csv"))
        authenticator.minimum_password_length = 12
        authenticator.check_common_password = True
        authenticator.allowed_failed_logins = 5
        authenticator.seconds_before_next_try = 300
        return authenticator
    return start


def sign_in(authenticator, name, password):
    return asyncio.run(authenticator.authenticate(None, {"username": name, "password": password}))


@pytest.fixture
def hasty(monkeypatch):
    """Answers at once, for tests that are not about time."""
    monkeypatch.setattr(signin, "ANSWER_SECONDS", 0)


# --------------------------------------------------------------------------------------------- accounts
def test_everybody_gets_an_account_once(start, database, hasty):
    first = start().signins.read()
    assert set(first) == set(PEOPLE)
    again = start()
    assert again.signins.read() == first
    for name, password in first.items():
        assert sign_in(again, name, password) == name
    assert {info.username for info in UserInfo.all_users(database)} == set(PEOPLE)


def test_first_passwords_are_long_enough_to_be_left_alone_and_read_aloud():
    assert math.log2(len(set(signin.ALPHABET))) * signin.GROUPS * signin.GROUP >= 60
    passwords = {signin.new_password() for _ in range(200)}
    assert len(passwords) == 200
    assert all(re.fullmatch(r"[2-9a-hjkmnp-z]{5}(-[2-9a-hjkmnp-z]{5}){2}", password) for password in passwords)


def test_clear_text_is_in_one_private_file_only(start, tmp_path, database):
    authenticator = start()
    assert authenticator.signins.file.stat().st_mode & 0o777 == 0o600
    database.close()
    stored = (tmp_path / "hub.sqlite").read_bytes()
    assert not [password for password in authenticator.signins.read().values() if password.encode() in stored]
    with authenticator.signins.file.open() as stream:
        rows = [tuple(row.values())[0::2] for row in csv.DictReader(stream)]
    assert rows == [("ada", "admin"), ("grace", "staff"), ("alice", "student"), ("bob", "student")]


def test_a_start_that_was_cut_off_hands_out_no_dead_password(start, database, hasty):
    given = start().signins.read()
    database.query(UserInfo).filter_by(username="bob").delete()      # as if the file was written and the database was not
    database.commit()
    assert sign_in(start(), "bob", given["bob"]) == "bob"


def test_who_left_cannot_sign_in_and_has_no_session(start, hasty):
    before = start()
    password = before.signins.read()["bob"]
    after = start({name: person for name, person in PEOPLE.items() if name != "bob"})
    assert sign_in(after, "bob", password) is None
    assert "bob" not in after.signins.read()
    assert not asyncio.run(after.refresh_user(SimpleNamespace(name="bob")))
    assert asyncio.run(after.refresh_user(SimpleNamespace(name="alice")))
    back = start()
    assert back.signins.read()["bob"] not in ("", password)          # who comes back gets a new one


def test_a_changed_password_replaces_the_first_one(start, hasty):
    authenticator = start()
    first = authenticator.signins.read()["bob"]
    assert authenticator.change_password("bob", "correct horse battery")
    assert authenticator.signins.read()["bob"] == ""
    again = start()
    assert sign_in(again, "bob", first) is None
    assert sign_in(again, "bob", "correct horse battery") == "bob"


@pytest.mark.parametrize("weak", ["short", "x" * 73, "é" * 40, "qwertyqwerty"])
def test_a_weak_password_is_refused_and_nothing_changes(start, hasty, weak):
    authenticator = start()
    first = authenticator.signins.read()["bob"]
    if weak == "qwertyqwerty":
        need("the list of common passwords to hold this one", authenticator.is_password_common(weak), "choose another for this test")
    assert not authenticator.change_password("bob", weak)
    assert authenticator.signins.read()["bob"] == first
    assert sign_in(authenticator, "bob", first) == "bob"


# --------------------------------------------------------------------------------------------- guessing
def test_five_wrong_attempts_lock_a_name_for_a_while(start, hasty, monkeypatch):
    authenticator = start()
    right = authenticator.signins.read()["bob"]
    for _ in range(5):
        assert sign_in(authenticator, "bob", "wrong") is None
    assert sign_in(authenticator, "bob", right) is None
    assert sign_in(authenticator, "alice", authenticator.signins.read()["alice"]) == "alice"
    now = time.monotonic()
    monkeypatch.setattr(signin.time, "monotonic", lambda: now + 301)
    assert sign_in(authenticator, "bob", right) == "bob"


def test_names_that_do_not_exist_are_locked_like_the_others(start, hasty):
    authenticator = start()
    for _ in range(5):
        sign_in(authenticator, "nobody", "wrong")
    assert authenticator.is_blocked("nobody")


def test_the_memory_of_attempts_is_bounded(start, hasty, monkeypatch):
    monkeypatch.setattr(signin, "ATTEMPTS_KEPT", 10)
    authenticator = start()
    for i in range(50):
        authenticator.add_login_attempt(f"name{i}")
    assert len(authenticator.login_attempts) <= 11


def test_time_does_not_tell_whether_a_name_exists(start):
    authenticator = start()
    authenticator.change_password("bob", "correct horse battery")    # a hash that takes longer than a generated one's
    took = {}
    for name in ("nobody", "alice", "bob"):
        begin = time.perf_counter()
        assert sign_in(authenticator, name, "wrong") is None
        took[name] = time.perf_counter() - begin
    assert min(took.values()) >= signin.ANSWER_SECONDS
    assert bcrypt.checkpw(b"correct horse battery", authenticator.get_user("bob").password)


# --------------------------------------------------------------------------------------------- the pages of a real hub
@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with small_hub(tmp_path_factory.mktemp("hub")) as site:
        yield site


@pytest.mark.site
def test_wrong_names_and_wrong_passwords_read_the_same(hub):
    answers = [Visitor(hub, name, "wrong").signed_in for name in ("carol", "nobody")]
    assert [answer.status_code for answer in answers] == [403, 403]
    assert page(answers[0]) == page(answers[1])
    assert "User name and password do not match." in page(answers[0])
    echoed = Visitor(hub, '"><script>alert(1)</script>', "wrong").signed_in
    assert "<script>alert" not in echoed.text


@pytest.mark.site
def test_a_form_without_its_token_is_refused_in_words(hub):
    answer = requests.post(hub.url + "/hub/login", data={"username": "carol", "password": "x"}, timeout=30)
    assert answer.status_code == 403
    assert "Login form invalid or expired. Try again." in page(answer)


@pytest.mark.site
def test_people_land_where_they_work(hub):
    assert Visitor(hub, "bob").signed_in.headers["Location"] == "/hub/user-redirect/ml101"
    students, teachers, admins = (page(Visitor(hub, name).get("/hub/home")) for name in ("alice", "grace", "ada"))
    assert "Your classes Machine learning systems ml101, you are a student" in students
    assert "formgrader" not in students
    assert teachers.count("Open formgrader") == 2
    assert "You are in no class yourself." in admins
    assert requests.get(hub.url + "/hub/home", timeout=30).url.startswith(hub.url + "/hub/login")


@pytest.mark.site
@pytest.mark.parametrize(("path", "status", "words"), [
    ("/hub/spawn", 403, "A server belongs to a class. Choose a class on the home page."),
    ("/hub/spawn/alice/ml999", 403, "You are not in a class named ml999. Your classes: ml101, ml201."),
    ("/hub/user-redirect/ml999/lab", 403, "You are not in a class named ml999. Your classes: ml101, ml201."),
    ("/hub/spawn/carol/ml201", 404, "There is no such page"),
    ("/hub/nothing", 404, "There is no such page"),
    ("/hub/admin", 403, "You may not open this"),
    ("/hub/metrics", 403, "You may not open this"),
    ("/services/ml101/formgrader", 503, "This part of the site does not answer"),
    ("/hub/signup", 404, "There is no such page"),          # what native offers and this site does not
    ("/hub/authorize", 404, "There is no such page"),
    ("/hub/authorize/alice", 404, "There is no such page"),
    ("/hub/discard/alice", 404, "There is no such page"),
    ("/hub/change-password/carol", 403, "You may not open this"),
])
def test_what_a_student_may_not_open_says_so_in_words(hub, path, status, words):
    answer = Visitor(hub, "alice").get(path)
    assert answer.status_code == status
    assert words in page(answer)
    assert "Traceback" not in answer.text


@pytest.mark.site
def test_refused_servers_leave_no_trace(hub):
    alice = Visitor(hub, "alice")
    for name in ("one", "two", "three"):
        assert alice.send("POST", f"/hub/api/users/alice/servers/{name}").status_code == 403
    asks = f"sqlite:///{hub.state / 'hub' / 'jupyterhub.sqlite'}"
    session = orm.new_session_factory(asks)()
    assert [spawner.name for spawner in session.query(orm.Spawner) if spawner.name] == []
    session.close()


@pytest.mark.site
def test_a_password_is_changed_on_its_page(hub):
    first = hub.password("carol")
    carol = Visitor(hub, "carol", first)

    def change(old, new, again):
        carol.get("/hub/change-password")
        return carol.send("POST", "/hub/change-password",
                          data={"old": old, "new": new, "again": again, "_xsrf": carol.xsrf("/hub/")})

    new = "a new one for carol"
    assert "current password is not right" in page(change("wrong", new, new))
    assert "two new passwords differ" in page(change(first, new, new + "x"))
    assert "must have 12 to 72 characters" in page(change(first, "short", "short"))
    assert hub.password("carol") == first
    assert "Your password is changed." in page(change(first, new, new))
    assert Visitor(hub, "carol", first).signed_in.status_code == 403
    assert Visitor(hub, "carol", new).signed_in.status_code == 302
    assert hub.password("carol") == ""


@pytest.mark.site
def test_no_secret_is_in_a_log(hub):
    Visitor(hub, "alice").get("/hub/home")
    tokens = json.loads((hub.state / "secrets" / "tokens.json").read_text()).values()
    secrets = [*tokens, (hub.state / "secrets" / "cookie_secret").read_text(), hub.password("alice"), hub.password("grace")]
    logs = "".join(hub.log(name) for name in ("hub", "proxy"))
    assert "User logged in: alice" in logs
    assert not [secret for secret in secrets if secret in logs]
