"""The servers that monitor the stores and our programs: Prometheus, Alertmanager, and the exporter for Redis."""

import os
import re

from processes import Failure

from . import monitoring_config
from .server import Server, is_healthy


class Prometheus(Server):
    def __init__(self, stack):
        super().__init__(stack, "prometheus", stack.port + 8)

    def prepare(self):
        super().prepare()
        scrape = os.environ.get("OVATION_STACK_SCRAPE") or "5s"
        if not re.fullmatch(monitoring_config.DURATION, scrape):
            raise Failure(f"OVATION_STACK_SCRAPE must be a duration like 1s, not {scrape!r}")
        stack = self.stack
        stores = [(self.port, {"job": "prometheus"}), (stack.port + 9, {"job": "alertmanager"})]
        if stack.is_watched:
            stores += [(stack.port + 10, {"job": "redis", "store": "tallies"}), (stack.port + 14, {"job": "mongodb", "store": "ledger"})]
            stores += [(kafka.metrics, {"job": "kafka", "store": "vote log"}) for kafka in stack.kafkas]
        monitoring_config.write_prometheus(stack.folder / "prometheus.d", stack.folder / "targets", scrape, alert_speed(), stack.port + 9, stores)

    def command(self):
        config = self.stack.folder / "prometheus.d/prometheus.yml"
        # A stack may run for a long time, so its metrics are limited.
        limits = ["--storage.tsdb.retention.time=7d", "--storage.tsdb.retention.size=512MB"]
        # Prometheus sends a firing alert again after this delay, a minute by default. Alerts that fire before Alertmanager is discovered wait for
        # it. If the next sending is late by three delays, Alertmanager takes the alert for resolved, so it is not divided without a limit.
        resend = monitoring_config.divide_duration("1m", alert_speed(), 10)
        return ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={self.data}", f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn",
                f"--rules.alert.resend-delay={resend}", *limits]

    def responds(self):
        return is_healthy(self.port, "/-/ready")


class Alertmanager(Server):
    def __init__(self, stack):
        super().__init__(stack, "alertmanager", stack.port + 9)

    def prepare(self):
        super().prepare()
        monitoring_config.write_alertmanager(self.stack.folder / "alertmanager.d", alert_speed(), os.environ.get("OVATION_STACK_ALERT_WEBHOOK"))

    def command(self):
        config = self.stack.folder / "alertmanager.d/alertmanager.yml"
        # It does not form a cluster with other Alertmanagers.
        no_cluster = "--cluster.listen-address="
        return ["prometheus-alertmanager", f"--config.file={config}", f"--storage.path={self.data}", f"--web.listen-address=127.0.0.1:{self.port}", no_cluster, "--log.level=warn"]

    def responds(self):
        return is_healthy(self.port, "/-/ready")


class RedisExporter(Server):
    def __init__(self, stack):
        super().__init__(stack, "redis-exporter", stack.port + 10)

    def command(self):
        return ["prometheus-redis-exporter", f"-redis.addr=redis://127.0.0.1:{self.stack.port + 6}", f"-web.listen-address=127.0.0.1:{self.port}"]

    def responds(self):
        return is_healthy(self.port, "/health")


def alert_speed():
    """Returns the divisor of all times of the rules and of Alertmanager."""
    speed = os.environ.get("OVATION_STACK_ALERT_SPEED") or "1"
    if not speed.isdecimal() or int(speed) < 1:
        raise Failure(f"OVATION_STACK_ALERT_SPEED must be a whole number from 1, not {speed!r}")
    return int(speed)
