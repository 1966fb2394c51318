"""How a served site is reached: the configuration of Caddy, its web server, as it follows from classes.yml.

    python -m hub.deployment.caddy          the Caddyfile of this site, on standard output

Caddy stands before the proxy: it holds the certificate, sends http to https, bounds uploads, and says in plain words when a
request is too large or the site is being started. Nothing secret is in its configuration.
"""

from hub import paths
from hub.config.site import Site

CERTIFICATE, KEY = "certificate.pem", "key.pem"      # where a deployment puts files of the admin, in FOLDER
FOLDER = "/etc/caddy"                                # inside the container; its data is in /data


def page(title: str, *lines: str, reload: bool = False) -> str:
    """One plain page in a line: no script, nothing from another host, readable where styles are off."""
    again = "<meta http-equiv=refresh content=10>" if reload else ""
    style = "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;padding:0 1rem}"
    text = "".join(f"<p>{line}</p>" for line in lines)
    return (f"<!doctype html><html lang=en><meta charset=utf-8>{again}<title>{title}</title><style>{style}</style>"
            f"<h1>{title}</h1>{text}</html>")


def caddyfile(site: Site, upstream: str = "proxy:8000") -> str:
    """Caddy's configuration. `upstream`: host and port of the site's proxy."""
    tls = site.settings.tls
    own = {"automatic": "", "internal": "\ttls internal\n", "files": f"\ttls {FOLDER}/{CERTIFICATE} {FOLDER}/{KEY}\n"}[tls.certificates]
    hsts = f'\theader Strict-Transport-Security "max-age={tls.hsts_days * 86400}"\n' if tls.hsts_days else ""
    large = page("This is too large", f"The site takes {tls.upload} in one request, which is more than a submission needs.",
                 "Remove what the program can make again (data sets, checkpoints, outputs of cells), then try once more.")
    starting = page("The site is being started", "It is back in a moment, and this page reloads by itself. Running notebooks go on.",
                    "If it takes longer than a few minutes, tell your instructor.", reload=True)
    host = f"[{site.host}]" if ":" in site.host else site.host
    hosts = [host, f"*.{host}"] if site.settings.subdomains else [host]
    where = ", ".join(f"https://{name}" if site.port == 443 else f"https://{name}:{site.port}" for name in hosts)
    return f"""# Made from classes.yml by hub/deployment/caddy.py; written anew at every deployment.
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

{where} {{
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
    print(caddyfile(Site.load(paths.CLASSES_YML)), end="")


if __name__ == "__main__":
    main()
