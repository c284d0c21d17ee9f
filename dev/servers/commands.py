"""The commands of dev/stack. Each takes the stack and the command's options, and returns an exit code, or None for success."""

import signal
import subprocess
import sys

from processes import ROOT, Failure, follow_logs, memory_mb

from .secure import Secure


def up(stack, options):
    brokers = options.brokers or stack.brokers
    is_watched = options.watch or stack.is_watched
    has_s3 = options.s3 or stack.has_s3
    is_secure = options.secure or bool(stack.secure and not options.fresh)
    if is_secure and (brokers != 1 or is_watched):
        raise Failure("--secure needs one broker, and excludes --watch")
    is_ledger_in_memory = options.ledger_in_memory or (stack.is_ledger_in_memory and not options.fresh)
    if is_ledger_in_memory and (is_watched or is_secure):
        raise Failure("--ledger-in-memory excludes --secure and --watch")
    prerequisites = [*(["watch"] if is_watched else []), *(["s3"] if has_s3 else []), *(["mongo-java"] if is_ledger_in_memory else [])]
    if subprocess.run([ROOT / "dev/install", "stack", *prerequisites], stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode:
        raise Failure("the servers' prerequisites could not be installed")
    if options.fresh:
        stack.stop(stack.servers)
        stack.wipe()
    elif stack.has_settings and brokers != stack.brokers:
        raise Failure(f"the data in {stack.folder} belong to {stack.brokers} broker(s); to delete them and start again: `dev/stack up --fresh --brokers {brokers}`")
    elif stack.has_settings and is_secure and not stack.secure:
        raise Failure(f"the data in {stack.folder} belong to servers without passwords; to delete them and start again: `dev/stack up --fresh --secure`")
    elif stack.has_settings and is_ledger_in_memory and not stack.is_ledger_in_memory:
        raise Failure(f"the ledger in {stack.folder} belongs to FerretDB; to delete it and start again: `dev/stack up --fresh --ledger-in-memory`")
    elif is_watched and not stack.is_watched and any(store.pid() for store in stack.stores if store.name != "redis"):
        raise Failure("the servers run without metrics: run `dev/stack down`, then `dev/stack up --watch`")
    stack.brokers, stack.is_watched, stack.is_ledger_in_memory = brokers, is_watched, is_ledger_in_memory
    stack.secure = Secure(stack.folder / "secure") if is_secure else None
    stack.create_servers()
    stack.start([*stack.stores, *([stack.s3] if has_s3 else []), *(stack.monitoring if is_watched else [])])


def down(stack, options):
    try:
        stack.stop(stack.servers)
    except Failure as failure:
        print(f"dev/stack: {failure}\ndev/stack: killing the remaining servers", file=sys.stderr)
        for server in stack.servers:
            server.end_with(signal.SIGKILL)
    if options.wipe:
        stack.wipe()


def status(stack, _):
    is_complete = True
    print(f"{'server':14} {'state':12} {'pid':>8} {'port':>6} {'memory':>8}")
    for server in stack.servers:
        is_wanted = stack.is_watched if server in stack.monitoring else stack.has_s3 or server is not stack.s3
        pid = server.pid()
        if not (is_wanted or pid):
            continue
        state = "up" if pid and server.responds() else "not ready" if pid else "down"
        is_complete &= state == "up"
        resident = memory_mb(pid)
        memory = "-" if resident is None else f"{int(resident)} MB"
        print(f"{server.name:14} {state:12} {pid or '-':>8} {server.port:>6} {memory:>8}")
    return 0 if is_complete else 1


def logs(stack, options):
    servers = stack.named(options.server) if options.server else stack.servers
    follow_logs(servers, stack.folder, options.follow)


def env(stack, _):
    brokers = ",".join(f"127.0.0.1:{kafka.port}" for kafka in stack.kafkas)
    redis, mongo = stack.stores[:2]
    if stack.has_s3:
        for name, value in stack.s3.client_environment().items():
            print(f"{name}={value}")
    if secure := stack.secure:
        sasl = f"security.protocol=sasl_ssl&sasl.mechanism=SCRAM-SHA-512&sasl.username={secure.user}&sasl.password={secure.password}"
        print(f"OVATION_VOTE_LOG=kafka://{brokers}/votes?{sasl}&ssl.ca.location={secure.ca}")
        print(f"OVATION_TALLIES=rediss://:{secure.password}@127.0.0.1:{redis.port}?tlsCAFile={secure.ca}")
        print(f"OVATION_LEDGER=mongodb://{secure.user}:{secure.password}@127.0.0.1:{mongo.port}/ovation?authSource=admin&tls=true&tlsCAFile={secure.ca}")
        return
    print(f"OVATION_VOTE_LOG=kafka://{brokers}/votes")
    print(f"OVATION_TALLIES=redis://127.0.0.1:{redis.port}")
    print(f"OVATION_LEDGER=mongodb://127.0.0.1:{mongo.port}/ovation")


def start(stack, options):
    stack.start(stack.named(options.server))


def stop(stack, options):
    stack.stop(stack.named(options.server))


def kill(stack, options):
    for server in stack.named(options.server):
        server.end_with(signal.SIGKILL)


def pid(stack, options):
    pids = [server.pid() for server in stack.named(options.server)]
    for found in pids:
        if found:
            print(found)
    return 0 if all(pids) else 1
