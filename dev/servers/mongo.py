"""The stand-ins for MongoDB: FerretDB, or an in-memory server."""

import struct

from .server import TOOLS, Server


class Mongo(Server):
    def __init__(self, stack):
        super().__init__(stack, "mongo", stack.port + 7)
        self.metrics = stack.port + 14

    def ports(self):
        return [self.port, *([self.metrics] if self.stack.is_watched else [])]

    def command(self):
        metrics = ["-metrics", f"127.0.0.1:{self.metrics}"] if self.stack.is_watched else []
        address, secure = f"127.0.0.1:{self.port}", self.stack.secure
        listen = ["-listen", address]
        if secure:
            files = ["-tls-cert", str(secure.certificate), "-tls-key", str(secure.key)]
            listen = ["-listen", "", "-tls", address, *files, "-user", secure.user, "-password-env", "OVATION_STACK_PASSWORD"]
        return [str(TOOLS / "mongo/mongo"), *listen, "-data", str(self.data), *metrics]

    def environment(self):
        return {"OVATION_STACK_PASSWORD": self.stack.secure.password} if self.stack.secure else {}

    def responds(self):
        # {ping: 1, $db: "admin"} as OP_MSG. The response has "ok": 1.0.
        body = b"\x10ping\0" + struct.pack("<i", 1) + b"\x02$db\0" + struct.pack("<i", 6) + b"admin\0"
        document = struct.pack("<i", len(body) + 5) + body + b"\0"
        message = struct.pack("<iiiiIB", 16 + 5 + len(document), 1, 0, 2013, 0, 0) + document
        return b"\x01ok\0" + struct.pack("<d", 1) in self.exchange(message, 38)


class MongoInMemory(Mongo):
    """mongo-java-server. Its data are in memory, and are lost when it stops."""

    def ports(self):
        return [self.port]

    def command(self):
        folder = TOOLS / "mongo-java"
        return ["java", "-Xms256m", "-Xmx768m", "-XX:+UseG1GC", "-XX:+ExitOnOutOfMemoryError", "-cp", f"{folder}:{folder}/libs/*", "Server", str(self.port)]
