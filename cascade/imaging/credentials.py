"""Content credentials (C2PA): a signed manifest in a picture that says how it came about.

The manifest names the tool, the model and how the picture came about, by the IPTC's words that the
mark in XMP uses too (`marks.py`). A signature with the user's own certificate covers it and every
byte of the file, so that later changes show. The package `c2pa-python` makes and checks manifests
(C2PA Technical Specification 2.2). It is never asked to fetch anything from the network.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, final

from PIL import Image

from cascade.errors import ContractError, DataError, OutputError
from cascade.extras import install_command
from cascade.imaging.marks import NAME, NEWSCODES, TYPES, Source, lasting_source
from cascade.saving.atomic import atomic_file

MARK = b"jumb"  # in every file that holds a manifest
UNTRUSTED = "signingCredential.untrusted"
NEEDS = (
    "it needs the key usage digital signature and the extended key usage email protection or "
    "document signing, and must not be signed by itself"
)
SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
}


@final
class Signer:
    """Signs pictures with a user's own certificate.

    Args:
        certificate: PEM file of the certificate, followed by those that lead to its root.
        key: PEM file of its private key, without a password.

    Attributes:
        fingerprint: the first 16 hex digits of the SHA-256 of the certificate.

    Raises:
        DataError: if a file cannot be read.
        ContractError: if the package is missing, or C2PA does not accept the certificate or key.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        c2pa = _package()
        chain, secret = _read(certificate), _read(key)
        self.fingerprint, self._algorithm = _checked(certificate, chain, key, secret)
        self._info = c2pa.C2paSignerInfo(self._algorithm, chain, secret, None)
        tiny = io.BytesIO()
        Image.new("L", (1, 1)).save(tiny, "PNG")
        try:
            self._sign("png", {}, tiny, io.BytesIO())
        except c2pa.C2paError as error:
            reason = f"C2PA does not accept this certificate ({_reason(error)})"
            raise ContractError(f"{certificate}: {reason}; {NEEDS}.") from error

    def add_manifest(
        self, file: Path, path: Path, source: Source, settings: Mapping[str, Any]
    ) -> None:
        """Sign a complete file in place.

        Args:
            file: the file.
            path: its later name, whose ending says the format.
            source: how the picture came about.
            settings: how it was made; the name of the model and the version are taken from it.

        Raises:
            OutputError: if C2PA does not support the format, or the file cannot be signed.
            OSError: if the disk is full.
        """
        c2pa = _package()
        model = settings.get("model") or ""
        version = {"version": str(settings["version"])} if "version" in settings else {}
        action = {
            "action": "c2pa.created",
            "digitalSourceType": NEWSCODES + TYPES[source],
            "softwareAgent": {"name": f"{NAME} {model}".strip(), **version},
        }
        manifest = {
            "claim_generator_info": [{"name": NAME, **version}],
            "title": path.name,
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
        }
        kind, signed = path.suffix.lower().removeprefix("."), io.BytesIO()
        try:
            with file.open("rb") as stream:  # into memory: the package hides a full disk
                self._sign(kind, manifest, stream, signed)
        except c2pa.C2paError.NotSupported as error:
            raise OutputError(
                f"cannot sign {path}: C2PA does not support {kind or 'this format'}; write PNG, "
                "JPEG, WebP or TIFF."
            ) from error
        except c2pa.C2paError as error:
            raise OutputError(f"cannot sign {path}: {_reason(error)}.") from error
        file.write_bytes(signed.getbuffer())

    def _sign(self, kind: str, manifest: Mapping[str, Any], source: Any, target: Any) -> None:
        c2pa = _package()
        kind = {"apng": "png", "jpe": "jpg", "jif": "jpg", "jfif": "jpg"}.get(kind, kind)
        default = {"assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [CREATED]}}]}
        builder = c2pa.Builder(json.dumps(manifest or default), _context(c2pa))
        builder.sign(c2pa.Signer.from_info(self._info), kind, source, target)


def check_signer(signer: Signer | None, *, metadata: bool) -> None:
    """Check that nobody is to sign results that hold no metadata.

    Raises:
        ContractError: if somebody is.
    """
    if signer is not None and not metadata:
        raise ContractError(
            "a signature is metadata, and metadata is to be left out; choose one of the two."
        )


CREATED = {"action": "c2pa.created", "digitalSourceType": NEWSCODES + TYPES["generated"]}


@contextmanager
def signed_file(
    path: Path,
    signer: Signer | None,
    source: Source,
    settings: Mapping[str, Any] | None,
    xmp: bytes | None = None,
) -> Iterator[Path]:
    """Yield a temporary path, as `atomic_file` does; the file is signed before it gets its name.

    Args:
        path: the file to write.
        signer: who signs it; None for nobody.
        source: how the picture came about.
        settings: how it was made.
        xmp: packet of the picture that it was made from, which may say that a model made that.

    Raises:
        OutputError: if the file cannot be written or signed.
    """
    with atomic_file(path) as temporary:
        yield temporary
        if signer is not None:
            signer.add_manifest(temporary, path, lasting_source(xmp, source), settings or {})


@dataclass(frozen=True)
class Manifest:
    """What the newest manifest of a file says, and whether it holds.

    Attributes:
        signer: organisation and name in the certificate; empty if it cannot be read.
        generator: the tool that wrote the manifest; empty if it names none.
        source_type: the IPTC's word for how the picture came about; empty if it names none.
        is_valid: whether signature and file are as they were when it was signed.
        is_trusted: whether the certificate leads to a root on a list of trust.
        faults: what does not hold.
    """

    signer: str = ""
    generator: str = ""
    source_type: str = ""
    is_valid: bool = False
    is_trusted: bool = False
    faults: tuple[str, ...] = ()

    def lines(self) -> list[tuple[str, str]]:
        """What there is to say, as names and texts."""
        parts = [self.signer and f"signed by {self.signer}", self.source_type, self.generator]
        trust = "by a trusted signer" if self.is_trusted else "its signer is on no list of trust"
        verdict = f"yes, unchanged since it was signed; {trust}"
        if not self.is_valid:
            verdict = f"NO: {'; '.join(self.faults)}"
        return [("manifest", ", ".join(filter(None, parts)) or "unreadable"), ("verifies", verdict)]


def read_manifest(data: bytes, kind: str) -> Manifest | None:
    """Read and check the manifest of a file.

    Args:
        data: the bytes of the file.
        kind: its format, as Pillow calls it.

    Returns:
        None if the file has none.

    Raises:
        ContractError: if it has one, but the package to check it is missing.
    """
    if MARK not in data:
        return None
    c2pa = _package()
    try:
        reader = c2pa.Reader(f"image/{kind.lower()}", io.BytesIO(data), context=_context(c2pa))
    except (c2pa.C2paError.ManifestNotFound, c2pa.C2paError.NotSupported):
        return None
    except c2pa.C2paError as error:
        return Manifest(faults=(_reason(error),))
    with reader:
        results = (reader.get_validation_results() or {}).get("activeManifest", {})
        faults = [each for each in results.get("failure", []) if each["code"] != UNTRUSTED]
        state = reader.get_validation_state()
        values = reader.get_active_manifest() or {}
    names = values.get("signature_info", {})
    tools = values.get("claim_generator_info") or [{}]
    actions = [action for each in values.get("assertions", []) for action in _actions(each)]
    return Manifest(
        signer=", ".join(filter(None, (names.get("issuer"), names.get("common_name")))),
        generator=" ".join(filter(None, (tools[0].get("name"), tools[0].get("version")))),
        source_type=next(filter(None, actions), "").removeprefix(NEWSCODES),
        is_valid=state in ("Valid", "Trusted"),
        is_trusted=state == "Trusted",
        faults=tuple(each.get("explanation") or each["code"] for each in faults),
    )


def _actions(assertion: Mapping[str, Any]) -> Iterator[str]:
    """The source types in an assertion about actions."""
    if str(assertion.get("label", "")).startswith("c2pa.actions"):
        for each in assertion.get("data", {}).get("actions", []):
            yield each.get("digitalSourceType", "")


def _package() -> ModuleType:
    try:
        return import_module("c2pa")
    except ImportError as error:
        raise ContractError(
            "content credentials need the package c2pa-python, which is not installed: "
            f"{install_command('c2pa')}"
        ) from error


def _context(c2pa: ModuleType) -> Any:
    return c2pa.Context(c2pa.Settings.from_dict(SETTINGS))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _checked(certificate: Path, chain: bytes, key: Path, secret: bytes) -> tuple[str, str]:
    """Check that a certificate and a key belong together and are valid now.

    Returns:
        The fingerprint of the certificate, and C2PA's name of the algorithm.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

    try:
        first = x509.load_pem_x509_certificates(chain)[0]
    except ValueError as error:
        raise ContractError(f"{certificate}: not a certificate in PEM; convert it.") from error
    try:
        private = load_pem_private_key(secret, password=None)
    except TypeError as error:
        raise ContractError(f"{key}: has a password; write the key without one.") from error
    except ValueError as error:
        raise ContractError(f"{key}: not a private key in PEM; convert it.") from error
    if private.public_key() != first.public_key():
        raise ContractError(
            f"{key} is not the key of {certificate}; name the two that belong together."
        )
    now = datetime.datetime.now(datetime.UTC)
    begin, end = first.not_valid_before_utc, first.not_valid_after_utc
    if not begin <= now <= end:
        raise ContractError(
            f"{certificate}: valid from {begin:%Y-%m-%d} to {end:%Y-%m-%d}, which is not now; "
            "renew it."
        )
    digest = hashlib.sha256(first.public_bytes(Encoding.DER)).hexdigest()
    return digest[:16], _algorithm_of(private, certificate)


def _algorithm_of(private: Any, certificate: Path) -> str:
    """C2PA's name of the algorithm of a key."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    curves = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in curves:
        return curves[private.curve.name]
    if isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise ContractError(
        f"{certificate}: C2PA does not support this kind of key; use P-256, P-384, P-521, "
        "RSA or Ed25519."
    )


def _reason(error: Exception) -> str:
    """What the package says, without the name of its class."""
    return " ".join(str(error).partition(": ")[2].split()) or str(error)
