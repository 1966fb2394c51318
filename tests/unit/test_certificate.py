"""The admin's own certificate: what could not serve the site is refused by name, and what serves it, OpenSSL accepts. Seconds."""

import shutil
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hub import paths
from hub.config.problems import SiteError
from hub.deployment import certificate

HOST = "hub.example.org"
PEM = serialization.Encoding.PEM


def subject(name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def signed(key, names, issuer=None, begins=-1.0, ends=90.0):
    """A certificate for that key, good from and until so many days from now; by itself unless there is an issuer (key, certificate)."""
    now = datetime.now(UTC)
    by = issuer[1].subject if issuer else subject(names[0])
    made = (x509.CertificateBuilder().subject_name(subject(names[0])).issuer_name(by).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now + timedelta(days=begins))
            .not_valid_after(now + timedelta(days=ends))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False))
    return made.sign(issuer[0] if issuer else key, hashes.SHA256())


def new_key():
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def site(tmp_path):
    """Writes classes.yml with a certificate of its own; returns the file. `key`: the bytes of the key's file."""
    def written(*chain, key=None, more=""):
        example = paths.REPO / "hub" / "example"
        shutil.copytree(example / "rosters", tmp_path / "rosters", dirs_exist_ok=True)
        text = (example / "classes.yml").read_text().replace("url: http://127.0.0.1:8000 ", f"url: https://{HOST} ")
        text = text.replace("subdomains: false ", "subdomains: true ") if more else text
        tls = "  tls: {certificates: files, certificate: hub.pem, key: hub.key}\n"
        (tmp_path / "classes.yml").write_text(text.replace("site:\n", f"site:\n{tls}", 1))
        (tmp_path / "hub.pem").write_bytes(b"".join(each.public_bytes(PEM) if hasattr(each, "public_bytes") else each for each in chain))
        if key is not None:
            (tmp_path / "hub.key").write_bytes(key)
        return tmp_path / "classes.yml"
    return written


def private(key, passphrase=None):
    hidden = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, hidden)


def taken_by_openssl(file):
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file.parent / "hub.pem", file.parent / "hub.key", password=lambda: b"")
    except ssl.SSLError:
        return False
    return True


def test_a_whole_chain_with_its_key_is_taken_without_a_word(site):
    authority = new_key()
    root, key = signed(authority, ["root"]), new_key()
    file = site(signed(key, [HOST], (authority, root)), root, key=private(key))
    assert certificate.look(file) == []
    assert taken_by_openssl(file)


@pytest.mark.parametrize(("names", "subdomains"), [(["*.example.org"], ""), ([HOST, f"*.{HOST}"], "yes"), (["HUB.example.ORG"], "")])
def test_a_name_may_have_a_star_and_any_case(site, names, subdomains):
    key = new_key()
    assert certificate.look(site(signed(key, names), key=private(key), more=subdomains)) == []


@pytest.mark.parametrize(("names", "subdomains", "missing"), [
    (["other.example.org"], "", HOST), (["*.hub.example.org"], "", HOST), (["*.org"], "", HOST), ([HOST], "yes", f"*.{HOST}")])
def test_another_sites_certificate_is_refused(site, names, subdomains, missing):
    key = new_key()
    with pytest.raises(SiteError) as refused:
        certificate.look(site(signed(key, names), key=private(key), more=subdomains))
    [problem] = refused.value.problems
    assert problem.line == 3
    assert f"and not for {missing}" in problem.what


def test_a_key_of_another_certificate_is_refused_as_openssl_does(site):
    file = site(signed(new_key(), [HOST]), key=private(new_key()))
    with pytest.raises(SiteError, match=r"site\.tls\.key: 'hub\.key': is not the key of hub\.pem"):
        certificate.look(file)
    assert not taken_by_openssl(file)


def test_a_chain_that_begins_with_its_issuer_is_refused_as_openssl_does(site):
    authority = new_key()
    root, key = signed(authority, ["root"]), new_key()
    file = site(root, signed(key, [HOST], (authority, root)), key=private(key))
    with pytest.raises(SiteError, match="is number 2 in it, not the first"):
        certificate.look(file)
    assert not taken_by_openssl(file)


@pytest.mark.parametrize(("begins", "ends", "said"), [(-90, -1, "ended on"), (1, 90, "holds from")])
def test_its_time_must_be_now(site, begins, ends, said):
    key = new_key()
    with pytest.raises(SiteError, match=said):
        certificate.look(site(signed(key, [HOST], begins=begins, ends=ends), key=private(key)))


@pytest.mark.parametrize(("pem", "key", "said"), [
    (b"", b"", "holds no certificate in PEM form"),
    (b"\x30\x82", b"", "holds no private key in PEM form"),
    (b"", None, r"site.tls.key: 'hub.key': cannot be read \(No such file"),
])
def test_files_that_are_none_are_named(site, pem, key, said):
    with pytest.raises(SiteError, match=said):
        certificate.look(site(pem, key=key))


def test_a_key_behind_a_passphrase_is_refused_with_the_way_out(site):
    key = new_key()
    file = site(signed(key, [HOST]), key=private(key, b"secret"))
    with pytest.raises(SiteError, match="openssl pkey -in"):
        certificate.look(file)
    assert not taken_by_openssl(file)


def test_what_will_be_a_problem_is_told(site):
    authority, key = new_key(), new_key()
    between = signed(authority, ["between"])
    ends, issuer = certificate.look(site(signed(key, [HOST], (authority, between), ends=3), key=private(key)))
    assert "put its successor there" in ends
    assert "CN=between" in issuer


def test_other_kinds_of_certificates_need_no_file(site):
    file = site(key=b"")
    file.write_text(file.read_text().replace("{certificates: files, certificate: hub.pem, key: hub.key}", "{certificates: internal}"))
    assert certificate.look(file) == []
