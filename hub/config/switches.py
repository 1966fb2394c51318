"""The sections of classes.yml that switch parts of a served site: who proves who people are, and what is watched."""

from typing import Annotated, Literal

from pydantic import Field

from hub.config import rules
from hub.config.sections import Image, Label, Section, text

Endpoint = Annotated[str, *text(rules.endpoint, pattern=r"^https?://\S+$")]
Claim = Annotated[str, *text(rules.claim, pattern=rules.CLAIM)]
Email = Annotated[str, *text(rules.some_email, pattern=rules.EMAIL)]
Database = Annotated[str, *text(rules.database, pattern=rules.DATABASE)]
Address = Annotated[str, *text(rules.address, pattern=rules.ADDRESS)]


class Oidc(Section):
    """Sign-in with an account of the university: OpenID Connect (or OAuth 2 with it), in force with `sign_in: oidc`."""

    issuer: Endpoint = Field(examples=["https://login.example.org/realms/university"], description=(
        "Who vouches for people. Its addresses and keys are read from `.well-known/openid-configuration` below it."))
    client_id: Label = Field(examples=["tinytorch-hub"], description=(
        "The name under which this site is registered there. Its secret is no key of this file: it stands in `oidc_client_secret`"
        " in the secrets folder."))
    name: Label = Field(default="your university account", examples=["your university account"], description=(
        "What the button says after `Sign in with`."))
    match: Literal["email", "username"] = Field(default="email", examples=["email"], description=(
        "By what a person is found: the e-mail address of the roster (or of `emails`), or the user name. By e-mail, since most"
        " universities' rosters have it."))
    claim: Claim | None = Field(default=None, examples=["preferred_username"], description=(
        "Where the provider says it. Without it `email`, or `preferred_username` for `match: username`: those of the standard."))
    email_verified: Literal["required", "optional"] = Field(default="required", examples=["required"], description=(
        "Whether the provider must say that it has checked the e-mail address. `required`: otherwise anybody could write somebody"
        " else's address into their profile. `optional` is for providers that say nothing, and where nobody edits their own address."))
    scopes: list[Label] = Field(default=["openid", "email", "profile"], min_length=1, examples=[["openid", "email", "profile"]],
                                description="What the provider is asked for. Name and address only: nothing else is used.")


class Lti13(Section):
    """Sign-in by a link in a learning platform (Moodle, Canvas, ...): LTI 1.3, in force with `sign_in: lti13`."""

    issuer: Endpoint = Field(examples=["https://moodle.example.org"], description="The platform, as it names itself.")
    client_id: Label = Field(examples=["A1b2C3d4E5f6G7h"], description="The name that the platform gave to this site.")
    authorize_url: Endpoint = Field(examples=["https://moodle.example.org/mod/lti/auth.php"], description=(
        "The platform's address for authentication requests."))
    jwks_url: Endpoint = Field(examples=["https://moodle.example.org/mod/lti/certs.php"], description="Where its public keys are.")
    deployment_ids: list[Label] = Field(default_factory=list, examples=[["1"]], description=(
        "Deployments from which launches are taken. Empty: every one that the platform has under this client_id."))
    name: Label = Field(default="your learning platform", examples=["your learning platform"], description=(
        "What the sign-in page calls it."))
    match: Literal["email", "username"] = Field(default="email", examples=["email"], description=(
        "By what a person is found: the e-mail address of the roster (or of `emails`), or the user name."))
    claim: Claim | None = Field(default=None, examples=["ext.user_username"], description=(
        "Where the platform says it. Without it `email`, or `ext.user_username` (Moodle) for `match: username`;"
        " `custom.NAME` is a parameter that the platform was told to send. People must not be able to edit it themselves."))


class Monitoring(Section):
    """What watches a served site. On a laptop there is none of it."""

    enabled: bool = Field(default=True, examples=[True], description=(
        "Whether Prometheus, the probe of the certificate and the exporter of the host run. On: a full disk is seen before it hurts."))
    keep_days: int = Field(default=30, ge=1, le=3650, examples=[30], description=(
        "Days that measurements are kept. A month shows a term's rhythm and takes about 1 GB."))
    alertmanagers: list[Address] = Field(default_factory=list, examples=[["alerts.example.org:9093"]], description=(
        "host:port of Alertmanagers of yours, which mail or page somebody. None by default: alerts are seen in Prometheus only."))
    grafana_image: Image | None = Field(default=None, examples=["grafana/grafana-oss:11.2.0"], description=(
        "Grafana's image, for the dashboards. None by default: it comes from a registry, which not every site can reach."))
