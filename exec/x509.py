"""X.509 as far as this project needs it (RFC 5280): keys and certificates made, signed, and asked who they are.

What a user may do wrong is told in `exec/certificates.py`, which imports this where it is used.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

OF_A_JOB = "distbelief job"
"""The organisational unit that makes an organisation's name a job; elsewhere it may be the user's company."""

BOTH_ENDS = frozenset({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH})
"""Every node serves some calls and makes others."""


class Signer(NamedTuple):
    """Whose name and key a certificate is signed with."""

    name: x509.Name
    key: ec.EllipticCurvePrivateKey


class Span(NamedTuple):
    """When a certificate is valid."""

    begin: datetime
    end: datetime


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def authority_certificate(own: Signer, span: Span) -> x509.Certificate:
    """Signed by itself; may sign nodes' certificates, and no further authority's."""
    builder = unsigned(own.name, own.key.public_key(), own, span)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.add_extension(usage(signs_certificates=True), critical=True).sign(own.key, SHA256())


def node_certificate(
    subject: x509.Name, public_key: ec.EllipticCurvePublicKey, names: list[x509.GeneralName], issuer: Signer, span: Span
) -> x509.Certificate:
    """For a server and client that is reached by any of the names."""
    builder = unsigned(subject, public_key, issuer, span)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(sorted(BOTH_ENDS, key=str)), critical=False)
    return builder.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(issuer.key, SHA256())


def unsigned(subject: x509.Name, public_key: ec.EllipticCurvePublicKey, issuer: Signer, span: Span) -> x509.CertificateBuilder:
    """What both kinds have; the identifiers tell two authorities of one name apart."""
    builder = x509.CertificateBuilder(issuer.name, subject, public_key, x509.random_serial_number(), *span)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    return builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)


def usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """An authority's key signs certificates, a node's its handshakes."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """By name and signature; time is not looked at."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):  # another's name; a key that cannot sign; another's signature
        return False
    return True


def subject_of(name: str, job: str) -> x509.Name:
    """A name, bound to a job unless that is ""."""
    marks = [(NameOID.ORGANIZATION_NAME, job), (NameOID.ORGANIZATIONAL_UNIT_NAME, OF_A_JOB)] if job else []
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in (*marks, (NameOID.COMMON_NAME, name))])


def job_of(certificate: x509.Certificate) -> str:
    """The job that a certificate is bound to, "" if to none."""
    if OF_A_JOB not in values(certificate.subject, NameOID.ORGANIZATIONAL_UNIT_NAME):
        return ""
    return "".join(values(certificate.subject, NameOID.ORGANIZATION_NAME))


def name_of(certificate: x509.Certificate) -> str:
    """Its common name, or whatever else it is called."""
    return " ".join(values(certificate.subject, NameOID.COMMON_NAME)) or certificate.subject.rfc4514_string()


def values(name: x509.Name, oid: x509.ObjectIdentifier) -> list[str]:
    return [str(attribute.value) for attribute in name.get_attributes_for_oid(oid)]


def certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
