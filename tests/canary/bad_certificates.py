"""Certificates of a server, each with one thing wrong: `Authority` is a root that the clients trust."""

from __future__ import annotations

import ssl
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from pathlib import Path

HOST = "localhost"
HOUR = timedelta(hours=1)
IN_COMMON_NAME = "with its host in the common name alone"
"""As private roots still write it for databases: libpq takes it where there is no list of names ("SSL Support" in its manual)."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def written(self, path: Path) -> Path:
        """In one file, as servers read it."""
        private = self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path.write_bytes(private + self.certificate.public_bytes(serialization.Encoding.PEM))
        return path


def issue(
    issuer: Issued | None = None,
    *,
    host: str | None = HOST,
    common_name: str = "a test",
    authority: bool = False,
    begins: timedelta = -HOUR,
    ends: timedelta = HOUR,
    for_clients: bool = False,
) -> Issued:
    """A certificate for a host, signed by the issuer, or by itself where there is none."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC)
    usage = ExtendedKeyUsageOID.CLIENT_AUTH if for_clients else ExtendedKeyUsageOID.SERVER_AUTH
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if host is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    if not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return Issued(builder.sign(key if issuer is None else issuer.key, hashes.SHA256()), key)


class Authority:
    """A root in a file, and what it may have signed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._root = issue(host=None, common_name="a root", authority=True)
        self.file = directory / "root.pem"
        self.file.write_bytes(self._root.certificate.public_bytes(serialization.Encoding.PEM))

    def good(self) -> ssl.SSLContext:
        """What a server should show."""
        return self._context(issue(self._root))

    @cached_property
    def bad(self) -> dict[str, ssl.SSLContext]:
        """What none should, by what is wrong with it."""
        unknown = issue(host=None, common_name="a root", authority=True)
        leaf = issue(self._root)
        return {
            "of another host": self._context(issue(self._root, host="vercel.example")),
            "of a domain above": self._context(issue(self._root, host="*.localhost")),
            IN_COMMON_NAME: self._context(issue(self._root, host=None, common_name=HOST)),
            "expired": self._context(issue(self._root, begins=-2 * HOUR, ends=-HOUR)),
            "not yet valid": self._context(issue(self._root, begins=HOUR, ends=2 * HOUR)),
            "signed by itself": self._context(issue()),
            "of an unknown root of the same name": self._context(issue(unknown)),
            "signed by one that may not sign": self._context(issue(leaf)),
            "for clients alone": self._context(issue(self._root, for_clients=True)),
            "over TLS 1.0": self._context(issue(self._root), ssl.TLSVersion.TLSv1),
            "over TLS 1.1": self._context(issue(self._root), ssl.TLSVersion.TLSv1_1),
        }

    def _context(self, issued: Issued, newest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.written(self._directory / "server.pem"))
        if newest is not None:
            context.set_ciphers("ALL:@SECLEVEL=0")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # which is why no client takes them
                context.minimum_version = context.maximum_version = newest
        return context


BAD = (
    "of another host",
    "of a domain above",
    IN_COMMON_NAME,
    "expired",
    "not yet valid",
    "signed by itself",
    "of an unknown root of the same name",
    "signed by one that may not sign",
    "for clients alone",
    "over TLS 1.0",
    "over TLS 1.1",
)
