"""Who may take part in a job: the certificates of machines, and the authority that issues them.

TLS in both directions: a node shows a certificate that the authority signed, and talks to nobody without one.  Every
channel asks for the name `node.distbelief`, whichever address it goes to, so a machine may move; which role speaks is the
envelope's business (`exec/codec.py`).  An authority of one job marks what it issues with that job, and lives in the
launcher's memory alone.

`cryptography` is imported where it is used: whoever only carries credentials need not load it.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shlex
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import InputError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

TARGET = "node.distbelief"
"""The name that every channel asks for, and every node's certificate carries."""

SKEW = timedelta(minutes=5)
"""A certificate is valid from so long before it is issued: the clocks of two machines may differ."""
AUTHORITY_DAYS = 3650
"""Of an authority that is kept in a folder: longer than any certificate it is asked for (`execctl certs --days`)."""
JOB_DAYS = 365
"""Of an authority for one job: beyond the end of any; a node that starts again later than this cannot be believed."""

MACHINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What can be both a common name (64 characters, RFC 5280) and the name of a file."""
LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HOST = re.compile(rf"(?!(.*\.)?[0-9]+$)(?=.{{1,253}}$){LABEL}(\.{LABEL})*")
"""A host name of RFC 1123; one that ends in a number would be an address, wrongly written."""


class CertificateError(InputError):
    """Certificates or keys that cannot be used or made; the message says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one node shows and whom it believes, all as PEM; no printed form shows the key."""

    ca: bytes
    certificate: bytes
    key: bytes = field(repr=False)

    def to_json(self) -> str:
        """One line, key included, for the stdin of the process that is to use it."""
        return json.dumps({name: pem.decode("latin-1") for name, pem in asdict(self).items()})

    @classmethod
    def from_json(cls, line: str) -> Credentials:
        """Raises CertificateError."""
        try:
            return cls(**{name: text.encode("latin-1") for name, text in json.loads(line).items()})
        except (ValueError, TypeError, AttributeError):
            raise CertificateError("these are no credentials: expected is a JSON object of ca, certificate and key, all PEM") from None

    @classmethod
    def load(cls, folder: Path, name: str = "") -> Credentials:
        """Of the machine of that name, or, without one, of the only machine whose key is in the folder.  Raises CertificateError."""
        names = [name] if name else sorted(key.stem for key in folder.glob("*.key") if key.name != "ca.key")
        if not names:
            raise CertificateError(f"{folder}: no machine's key is here; `execctl certs --out {folder} --machine NAME` makes one")
        if len(names) > 1:
            raise CertificateError(f"{folder} holds the keys of several machines; say which is meant: {', '.join(names)}")
        return cls.read(folder / "ca.pem", *paths_of(folder, names[0]))

    @classmethod
    def read(cls, ca: Path, certificate: Path, key: Path) -> Credentials:
        """From files of any name, each of which is what it should be; see `verify` for how they fit.  Raises CertificateError."""
        credentials = cls(read(ca), read(certificate), read(key, secret=True))
        certificates_in(credentials.ca, str(ca))
        certificates_in(credentials.certificate, str(certificate))
        key_in(credentials.key, str(key))
        return credentials

    def save(self, folder: Path, name: str, *, force: bool = False) -> list[Path]:
        """As ca.pem, NAME.pem and NAME.key, for `load`; returns what was written.  Raises CertificateError and FolderError."""
        if not force:
            check_free(folder, name)
        ca, (certificate, key) = folder / "ca.pem", paths_of(folder, name)
        if not ca.exists():
            return [write(ca, self.ca), write(certificate, self.certificate), write(key, self.key)]
        if read(ca) != self.ca:
            raise CertificateError(f"{ca} is another authority's; choose another folder")
        return [write(certificate, self.certificate), write(key, self.key)]


@dataclass(frozen=True, slots=True)
class Authority:
    """An EC P-256 key that signs certificates, and its own certificate."""

    certificate: x509.Certificate
    key: EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def new(cls, days: int = AUTHORITY_DAYS, job: str = "", now: datetime | None = None) -> Authority:
        """One that is valid for so many days, and for one job only if that is given."""
        from exec.x509 import Signer, Span, authority_certificate, new_key, subject_of

        assert days >= 1
        now, own = moment(now), Signer(subject_of("distbelief authority", job), new_key())
        return cls(authority_certificate(own, Span(now - SKEW, now + timedelta(days=days))), own.key)

    @classmethod
    def for_job(cls, job: str, days: int = JOB_DAYS) -> Authority:
        """One whose certificates serve this job and no other.  Nothing of it touches a disk."""
        assert 1 <= len(job) <= 64, "an organisation's name has 64 characters at most (RFC 5280)"
        return cls.new(days, job)

    @classmethod
    def load(cls, folder: Path) -> Authority:
        """From ca.pem and ca.key.  Raises CertificateError."""
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

        certificate, key = paths_of(folder, "ca")
        for path, other in ((certificate, key), (key, certificate)):
            if not path.exists():
                raise CertificateError(f"{other} is here, but {path.name} is not: bring it back, or start afresh in another folder")
        found, private = certificates_in(read(certificate), str(certificate))[0], key_in(read(key, secret=True), str(key))
        if not isinstance(private, EllipticCurvePrivateKey):
            raise CertificateError(f"{key} is no elliptic-curve key; only an authority made here can issue certificates")
        if private.public_key() != found.public_key():
            raise CertificateError(f"{key} does not fit {certificate}: they were not made together")
        return cls(found, private)

    def save(self, folder: Path) -> list[Path]:
        """As ca.pem and ca.key, for `load`; returns both.  Raises CertificateError and FolderError."""
        from exec.x509 import key_pem

        check_free(folder, "ca")
        certificate, key = paths_of(folder, "ca")
        return [write(key, key_pem(self.key)), write(certificate, self.pem)]

    @property
    def pem(self) -> bytes:
        """What everybody must have who is to believe what it signs."""
        from exec.x509 import certificate_pem

        return certificate_pem(self.certificate)

    def issue(self, name: str, addresses: Sequence[str] = (), days: int | None = None, now: datetime | None = None) -> Credentials:
        """A new key and certificate for a machine, which may act as server and client.

        Valid for so many days, or, left out, as long as the authority is.  `addresses` are further names of the machine,
        host names or IP addresses, for who connects by them.  Raises CertificateError.
        """
        from exec.x509 import Signer, Span, certificate_pem, job_of, key_pem, new_key, node_certificate, subject_of

        now, end, key = moment(now), self.certificate.not_valid_after_utc, new_key()
        if end <= now:
            raise CertificateError(f"the authority expired at {utc(end)}: it can issue nothing; start afresh in another folder")
        until = end if days is None else now + timedelta(days=days)
        if until > end:
            raise CertificateError(f"{days} days are too many: the authority itself expires at {utc(end)}; allowed: {(end - now).days}")
        if not name.isprintable() or not 1 <= len(name.encode()) <= 64:
            raise CertificateError(f"machine {name!r}: a name has 1 to 64 characters, all printable")
        subject, issuer = subject_of(name, job_of(self.certificate)), Signer(self.certificate.subject, self.key)
        names, span = alternative_names(name, addresses), Span(now - SKEW, until)
        certificate = node_certificate(subject, key.public_key(), names, issuer, span)
        return Credentials(self.pem, certificate_pem(certificate), key_pem(key))


def verify(credentials: Credentials, job: str | None = None, now: datetime | None = None) -> None:
    """See that a node can show these to others of its job, before anybody's handshake fails without saying why.

    A certificate that is bound to no job, as `execctl certs` makes them, serves every job.  Intermediate authorities stand
    behind the node's own certificate, as TLS wants them.  Raises CertificateError.
    """
    from exec.x509 import is_issued_by, job_of, name_of

    now = moment(now)
    chain, authorities = certificates_in(credentials.certificate, "the certificate"), certificates_in(credentials.ca, "the authority")
    name = f"the certificate of {name_of(chain[0])!r}"
    if key_in(credentials.key, "the key").public_key() != chain[0].public_key():
        raise CertificateError(f"the key does not fit {name}: they were not issued together")
    for certificate, issuer in pairwise(chain):
        if not is_issued_by(certificate, issuer):
            raise CertificateError(f"{name}: {name_of(certificate)!r} was not signed by {name_of(issuer)!r}, which stands behind it")
    issuers = [authority for authority in authorities if is_issued_by(chain[-1], authority)]
    if not issuers:
        raise CertificateError(f"{name} was signed by another authority than the one given: ask for a new one, or give its own ca.pem")
    check_time(chain[0], name, now)
    for authority in (*chain[1:], *issuers):  # all: beside a renewed one, TLS may still pick the old, and fail
        check_time(authority, f"the authority {name_of(authority)!r}", now)
    made_for = {made_for for certificate in (*chain, *authorities) if (made_for := job_of(certificate))}
    if job is not None and made_for - {job}:
        raise CertificateError(f"{name} belongs to another job, {min(made_for - {job})!r}; this is {job!r}")
    check_purpose(chain[0], name)


def check_time(certificate: x509.Certificate, name: str, now: datetime) -> None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > end:
        raise CertificateError(f"{name} expired at {utc(end)}; it is {utc(now)}: ask for a new one")
    if now < begin:
        raise CertificateError(f"{name} is not valid before {utc(begin)}; it is {utc(now)}: is this machine's clock right?")


def check_purpose(certificate: x509.Certificate, name: str) -> None:
    """What TLS will ask of the certificate; those of the user's own making may lack it."""
    from cryptography import x509

    from exec.x509 import BOTH_ENDS

    names: list[str] = []
    uses = set(BOTH_ENDS)  # without the extension, anything goes
    for extension in certificate.extensions:
        match extension.value:
            case x509.SubjectAlternativeName() as alternatives:
                names = alternatives.get_values_for_type(x509.DNSName)
            case x509.ExtendedKeyUsage() as allowed:
                uses = set(allowed)
    if TARGET not in names:
        raise CertificateError(f"{name} lacks the DNS name {TARGET} among its subject alternative names; every node must have it")
    if not uses >= BOTH_ENDS:
        raise CertificateError(f"{name} must allow the use as server and as client (extended key usage); a node is both")


