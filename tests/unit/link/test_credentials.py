"""Certificates and secrets: who may speak for a site, and what a key file must look like."""

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from gridpivot.errors import SettingsError
from gridpivot.link.certificates import issue_server, issue_site, load_authority, make_authority
from gridpivot.link.credentials import read_public, read_secret, site_of

pytestmark = pytest.mark.unit

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


def spiffe(name: bytes) -> dict[str, list[bytes]]:
    return {"peer_spiffe_id": [name]}


def test_site_is_read_from_its_spiffe_identity() -> None:
    assert site_of(spiffe(b"spiffe://demo/site/falcon-1")) == "falcon-1"


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"x509_common_name": [b"falcon-1"]},
        {"x509_subject_alternative_name": [b"spiffe://demo/site/falcon-1"]},  # may be a DNS name or an e-mail address
        spiffe(b"falcon-1"),
        spiffe(b"https://demo/site/falcon-1"),
        spiffe(b"spiffe://demo/site/"),
        spiffe(b"spiffe:///site/falcon-1"),
        spiffe(b"spiffe://demo/site/falcon-1/admin"),
        spiffe(b"spiffe://demo/operator/falcon-1"),
        spiffe(b""),
        {"peer_spiffe_id": [b"spiffe://demo/site/a"], "x509_uri": [b"spiffe://demo/site/b"]},
        {"x509_uri": [b"spiffe://demo/site/a", b"spiffe://demo/site/b"]},
    ],
)
def test_nothing_else_names_a_site(context: dict) -> None:
    assert site_of(context) is None


@given(st.binary(max_size=60))
def test_hostile_identity_never_raises_and_never_holds_a_slash(raw: bytes) -> None:
    site = site_of(spiffe(raw))
    assert site is None or (site and "/" not in site)


def test_site_certificate_speaks_for_that_site_and_only_as_a_client() -> None:
    authority = make_authority("demo", NOW)
    pair = issue_site(authority, "demo", "falcon-1", NOW, days=30)
    certificate = x509.load_pem_x509_certificate(pair.chain_pem)
    certificate.verify_directly_issued_by(authority.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://demo/site/falcon-1"]
    usage = list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert usage == [x509.ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.not_valid_before_utc < NOW < certificate.not_valid_after_utc


def test_server_certificate_names_hosts_and_addresses_apart() -> None:
    pair = issue_server(make_authority("demo", NOW), ["controller.example", "127.0.0.1", "::1"], NOW)
    certificate = x509.load_pem_x509_certificate(pair.chain_pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["controller.example"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]


def test_authority_survives_its_files() -> None:
    authority = make_authority("demo", NOW)
    again = load_authority(authority.key_pem, authority.certificate_pem)
    issued = x509.load_pem_x509_certificate(issue_site(again, "demo", "oryx-1", NOW).chain_pem)
    issued.verify_directly_issued_by(authority.certificate)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o666, 0o601])
def test_secret_that_others_may_read_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "site.key"
    path.write_bytes(b"secret")
    path.chmod(mode)
    with pytest.raises(SettingsError, match=f"chmod 600 {path}"):
        read_secret(path)


def test_secret_of_its_owner_alone_is_read(tmp_path: Path) -> None:
    path = tmp_path / "site.key"
    path.write_bytes(b"secret")
    path.chmod(0o600)
    assert read_secret(path) == b"secret"


@pytest.mark.parametrize("read", [read_secret, read_public])
def test_missing_file_says_how_to_get_one(tmp_path: Path, read) -> None:
    with pytest.raises(SettingsError, match="enrol this site"):
        read(tmp_path / "nothing")


@pytest.mark.parametrize("read", [read_secret, read_public])
def test_directory_in_place_of_a_file_is_one_sentence(tmp_path: Path, read) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(SettingsError, match="cannot be read"):
        read(tmp_path)
