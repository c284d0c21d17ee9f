"""The scenarios: each breaks something while the clients cast votes, and repairs it before it ends.

The first line of a scenario's docstring is what `checker.py list` prints.
"""

import collections
import contextlib
import shutil
import signal
import subprocess
import threading
import time

import redis
from confluent_kafka import Producer

from judgement import PARTITIONS
from processes import Process, log, now, wait_for
from stores import QUIET

# After this time, the session of a killed consumer has expired, and it is no longer a member of its group. In seconds.
SESSION_EXPIRED = 7


class World:
    """A round: everything that a scenario may break, and the random generator that decides."""

    def __init__(self, servers, proxy, programs, stores, random, seconds, ovation):
        """`ovation` is the command line of `ovation` with the URLs of the stores, as a function of the command."""
        self.servers, self.proxy, self.programs, self.stores, self.random, self.seconds = servers, proxy, programs, stores, random, seconds
        self.ovation = ovation
        self.end = now() + seconds
        self.faults = collections.Counter()

    def left(self):
        """Returns how many seconds of the scenario are left."""
        return self.end - now()

    def did(self, fault, is_printed=True):
        """Counts a fault."""
        self.faults[fault] += 1
        if is_printed:
            log("  fault:", fault)

    def sleep(self, minimum, maximum=None):
        """Sleeps for a random time, at most until the end of the scenario."""
        seconds = self.random.uniform(minimum, minimum if maximum is None else maximum)
        time.sleep(max(0, min(seconds, self.left())))

    def kill_any(self, *names, is_named=False):
        """Kills a running program of these names."""
        if keys := self.programs.running(*names):
            key = self.random.choice(keys)
            self.programs.kill(key)
            self.did(f"kill -9 {key[0]}" if is_named else "kill -9", is_printed=False)

    def run_ovation(self, *command):
        """Runs a command of `ovation` on the stores of this round."""
        done = subprocess.run(self.ovation(*command), capture_output=True, text=True, timeout=120, check=False)
        self.did(f"ovation {' '.join(command)}: exit {done.returncode}")
        if done.returncode:
            log("   ", (done.stdout + done.stderr)[-200:])


def calm(world):
    """Nothing is broken."""
    world.sleep(world.seconds)


def kills(world):
    """A producer or consumer is killed every 0.3 to 1 s."""
    while world.left() > 0:
        world.kill_any("rest-producer", "grpc-producer", "consumer", is_named=True)
        world.sleep(0.3, 1.0)


def forward(world):
    """REST producers forward votes to the gRPC producers; all programs are killed as in `kills`."""
    kills(world)


def pauses(world):
    """One or two consumers are stopped for longer than their session, and continue; other programs are killed meanwhile."""
    while world.left() > 10:
        keys = world.programs.running("consumer")
        threads = []
        for key in world.random.sample(keys, min(len(keys), world.random.choice((1, 1, 2)))):
            thread = threading.Thread(target=world.programs.pause, args=(key, world.random.uniform(6.5, 11)))
            thread.start()
            threads.append(thread)
            world.did("SIGSTOP of a consumer for longer than its session")
        for _ in range(3):
            world.sleep(1, 3)
            world.kill_any("rest-producer", "grpc-producer", "consumer")
        for thread in threads:
            thread.join()
        world.sleep(0.5, 3)


def scale(world):
    """The number of consumers changes between 1 and 5, by SIGTERM or SIGKILL, so the group rebalances all the time."""
    present = {number for _, number in world.programs.running("consumer")}
    while world.left() > 3:
        for number in range(1, 5):
            if world.left() < 3:
                break
            if number not in present:
                world.programs.add("consumer", number)
                present.add(number)
            world.sleep(0, 1.5)
        world.did("scaled to 5")
        world.sleep(1, 4)
        for number in world.random.sample(sorted(present), len(present) - 1):
            world.programs.remove("consumer", number, world.random.choice(("stop", "kill")))
            present.discard(number)
            world.sleep(0, 1)
        world.did("scaled to 1")
        world.sleep(0.5, 3)
    for number in range(3):
        if number not in present:
            world.programs.add("consumer", number)


# Redis