def write_certificates(out: Path, machines: Sequence[str], days: int, *, force: bool = False) -> list[Path]:
    """The body of `execctl certs`: NAME.pem and NAME.key for every NAME[=ADDRESS,...], by the authority of the folder.

    Where there is no authority yet, a new one is made: ca.pem, which goes to every machine, and ca.key, which stays.  Nothing
    is written unless everything can be issued.  Returns the files written.  Raises CertificateError and FolderError.
    """
    wanted: dict[str, list[str]] = {}
    for text in machines:
        name, equals, addresses = text.partition("=")
        if not MACHINE.fullmatch(name) or name.lower() == "ca":
            raise CertificateError(f"machine {name!r}: allowed are 64 letters, digits, '.', '_' and '-', a letter or digit first; not 'ca'")
        if name.lower() in (other.lower() for other in wanted):
            raise CertificateError(f"machine {name!r} is named twice; all its addresses belong together: NAME=ADDRESS,ADDRESS")
        if not force:
            check_free(out, name)
        wanted[name] = addresses.split(",") if equals else []
    made_before = any(path.exists() for path in paths_of(out, "ca"))
    authority = Authority.load(out) if made_before else Authority.new()
    issued = {name: authority.issue(name, addresses, days) for name, addresses in wanted.items()}
    written = [] if made_before else authority.save(out)
    for name, credentials in issued.items():
        written += credentials.save(out, name, force=force)
    return written


