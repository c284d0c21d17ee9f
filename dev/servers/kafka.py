"""Apache Kafka's brokers. Each broker is also a controller."""

import struct
import subprocess

from processes import Failure

from .server import CONFIG, TOOLS, Server


class Kafka(Server):
    # Three brokers may share two busy cores. After a kill, a broker waits until its old session has expired.
    timeout = 90

    def __init__(self, stack, number, brokers):
        super().__init__(stack, f"kafka-{number}" if brokers > 1 else "kafka", stack.port + number - 1)
        self.number, self.brokers = number, brokers
        self.properties = stack.folder / f"{self.name}.properties"
        self.controller = stack.port + 2 + number
        self.metrics = stack.port + 10 + number

    def ports(self):
        return [self.port, self.controller, *([self.metrics] if self.stack.is_watched else [])]

    def java(self, *arguments):
        """Returns a command that runs Java with Kafka's libraries."""
        return ["java", "-cp", f"{TOOLS}/kafka/libs/*", "-Djava.net.preferIPv4Stack=true", f"-Dlog4j2.configurationFile={CONFIG}/kafka-log4j2.xml", *arguments]

    def prepare(self):
        """Writes the properties, and formats the data folder before the first start."""
        super().prepare()
        voters = ",".join(f"{kafka.number}@127.0.0.1:{kafka.controller}" for kafka in self.stack.kafkas)
        listeners = f"CLIENT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller}"
        own = {
            "node.id": self.number,
            "listeners": listeners,
            "advertised.listeners": listeners,
            "controller.quorum.voters": voters,
            "log.dirs": self.data,
        }
        in_sync = min(self.brokers, 2)
        for topic in ("", "offsets.topic.", "transaction.state.log.", "share.coordinator.state.topic."):
            own[f"{topic or 'default.'}replication.factor"] = self.brokers
        for topic in ("min.insync.replicas", "transaction.state.log.min.isr", "share.coordinator.state.topic.min.isr"):
            own[topic] = in_sync
        secure = self.stack.secure
        if secure:
            login = f'org.apache.kafka.common.security.scram.ScramLoginModule required username="{secure.user}" password="{secure.password}";'
            own |= {
                "listener.security.protocol.map": "CLIENT:SASL_SSL,CONTROLLER:PLAINTEXT",
                "sasl.enabled.mechanisms": "SCRAM-SHA-512",
                "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
                "listener.name.client.scram-sha-512.sasl.jaas.config": login,
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": secure.both,
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": secure.ca,
            }
        common = (CONFIG / "kafka.properties").read_text()
        self.properties.write_text(common + "".join(f"{key}={value}\n" for key, value in own.items()))

        if not (self.data / "meta.properties").exists():
            command = self.java("-Xmx128m", "-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", "format", "--cluster-id", self.stack.cluster, "--config", str(self.properties),
                                *(["--add-scram", f"SCRAM-SHA-512=[name={secure.user},password={secure.password}]"] if secure else []))
            formatted = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if formatted.returncode:
                raise Failure(f"{self.name}'s data folder can't be formatted:\n{formatted.stdout}")

    def command(self):
        heap = ["-Xms128m", "-Xmx512m"] if self.brokers == 1 else ["-Xms96m", "-Xmx256m"]
        agent = [f"-javaagent:{TOOLS}/jmx/jmx_prometheus_javaagent.jar=127.0.0.1:{self.metrics}:{CONFIG}/kafka-jmx.yml"]
        return self.java(*heap, *(agent if self.stack.is_watched else []), "-XX:+UseG1GC", "-XX:+ExitOnOutOfMemoryError", "kafka.Kafka", str(self.properties))

    def responds(self):
        # The broker opens its port before the controllers have registered the broker.
        if b"Kafka Server started" not in self.log_since_start():
            return False
        # ApiVersions, version 0, correlation id 1, no client id. The response has the same correlation id and error code 0.
        request = struct.pack(">hhih", 18, 0, 1, -1)
        response = self.exchange(struct.pack(">i", len(request)) + request, 10)
        return response[4:] == struct.pack(">ih", 1, 0)
