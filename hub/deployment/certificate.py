"""Can the admin's own certificate serve the site? Asked before it is brought to the host, so that a wrong one replaces nothing.

    python -m hub.deployment.certificate classes.yml        exit 1 with a line for each problem; what will be one is printed

The key must be the certificate's own, its names the site's, and its time must be now.
"""

import argparse
import ipaddress
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from hub.config.document import Document
from hub.config.problems import Problem, SiteError, shown_path
from hub.config.site import Site

SOON = timedelta(days=14)
FOLLOWS = "name the file of the whole chain: the site's own certificate first, then those between it and the root"


def look(file: Path) -> list[str]:
    """What will soon be a problem with the certificate that classes.yml names; SiteError lists what is one now."""
    site, document = Site.load(file), Document(file)
    tls = site.settings.tls
    if tls.certificates != "files" or tls.certificate is None or tls.key is None:
        return []
    found: list[Problem] = []

    def wrong(key: str, what: str, fix: str) -> None:
        found.append(document.problem(("site", "tls", key), getattr(tls, key), what, fix))

    chain = read_certificates(file.parent / tls.certificate, wrong)
    public = read_key(file.parent / tls.key, wrong)
    if found:
        raise SiteError(found)
    own, now = chain[0], datetime.now(UTC)
    if same := [number for number, each in enumerate(chain) if spki(each.public_key()) == spki(public)]:
        if same[0] != 0:
            wrong("certificate", f"the certificate of that key is number {same[0] + 1} in it, not the first", FOLLOWS)
            own = chain[same[0]]
    else:
        wrong("key", f"is not the key of {tls.certificate}", "name the key with which that certificate was requested")
    if own.not_valid_after_utc <= now:
        wrong("certificate", f"ended on {own.not_valid_after_utc:%Y-%m-%d %H:%M} UTC", "get a new one from its authority")
    if own.not_valid_before_utc > now:
        wrong("certificate", f"holds from {own.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on only", "is this machine's clock right?")
    names = names_of(own)
    for name in [site.host, f"*.{site.host}"] if site.settings.subdomains else [site.host]:
        if not any(covers(each, name) for each in names):
            wrong("certificate", f"is for {', '.join(names) or 'no name'} and not for {name}", "get one with that name, or mend site.url")
    if found:
        raise SiteError(found)
    notes = []
    if own.not_valid_after_utc - now < SOON:
        notes.append(f"{tls.certificate} ends on {own.not_valid_after_utc:%Y-%m-%d}: put its successor there, then make deploy")
    if own.issuer not in (own.subject, *(each.subject for each in chain[1:])):
        issuer = own.issuer.rfc4514_string()
        notes.append(f"{tls.certificate} does not hold the certificate of its issuer ({issuer}): unless that is a root which browsers "
                     f"know, they will not trust the site; {FOLLOWS}")
    return notes


def read_certificates(file: Path, wrong) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())
    except OSError as error:
        wrong("certificate", f"cannot be read ({error.strerror})", f"put it to {shown_path(file)}, or correct the path")
    except ValueError:
        wrong("certificate", "holds no certificate in PEM form", "name a file with -----BEGIN CERTIFICATE----- in it")
    return []


def read_key(file: Path, wrong) -> PublicKeyTypes | None:
    """The public half of a private key."""
    try:
        return load_pem_private_key(file.read_bytes(), None).public_key()
    except OSError as error:
        wrong("key", f"cannot be read ({error.strerror})", f"put it to {shown_path(file)}, or correct the path")
    except TypeError:
        wrong("key", "is protected by a passphrase, which no server can type", f"openssl pkey -in {shown_path(file)} -out another.key")
    except ValueError:
        wrong("key", "holds no private key in PEM form", "name a file with -----BEGIN PRIVATE KEY----- in it")
    return None


def spki(key: PublicKeyTypes | CertificatePublicKeyTypes | None) -> bytes:
    """A public key as bytes, whichever kind it is."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) if key else b""


def names_of(certificate: x509.Certificate) -> list[str]:
    """Host names and addresses that browsers accept it for: those of its extension, never its subject."""
    try:
        said = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*said.get_values_for_type(x509.DNSName), *map(str, said.get_values_for_type(x509.IPAddress))]


def covers(pattern: str, name: str) -> bool:
    """Whether a certificate's name is good for a host: a star stands for one whole word, never for a part of an address."""
    try:
        return ipaddress.ip_address(name) == ipaddress.ip_address(pattern)
    except ValueError:
        pattern, name = pattern.lower(), name.lower()
        return pattern == name or (pattern.startswith("*.") and pattern[1:] == "." + name.partition(".")[2])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m hub.deployment.certificate", description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, metavar="classes.yml")
    try:
        notes = look(parser.parse_args().file)
    except SiteError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(notes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
