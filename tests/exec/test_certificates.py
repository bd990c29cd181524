"""Every certificate that cannot be used is refused in words, and by TLS itself."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from exec.certificates import TARGET, Authority, CertificateError, Credentials, verify, write_certificates
from exec.x509 import Signer, Span, authority_certificate, certificate_pem, key_pem, new_key, subject_of
from report.folder import FolderError

NOW = datetime.now(UTC).replace(microsecond=0)
LONG_AGO = NOW - timedelta(days=30)
DAY = timedelta(days=1)
NAMED = x509.SubjectAlternativeName([x509.DNSName(TARGET)])


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new(days=20, now=NOW)


@pytest.fixture(scope="module")
def node(authority) -> Credentials:
    return authority.issue("node-1", ["10.0.0.7", "::1", "node-1.example.org"])


def names_of(credentials: Credentials) -> list[str]:
    names = x509.load_pem_x509_certificate(credentials.certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [str(name.value) for name in names.value]


def made_elsewhere(authority: Authority, *extensions: x509.ExtensionType) -> Credentials:
    """By the authority's key, for a year or more, but not by our hand."""
    key, issuer = new_key(), authority.certificate.subject
    builder = x509.CertificateBuilder(issuer, subject_of("own", ""), key.public_key(), 1, LONG_AGO, NOW + 365 * DAY)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return Credentials(authority.pem, certificate_pem(builder.sign(authority.key, SHA256())), key_pem(key))


# What an authority issues


def test_a_certificate_names_the_common_target_the_machine_and_its_addresses(node):
    assert names_of(node) == [TARGET, "node-1", "10.0.0.7", "::1", "node-1.example.org"]


def test_a_machine_whose_name_is_an_address_or_no_dns_name_has_a_certificate_too(authority):
    assert names_of(authority.issue("10.0.0.7", ["10.0.0.7"])) == [TARGET, "10.0.0.7"]
    assert names_of(authority.issue("rack_1 left")) == [TARGET]


@pytest.mark.parametrize("address", ["", "host:8800", "10.0.0.300", "-x", "*.example.org", "a" * 64, "host\n", "a..b", "a.b."])
def test_what_is_no_address_is_named(authority, address):
    with pytest.raises(CertificateError, match=r"machine 'm': .* is no host name and no IP address"):
        authority.issue("m", [address])


@pytest.mark.parametrize("name", ["", "a" * 65, "two\nlines"])
def test_what_is_no_machine_name_is_named(authority, name):
    with pytest.raises(CertificateError, match="a name has 1 to 64 characters, all printable"):
        authority.issue(name)


def test_nobody_is_given_more_days_than_the_authority_has(authority):
    with pytest.raises(CertificateError, match=r"21 days are too many: .* allowed: (19|20)"):
        authority.issue("m", days=21)


def test_an_authority_that_expired_issues_nothing():
    with pytest.raises(CertificateError, match="the authority expired at"):
        Authority.new(days=1, now=LONG_AGO).issue("m")


def test_no_printed_form_shows_a_key(authority, node):
    assert "PRIVATE" not in repr(node)
    assert "key" not in repr(authority)


def test_credentials_travel_as_one_line(node):
    assert "\n" not in node.to_json()
    assert Credentials.from_json(node.to_json()) == node


@pytest.mark.parametrize(
    "line", ["", "[]", "{}", '{"ca": 1, "certificate": 2, "key": 3}', '{"ca": "\\u20ac", "certificate": "", "key": ""}']
)
def test_a_line_that_holds_no_credentials_is_refused(line):
    with pytest.raises(CertificateError, match="these are no credentials"):
        Credentials.from_json(line)


def test_whoever_only_carries_credentials_does_not_load_cryptography():
    code = "import sys, exec.certificates; sys.exit('cryptography' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# What `verify` refuses


def test_what_was_just_issued_is_accepted(node):
    verify(node)
    verify(node, job="any: it is bound to none")


def test_clocks_may_differ_by_five_minutes(authority):
    issued, early = authority.issue("node-1", now=NOW), NOW - timedelta(minutes=5)
    verify(issued, now=early)
    with pytest.raises(CertificateError, match=r"'node-1' is not valid before .* UTC; it is .* UTC: is this machine's clock right\?"):
        verify(issued, now=early - timedelta(seconds=1))


def test_an_expired_certificate_is_told_from_an_expired_authority(authority):
    brief = authority.issue("node-1", days=1)
    with pytest.raises(CertificateError, match="the certificate of 'node-1' expired at"):
        verify(brief, now=NOW + timedelta(days=2))

    with pytest.raises(CertificateError, match="the authority 'distbelief authority' expired at"):
        verify(made_elsewhere(Authority.new(days=1, now=LONG_AGO), NAMED))


