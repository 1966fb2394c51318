"""The section `tls`: what is refused, and what Caddy's configuration says. tests/deploy serves a site with it."""

import shutil

import pytest

from hub import paths
from hub.config.site import Site, SiteError
from hub.deployment.caddy import caddyfile


@pytest.fixture
def write(tmp_path):
    """Write the example with another address and these lines below `site:`; returns the file."""
    def written(*lines: str, url: str = "https://hub.example.org"):
        example = paths.REPO / "hub" / "example"
        shutil.copytree(example / "rosters", tmp_path / "rosters", dirs_exist_ok=True)
        text = (example / "classes.yml").read_text().replace("url: http://127.0.0.1:8000 ", f"url: {url} ")
        (tmp_path / "classes.yml").write_text(text.replace("site:\n", "".join(["site:\n", *(f"  {line}\n" for line in lines)]), 1))
        return tmp_path / "classes.yml"
    return written


@pytest.mark.parametrize(("line", "said"), [
    ("tls: {certificates: files, key: tls/hub.key}", "none is named as certificate"),
    ("tls: {certificates: files, certificate: tls/hub.pem}", "none is named as key"),
    ("tls: {certificate: tls/hub.pem}", "not in force"),
    ("tls: {certificates: internal, key: tls/hub.key}", "not in force"),
    ("tls: {certificates: letsencrypt}", "certificates"),
    ("tls: {upload: 4M}", "less than 8M"),
    ("tls: {hsts_days: -1}", "hsts_days"),
    ("tls: {certificates: files, certificate: tls/, key: tls/hub.key}", "not the name of a file"),
])
def test_what_cannot_be_is_refused(write, line, said):
    with pytest.raises(SiteError, match=said):
        Site.load(write(line))


@pytest.mark.parametrize(("line", "here", "absent"), [
    ("", ["https://hub.example.org {", "max-age=15552000", "max_size 50MiB"], ["\ttls ", "email"]),
    ("tls: {email: admin@example.org}", ["\temail admin@example.org\n"], ["\ttls "]),
    ("tls: {certificates: internal, hsts_days: 0}", ["\ttls internal\n"], ["Strict-Transport"]),
    ("tls: {certificates: files, certificate: a.pem, key: a.key}", ["\ttls /etc/caddy/certificate.pem /etc/caddy/key.pem\n"], ["a.pem"]),
    ("tls: {upload: 1G}", ["max_size 1024MiB", "takes 1G in one request"], []),
])
def test_the_configuration_says_what_the_section_says(write, line, here, absent):
    text = caddyfile(Site.load(write(*filter(None, [line]))))
    assert [part for part in here if part not in text] == []
    assert [part for part in absent if part in text] == []
    assert text.count("{") == text.count("}")


def test_another_port_is_served_under_that_port(write):
    assert "https://hub.example.org:8443 {" in caddyfile(Site.load(write(url="https://hub.example.org:8443")))


@pytest.mark.parametrize(("port", "served"), [
    ("", "\nhttps://hub.example.org, https://*.hub.example.org {"),
    (":8443", "\nhttps://hub.example.org:8443, https://*.hub.example.org:8443 {")])
def test_a_name_for_each_person_is_served_too(write, port, served):
    file = write("tls: {certificates: internal}", url=f"https://hub.example.org{port}")
    file.write_text(file.read_text().replace("subdomains: false", "subdomains: true"))
    assert served in caddyfile(Site.load(file))
