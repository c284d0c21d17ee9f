#!/usr/bin/env python3
"""An independent checker of the promise that every acknowledged vote is counted exactly once.

    checker.py run SCENARIO [--programs target/release] [--seconds 60] [--rate 600] [--seed 1] [--rounds 1] [--brokers 1|3] ...
    checker.py list

It starts Kafka, Redis and the stand-in for MongoDB, and Ovation's programs. Its own clients cast votes while a scenario breaks things. Then it
compares what the clients received with the contents of the stores. It uses no code of the project except for the .proto files. README.md has more.

The exit code is 0 if no promise was broken, 1 if one was, and 2 if the checker failed.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import traceback
from pathlib import Path

from clients import Clients, generate_messages
from judgement import Judgement, self_test
from processes import log, now
from programs import FORWARD, OPEN, PORTS, Programs
from proxy import Proxy
from scenarios import SCENARIOS, World
from servers import ADVERTISED_PROXIES, MONGO, PROXIED_LISTENERS, REDIS, ROOT, Servers
from stores import Stores
from watches import HealthWatch, PartitionsWatch, TalliesWatch

# The programs whose connections to Kafka go through the proxy. Consumers with an even number are `c0`, those with an odd one `c1`.
KAFKA_LINKS = ("rest", "grpc", "c0", "c1")
STORE_LINKS = ("c0", "c1", "results")
# The scenarios in which some clients connect through the proxy.
CLIENTS_PROXIED = ("network", "everything")
# The share of votes in the contest with one vote per voter.
ONCE_SHARE = 0.15
LOG_RETENTION = "15s"
# How long the clients may take to get a receipt for every vote after the last fault, and then the consumers to count, in seconds.
ACKNOWLEDGED_WITHIN, COUNTED_WITHIN = 150, 240
AUDIT_TIMEOUT = 600


def links_from(port):
    """Returns the proxy's links: name -> (listening port, server's port). Kafka has a listener for each link, which advertises the proxy."""
    links = {f"{who}-kafka": (port + ADVERTISED_PROXIES + index, port + PROXIED_LISTENERS + index) for index, who in enumerate(KAFKA_LINKS)}
    for index, who in enumerate(STORE_LINKS):
        links[f"{who}-redis"] = (port + 40 + index, port + REDIS)
        links[f"{who}-mongo"] = (port + 45 + index, port + MONGO)
    for number in range(2):
        links[f"rest{number}-clients"] = (port + 50 + number, port + PORTS["rest-producer"] + number)
        links[f"grpc{number}-clients"] = (port + 53 + number, port + PORTS["grpc-producer"] + number)
    return links


class Round:
    """One round of a scenario, with a topic, a key prefix and a database of its own."""

    def __init__(self, options, number, servers, proxy):
        self.options, self.number, self.servers, self.proxy = options, number, servers, proxy
        self.scenario = options.scenario
        self.name = f"r{os.getpid()}x{number}"
        self.topic, self.prefix, self.database = f"votes-{self.name}", f"ovation-{self.name}", f"ledger_{self.name}"
        self.seed = options.seed * 1000 + number
        self.is_forwarded = self.scenario == "forward"
        # Whether nothing expires from the log and the ledger.
        self.is_whole = self.scenario != "retention"

    def urls(self, kafka, redis_port, mongo_port):
        return f"kafka://{kafka}/{self.topic}", f"redis://127.0.0.1:{redis_port}?prefix={self.prefix}", f"mongodb://127.0.0.1:{mongo_port}/{self.database}"

    def program_urls(self, name, number):
        """Returns the URLs of the stores for a program. They lead through the proxy if there is one."""
        servers = self.servers
        if not self.proxy:
            return self.urls(servers.bootstrap, servers.redis_port, servers.mongo_port)
        ports = {link: listen for link, (listen, _) in self.proxy.links.items()}
        who = {"rest-producer": "rest", "grpc-producer": "grpc", "results": "results"}.get(name, f"c{number % 2}")
        # Producers use only the vote log. Their other URLs are not used.
        return self.urls(f"127.0.0.1:{ports.get(f'{who}-kafka', servers.port)}", ports.get(f"{who}-redis", 1), ports.get(f"{who}-mongo", 1))

    def ovation(self, *command):
        """Returns the command line of `ovation` with the URLs of the stores."""
        vote_log, tallies, ledger = self.urls(self.servers.bootstrap, self.stores.redis_port, self.servers.mongo_port)
        return [str(self.options.programs / "ovation"), *command, "--vote-log", vote_log, "--tallies", tallies, "--ledger", ledger]

    def run(self):
        """Runs the round and returns its report."""
        flags, config = {}, None
        if not self.is_whole:
            # A contest with one vote per voter refuses a retention that is shorter than the contest, so there is only the other one.
            flags["consumer"] = ["--vote-log-retention", LOG_RETENTION, "--ledger-retention", self.options.ledger_retention]
            config = f"[contests.{OPEN}]\n"
        if self.is_forwarded:
            flags["rest-producer"] = FORWARD
        consumers = 1 if self.scenario == "scale" else 3
        folder = self.options.work / "programs" / self.name
        programs = Programs(self.options.programs, folder, self.options.port, self.program_urls, consumers, flags, config)
        try:
            programs.await_ready()
            return self.play(programs)
        finally:
            programs.stop()

    def play(self, programs):
        """Casts votes while the scenario runs, and then judges."""
        options, servers = self.options, self.servers
        self.stores = stores = Stores(servers.bootstrap, self.topic, servers.redis_port, self.prefix, servers.mongo_port, self.database)
        clients = Clients(
            self.producer_addresses(programs, "rest"),
            self.producer_addresses(programs, "grpc"),
            options.rate,
            self.seed,
            ONCE_SHARE if self.is_whole else 0,
            self.is_forwarded,
        ).start()
        tallies_watch, partitions_watch = TalliesWatch(stores, clients), PartitionsWatch(stores)
        world = World(servers, self.proxy, programs, stores, random.Random(self.seed), options.seconds, self.ovation)
        log(f"round {self.number}: {self.scenario}, {options.seconds} s at {options.rate} votes/s, topic {self.topic}")
        SCENARIOS[self.scenario](world)

        log("all faults are repaired; the clients get their last receipts")
        health_watch = HealthWatch(programs, options.ledger_in_memory)
        is_finished = clients.finish(ACKNOWLEDGED_WITHIN)
        tallies_watch.stop()
        judgement = Judgement(stores, clients)
        judgement.violations += tallies_watch.violations
        if not is_finished:
            judgement.add("unacknowledged", f"not all votes had a receipt {ACKNOWLEDGED_WITHIN} s after the last fault")
        begun = now()
        judgement.await_counted(COUNTED_WITHIN)
        counted_after = now() - begun
        judgement.violations += health_watch.finish()
        partitions_watch.stop()

        report = judgement.compare(self.is_whole)
        report["counted after s"] = round(counted_after, 1)
        if not self.is_whole:
            report |= judgement.compare_expired()
        report |= {
            "faults": dict(world.faults),
            "kills": dict(programs.kills),
            "programs that ended by themselves": programs.exits,
            "looks at the tallies": tallies_watch.looks,
            "longest standstill of a partition, s": partitions_watch.longest,
            "standstills": partitions_watch.standstills,
            "healthy after s": {f"{name}-{number}": since and round(since, 1) for (name, number), since in health_watch.healthy_since.items()},
            "last problems after the faults": {f"{name}-{number}": problem for (name, number), problem in health_watch.problems.items()},
            "MB and threads at the end": {
                process.name: (round(process.resident_mb()), process.threads()) for process in programs.processes.values() if process.is_alive()
            },
        }
        if self.proxy:
            report["proxy cuts"] = sum(link["cuts"] for link in self.proxy.set("*").values())
        self.audit(judgement, report)
        report["exit codes other than 0"] = {name: code for name, code in programs.stop().items() if code != 0}
        for text, detail in clients.refusals[:5]:
            judgement.add("refused", f"{text}: {detail}")
        for text in clients.contradictions[:5]:
            judgement.add("contradiction", text)
        if self.number == 0 and self.is_whole and not judgement.violations:
            report["self-test"] = self_test(stores, clients)
            for change, is_found in report["self-test"].items():
                if not is_found:
                    judgement.add("self-test", f"the judgement failed for: {change}")
        report["violations"] = judgement.kinds()
        report["first violations"] = [f"{kind}: {text}"[:300] for kind, text in judgement.violations[:12]]
        return report

    def producer_addresses(self, programs, kind):
        """Returns the addresses to which the clients send. In some scenarios, half of them lead through the proxy."""
        addresses = [programs.address(f"{kind}-producer", number) for number in range(2)]
        if self.proxy and self.scenario in CLIENTS_PROXIED:
            addresses += [f"127.0.0.1:{self.proxy.links[f'{kind}{number}-clients'][0]}" for number in range(2)]
        return addresses

    def audit(self, judgement, report):
        """Runs `ovation audit`, which has to agree."""
        done = subprocess.run(self.ovation("audit", "--json"), capture_output=True, text=True, timeout=AUDIT_TIMEOUT, check=False)
        try:
            report["audit"] = json.loads(done.stdout)
        except ValueError:
            report["audit"] = None
        if done.returncode:
            judgement.add("audit", f"exit {done.returncode}: {(done.stdout + done.stderr)[-400:]}")


def run(options):
    """Runs all rounds. Returns whether a promise was broken."""
    options.programs, options.work = options.programs.resolve(), options.work.resolve()
    generate_messages(options.work / "messages")
    # With three brokers there is no proxy: each broker would need links of its own.
    is_proxied = options.brokers == 1
    servers = Servers(options.work / f"servers-{options.port}", options.port, options.brokers, len(KAFKA_LINKS) if is_proxied else 0, options.ledger_in_memory)
    proxy, is_broken = None, False
    try:
        servers.up()
        proxy = Proxy(servers.folder, links_from(options.port)) if is_proxied else None
        log("the servers are up")
        for number in range(options.rounds):
            report = Round(options, number, servers, proxy).run()
            is_broken |= bool(report["violations"])
            print(json.dumps(report, indent=1, ensure_ascii=False), flush=True)
            if options.json:
                settings = {name: getattr(options, name) for name in ("scenario", "seed", "seconds", "rate", "brokers", "ledger_in_memory")}
                with options.json.open("a") as file:
                    file.write(json.dumps({**settings, "round": number, **report}, ensure_ascii=False) + "\n")
    finally:
        if proxy:
            proxy.stop()
        servers.down()
    return is_broken


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="print the scenarios")
    flags = commands.add_parser("run", help="run a scenario", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    flags.add_argument("scenario", choices=list(SCENARIOS), metavar="SCENARIO")
    flags.add_argument("--programs", type=Path, default=ROOT / "target/release", help="the folder with Ovation's programs")
    flags.add_argument("--seconds", type=float, default=60, help="how long the scenario breaks things")
    flags.add_argument("--rate", type=float, default=600, help="votes per second")
    flags.add_argument("--seed", type=int, default=1, help="the seed of the votes and the faults")
    flags.add_argument("--rounds", type=int, default=1, help="how often the scenario runs, each time with new stores")
    flags.add_argument("--brokers", type=int, choices=(1, 3), default=1, help="Kafka brokers; with 3, there is no proxy")
    flags.add_argument("--ledger-in-memory", action="store_true", help="use mongo-java-server for the ledger, for scenarios that do not stop it")
    flags.add_argument("--ledger-retention", default="6s", help="for `retention`; longer than a client sends its votes again, and shorter than counting may be behind")
    flags.add_argument("--port", type=int, default=24000, help="the first of 120 ports")
    flags.add_argument("--work", type=Path, default=ROOT / "target/checker", help="the folder for data and logs, which remain after the run")
    flags.add_argument("--json", type=Path, help="append the report of each round to this file, one JSON object per line")
    options = parser.parse_args()
    if options.command == "list":
        for name, scenario in SCENARIOS.items():
            print(f"{name:12}{scenario.__doc__.splitlines()[0]}")
        return 0
    if options.brokers == 3 and options.scenario in ("failover", "network", "everything"):
        parser.error(f"{options.scenario} needs the proxy, and so one broker")
    try:
        return 1 if run(options) else 0
    except Exception:  # The checker itself failed; the traceback says where.
        traceback.print_exc()
        return 2


if __name__ == "__main__":
    sys.exit(main())
