"""A certificate authority: its key signs what it issues itself and what others ask for.

What it signs begins a little in the past and is good for a year unless it is told otherwise, the authority itself for
ten, as kubeadm has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from netemu.model.certificates import CLIENT_AUTH, DIGITAL_SIGNATURE, KEY_ENCIPHERMENT, SERVER_AUTH, general_name

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

YEAR = 365 * 24 * 3600.0
_CA_YEARS = 10
_BACKDATED = 300.0


class Authority:
    """Signs; made once per lab and kept in its state. Serves as the `Signer` of the controllers."""

    def __init__(
        self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, *, lifetime: float = YEAR
    ) -> None:
        """`lifetime`: seconds that what it signs is good for, at most as long as itself."""
        self.key, self.certificate, self.lifetime = key, certificate, lifetime

    @staticmethod
    def load(certificate: bytes, key: bytes, *, lifetime: float = YEAR) -> Authority:
        """From PEM. Raises TypeError for a key that is not on a curve."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        private = load_pem_private_key(key, None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise TypeError("the authority's key must be one on an elliptic curve")
        return Authority(private, x509.load_pem_x509_certificate(certificate), lifetime=lifetime)

    @staticmethod
    def create(name: str, *, lifetime: float = YEAR) -> Authority:
        """A new authority of that common name, good for ten years."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name, ())
        builder = _builder(subject, subject, key.public_key(), _CA_YEARS * YEAR).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(identifier, critical=False)
        return Authority(key, builder.sign(key, hashes.SHA256()), lifetime=lifetime)

    def issue(
        self, name: str, groups: tuple[str, ...] = (), hosts: tuple[str, ...] = (), *, peer: bool = False
    ) -> tuple[bytes, bytes]:
        """Certificate and key as PEM: a server's if `hosts` (names and addresses) are given, else a client's.

        With `peer` it is good for both: servers that are each other's clients show one certificate.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID

        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(name, groups), self.certificate.subject, key.public_key(), self.lifetime)
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH] if hosts else []
        purposes += [ExtendedKeyUsageOID.CLIENT_AUTH] if peer or not hosts else []
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([general_name(host) for host in hosts]), critical=False
            )
        return self._signed(builder), pem_key(key)

    def sign(self, request: bytes, usages: Sequence[str], seconds: float) -> bytes:
        """See `controllers.certificates.Signer`."""
        from cryptography import x509
        from cryptography.x509.oid import ExtendedKeyUsageOID

        asked = x509.load_pem_x509_csr(request)
        builder = _builder(asked.subject, self.certificate.subject, asked.public_key(), seconds)
        signs, enciphers = DIGITAL_SIGNATURE in usages, KEY_ENCIPHERMENT in usages
        if signs or enciphers:  # an empty extension makes a certificate invalid
            usage = x509.KeyUsage(signs, False, enciphers, False, False, False, False, False, False)
            builder = builder.add_extension(usage, critical=True)
        oids = {CLIENT_AUTH: ExtendedKeyUsageOID.CLIENT_AUTH, SERVER_AUTH: ExtendedKeyUsageOID.SERVER_AUTH}
        purposes = [oid for name, oid in oids.items() if name in usages]
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        for extension in asked.extensions:
            if isinstance(extension.value, x509.SubjectAlternativeName):
                builder = builder.add_extension(extension.value, critical=extension.critical)
        return self._signed(builder)

    def _signed(self, builder: x509.CertificateBuilder) -> bytes:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return pem(builder.add_extension(identifier, critical=False).sign(self.key, hashes.SHA256()))


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: CertificatePublicKeyTypes, seconds: float
) -> x509.CertificateBuilder:
    from cryptography import x509

    now = datetime.now(UTC)
    begin = now - timedelta(seconds=min(_BACKDATED, seconds / 20))  # a client's clock may be a little behind
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(now + timedelta(seconds=seconds))
    )


def _name(common: str, organizations: tuple[str, ...]) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in organizations]
    return x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def pem(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def new_key() -> bytes:
    """A private key as PEM."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return pem_key(ec.generate_private_key(ec.SECP256R1()))
