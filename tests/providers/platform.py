"""A learning platform that starts LTI 1.3 launches: it announces one, signs it for whoever is signed in there, and posts it."""

from html import escape
from urllib.parse import urlencode

from hub.accounts.directory import LTI
from tests.providers.serving import Provider, as_json, fields, now

CLIENT = "A1b2C3d4E5f6G7h"


class Platform(Provider):
    """`person` is who is signed in there; `lies` change the claims that it signs."""

    def __init__(self, redirect_uri: str, people: dict[str, dict]):
        self.redirect_uri, self.people, self.person = redirect_uri, people, next(iter(people))
        self.tell_truth()
        super().__init__()

    def tell_truth(self) -> None:
        self.lies, self.missing = {}, ()

    def link(self, tool: str, **changes: str) -> str:
        """What a click on the link in a course opens: the announcement of a launch."""
        return f"{tool}/hub/lti13/oauth_login?" + urlencode({
            "iss": self.url, "login_hint": f"id-{self.person}", "target_link_uri": f"{tool}/hub", "client_id": CLIENT,
            "lti_message_hint": "42", "lti_deployment_id": "1", **changes})

    def claims(self, nonce: str) -> dict:
        launch = {
            "iss": self.url, "aud": CLIENT, "sub": f"id-{self.person}", "iat": now(), "exp": now() + 300, "nonce": nonce,
            f"{LTI}version": "1.3.0", f"{LTI}message_type": "LtiResourceLinkRequest", f"{LTI}deployment_id": "1",
            f"{LTI}target_link_uri": self.redirect_uri, f"{LTI}roles": [], f"{LTI}resource_link": {"id": "7"}, **self.people[self.person],
            **self.lies}
        return {key: value for key, value in launch.items() if key not in self.missing}

    def answer(self, method, path, query, headers, body):
        if path == "/keys":
            return as_json({"keys": [self.key.public()]})
        if path != "/authorize":
            return 404, {}, ""
        asked = fields(query)
        right = asked["client_id"] == CLIENT and asked["redirect_uri"] == self.redirect_uri and asked["login_hint"] == f"id-{self.person}" \
            and asked["response_mode"] == "form_post" and asked["response_type"] == "id_token" and asked["lti_message_hint"] == "42"
        if not right:
            return 400, {}, f"not a request of the tool: {asked}"
        posted = {"state": asked["state"], "id_token": self.key.sign(self.claims(asked["nonce"]))}
        inputs = "".join(f'<input type="hidden" name="{name}" value="{escape(value)}">' for name, value in posted.items())
        form = f'<form method="post" action="{escape(asked["redirect_uri"])}">{inputs}<button>Open</button></form>'
        return 200, {"Content-Type": "text/html"}, f"<!DOCTYPE html><title>Course</title>{form}"