def test_another_authority_of_the_same_name_is_another_authority(node):
    with pytest.raises(CertificateError, match="'node-1' was signed by another authority"):
        verify(replace(node, ca=Authority.new().pem))


def test_other_authorities_may_be_believed_as_well(node):
    verify(replace(node, ca=Authority.new().pem + node.ca))


def test_an_expired_authority_beside_its_renewal_is_refused_for_tls_may_pick_either():
    old = Authority.new(days=1, now=LONG_AGO)
    renewed = replace(old, certificate=authority_certificate(Signer(old.certificate.subject, old.key), Span(LONG_AGO, NOW + DAY)))
    own = renewed.issue("node-1")
    verify(own)
    for both in (old.pem + renewed.pem, renewed.pem + old.pem):
        with pytest.raises(CertificateError, match="the authority 'distbelief authority' expired at"):
            verify(replace(own, ca=both))


def test_a_key_that_does_not_fit_is_refused(authority, node):
    with pytest.raises(CertificateError, match="the key does not fit the certificate of 'node-1'"):
        verify(replace(node, key=authority.issue("node-2").key))


def test_a_certificate_of_another_job_is_refused():
    ours = Authority.for_job("ours").issue("node-1")
    verify(ours, job="ours")
    verify(ours)
    with pytest.raises(CertificateError, match="'node-1' belongs to another job, 'ours'; this is 'theirs'"):
        verify(ours, job="theirs")


def test_believing_another_job_as_well_is_refused():
    ours, theirs = Authority.for_job("ours"), Authority.for_job("theirs")
    with pytest.raises(CertificateError, match="belongs to another job, 'theirs'; this is 'ours'"):
        verify(replace(ours.issue("node-1"), ca=ours.pem + theirs.pem), job="ours")


@pytest.mark.parametrize(
    ("part", "content", "message"),
    [
        ("ca", b"", "the authority cannot be read: no certificate"),
        (
            "certificate",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "the certificate cannot be read: no certificate",
        ),
        ("key", b"rubbish", "the key cannot be read: no private key"),
    ],
)
def test_what_is_no_pem_is_named(node, part, content, message):
    with pytest.raises(CertificateError, match=message):
        verify(replace(node, **{part: content}))


def test_a_key_behind_a_passphrase_is_refused(node):
    key = load_pem_private_key(node.key, None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    with pytest.raises(CertificateError, match="the key is protected by a passphrase"):
        verify(replace(node, key=locked))


def test_a_certificate_without_the_common_target_is_refused(authority):
    for extensions in ([], [x509.SubjectAlternativeName([x509.DNSName("node-1")])]):
        with pytest.raises(CertificateError, match=f"'own' lacks the DNS name {TARGET}"):
            verify(made_elsewhere(authority, *extensions))


def test_a_certificate_for_one_end_only_is_refused(authority):
    with pytest.raises(CertificateError, match="must allow the use as server and as client"):
        verify(made_elsewhere(authority, NAMED, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])))


def test_a_company_of_the_users_is_no_job(authority):
    company = replace(authority, certificate=x509.load_pem_x509_certificate(company_authority(authority)))
    verify(made_elsewhere(company, NAMED), job="ours")


def company_authority(authority: Authority) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example Ltd")])
    builder = x509.CertificateBuilder(name, name, authority.key.public_key(), 1, LONG_AGO, NOW + DAY)
    return certificate_pem(builder.sign(authority.key, SHA256()))


def test_authorities_between_stand_behind_the_certificate(authority):
    between = Authority.new()
    name = subject_of("between", "")
    builder = x509.CertificateBuilder(authority.certificate.subject, name, between.key.public_key(), 2, LONG_AGO, NOW + DAY)
    between = replace(between, certificate=builder.sign(authority.key, SHA256()))
    own = made_elsewhere(between, NAMED)
    verify(replace(own, certificate=own.certificate + between.pem, ca=authority.pem))
    with pytest.raises(CertificateError, match="'own' was signed by another authority"):
        verify(replace(own, ca=authority.pem))
    with pytest.raises(CertificateError, match="'own' was not signed by 'distbelief authority', which stands behind it"):
        verify(replace(own, certificate=own.certificate + authority.pem, ca=authority.pem))


# Files


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_every_file_is_its_owners_alone(tmp_path):
    umask = os.umask(0)
    try:
        written = write_certificates(tmp_path / "certs", ["node-1=10.0.0.7,node-1.example.org", "node_2"], days=30)
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "certs").stat().st_mode) == 0o700
    assert modes(tmp_path / "certs") == dict.fromkeys(("ca.pem", "ca.key", "node-1.pem", "node-1.key", "node_2.pem", "node_2.key"), 0o600)
    assert {path.name for path in written} == set(modes(tmp_path / "certs"))


