"""Certificates in a folder as Kubernetes mounts a Secret: all files are links through one that is swapped."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import trustme

from service.server.tls import CertificateFiles


def chain_pem(cert: trustme.LeafCert) -> bytes:
    return b"".join(one.bytes() for one in cert.cert_chain_pems)


def key_pem(cert: trustme.LeafCert) -> bytes:
    return cert.private_key_pem.bytes()


class Secret:
    """A mounted Secret of the type kubernetes.io/tls."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._versions = count()
        self.files = CertificateFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")

    def put(self, cert: trustme.LeafCert, authority: trustme.CA) -> None:
        self.write(chain_pem(cert), key_pem(cert), authority.cert_pem.bytes())

    def write(self, cert: bytes, key: bytes, authorities: bytes) -> None:
        """All three change at once."""
        version = self._folder / f"..{next(self._versions)}"
        version.mkdir()
        for name, content in (("tls.crt", cert), ("tls.key", key), ("ca.crt", authorities)):
            (version / name).write_bytes(content)
            if not (self._folder / name).is_symlink():
                (self._folder / name).symlink_to(Path("..data", name))
        fresh = self._folder / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.replace(self._folder / "..data")
