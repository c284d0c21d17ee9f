#!/usr/bin/env python3
"""Floods the separate programs with each Locust file, and checks that each vote with a receipt is counted once.

    dev/install locust && dev/stack up
    env $(dev/stack env) OVATION_BIN=target/release target/tools/locust/bin/python locust/test.py

The three URLs in the environment select the servers. The test creates a topic, keys and a database of its own. OVATION_BIN is the folder with the
programs (default: target/debug). The exit code is 1 if a flood failed.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import grpc

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER.parent / "dev"), str(FOLDER / "generated")]
from processes import ROOT, Failure  # noqa: E402
from programs import Programs, free_addresses, get  # noqa: E402
from ovation.v1 import votes_pb2_grpc  # noqa: E402

LOCUST = Path(sys.prefix) / "bin/locust"
# The maximum number of votes that the test reads from the ledger in one request. A flood must have fewer.
MAX_VOTES = 1000
# A LossyProxies object loses one of this many responses.
LOSS_INTERVAL = 7


class LossyProxies:
    """A proxy for each producer. The proxies forward every vote, and replace some responses by "unavailable", at most once for each vote."""

    def __init__(self, rest, grpc_producer):
        self.lost = set()
        self.responses = 0
        self.lock = threading.Lock()
        proxies = self

        class Rest(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                request = urllib.request.Request(f"http://{rest}{self.path}", body, {"content-type": self.headers["content-type"]})
                try:
                    with urllib.request.urlopen(request, timeout=10) as response:
                        status, receipt = response.status, response.read()
                except urllib.error.HTTPError as error:
                    status, receipt = error.code, error.read()
                if proxies.loses_response(json.loads(body)["vote_id"]):
                    status, receipt = 503, json.dumps({"type": "urn:ovation:log-unavailable"}).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(receipt)))
                self.end_headers()
                self.wfile.write(receipt)

            def log_message(self, *_):
                pass

        class Grpc(votes_pb2_grpc.VoteServiceServicer):
            def CastVote(self, request, context):
                receipt = stub.CastVote(request, timeout=10)
                if proxies.loses_response(request.vote_id):
                    context.abort(grpc.StatusCode.UNAVAILABLE, "the response was lost")
                return receipt

        class RestServer(ThreadingHTTPServer):
            # All users connect at the same time, and the default is 5.
            request_queue_size = 128

        self.rest, self.grpc = free_addresses(2)
        host, port = self.rest.split(":")
        self.rest_server = RestServer((host, int(port)), Rest)
        threading.Thread(target=self.rest_server.serve_forever, daemon=True).start()
        self.channel = grpc.insecure_channel(grpc_producer)
        stub = votes_pb2_grpc.VoteServiceStub(self.channel)
        self.grpc_server = grpc.server(ThreadPoolExecutor(8))
        votes_pb2_grpc.add_VoteServiceServicer_to_server(Grpc(), self.grpc_server)
        self.grpc_server.add_insecure_port(self.grpc)
        self.grpc_server.start()

    def loses_response(self, vote_id):
        """Decides whether to lose the response for a vote, and records that it is lost."""
        with self.lock:
            self.responses += 1
            loses = self.responses % LOSS_INTERVAL == 0 and vote_id not in self.lost
            if loses:
                self.lost.add(vote_id)
            return loses

    def close(self):
        self.rest_server.shutdown()
        self.rest_server.server_close()
        self.grpc_server.stop(None).wait()
        self.channel.close()


class Flood:
    """One run of Locust, with its reports in a folder."""

    def __init__(self, folder, producers, workers, files, *options):
        folder.mkdir()
        rest, grpc_producer = producers
        self.folder, self.workers = folder, workers
        self.started = datetime.now(timezone.utc).isoformat()
        command = [LOCUST, "--headless", "-f", ",".join(str(FOLDER / file) for file in files)]
        leader = [*command, "--only-summary", "--host", f"http://{rest}", "--receipts", folder / "receipts", "--csv", folder / "report",
                  "--html", folder / "report.html", "--json-file", folder / "report", *options]
        if "votes_rest.py" not in files:
            leader += ["--grpc-host", grpc_producer]
        processes = []
        with (folder / "log").open("w") as log:
            try:
                if workers:
                    port = free_addresses(1)[0].split(":")[1]
                    leader += ["--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port,
                               "--expect-workers", str(workers), "--expect-workers-max-wait", "30"]
                    command += ["--worker", "--master-port", port]
                for each in [leader] + [command] * workers:
                    processes.append(subprocess.Popen(each, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
                self.exit_codes = [process.wait(timeout=60) for process in processes]
            finally:
                for process in processes:
                    if process.poll() is None:
                        process.kill()
                        process.wait()
        if not (folder / "report.json").exists():
            sys.exit(f"Locust wrote no report; its exit codes are {self.exit_codes}:\n{self.log()}")

    def log(self):
        return (self.folder / "log").read_text()

    def receipts(self):
        """Returns the lines of each receipts file, by file name."""
        return {path.name: path.read_text().split() for path in sorted(self.folder.glob("receipts*"))}

    def requests(self):
        """Returns the number of requests and of failed requests, by request name. They come from the JSON report: the CSV files are written
        every second and lack the last one."""
        entries = json.loads((self.folder / "report.json").read_text())
        return {entry["name"]: (entry["num_requests"], entry["num_failures"]) for entry in entries}


class Counts:
    """The acknowledged votes of all floods so far. Checks that they are counted."""

    def __init__(self, programs):
        self.programs = programs
        self.results = f"http://{programs.addresses['results']}/v1"
        self.acknowledged = set()
        self.lost = 0

    def await_counting(self):
        """Waits up to 20 s until all votes on the log are counted, and returns the last tally."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            tally = get(f"{self.results}/contests/bands/tally")
            if tally["processed"] == tally["accepted"]:
                break
            time.sleep(0.1)
        return tally

    def problems(self, flood, lost):
        """Returns what is wrong with the votes of the flood, as a list of sentences. `lost` is the number of responses that the proxies lost."""
        receipts = flood.receipts()
        empty = [name for name, lines in receipts.items() if not lines]
        ids = [vote_id for lines in receipts.values() for vote_id in lines]
        requests = sum(made for made, _ in flood.requests().values())
        failures = sum(failed for _, failed in flood.requests().values())
        self.acknowledged |= set(ids)
        self.lost += lost
        tally = self.await_counting()
        ledger = [vote["vote_id"] for vote in get(f"{self.results}/votes?limit={MAX_VOTES}&from={quote(flood.started)}")["votes"]]
        audit = self.programs.audit()
        expected = [
            (len(ids) > 0, "no vote was acknowledged"),
            (len(ids) < MAX_VOTES, f"{len(ids)} votes are too many to read from the ledger in one request"),
            (len(receipts) == max(1, flood.workers) and not empty, f"the files of receipts are {list(receipts)}, of which these are empty: {empty}"),
            (len(ids) == len(set(ids)), "a vote_id was acknowledged twice"),
            (failures == lost, f"{failures} of {requests} requests failed, and {lost} were expected"),
            # The master's report may lack the last figures of a worker.
            (requests - failures == len(ids) or flood.workers and requests - failures <= len(ids),
             f"{requests - failures} requests succeeded, and there are {len(ids)} receipts"),
            (set(flood.exit_codes) == {1 if lost else 0}, f"Locust's exit codes are {flood.exit_codes}"),
            (not set(ids) - set(ledger), f"acknowledged and not in the ledger: {sorted(set(ids) - set(ledger))}"),
            (len(ledger) == len(set(ledger)), "the ledger has a vote twice"),
            (not set(ledger) - set(ids), f"in the ledger without a receipt: {sorted(set(ledger) - set(ids))}"),
            (tally["total"] == len(self.acknowledged), f"{tally['total']} votes are counted, and {len(self.acknowledged)} were acknowledged so far"),
            (audit["ok"] and audit["uncounted"] == 0, f"the audit differs: {audit}"),
            (audit["log"] == len(self.acknowledged) + self.lost and audit["duplicates"] == self.lost,
             f"the log should have {len(self.acknowledged)} votes and {self.lost} duplicates: {audit}"),
            (all((flood.folder / report).stat().st_size for report in ("report.html", "report_stats.csv")), "a report is empty"),
        ]
        return [problem for holds, problem in expected if not holds]