def test_what_is_written_can_be_used(tmp_path):
    write_certificates(tmp_path, ["node-1=10.0.0.7,node-1.example.org"], days=30)
    credentials = Credentials.load(tmp_path)
    assert names_of(credentials) == [TARGET, "node-1", "10.0.0.7", "node-1.example.org"]
    verify(credentials, now=NOW + 29 * DAY)
    with pytest.raises(CertificateError, match="expired"):
        verify(credentials, now=NOW + 31 * DAY)


def test_a_second_run_adds_machines_by_the_same_authority(tmp_path):
    write_certificates(tmp_path, ["node-1"], days=30)
    assert [path.name for path in write_certificates(tmp_path, ["node-2"], days=30)] == ["node-2.pem", "node-2.key"]
    first, second = Credentials.load(tmp_path, "node-1"), Credentials.load(tmp_path, "node-2")
    assert first.ca == second.ca
    verify(second)
    with pytest.raises(CertificateError, match="several machines; say which is meant: node-1, node-2"):
        Credentials.load(tmp_path)


def test_a_key_in_use_is_not_written_over_unless_told_to(tmp_path):
    write_certificates(tmp_path, ["node-1"], days=30)
    before = Credentials.load(tmp_path)
    with pytest.raises(CertificateError, match=r"node-1\.pem is there already, and may be in use; --force replaces it"):
        write_certificates(tmp_path, ["node-2", "node-1"], days=30)
    assert not (tmp_path / "node-2.key").exists(), "all or nothing"
    assert Credentials.load(tmp_path) == before
    (tmp_path / "node-1.key").chmod(0o644)
    write_certificates(tmp_path, ["node-1"], days=30, force=True)
    assert Credentials.load(tmp_path).key != before.key
    assert Credentials.load(tmp_path).ca == before.ca


def test_an_authority_is_never_written_over(tmp_path):
    first, second = Authority.new(), Authority.new()
    first.save(tmp_path)
    with pytest.raises(CertificateError, match=r"ca\.pem is there already"):
        second.save(tmp_path)
    with pytest.raises(CertificateError, match=r"ca\.pem is another authority's"):
        second.issue("node-1").save(tmp_path, "node-1")
    assert Authority.load(tmp_path).pem == first.pem


@pytest.mark.parametrize("name", ["", "ca", "CA", "../up", "a/b", ".hidden", "-x", "a b", "a" * 65])
def test_a_machine_whose_name_is_no_file_name_is_refused(tmp_path, name):
    with pytest.raises(CertificateError, match=r"machine .*: allowed are 64 letters, digits"):
        write_certificates(tmp_path / "certs", ["node-1", name + "=10.0.0.7"], days=30)
    assert not (tmp_path / "certs").exists()


@pytest.mark.parametrize(
    ("machines", "message"),
    [
        (["node-1=10.0.0.7", "Node-1=10.0.0.8"], "machine 'Node-1' is named twice"),
        (["node-1="], "machine 'node-1': '' is no host name"),
        (["node-1=10.0.0.7:8800"], "machine 'node-1': '10.0.0.7:8800' is no host name"),
    ],
)
def test_what_a_user_may_mistype_is_named_before_anything_is_written(tmp_path, machines, message):
    with pytest.raises(CertificateError, match=message):
        write_certificates(tmp_path / "certs", machines, days=30)
    assert not (tmp_path / "certs").exists()


def test_half_an_authority_is_not_replaced(tmp_path):
    Authority.new().save(tmp_path)
    (tmp_path / "ca.key").rename(tmp_path / "elsewhere")
    with pytest.raises(CertificateError, match=r"ca\.pem is here, but ca\.key is not: bring it back"):
        write_certificates(tmp_path, ["node-1"], days=30)
    (tmp_path / "elsewhere").rename(tmp_path / "ca.key")
    (tmp_path / "ca.pem").unlink()
    with pytest.raises(CertificateError, match=r"ca\.key is here, but ca\.pem is not: bring it back"):
        write_certificates(tmp_path, ["node-1"], days=30)


