"""Kafka, Redis and the stand-in for MongoDB, on loopback. `dev/stack` has installed their programs."""

import base64
import shutil
import signal
import socket
import subprocess
import uuid
from pathlib import Path

import redis

from processes import Process, wait_for

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = ROOT / "target/tools"
CONFIG = ROOT / "dev/servers/config"

# Offsets from the first port. The brokers have the ports from 0, and their controllers those from 3.
REDIS, MONGO, SECOND_REDIS = 6, 7, 8
# Each broker also listens on ports for the proxy, and advertises the proxy's ports there.
PROXIED_LISTENERS, ADVERTISED_PROXIES = 20, 30


class Servers:
    """One or three Kafka brokers, two Redis servers (only the scenario `failover` uses the second), and a MongoDB server."""

    def __init__(self, folder, port, brokers=1, proxied_listeners=0, is_ledger_in_memory=False):
        self.folder, self.port, self.brokers, self.proxied_listeners = Path(folder), port, brokers, proxied_listeners
        self.is_ledger_in_memory = is_ledger_in_memory
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.cluster = base64.urlsafe_b64encode(uuid.UUID(int=0x1234567890ABCDEF1234567890ABCDEF).bytes).decode().rstrip("=")
        self.kafkas = [self._kafka(number) for number in range(brokers)]
        self.redis = self._redis(0)
        self.redis2 = self._redis(1)
        self.mongo = self._mongo()
        self.all = [*self.kafkas, self.redis, self.redis2, self.mongo]

    bootstrap = property(lambda self: ",".join(f"127.0.0.1:{self.port + number}" for number in range(self.brokers)))
    redis_port = property(lambda self: self.port + REDIS)
    mongo_port = property(lambda self: self.port + MONGO)
    redis2_port = property(lambda self: self.port + SECOND_REDIS)

    def up(self):
        """Starts the servers, without the second Redis, and waits until they respond."""
        for kafka in self.kafkas:
            self._format(kafka)
            kafka.start()
        self.start_redis()
        self.start_mongo()
        for kafka in self.kafkas:
            self._await_broker(kafka)

    def down(self):
        """Stops all servers."""
        for server in self.all:
            server.signal(signal.SIGCONT)
            server.signal(signal.SIGTERM)
        for server in self.all:
            server.stop(30)

    def start_kafka(self, kafka):
        """Starts a broker and waits until it is ready."""
        self._format(kafka)
        kafka.start()
        self._await_broker(kafka)

    def start_redis(self, which=0):
        """Starts a Redis server and waits until it responds."""
        server = self.redis2 if which else self.redis
        server.data.mkdir(parents=True, exist_ok=True)
        server.start()
        wait_for(lambda: self.redis_client(which).ping(), 30, "Redis responds")

    def start_mongo(self):
        """Starts the MongoDB server and waits until it accepts connections."""
        self.mongo.data.mkdir(parents=True, exist_ok=True)
        self.mongo.start()
        wait_for(lambda: socket.create_connection(("127.0.0.1", self.mongo_port), 1).close() is None, 30, "MongoDB accepts a connection")

    def redis_client(self, which=0):
        return redis.Redis(port=self.redis2_port if which else self.redis_port, socket_timeout=10)

    def _java(self, *arguments):
        return ["java", "-cp", f"{TOOLS}/kafka/libs/*", "-Djava.net.preferIPv4Stack=true", f"-Dlog4j2.configurationFile={CONFIG}/kafka-log4j2.xml", *arguments]

    def _kafka(self, number):
        name = f"kafka{number}"
        data = self.folder / name
        # Name, port, advertised port.
        listeners = [("CLIENT", self.port + number, self.port + number), ("CONTROLLER", self.port + 3 + number, self.port + 3 + number)]
        for index in range(self.proxied_listeners):
            listeners.append((f"PROXY{index}", self.port + PROXIED_LISTENERS + index, self.port + ADVERTISED_PROXIES + index))
        lines = (CONFIG / "kafka.properties").read_text().splitlines()
        settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        settings |= {
            "node.id": number + 1,
            "listeners": ",".join(f"{listener}://127.0.0.1:{port}" for listener, port, _ in listeners),
            "advertised.listeners": ",".join(f"{listener}://127.0.0.1:{advertised}" for listener, _, advertised in listeners),
            "listener.security.protocol.map": ",".join(f"{listener}:PLAINTEXT" for listener, _, _ in listeners),
            "controller.quorum.voters": ",".join(f"{other + 1}@127.0.0.1:{self.port + 3 + other}" for other in range(self.brokers)),
            "log.dirs": data,
        }
        for topic in ("", "offsets.topic.", "transaction.state.log.", "share.coordinator.state.topic."):
            settings[f"{topic or 'default.'}replication.factor"] = self.brokers
        for topic in ("min.insync.replicas", "transaction.state.log.min.isr", "share.coordinator.state.topic.min.isr"):
            settings[topic] = min(self.brokers, 2)
        properties = self.folder / f"{name}.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        heap = ["-Xms128m", "-Xmx512m"] if self.brokers == 1 else ["-Xms96m", "-Xmx320m"]
        command = self._java(*heap, "-XX:+UseG1GC", "-XX:+ExitOnOutOfMemoryError", "kafka.Kafka", properties)
        kafka = Process(name, command, self.folder / f"{name}.log")
        kafka.properties, kafka.data = properties, data
        return kafka

    def _format(self, kafka):
        """Formats the data folder of a broker before its first start."""
        kafka.data.mkdir(parents=True, exist_ok=True)
        if (kafka.data / "meta.properties").exists():
            return
        tool = ["kafka.tools.StorageTool", "format", "--cluster-id", self.cluster, "--config", str(kafka.properties)]
        done = subprocess.run(self._java("-Xmx128m", "-XX:TieredStopAtLevel=1", *tool), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)

    def _await_broker(self, kafka):
        wait_for(lambda: b"Kafka Server started" in kafka.log_since_start(), 120, f"{kafka.name} starts", 0.2)

    def _redis(self, which):
        data = self.folder / f"redis{which}"
        port = self.redis2_port if which else self.redis_port
        server = Process(f"redis{which}", ["redis-server", CONFIG / "redis.conf", "--dir", data, "--port", port], self.folder / f"redis{which}.log")
        server.data = data
        return server

    def _mongo(self):
        data = self.folder / "mongo"
        if self.is_ledger_in_memory:
            folder = TOOLS / "mongo-java"
            command = ["java", "-Xms256m", "-Xmx3g", "-XX:+UseG1GC", "-cp", f"{folder}:{folder}/libs/*", "Server", self.mongo_port]
        else:
            command = [TOOLS / "mongo/mongo", "-listen", f"127.0.0.1:{self.mongo_port}", "-data", data]
        server = Process("mongo", command, self.folder / "mongo.log")
        server.data = data
        return server