def main():
    urls = ("OVATION_VOTE_LOG", "OVATION_TALLIES", "OVATION_LEDGER")
    if missing := [url for url in urls if url not in os.environ]:
        sys.exit(f"locust/test.py: not set: {', '.join(missing)}: run dev/stack up, then this test with env $(dev/stack env)")
    names = ("rest-producer", "grpc-producer", "consumer", "results")
    folder = ROOT / os.environ.get("OVATION_BIN", "target/debug")
    if missing := [name for name in (*names, "ovation") if not (folder / name).exists()]:
        sys.exit(f"locust/test.py: {folder} has no {', '.join(missing)}: run cargo build --workspace, or set OVATION_BIN to the folder with the programs")
    # On SIGTERM, exit through `finally`, which stops the programs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    programs = Programs(os.environ, *names, folder=folder)
    try:
        rest, grpc_producer = programs.addresses["rest-producer"], programs.addresses["grpc-producer"]
        with tempfile.TemporaryDirectory(prefix="ovation-locust-") as reports, closing(LossyProxies(rest, grpc_producer)) as lossy:
            passed, failed = run_floods(Path(reports), programs, lossy)
    finally:
        exits = programs.stop()
    if any(exits):
        print(f"the programs' exit codes are {exits}")
        failed += 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def run_floods(reports, programs, lossy):
    producers = (programs.addresses["rest-producer"], programs.addresses["grpc-producer"])
    lossy_producers = (lossy.rest, lossy.grpc)
    plain = ("-u", "40", "-r", "40", "-t", "5s")
    floods = [
        ("voters over REST", producers, 0, ["votes_rest.py"], *plain),
        ("voters over gRPC", producers, 0, ["votes_grpc.py"], *plain),
        ("a master and two workers, both producers at 3 to 1", producers, 2, ["mixed.py"], *plain, "--rest-weight", "3"),
        ("a televised vote", producers, 0, ["mixed.py", "televised.py"], "-u", "60", "-t", "6s"),
        ("the classic profile", producers, 0, ["votes_rest.py", "classic.py"], "-t", "4s"),
        ("producers behind proxies that lose responses", lossy_producers, 0, ["mixed.py"], *plain),
    ]
    counts = Counts(programs)
    passed = failed = 0
    for name, at, workers, files, *options in floods:
        lost_before = len(lossy.lost)
        flood = Flood(reports / str(passed + failed), at, workers, files, *options)
        lost = len(lossy.lost) - lost_before
        problems = counts.problems(flood, lost)
        if (at is lossy_producers) != (lost > 0):
            problems.append(f"{lost} responses were lost")
        shares = ", ".join(f"{requests} {request}" for request, (requests, _) in flood.requests().items())
        print(f"{'FAILED' if problems else 'ok':6}  {name}: {shares}", flush=True)
        for problem in problems:
            print(f"        {problem}")
        if problems:
            print((flood.folder / "report_failures.csv").read_text(), flood.log(), sep="\n")
            failed += 1
        else:
            passed += 1
    return passed, failed


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"locust/test.py: {failure}")
