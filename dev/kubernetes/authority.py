"""Creates the certificates and kubeconfig files of the cluster."""

import json

from processes import run


class Authority:
    """A certificate authority. The folder has its key and its certificate, and those that it has signed. Certificates are valid for a year."""

    def __init__(self, folder, name, server=""):
        self.folder, self.name, self.server = folder, name, server

    def create_key(self, name):
        run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", self.folder / f"{name}.key"])

    def create(self):
        self.create_key(self.name)
        extensions = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"]
        files = ["-key", self.folder / f"{self.name}.key", "-out", self.folder / f"{self.name}.crt"]
        run(["openssl", "req", "-x509", "-new", *files, "-sha256", "-days", "365", "-subj", f"/CN={self.name}", *extensions])

    def sign(self, name, subject, use, names=""):
        """Creates a key and a certificate if the certificate is missing. `use` is serverAuth or clientAuth."""
        if (self.folder / f"{name}.crt").exists():
            return
        self.create_key(name)
        request = run(["openssl", "req", "-new", "-key", self.folder / f"{name}.key", "-subj", subject])
        extensions = self.folder / f"{name}.extensions"
        extensions.write_text(f"basicConstraints=CA:FALSE\nkeyUsage=digitalSignature,keyEncipherment\nextendedKeyUsage={use}\n" + (f"subjectAltName={names}\n" if names else ""))
        issuer = ["-CA", self.folder / f"{self.name}.crt", "-CAkey", self.folder / f"{self.name}.key", "-CAcreateserial"]
        run(["openssl", "x509", "-req", *issuer, "-days", "365", "-sha256", "-extfile", extensions, "-out", self.folder / f"{name}.crt"], input=request)
        extensions.unlink()

    def create_user(self, name, subject):
        """Creates a client certificate and a kubeconfig for a client of the API server."""
        self.sign(name, subject, "clientAuth")
        folder = self.folder
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "ovation", "cluster": {"server": self.server, "certificate-authority": str(folder / "ca.crt")}}],
            "users": [{"name": name, "user": {"client-certificate": str(folder / f"{name}.crt"), "client-key": str(folder / f"{name}.key")}}],
            "contexts": [{"name": "ovation", "context": {"cluster": "ovation", "user": name}}],
            "current-context": "ovation",
        }
        (folder / f"{name}.kubeconfig").write_text(json.dumps(config, indent=2) + "\n")
