"""What servers need to be secure: an authority, a certificate of it for loopback, and a password. Made once for a folder, by openssl."""

import secrets
import ssl

from processes import run

USER = "ovation"

AUTHORITY = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]


class Secure:
    """The files of a folder: `ca.pem`, `server.crt`, `server.key`, both of these in `server.pem`, and `password`. `stranger.pem` is an
    authority that signed nothing here, for whoever wants to see it refused."""

    user = USER

    def __init__(self, folder):
        self.folder = folder
        self.ca, self.certificate, self.key, self.both = (folder / name for name in ("ca.pem", "server.crt", "server.key", "server.pem"))
        if not (folder / "password").exists():
            self.make()
        self.password = (folder / "password").read_text()

    def make(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        for authority in ("ca", "stranger"):
            new = ["-x509", "-newkey", "rsa:2048", "-noenc", "-days", "3650", "-subj", f"/CN=Ovation's {authority}"]
            run(["openssl", "req", *new, *AUTHORITY, "-keyout", self.folder / f"{authority}.key", "-out", self.folder / f"{authority}.pem"])
        signed = ["-CA", self.ca, "-CAkey", self.folder / "ca.key", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "3650", "-subj", "/CN=localhost",
             "-addext", "basicConstraints=critical,CA:FALSE", *signed, "-keyout", self.key, "-out", self.certificate])
        self.both.write_text(self.key.read_text() + self.certificate.read_text())
        # Last: where it is, everything is.
        (self.folder / "password").write_text(secrets.token_urlsafe(16))

    def context(self):
        return ssl.create_default_context(cafile=str(self.ca))
