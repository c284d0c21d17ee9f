"""The stand-in for S3: Versity S3 Gateway on a folder."""

from .server import TOOLS, Server


class S3(Server):
    bucket = "ovation"
    user = "ovation"

    def __init__(self, stack):
        super().__init__(stack, "s3", stack.port + 15)

    def prepare(self):
        super().prepare()
        # The gateway serves each subfolder as a bucket.
        (self.data / self.bucket).mkdir(exist_ok=True)

    def password(self):
        return self.stack.secure.password if self.stack.secure else "ovation-secret"

    def command(self):
        secure = self.stack.secure
        files = ["--cert", str(secure.certificate), "--key", str(secure.key)] if secure else []
        return [str(TOOLS / "s3/versitygw"), "--port", f"127.0.0.1:{self.port}", "--keep-alive", "--quiet", *files, "posix", str(self.data)]

    def environment(self):
        return {"ROOT_ACCESS_KEY": self.user, "ROOT_SECRET_KEY": self.password()}

    def responds(self):
        # The gateway refuses a request without credentials.
        return self.exchange(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 12) == b"HTTP/1.1 403"

    def client_environment(self):
        """Returns the environment variables that a client needs."""
        secure = self.stack.secure
        variables = {
            "OVATION_OBJECTS": f"s3://{self.bucket}/objects",
            "AWS_ENDPOINT_URL": f"{'https' if secure else 'http'}://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": self.user,
            "AWS_SECRET_ACCESS_KEY": self.password(),
            "AWS_REGION": "us-east-1",
        }
        return variables | ({"AWS_CA_BUNDLE": secure.ca} if secure else {"AWS_ALLOW_HTTP": "true"})
