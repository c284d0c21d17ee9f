#!/usr/bin/env python3
"""Runs each Locust file against the separate programs, and proves that the votes it says were acknowledged were counted once.

    dev/install locust && dev/stack up
    env $(dev/stack env) OVATION_BIN=target/release target/tools/locust/bin/python locust/test.py

The servers are those of the three URLs; topic, keys and database are the test's own. OVATION_BIN is the folder with the programs
(default: target/debug). Exits 1 if a flood failed.
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
from measure import ROOT, Programs, free_addresses, get  # noqa: E402
from ovation.v1 import votes_pb2_grpc  # noqa: E402

LOCUST = Path(sys.prefix) / "bin/locust"
# As many votes as the results service shows in one answer.
MOST_VOTES = 1000
# Of so many answers one is lost by the doors that lose answers.
LOSES_EACH = 7


class LosingDoors:
    """Stands before both doors, hands every vote on, and for some says afterwards, once a vote, that the log did not confirm it."""

    def __init__(self, rest, grpc_door):
        self.lost = set()
        self.asked = 0
        self.lock = threading.Lock()
        doors = self

        class Rest(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                request = urllib.request.Request(f"http://{rest}{self.path}", body, {"content-type": self.headers["content-type"]})
                try:
                    with urllib.request.urlopen(request, timeout=10) as answer:
                        status, receipt = answer.status, answer.read()
                except urllib.error.HTTPError as error:
                    status, receipt = error.code, error.read()
                if doors.loses_answer(json.loads(body)["vote_id"]):
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
                if doors.loses_answer(request.vote_id):
                    context.abort(grpc.StatusCode.UNAVAILABLE, "the answer was lost")
                return receipt

        class RestServer(ThreadingHTTPServer):
            request_queue_size = 128  # all users connect at once, and 5 may wait otherwise

        self.rest, self.grpc = free_addresses(2)
        host, port = self.rest.split(":")
        self.rest_server = RestServer((host, int(port)), Rest)
        threading.Thread(target=self.rest_server.serve_forever, daemon=True).start()
        self.channel = grpc.insecure_channel(grpc_door)
        stub = votes_pb2_grpc.VoteServiceStub(self.channel)
        self.grpc_server = grpc.server(ThreadPoolExecutor(8))
        votes_pb2_grpc.add_VoteServiceServicer_to_server(Grpc(), self.grpc_server)
        self.grpc_server.add_insecure_port(self.grpc)
        self.grpc_server.start()

    def loses_answer(self, vote_id):
        with self.lock:
            self.asked += 1
            loses = self.asked % LOSES_EACH == 0 and vote_id not in self.lost
            if loses:
                self.lost.add(vote_id)
            return loses

    def close(self):
        self.rest_server.shutdown()
        self.rest_server.server_close()
        self.grpc_server.stop(None).wait()
        self.channel.close()


class Flood:
    """One run of Locust, with reports in a folder of its own."""

    def __init__(self, folder, doors, workers, files, *options):
        folder.mkdir()
        rest, grpc_door = doors
        self.folder, self.workers = folder, workers
        self.begun = datetime.now(timezone.utc).isoformat()
        command = [LOCUST, "--headless", "-f", ",".join(str(FOLDER / file) for file in files)]
        leader = [*command, "--only-summary", "--host", f"http://{rest}", "--receipts", folder / "receipts", "--csv", folder / "report",
                  "--html", folder / "report.html", "--json-file", folder / "report", *options]
        if "votes_rest.py" not in files:
            leader += ["--grpc-host", grpc_door]
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
            sys.exit(f"Locust made no report, its exit codes are {self.exit_codes}:\n{self.log()}")

    def log(self):
        return (self.folder / "log").read_text()

    def receipts(self):
        """The lines of each process' file."""
        return {path.name: path.read_text().split() for path in sorted(self.folder.glob("receipts*"))}

    def requests(self):
        """How many requests of each name were made, and how many of them failed: from the JSON report, since the CSV files are
        written every second and lack the end."""
        entries = json.loads((self.folder / "report.json").read_text())
        return {entry["name"]: (entry["num_requests"], entry["num_failures"]) for entry in entries}


