"""The TLS files and the password for servers with --secure. They are created once for each folder, with openssl."""

import secrets
import ssl

from processes import run

USER = "ovation"

AUTHORITY = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]


class Secure:
    """The files of a folder: `ca.pem`, the certificate authority; `server.crt` and `server.key`, which `server.pem` has both; and `password`.
    `stranger.pem` is an authority that signed no certificate here. Tests use it for connections that must be refused."""

    user = USER

    def __init__(self, folder):
        self.folder = folder
        self.ca, self.certificate, self.key, self.both = (folder / name for name in ("ca.pem", "server.crt", "server.key", "server.pem"))
        if not (folder / "password").exists():
            self.create()
        self.password = (folder / "password").read_text()

    def create(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        for authority in ("ca", "stranger"):
            new = ["-x509", "-newkey", "rsa:2048", "-noenc", "-days", "3650", "-subj", f"/CN=Ovation's {authority}"]
            run(["openssl", "req", *new, *AUTHORITY, "-keyout", self.folder / f"{authority}.key", "-out", self.folder / f"{authority}.pem"])
        signed = ["-CA", self.ca, "-CAkey", self.folder / "ca.key", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "3650", "-subj", "/CN=localhost",
             "-addext", "basicConstraints=critical,CA:FALSE", *signed, "-keyout", self.key, "-out", self.certificate])
        self.both.write_text(self.key.read_text() + self.certificate.read_text())
        # The password is written last: if its file exists, all files exist.
        (self.folder / "password").write_text(secrets.token_urlsafe(16))

    def context(self):
        """Returns the TLS settings of a client."""
        return ssl.create_default_context(cafile=str(self.ca))