def roll_back_redis(world, how):
    """Copies the files of Redis (`aof` or `rdb`), and later replaces the current files by the copy."""
    servers = world.servers
    data, copy = servers.redis.data, servers.folder / "redis-copy"
    shutil.rmtree(copy, ignore_errors=True)
    if how == "rdb":
        servers.redis_client().bgsave()
        time.sleep(0.3)
        wait_for(lambda: servers.redis_client().info("persistence")["rdb_bgsave_in_progress"] == 0, 10, "the snapshot is written")
        copy.mkdir()
        shutil.copy(data / "dump.rdb", copy / "dump.rdb")
    else:
        servers.redis.signal(signal.SIGSTOP)
        shutil.copytree(data, copy)
        servers.redis.signal(signal.SIGCONT)
    world.sleep(1, 10)
    servers.redis.kill()
    shutil.rmtree(data)
    if how == "rdb":
        # A server with an append-only file ignores the snapshot. So start the server without the file first, then enable it.
        data.mkdir()
        shutil.copy(copy / "dump.rdb", data / "dump.rdb")
        temporary = Process("redis-rdb", [*servers.redis.command, "--appendonly", "no"], servers.redis.log_file).start()
        client = redis.Redis(port=servers.redis_port)
        wait_for(client.ping, 10, "Redis responds with the snapshot")
        client.config_set("appendonly", "yes")
        state = lambda: client.info("persistence")  # noqa: E731
        wait_for(lambda: state()["aof_rewrite_in_progress"] == 0 and state()["aof_enabled"] == 1, 10, "the append-only file is written")
        time.sleep(0.3)
        temporary.kill()
    else:
        shutil.copytree(copy, data)
    servers.start_redis()


def redis_faults(world):
    """Redis is wiped, rolled back to an old file, killed, stopped, out of memory, and cuts its connections."""
    servers, client = world.servers, world.servers.redis_client
    faults = ("flush", "flush", "aof", "rdb", "kill", "kill during rewrite", "stop", "rewrite", "scripts", "memory", "clients")
    while world.left() > 8:
        fault = world.random.choice(faults)
        try:
            if fault == "flush":
                client().flushall()
            elif fault in ("aof", "rdb"):
                roll_back_redis(world, fault)
            elif fault == "kill":
                servers.redis.kill()
                world.sleep(0, 3)
                servers.start_redis()
            elif fault == "kill during rewrite":
                with contextlib.suppress(Exception):
                    client().bgrewriteaof()
                time.sleep(world.random.uniform(0, 0.1))
                servers.redis.kill()
                servers.start_redis()
            elif fault == "stop":
                servers.redis.signal(signal.SIGSTOP)
                world.sleep(1, 7)
                servers.redis.signal(signal.SIGCONT)
            elif fault == "rewrite":
                client().bgrewriteaof()
            elif fault == "scripts":
                client().script_flush()
            elif fault == "memory":
                client().config_set("maxmemory", "1mb")
                world.sleep(1, 5)
                client().config_set("maxmemory", "0")
            elif fault == "clients":
                client().client_kill_filter(_type="normal", skipme=True)
        except Exception as error:  # Another fault may be in the way.
            log("  the fault failed:", fault, error)
        world.did(f"redis {fault}")
        world.sleep(0.5, 4)
    servers.redis.signal(signal.SIGCONT)
    servers.start_redis()
    client().config_set("maxmemory", "0")