def alternative_names(name: str, addresses: Sequence[str]) -> list[x509.GeneralName]:
    """The common target, the machine's own name where it can stand there, and its addresses."""
    from cryptography import x509

    found: list[x509.GeneralName] = [x509.DNSName(TARGET)]
    for text in (name, *addresses):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(text)))
        except ValueError:
            if HOST.fullmatch(text):
                found.append(x509.DNSName(text))
            elif text in addresses:
                raise CertificateError(f"machine {name!r}: {text!r} is no host name and no IP address (without a port)") from None
    return list(dict.fromkeys(found))


def certificates_in(pem: bytes, where: str) -> list[x509.Certificate]:
    """One certificate or more, readable to the last extension.  Raises CertificateError."""
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificates(pem)
        for certificate in found:
            list(certificate.extensions)
    except (ValueError, x509.InvalidVersion, x509.DuplicateExtension):
        raise CertificateError(f"{where} cannot be read: no certificate in PEM form") from None
    return found


def key_in(pem: bytes, where: str) -> PrivateKeyTypes:
    """Raises CertificateError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(pem, password=None)
    except TypeError:
        raise CertificateError(f"{where} is protected by a passphrase, which nobody would be there to enter; take it off") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(f"{where} cannot be read: no private key in PEM form") from None


def moment(now: datetime | None) -> datetime:
    """Now, in the whole seconds that certificates count in."""
    return (now or datetime.now(UTC)).replace(microsecond=0)


def utc(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"


def paths_of(folder: Path, name: str) -> tuple[Path, Path]:
    """Where a certificate and its key stand."""
    return folder / f"{name}.pem", folder / f"{name}.key"


def check_free(folder: Path, name: str) -> None:
    """Raises CertificateError where writing would lose a key or its certificate."""
    for path in paths_of(folder, name):
        if path.exists():
            raise CertificateError(f"{path} is there already, and may be in use; --force replaces it")


def read(path: Path, *, secret: bool = False) -> bytes:
    """Raises CertificateError, also for a secret that is none."""
    try:
        with path.open("rb") as file:
            mode, content = stat.S_IMODE(os.fstat(file.fileno()).st_mode), file.read()
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror}") from None
    if secret and mode & 0o077:
        raise CertificateError(f"{path}: others can read this key (mode {mode:04o}); first: chmod 600 {shlex.quote(str(path))}")
    return content


def write(path: Path, content: bytes) -> Path:
    """A new file that only its owner can read; what stood there goes first, so that nothing of its mode is left.  Raises FolderError."""
    from report.folder import FolderError

    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
    except OSError as error:
        raise FolderError(f"cannot write {path}: {error.strerror}") from None
    return path