class Counts:
    """What the programs were sent, and whether they counted it."""

    def __init__(self, programs):
        self.programs = programs
        self.results = f"http://{programs.addresses['results']}/v1"
        self.acknowledged = set()
        self.lost = 0

    def await_counting(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            tally = get(f"{self.results}/contests/bands/tally")
            if tally["processed"] == tally["accepted"]:
                break
            time.sleep(0.1)
        return tally

    def problems(self, flood, lost):
        """Why the flood isn't counted as it should be; empty if it is."""
        receipts = flood.receipts()
        empty = [name for name, lines in receipts.items() if not lines]
        ids = [vote_id for lines in receipts.values() for vote_id in lines]
        requests = sum(made for made, _ in flood.requests().values())
        failures = sum(failed for _, failed in flood.requests().values())
        self.acknowledged |= set(ids)
        self.lost += lost
        tally = self.await_counting()
        book = [vote["vote_id"] for vote in get(f"{self.results}/votes?limit={MOST_VOTES}&from={quote(flood.begun)}")["votes"]]
        audit = self.programs.audit()
        expected = [
            (len(ids) > 0, "no vote was acknowledged"),
            (len(ids) < MOST_VOTES, f"{len(ids)} votes are too many to read them from the book at once"),
            (len(receipts) == max(1, flood.workers) and not empty, f"of {list(receipts)} these are empty: {empty}"),
            (len(ids) == len(set(ids)), "a vote_id was acknowledged twice"),
            (failures == lost, f"{failures} of {requests} requests failed, and {lost} should have"),
            # The last figures of a worker may miss the master's report.
            (requests - failures == len(ids) or flood.workers and requests - failures <= len(ids),
             f"{requests - failures} requests succeeded, and there are {len(ids)} receipts"),
            (set(flood.exit_codes) == {1 if lost else 0}, f"Locust's exit codes are {flood.exit_codes}"),
            (not set(ids) - set(book), f"acknowledged and not in the book: {sorted(set(ids) - set(book))}"),
            (len(book) == len(set(book)), "the book has a vote twice"),
            (not set(book) - set(ids), f"in the book without a receipt: {sorted(set(book) - set(ids))}"),
            (tally["total"] == len(self.acknowledged), f"{tally['total']} votes are counted, and {len(self.acknowledged)} were acknowledged so far"),
            (audit["ok"] and audit["uncounted"] == 0, f"the audit differs: {audit}"),
            (audit["log"] == len(self.acknowledged) + self.lost and audit["duplicates"] == self.lost,
             f"the log should have {len(self.acknowledged)} votes and {self.lost} repeated ones: {audit}"),
            (all((flood.folder / report).stat().st_size for report in ("report.html", "report_stats.csv")), "a report is empty"),
        ]
        return [problem for holds, problem in expected if not holds]


def main():
    urls = ("OVATION_QUEUE", "OVATION_TALLY", "OVATION_BOOK")
    if missing := [url for url in urls if url not in os.environ]:
        sys.exit(f"locust/test.py: not set: {', '.join(missing)}: run dev/stack up, then this with env $(dev/stack env)")
    names = ("rest-producer", "grpc-producer", "consumer", "results")
    folder = ROOT / os.environ.get("OVATION_BIN", "target/debug")
    if missing := [name for name in (*names, "ovation") if not (folder / name).exists()]:
        sys.exit(f"locust/test.py: {folder} has no {', '.join(missing)}: run cargo build --workspace, or name the folder by OVATION_BIN")
    # So that what was started is ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    programs = Programs(os.environ, *names, folder=folder)
    try:
        rest, grpc_door = programs.addresses["rest-producer"], programs.addresses["grpc-producer"]
        with tempfile.TemporaryDirectory(prefix="ovation-locust-") as reports, closing(LosingDoors(rest, grpc_door)) as losing:
            passed, failed = run_floods(Path(reports), programs, losing)
    finally:
        exits = programs.stop()
    if any(exits):
        print(f"the programs' exit codes are {exits}")
        failed += 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def run_floods(reports, programs, losing):
    doors = (programs.addresses["rest-producer"], programs.addresses["grpc-producer"])
    losing_doors = (losing.rest, losing.grpc)
    plain = ("-u", "40", "-r", "40", "-t", "5s")
    floods = [
        ("voters over REST", doors, 0, ["votes_rest.py"], *plain),
        ("voters over gRPC", doors, 0, ["votes_grpc.py"], *plain),
        ("a master and two workers, both doors at 3 to 1", doors, 2, ["mixed.py"], *plain, "--rest-weight", "3"),
        ("a televised vote", doors, 0, ["mixed.py", "televised.py"], "-u", "60", "-t", "6s"),
        ("the classic profile", doors, 0, ["votes_rest.py", "classic.py"], "-t", "4s"),
        ("doors that lose answers", losing_doors, 0, ["mixed.py"], *plain),
    ]
    counts = Counts(programs)
    passed = failed = 0
    for name, at, workers, files, *options in floods:
        lost_before = len(losing.lost)
        flood = Flood(reports / str(passed + failed), at, workers, files, *options)
        lost = len(losing.lost) - lost_before
        problems = counts.problems(flood, lost)
        if (at is losing_doors) != (lost > 0):
            problems.append(f"{lost} answers were lost")
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
    sys.exit(main())
