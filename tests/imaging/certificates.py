"""Certificates made on the spot, with which tests sign pictures."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)
USES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment")
USES += ("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")


def write_certificate(
    folder: Path,
    *,
    begin_days: int = -1,
    end_days: int = 9,
    use: x509.ObjectIdentifier = ExtendedKeyUsageOID.EMAIL_PROTECTION,
) -> tuple[Path, Path]:
    """Write a certificate with that of its root, and its key; returns both files.

    Args:
        folder: where to write them.
        begin_days: days from now on which it becomes valid.
        end_days: days from now on which it expires.
        use: its extended key usage.
    """
    root_key, own_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = _certificate("Root", root_key, root_key, -100, 100, {"key_cert_sign", "crl_sign"})
    own = _certificate(
        "Signer", own_key, root_key, begin_days, end_days, {"digital_signature"}, use
    )
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(own + root)
    key.write_bytes(own_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, key


def _certificate(name, key, issuer_key, begin_days, end_days, uses, extended=None) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    is_root = key is issuer_key
    parts = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name("Root"))
        .public_key(key.public_key())
        .serial_number(1 if is_root else 2)
        .not_valid_before(now + begin_days * DAY)
        .not_valid_after(now + end_days * DAY)
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**{each: each in uses for each in USES}), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(parts, critical=False)
    )
    if extended is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([extended]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _name(text: str) -> x509.Name:
    values = {NameOID.COUNTRY_NAME: "DE", NameOID.ORGANIZATION_NAME: "Archive"}
    values[NameOID.COMMON_NAME] = text
    return x509.Name([x509.NameAttribute(*each) for each in values.items()])
