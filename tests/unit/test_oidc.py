"""Sign-in with OpenID Connect: a real hub and a real provider on loopback, and every way in which an answer can be wrong."""

import base64
import hashlib
import hmac
import json
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
import requests
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.providers.openid import CLIENT, SECRET, OpenId
from tests.providers.serving import Key, now
from tests.small_hub import page, refused, restart, small_hub

PEOPLE = {
    "alice": {"email": "Alice@Example.org", "email_verified": True}, "bob": {"email": "bob@example.org", "email_verified": True},
    "ada": {"email": "ada@example.org", "email_verified": True}, "eve": {"email": "eve@example.org", "email_verified": True},
    "unverified": {"email": "bob@example.org", "email_verified": False}, "unsaid": {"email": "bob@example.org"},
    "nameless": {"email_verified": True},
}
pytestmark = pytest.mark.site


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The provider, and a hub that trusts it."""
    provider = OpenId("", PEOPLE)

    def change(text):
        emails = "  emails: {ada: ada@example.org, grace: grace@example.org, gus: gus@example.org}\n"
        section = f"  oidc:\n    issuer: {provider.url}\n    client_id: {CLIENT}\n    name: your test account\n"
        return text.replace("  sign_in: native", f"{section}{emails}  sign_in: oidc")

    with small_hub(tmp_path_factory.mktemp("oidc"), change, oidc_client_secret=SECRET + "\n") as hub:
        provider.redirect_uri = f"{hub.url}/hub/oauth_callback"
        hub.provider = provider
        yield hub
    provider.close()


@pytest.fixture(autouse=True)
def honest(world):
    yield
    world.provider.tell_truth()
    world.provider.person = "alice"


def sign_in(hub, session=None, path="/hub/home"):
    """Press the button as a browser would; returns the last page."""
    session = session or requests.Session()
    at = session.get(hub.url + path, timeout=30)
    assert "Sign in with your test account" in page(at)
    link = at.text.split('id="login_provider" href="')[1].split('"')[0].replace("&amp;", "&")
    return session.get(urljoin(hub.url, link), timeout=30)


def stopped_at_callback(hub, session):
    """The address with which the provider sends the browser back, not opened yet."""
    start = session.get(f"{hub.url}/hub/oauth_login", allow_redirects=False, timeout=30)
    return session.get(start.headers["Location"], allow_redirects=False, timeout=30).headers["Location"]


# --------------------------------------------------------------------------------------------- who enters
def test_people_of_the_roster_enter_and_land_where_they_wanted(world):
    session = requests.Session()
    at = sign_in(world, session)
    assert at.url == f"{world.url}/hub/home"
    assert "ml101, you are a student" in page(at)
    assert session.get(f"{world.url}/hub/home", timeout=30).text.count("Change password") == 0
    world.provider.person = "ada"
    assert "Admin" in page(sign_in(world))


def test_who_is_on_no_roster_stays_out(world):
    world.provider.person = "eve"
    session = requests.Session()
    assert refused(sign_in(world, session), "Your test account says that you are eve@example.org, and nobody with that e-mail address")
    assert session.get(f"{world.url}/hub/home", timeout=30).url.startswith(f"{world.url}/hub/login")
    assert "eve@example.org" not in world.log("hub")


@pytest.mark.parametrize("person", ["unverified", "unsaid"])
def test_an_address_that_nobody_checked_proves_nothing(world, person):
    world.provider.person = person
    assert refused(sign_in(world), "has not checked that bob@example.org is your e-mail address")


def test_a_claim_that_is_missing_is_named(world):
    world.provider.person = "nameless"
    assert refused(sign_in(world), "did not say your email")


def test_claims_that_are_only_in_userinfo_are_asked_for_there(world):
    world.provider.userinfo_only = True
    assert "ml101, you are a student" in page(sign_in(world))
    world.provider.userinfo_of = "id-bob"
    assert refused(sign_in(world), "cannot be trusted: it speaks of somebody else")


def test_the_request_carries_pkce_state_and_nonce_and_no_secret(world):
    start = requests.get(f"{world.url}/hub/oauth_login", allow_redirects=False, timeout=30)
    asked = parse_qs(urlsplit(start.headers["Location"]).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert min(len(asked[name][0]) for name in ("state", "nonce", "code_challenge")) >= 32
    assert SECRET not in start.headers["Location"] + world.log("hub")


# --------------------------------------------------------------------------------------------- what a liar may try
LIES = {
    "another issuer": ({"iss": "https://login.example.org"}, "the token is of another issuer"),
    "for another site": ({"aud": "somebody-else"}, "the token does not hold"),
    "for several sites": ({"aud": [CLIENT, "somebody-else"]}, "the token was made for another site"),
    "expired": ({"exp": 1_700_000_000}, "answered too late: the token has expired"),
    "of the future": ({"iat": now() + 3600}, "the token does not hold"),
    "signed long ago": ({"iat": now() - 3600}, "answered too late: the token is old"),
    "another request's nonce": ({"nonce": "x" * 43}, "the token answers another request"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_signed_lie_is_refused(world, name):
    world.provider.lies, words = LIES[name]
    session = requests.Session()
    assert refused(sign_in(world, session), words)
    assert session.get(f"{world.url}/hub/home", timeout=30).url.startswith(f"{world.url}/hub/login")


@pytest.mark.parametrize("kid", ["first", "unknown", None])
def test_a_key_that_is_not_the_provider_s_signs_nothing(world, monkeypatch, kid):
    published = world.provider.key.public()
    monkeypatch.setattr(world.provider, "key", Key("other"))
    monkeypatch.setattr(world.provider.key, "public", lambda: published)
    world.provider.header = {"kid": kid}
    assert refused(sign_in(world), "the token does not hold")


def part(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_a_token_that_needs_no_private_key_is_refused(world, monkeypatch, algorithm):
    pem = world.provider.key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def forged(claims, **header):
        text = part({"alg": algorithm, "kid": "first"}) + b"." + part(claims)
        # the public key, which everybody has, as if it were a shared secret
        signature = hmac.new(pem, text, hashlib.sha256).digest() if algorithm == "HS256" else b""
        return (text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()

    monkeypatch.setattr(world.provider.key, "sign", forged)
    assert refused(sign_in(world), "the token does not hold")


def test_an_answer_holds_once_and_only_in_the_browser_that_asked(world):
    session = requests.Session()
    back = stopped_at_callback(world, session)
    kept = dict(session.cookies)
    assert refused(requests.get(back, timeout=30), "not the answer to a sign-in that was begun in this browser")
    entered = session.get(back, timeout=30)
    assert entered.url == f"{world.url}/hub/home", page(entered)
    assert refused(requests.get(back, cookies=kept, timeout=30), "did not confirm this sign-in")          # a code holds once
    other = requests.Session()
    wrong = stopped_at_callback(world, other).replace("state=", "state=x")
    assert refused(other.get(wrong, timeout=30), "not the answer to a sign-in that was begun in this browser")


def test_a_form_at_the_sign_in_page_signs_nobody_in(world):
    session = requests.Session()
    session.get(f"{world.url}/hub/login", timeout=30)
    for data in ({"username": "alice", "password": "x"}, {"email": "alice@example.org", "code": "1", "name": "alice"}):
        form = {**data, "_xsrf": session.cookies.get("_xsrf", path="/hub/")}
        answer = session.post(f"{world.url}/hub/login", data=form, timeout=30)
        assert answer.status_code == 200
        assert "Sign in with your test account" in page(answer)
    assert session.get(f"{world.url}/hub/home", timeout=30).url.startswith(f"{world.url}/hub/login")


def test_what_the_provider_says_no_to_is_told_without_its_markup(world):
    world.provider.refusal = "Your account is <b>locked</b>"
    answer = sign_in(world)
    assert refused(answer, "Your test account did not sign you in: Your account is &lt;b&gt;locked&lt;/b&gt;")


# --------------------------------------------------------------------------------------------- a provider that is away, or another one
def test_a_provider_that_is_away_or_names_itself_otherwise_signs_nobody_in_and_the_hub_lives(world, monkeypatch):
    restart(world)                                            # forgets what it has discovered
    with monkeypatch.context() as away:
        away.setattr(world.provider, "answer", lambda *request: (500, {}, "broken"))
        assert refused(requests.get(f"{world.url}/hub/oauth_login", timeout=30), "does not answer, so nobody can be signed in", 503)
    world.provider.issuer = "https://login.example.org"
    assert refused(sign_in(world), "names itself https://login.example.org, and this site trusts")
    world.provider.tell_truth()
    assert "ml101, you are a student" in page(sign_in(world))