def test_an_authority_that_is_not_ours_to_use_is_named(tmp_path):
    Authority.new().save(tmp_path / "ours")
    Authority.new().save(tmp_path / "theirs")
    (tmp_path / "ours" / "ca.key").write_bytes((tmp_path / "theirs" / "ca.key").read_bytes())
    with pytest.raises(CertificateError, match=r"ca\.key does not fit .*ca\.pem"):
        Authority.load(tmp_path / "ours")
    other = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "ours" / "ca.key").write_bytes(other)
    with pytest.raises(CertificateError, match=r"ca\.key is no elliptic-curve key"):
        Authority.load(tmp_path / "ours")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_can_read_is_refused_as_ssh_does(tmp_path, mode):
    write_certificates(tmp_path, ["node-1"], days=30)
    (tmp_path / "node-1.key").chmod(mode)
    with pytest.raises(
        CertificateError, match=rf"node-1\.key: others can read this key \(mode {mode:04o}\); first: chmod 600 .*node-1\.key"
    ):
        Credentials.load(tmp_path)
    (tmp_path / "ca.key").chmod(mode)
    with pytest.raises(CertificateError, match=r"ca\.key: others can read this key"):
        write_certificates(tmp_path, ["node-2"], days=30)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("ca.pem", r"ca\.pem cannot be read: no certificate"),
        ("node-1.pem", r"node-1\.pem cannot be read: no certificate"),
        ("node-1.key", r"node-1\.key cannot be read: no private key"),
    ],
)
def test_a_file_that_is_missing_or_something_else_is_named(tmp_path, file, message):
    write_certificates(tmp_path, ["node-1"], days=30)
    (tmp_path / file).write_text("rubbish")
    with pytest.raises(CertificateError, match=message):
        Credentials.load(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(CertificateError, match=rf"{file} cannot be read: No such file"):
        Credentials.load(tmp_path, "node-1")


def test_a_folder_without_keys_says_how_to_make_one(tmp_path):
    Authority.new().save(tmp_path)
    with pytest.raises(CertificateError, match=r"no machine's key is here; `execctl certs --out .* --machine NAME` makes one"):
        Credentials.load(tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match=r"cannot write .*file/certs/ca\.key: Not a directory"):
        write_certificates(tmp_path / "file" / "certs", ["node-1"], days=30)


# What TLS makes of them


@contextmanager
def server(credentials: Credentials) -> Iterator[int]:
    """A gRPC server that answers whoever its authority knows; yields its port."""
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
    serving = grpc.server(ThreadPoolExecutor(1))
    serving.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", {"Echo": handler}),))
    secured = grpc.ssl_server_credentials([(credentials.key, credentials.certificate)], credentials.ca, require_client_auth=True)
    port = serving.add_secure_port("127.0.0.1:0", secured)
    serving.start()
    try:
        yield port
    finally:
        serving.stop(None).wait()


def echo(port: int, ca: bytes, certificate: bytes | None = None, key: bytes | None = None) -> bytes:
    secured = grpc.ssl_channel_credentials(ca, key, certificate)
    options = [("grpc.ssl_target_name_override", TARGET), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(f"127.0.0.1:{port}", secured, options) as channel:
        reply: bytes = channel.unary_unary("/test/Echo")(b"hello", timeout=20)
        return reply


@pytest.fixture(scope="module")
def port(node) -> Iterator[int]:
    with server(node) as port:
        yield port


def test_two_machines_of_one_authority_talk(authority, port):
    other = authority.issue("node-2")
    assert echo(port, other.ca, other.certificate, other.key) == b"hello"


def test_two_machines_of_one_job_talk():
    job = Authority.for_job("ours")
    first, second = Credentials.from_json(job.issue("node-1").to_json()), job.issue("node-2")
    with server(first) as port:
        assert echo(port, second.ca, second.certificate, second.key) == b"hello"


def refused(port: int, *shown: bytes) -> bool:
    with pytest.raises(grpc.RpcError) as caught:
        echo(port, *shown)
    return bool(caught.value.code() is grpc.StatusCode.UNAVAILABLE)


def test_without_a_certificate_nobody_is_heard(authority, port):
    assert refused(port, authority.pem)


def test_an_expired_certificate_is_not_heard():
    authority = Authority.new(days=365, now=LONG_AGO)
    expired, own = authority.issue("node-2", days=1, now=LONG_AGO), authority.issue("node-1")
    with server(own) as port:
        assert refused(port, expired.ca, expired.certificate, expired.key)
    with server(expired) as port:
        assert refused(port, own.ca, own.certificate, own.key)


def test_a_certificate_of_another_job_is_not_heard(authority, port):
    other = Authority.for_job("theirs").issue("node-2")
    assert refused(port, authority.pem, other.certificate, other.key), "the server believes only its own authority"
    assert refused(port, other.ca, other.certificate, other.key), "and the client only its own"


def test_a_server_of_another_name_is_not_believed(authority):
    stranger = made_elsewhere(authority, x509.SubjectAlternativeName([x509.DNSName("node-1")]))
    own = authority.issue("node-2")
    with server(made_elsewhere(authority, NAMED)) as port:
        assert echo(port, own.ca, own.certificate, own.key) == b"hello"
    with server(stranger) as port:
        assert refused(port, own.ca, own.certificate, own.key)