def failover(world):
    """A Redis replica that is behind is promoted, so writes are lost; sometimes some consumers stay with the old master for a while."""
    servers = world.servers
    servers.start_redis(1)
    master = 0
    port = {0: servers.redis_port, 1: servers.redis2_port}
    server = {0: servers.redis, 1: servers.redis2}
    links = ("c0-redis", "c1-redis", "results-redis")

    def is_replica(which):
        return servers.redis_client(which).info("replication").get("master_link_status") == "up"

    servers.redis_client(1).replicaof("127.0.0.1", port[0])
    wait_for(lambda: is_replica(1), 20, "the replica is connected")
    while world.left() > 10:
        world.sleep(1, 5)
        replica = 1 - master
        how = world.random.choice(("behind", "behind", "split", "planned"))
        # From here on, the replica does not receive the master's writes.
        servers.redis_client(replica).replicaof("no", "one")
        if how == "planned":
            # The roles change while clients have connections. Writes to the old master get the error READONLY.
            servers.redis_client(master).replicaof("127.0.0.1", port[replica])
            for link in links:
                world.proxy.set(link, to=port[replica])
        elif how == "split":
            for link in links[1:]:
                world.proxy.set(link, to=port[replica], reset=True)
            world.sleep(1, 5)
            server[master].kill()
            world.proxy.set(links[0], to=port[replica], reset=True)
        else:
            world.sleep(0.3, 4)
            server[master].kill()
            world.sleep(0, 1)
            for link in links:
                world.proxy.set(link, to=port[replica], reset=world.random.random() < 0.5)
        world.stores.redis_port = port[replica]
        world.did(f"failover {how}")
        old, master = master, replica
        if not server[old].is_alive():
            if world.random.random() < 0.5:
                shutil.rmtree(server[old].data, ignore_errors=True)
            servers.start_redis(old)
            servers.redis_client(old).replicaof("127.0.0.1", port[master])
        with contextlib.suppress(RuntimeError):
            wait_for(lambda old=old: is_replica(old), 20, "the replica is connected")


# MongoDB and Kafka


def mongo(world):
    """The ledger's server is killed or stopped; consumers are killed too."""
    servers = world.servers
    while world.left() > 8:
        fault = world.random.choice(("kill", "kill", "kill", "stop"))
        if fault == "kill":
            servers.mongo.kill()
            world.sleep(0, 4)
            servers.start_mongo()
        else:
            servers.mongo.signal(signal.SIGSTOP)
            world.sleep(1, 10)
            servers.mongo.signal(signal.SIGCONT)
        world.did(f"mongo {fault}")
        world.sleep(1, 5)
        world.kill_any("consumer", is_named=True)
    servers.mongo.signal(signal.SIGCONT)
    servers.start_mongo()


def kafka(world):
    """Brokers are killed, stopped or restarted, one after the other."""
    servers = world.servers
    while world.left() > 12:
        broker = world.random.choice(servers.kafkas)
        fault = world.random.choice(("kill", "kill", "stop", "term"))
        if fault == "kill":
            broker.kill()
            world.sleep(0, 4)
            servers.start_kafka(broker)
        elif fault == "term":
            broker.stop(40)
            servers.start_kafka(broker)
        else:
            broker.signal(signal.SIGSTOP)
            world.sleep(1, 8)
            broker.signal(signal.SIGCONT)
        world.did(f"{broker.name} {fault}")
        world.sleep(2, 8)
    for broker in servers.kafkas:
        broker.signal(signal.SIGCONT)
        servers.start_kafka(broker)


# The network

LINK_FAULTS = {
    "half-open": {"up": {"drop": True}, "down": {"drop": True}},
    "replies lost": {"down": {"drop": True}},
    "requests lost": {"up": {"drop": True}},
    "frozen": {"up": {"freeze": True}, "down": {"freeze": True}},
    "2 s late": {"up": {"latency": 1.0}, "down": {"latency": 1.0}},
    "300 ms late": {"up": {"latency": 0.15, "jitter": 0.1}, "down": {"latency": 0.15, "jitter": 0.1}},
    "6 s late": {"down": {"latency": 6.0}},
    "drip": {"down": {"rate": 2000}},
    "drip up": {"up": {"rate": 4000}},
    "cut in mid-reply": {"down": {"cut_after": [50, 20000], "cut_chance": 0.05}},
    "refused": {"refuse": True, "reset": True},
    "reset": {"reset": True},
}


