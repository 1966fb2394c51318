"""The section `tls` of classes.yml: the certificate of a served site, and how much its web server lets in."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from hub.config import rules
from hub.config.problems import Wrong
from hub.config.sections import Section, text


def _upload(value: object) -> object:
    if rules.size_mb(value) < 8:
        raise Wrong("less than 8M would refuse ordinary notebooks", "write 8M or more")
    return value


def _file(name: str) -> str:
    if not name.strip() or not name.isprintable() or name.endswith("/"):
        raise Wrong("not the name of a file", "name a PEM file, relative to this file or with its whole path")
    return name


Upload = Annotated[str, BeforeValidator(_upload), WithJsonSchema({"type": "string", "pattern": rules.SIZE})]
File = Annotated[str, AfterValidator(_file), WithJsonSchema({"type": "string", "minLength": 1})]
Email = Annotated[str, *text(rules.email)]


class Tls(Section):
    """The certificate of a deployed site and what its web server lets in. A site on a laptop has none of it."""

    certificates: Literal["automatic", "files", "internal"] = Field(default="automatic", examples=["automatic"], description=(
        "`automatic`: from a public authority (ACME), renewed by itself; ports 80 and 443 must be reachable from the internet."
        " `files`: your own, named below. `internal`: an authority of this site's own, for intranets and trials: browsers trust it"
        " only after its root is installed."))
    email: Email = Field(default="", examples=["hub-admin@example.org"], description=(
        "Whom the authority writes to when a certificate is about to end without being renewed. Nobody by default."))
    certificate: File | None = Field(default=None, examples=["tls/hub.pem"], description=(
        "With `files`: the certificate and those between it and the root (PEM), relative to this file."))
    key: File | None = Field(default=None, examples=["tls/hub.key"], description=(
        "With `files`: its private key (PEM). Keep it readable by its owner only."))
    hsts_days: int = Field(default=180, ge=0, le=730, examples=[180], description=(
        "Days for which a browser that was here once refuses plain http. Half a year; 0 while you try things out."))
    upload: Upload = Field(default="50M", examples=["50M"], description=(
        "Largest request, in M or G. The exchange takes 20 MB of files in one submission; larger ones are refused with a clear page."))

    @property
    def upload_mb(self) -> int:
        return rules.size_mb(self.upload)
