"""How a deployed site is reached: the section `tls` of classes.yml, and the web server's configuration that follows from it.

    python -m hub.tls          the Caddyfile of this site, on standard output

Caddy stands before the proxy: it holds the certificate, sends http to https, bounds uploads, and says in plain words when a
request is too large or the site is being started. Nothing secret is in its configuration.
"""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from hub import rules
from hub.problems import Wrong
from hub.sections import Section, text

if TYPE_CHECKING:
    from hub.site import Site

CERTIFICATE, KEY = "certificate.pem", "key.pem"      # where a deployment puts files of the admin, in FOLDER
FOLDER = "/etc/caddy"                                # inside the container; its data is in /data
FILE = r"^(?!/?$)[^\0\n]+$"


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


def page(title: str, *lines: str, reload: bool = False) -> str:
    """One plain page in a line: no script, nothing from another host, readable where styles are off."""
    again = "<meta http-equiv=refresh content=10>" if reload else ""
    style = "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;padding:0 1rem}"
    text = "".join(f"<p>{line}</p>" for line in lines)
    return (f"<!doctype html><html lang=en><meta charset=utf-8>{again}<title>{title}</title><style>{style}</style>"
            f"<h1>{title}</h1>{text}</html>")


def caddyfile(site: "Site", upstream: str = "proxy:8000") -> str:
    """Caddy's configuration. `upstream`: host and port of the site's proxy."""
    tls = site.settings.tls
    own = {"automatic": "", "internal": "\ttls internal\n", "files": f"\ttls {FOLDER}/{CERTIFICATE} {FOLDER}/{KEY}\n"}[tls.certificates]
    hsts = f'\theader Strict-Transport-Security "max-age={tls.hsts_days * 86400}"\n' if tls.hsts_days else ""
    large = page("This is too large", f"The site takes {tls.upload} in one request, which is more than a submission needs.",
                 "Remove what the program can make again (data sets, checkpoints, outputs of cells), then try once more.")
    starting = page("The site is being started", "It is back in a moment, and this page reloads by itself. Running notebooks go on.",
                    "If it takes longer than a few minutes, tell your instructor.", reload=True)
    host = f"[{site.host}]" if ":" in site.host else site.host
    where = host if site.port == 443 else f"{host}:{site.port}"
    return f"""# Made from classes.yml by hub/tls.py; written anew at every deployment.
{{
	admin unix//tmp/caddy-admin.sock|0600
	persist_config off
	skip_install_trust
	storage file_system /data
	default_sni {site.host}
	grace_period 20s
	servers {{
		protocols h1 h2
	}}
{f"	email {tls.email}{chr(10)}" if tls.email else ""}}}

https://{where} {{
{own}{hsts}	header {{
		-Server
		-Via
	}}
	request_body {{
		max_size {tls.upload_mb}MiB
	}}
	reverse_proxy {upstream} {{
		# the hub marks its cookies as secure by this; the proxy behind appends to X-Forwarded-Proto and would hide it
		header_up X-Scheme {{scheme}}
		# while the proxy is being replaced requests wait for it; running notebooks keep their connection when this file changes
		lb_try_duration 15s
		stream_close_delay 12h
	}}
	handle_errors 413 {{
		header Content-Type "text/html; charset=utf-8"
		respond `{large}` 413
	}}
	handle_errors 502 503 504 {{
		header Content-Type "text/html; charset=utf-8"
		header Retry-After 10
		respond `{starting}` 503
	}}
}}
"""


def main() -> None:
    from hub import paths
    from hub.site import Site

    print(caddyfile(Site.load(paths.CLASSES_YML)), end="")


if __name__ == "__main__":
    main()
