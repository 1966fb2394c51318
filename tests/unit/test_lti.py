"""Sign-in by LTI 1.3: a real hub and a real platform on loopback, and every way in which a launch can be wrong."""

import re
from html import unescape

import pytest
import requests

from hub.accounts.directory import LTI
from tests.providers.platform import CLIENT, Platform
from tests.providers.serving import Key, now
from tests.small_hub import page, refused, small_hub

PEOPLE = {"alice": {f"{LTI}ext": {"user_username": "alice"}, "email": "somebody@example.org"},
          "eve": {f"{LTI}ext": {"user_username": "eve"}, "email": "alice@example.org"}, "nameless": {}}
pytestmark = pytest.mark.site


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    platform = Platform("", PEOPLE)

    def change(text):
        section = (f"  lti13:\n    issuer: {platform.url}\n    client_id: {CLIENT}\n    authorize_url: {platform.url}/authorize\n"
                   f"    jwks_url: {platform.url}/keys\n    deployment_ids: ['1']\n    name: the test platform\n    match: username\n")
        return text.replace("  sign_in: native", f"{section}  sign_in: lti13")

    with small_hub(tmp_path_factory.mktemp("lti"), change) as hub:
        platform.redirect_uri = f"{hub.url}/hub/lti13/oauth_callback"
        hub.platform = platform
        yield hub
    platform.close()


@pytest.fixture(autouse=True)
def honest(world):
    yield
    world.platform.tell_truth()
    world.platform.person = "alice"


def form(session, link):
    """The platform's page with the signed launch, which posts itself in a browser: its address and its fields."""
    text = session.get(link, timeout=30)
    assert text.status_code == 200, text.text[:500]
    return unescape(re.search(r'action="([^"]+)"', text.text)[1]), {
        name: unescape(value) for name, value in re.findall(r'name="([^"]+)" value="([^"]*)"', text.text)}


def launch(hub, session=None):
    """Follow the link in the course; returns the last page."""
    session = session or requests.Session()
    where, what = form(session, hub.platform.link(hub.url))
    return session.post(where, data=what, headers={"Origin": hub.platform.url}, timeout=30)


def test_people_of_the_roster_enter_by_the_link_in_their_course(world):
    session = requests.Session()
    assert "ml101, you are a student" in page(launch(world, session))
    assert session.get(f"{world.url}/hub/home", timeout=30).url == f"{world.url}/hub/home"
    assert "Open your course in the test platform" in page(requests.get(world.url, timeout=30))


def test_who_is_on_no_roster_stays_out(world):
    world.platform.person = "eve"
    assert refused(launch(world), "The test platform says that you are eve, and nobody with that user name is in a class")
    world.platform.person = "nameless"
    assert refused(launch(world), "The test platform did not say your ext.user_username")


LIES = {
    "another issuer": ({"iss": "https://moodle.example.org"}, "the token is of another issuer"),
    "another client": ({"aud": "somebody-else"}, "the token does not hold"),
    "expired": ({"exp": 1_700_000_000}, "answered too late: the token has expired"),
    "signed long ago": ({"iat": now() - 3600}, "answered too late: the token is old"),
    "another request's nonce": ({"nonce": "x" * 64}, "the token answers another request"),
    "another deployment": ({f"{LTI}deployment_id": "2"}, "a course that this site does not serve"),
    "another version": ({f"{LTI}version": "1.1"}, "lacks something that every launch has"),
    "no launch": ({f"{LTI}message_type": "Hello"}, "lacks something that every launch has"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_signed_lie_is_refused(world, name):
    world.platform.lies, words = LIES[name]
    session = requests.Session()
    assert refused(launch(world, session), words)
    assert session.get(f"{world.url}/hub/home", timeout=30).url.startswith(f"{world.url}/hub/login")


@pytest.mark.parametrize("missing", ["nonce", "exp", "sub", f"{LTI}roles", f"{LTI}resource_link"])
def test_a_launch_without_what_every_launch_has_is_refused(world, missing):
    world.platform.missing = (missing,)
    assert launch(world).status_code == 403


def test_a_key_that_is_not_the_platform_s_signs_nothing(world, monkeypatch):
    published = world.platform.key.public()
    monkeypatch.setattr(world.platform, "key", Key("first"))
    monkeypatch.setattr(world.platform.key, "public", lambda: published)
    assert refused(launch(world), "the token does not hold")


def test_a_launch_holds_once_and_only_in_the_browser_that_began_it(world):
    session = requests.Session()
    where, what = form(session, world.platform.link(world.url))
    kept = {cookie.name: cookie.value for cookie in session.cookies}
    assert any("state" in name for name in kept)
    assert refused(requests.post(where, data=what, timeout=30), "was not begun in this browser")
    assert session.post(where, data=what, timeout=30).url == f"{world.url}/hub/home"
    assert refused(requests.post(where, data=what, cookies=kept, timeout=30), "the token was used before")
    other = requests.Session()
    where, what = form(other, world.platform.link(world.url))
    assert refused(other.post(where, data={**what, "state": what["state"][:-4] + "AAAA"}, timeout=30), "was not begun in this browser")


@pytest.mark.parametrize(("changes", "words"), [
    ({"iss": "https://moodle.example.org"}, "of a platform that this site does not know"),
    ({"client_id": "somebody-else"}, "made for another site"), ({"login_hint": ""}, "lacks something that every launch has"),
])
def test_announcements_of_others_lead_nowhere(world, changes, words):
    assert refused(requests.get(world.platform.link(world.url, **changes), timeout=30), words)


def test_where_a_launch_leads_is_on_this_site(world):
    session = requests.Session()
    where, what = form(session, world.platform.link(world.url, target_link_uri="https://evil.example.org/hub/home?next=//evil.example.org"))
    assert session.post(where, data=what, allow_redirects=False, timeout=30).headers["Location"].startswith("/")
    assert not session.post(where, data=what, allow_redirects=False, timeout=30).headers.get("Location", "/x").startswith("//")


def test_a_form_at_the_sign_in_page_signs_nobody_in(world):
    session = requests.Session()
    session.get(f"{world.url}/hub/login", timeout=30)
    claims = {"email": "alice@example.org", "sub": "alice", "username": "alice", f"{LTI}ext": "{'user_username': 'alice'}"}
    answer = session.post(f"{world.url}/hub/login", data={**claims, "_xsrf": session.cookies.get("_xsrf", path="/hub/")}, timeout=30)
    assert "Open your course in the test platform" in page(answer)
    assert session.get(f"{world.url}/hub/home", timeout=30).url.startswith(f"{world.url}/hub/login")
    assert refused(requests.get(f"{world.url}/hub/lti13/oauth_callback", timeout=30), "Open this site by its link in your course")


def test_what_a_platform_reads_to_install_the_site_names_it(world):
    config = requests.get(f"{world.url}/hub/lti13/config", timeout=30).json()
    assert config["oidc_initiation_url"] == f"{world.url}/hub/lti13/oauth_login"
