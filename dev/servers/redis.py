"""Redis, with an append-only file."""

from .server import CONFIG, Server


class Redis(Server):
    def __init__(self, stack):
        super().__init__(stack, "redis", stack.port + 6)

    def command(self):
        command = ["redis-server", str(CONFIG / "redis.conf"), "--dir", str(self.data)]
        secure = self.stack.secure
        if not secure:
            return [*command, "--port", str(self.port)]
        files = ["--tls-cert-file", str(secure.certificate), "--tls-key-file", str(secure.key), "--tls-ca-cert-file", str(secure.ca)]
        return [*command, "--port", "0", "--tls-port", str(self.port), *files, "--tls-auth-clients", "no", "--requirepass", secure.password]

    def responds(self):
        if self.stack.secure:
            return self.exchange(f"AUTH {self.stack.secure.password}\r\nPING\r\n".encode(), 12) == b"+OK\r\n+PONG\r\n"
        return self.exchange(b"PING\r\n", 7) == b"+PONG\r\n"