def network(world):
    """Links to a store are half-open, late, slow, refused, or cut in the middle of a reply, up to three at a time; programs are killed too."""
    links = [link for link in world.proxy.links if not link.startswith("results")]
    # Until when each link has its fault.
    faulty = {}
    while world.left() > 5:
        for link, until in list(faulty.items()):
            if now() > until:
                world.proxy.heal(link, reset=world.random.random() < 0.5)
                del faulty[link]
        if len(faulty) < 3:
            link, fault = world.random.choice(links), world.random.choice(list(LINK_FAULTS))
            if link not in faulty:
                world.proxy.set(link, up={}, down={}, refuse=False)
                world.proxy.set(link, **LINK_FAULTS[fault])
                faulty[link] = now() + world.random.uniform(1, 12)
                world.did(f"{link.split('-')[1]}: {fault}")
        if world.random.random() < 0.15:
            world.kill_any("rest-producer", "grpc-producer", "consumer")
        world.sleep(0.3, 2.5)
    world.proxy.heal(reset=True)


def everything(world):
    """Kills, the network, Redis and MongoDB together."""

    def run(scenario):
        try:
            scenario(world)
        except Exception as error:  # The other scenarios continue.
            log("  a scenario ended:", scenario.__name__, error)

    def slow_kills(world):
        while world.left() > 5:
            world.kill_any("rest-producer", "grpc-producer", "consumer")
            world.sleep(1, 5)

    threads = [threading.Thread(target=run, args=(scenario,)) for scenario in (slow_kills, network, redis_faults, mongo)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    world.proxy.heal(reset=True)


# What operators do


def operator(world):
    """The commands `replay` and `dead-letters replay`, a ledger restored from a copy, invalid records, and kills."""
    servers = world.servers
    producer = Producer({"bootstrap.servers": servers.bootstrap, **QUIET})
    copy = servers.folder / "ledger-copy"

    def without_consumers(run):
        keys = world.programs.running("consumer")
        for key in keys:
            world.programs.remove(*key, how=world.random.choice(("stop", "kill")))
        time.sleep(SESSION_EXPIRED)
        run()
        for key in keys:
            world.programs.restore(key)

    def restore_ledger():
        """Replaces the ledger by the last copy, and makes a new copy."""
        servers.mongo.stop()
        if world.faults["copy of the ledger"]:
            shutil.rmtree(servers.mongo.data)
            shutil.copytree(copy, servers.mongo.data)
            world.did("ledger restored from a copy")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(servers.mongo.data, copy)
        world.did("copy of the ledger", is_printed=False)
        servers.start_mongo()

    while world.left() > 20:
        for _ in range(world.random.randrange(3)):
            value = world.random.randbytes(world.random.choice((0, 5, 300)))
            producer.produce(world.stores.topic, value=value, key=world.random.randbytes(5), partition=world.random.randrange(PARTITIONS))
        producer.flush(5)
        action = world.random.choice(("tallies", "tallies", "dead letters", "ledger", "restore", "restore", "kill", "kill"))
        if action == "tallies":
            world.run_ovation("replay", "tallies")
        elif action == "dead letters":
            world.run_ovation("dead-letters", "replay")
        elif action == "ledger":
            without_consumers(lambda: world.run_ovation("replay", "ledger"))
        elif action == "restore" and not servers.is_ledger_in_memory:
            without_consumers(restore_ledger)
        else:
            world.kill_any("consumer", "rest-producer", "grpc-producer")
        world.sleep(0.5, 4)


def retention(world):
    """Votes expire from the log and the ledger by age, while consumers are killed and stopped, and Redis is wiped and rolled back."""
    while world.left() > 8:
        action = world.random.choice(("kill", "kill", "kill", "flush", "pause", "aof", "aof", "replay"))
        if action == "flush":
            world.servers.redis_client().flushall()
        elif action == "aof":
            roll_back_redis(world, "aof")
        elif action == "replay":
            world.run_ovation("replay", "tallies")
        elif keys := world.programs.running("consumer"):
            key = world.random.choice(keys)
            if action == "kill":
                world.programs.kill(key)
            else:
                world.programs.pause(key, SESSION_EXPIRED)
        world.did(action)
        world.sleep(1, 5)


SCENARIOS = {
    "calm": calm,
    "kills": kills,
    "pauses": pauses,
    "scale": scale,
    "redis": redis_faults,
    "failover": failover,
    "mongo": mongo,
    "kafka": kafka,
    "network": network,
    "everything": everything,
    "operator": operator,
    "retention": retention,
    "forward": forward,
}
