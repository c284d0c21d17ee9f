"""Clients that cast votes over REST and gRPC. They retry after each error with the same id, and record every receipt."""

import asyncio
import collections
import datetime
import hashlib
import hmac
import json
import random
import subprocess
import sys
import threading
import unicodedata
import uuid

import aiohttp
import grpc
import uvloop

from processes import START, now
from programs import BANDS, CANDIDATES, ONCE, OPEN, SECRET
from servers import ROOT

ALBUMS = [None, "The Wall", '["x","y"]', "Ágætis byrjun", "  trimmed  ", "1"]

# How often each way to cast votes is chosen, in relation to the others.
SHARES = {"rest": 5, "grpc": 5, "rest-batch": 3, "grpc-stream": 3}
BATCH_SIZES = (2, 10, 25, 60)
# The share of votes to the open contest for which the client chooses the id.
ID_SHARE = 0.9
# The number of different voters in the contest with one vote per voter.
VOTERS = 4000
# The maximum number of requests at a time, with those that are retried.
MAX_REQUESTS = 600
# How long a client usually waits for the response, in seconds.
REQUEST_TIMEOUT = 8


class Vote:
    """A vote, and all that its client did and received."""

    # `mark` is an album that identifies a vote whose client chose no id. `receipts` are (partition, offset, accepted_at in ms, producer).
    # `attempts` is how often the vote was sent, and `producers` are the producers to which it was sent.
    __slots__ = ("id", "contest", "name", "album", "year", "rank", "voter", "mark", "receipts", "attempts", "producers")

    def key(self, vote_id=None):
        """Returns the ballot key, computed from its definition."""
        if self.contest == ONCE:
            voter = unicodedata.normalize("NFC", self.voter).encode()
            return f"{ONCE}|" + hmac.new(SECRET, ONCE.encode() + b"\0" + voter, hashlib.sha256).hexdigest()
        return f"{self.contest}|{vote_id or self.id}"


def generate_messages(folder):
    """Generates the protobuf messages and the gRPC client from the project's .proto files. They can then be imported."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", ROOT / "proto", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    subprocess.run([*command, "ovation/v1/votes.proto", "ovation/v1/log.proto"], check=True)
    sys.path.insert(0, str(folder))


class Clients:
    """All clients, in one thread."""

    def __init__(self, rest_addresses, grpc_addresses, rate, seed, once_share, is_forwarded):
        """`rate` is in votes per second. `once_share` is the share of the contest with one vote per voter. If the REST producers forward their
        votes, the log has them with the gRPC producer."""
        from ovation.v1 import votes_pb2, votes_pb2_grpc  # generate_messages has generated them.

        self.messages, self.services = votes_pb2, votes_pb2_grpc
        self.rest_addresses, self.grpc_addresses, self.rate = list(rest_addresses), list(grpc_addresses), rate
        self.random = random.Random(seed)
        self.once_share = once_share
        self.rest_producer = "grpc" if is_forwarded else "rest"
        # The votes by id, and those whose client chose no id by their mark.
        self.votes, self.marks = {}, {}
        # The ballots that were sent.
        self.sent_keys = set()
        self.errors = collections.Counter()
        # Responses after which a client does not send its vote again, and responses that contradict the request. None is expected.
        self.refusals, self.contradictions = [], []
        # The number of confirmed and of failed attempts by second, and the durations of the confirmed requests.
        self.timeline = collections.defaultdict(lambda: [0, 0])
        self.durations = collections.defaultdict(list)
        # No new votes are cast, and no votes are retried.
        self.is_over = self.must_stop = False
        self.thread = threading.Thread(target=lambda: uvloop.run(self._run()), daemon=True)

    def start(self):
        self.thread.start()
        return self

    def finish(self, seconds):
        """Casts no new votes, and waits until the pending ones are acknowledged, for at most `seconds`. Returns whether they were."""
        self.is_over = True
        self.thread.join(seconds)
        is_finished = not self.thread.is_alive()
        self.must_stop = True
        self.thread.join(20)
        return is_finished

    async def _run(self):
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=False, keepalive_timeout=5))
        options = [
            ("grpc.max_reconnect_backoff_ms", 500),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
        ]
        channels = [grpc.aio.insecure_channel(address, options=options) for address in self.grpc_addresses]
        self.stubs = [self.services.VoteServiceStub(channel) for channel in channels]
        requests = set()
        due, last = 0.0, now()
        while not self.is_over:
            await asyncio.sleep(0.01)
            current = now()
            due = min(due + (current - last) * self.rate, self.rate * 0.5)
            last = current
            while due >= 1 and len(requests) < MAX_REQUESTS:
                way = self.random.choices(list(SHARES), list(SHARES.values()))[0]
                size = 1 if way in ("rest", "grpc") else self.random.choice(BATCH_SIZES)
                due -= size
                request = asyncio.ensure_future(self.cast(way, [self.new_vote() for _ in range(size)]))
                requests.add(request)
                request.add_done_callback(requests.discard)
        while requests and not self.must_stop:
            await asyncio.sleep(0.05)
        remaining = list(requests)
        for request in remaining:
            request.cancel()
        await asyncio.gather(*remaining, return_exceptions=True)
        await self.session.close()
        for channel in channels:
            await channel.close()

    def new_vote(self):
        choose = self.random
        vote = Vote()
        vote.contest = ONCE if choose.random() < self.once_share else OPEN
        vote.name = choose.choice(CANDIDATES if vote.contest == ONCE else BANDS)
        vote.album, vote.year, vote.rank = choose.choice(ALBUMS), choose.choice((None, 1979, 2026)), choose.choice((None, 0.0, 5.0, 99.5))
        vote.voter = f"voter {choose.randrange(VOTERS)} é" if vote.contest == ONCE else None
        vote.receipts, vote.attempts, vote.producers = [], 0, set()
        vote.id = vote.mark = None
        if vote.contest == OPEN and choose.random() > ID_SHARE:
            vote.album = vote.mark = f"mark {uuid.UUID(int=choose.getrandbits(128))}"
            self.marks[vote.mark] = vote
        else:
            self.adopt(vote, str(uuid.UUID(int=choose.getrandbits(128), version=4)))
        return vote

    def adopt(self, vote, vote_id):
        """Gives a vote its id: one that the client chose, or the one that a producer created."""
        vote.id = vote_id
        self.votes[vote_id] = vote
        self.sent_keys.add(vote.key())

    async def cast(self, way, votes):
        """Sends the votes until each has a receipt. The retries use any way."""
        pending, pause = votes, 0.05
        while pending and not self.must_stop:
            outcomes = await self.attempt(way, pending)
            # A vote without an id whose client received none can't be sent again: its outcome is unknown.
            pending = [vote for vote, outcome in zip(pending, outcomes) if not isinstance(outcome, tuple) and vote.id is not None]
            if pending:
                await asyncio.sleep(pause * self.random.uniform(0.5, 1.5))
                pause = min(pause * 1.6, 1.0)
                way = self.random.choice(("rest", "grpc") if len(pending) == 1 else ("rest-batch", "grpc-stream"))
        # Some clients send a vote again that was acknowledged.
        if self.random.random() < 0.05 and not self.is_over and votes[0].id:
            await asyncio.sleep(self.random.uniform(0, 5))
            if not self.must_stop:
                await self.attempt(self.random.choice(("rest", "grpc")), votes[:1])

    async def attempt(self, way, votes):
        """Sends the votes once and records the outcomes. Returns for each vote its receipt (partition, offset, accepted_at in ms, vote_id), or
        the text of an error."""
        producer = self.rest_producer if way.startswith("rest") else "grpc"
        for vote in votes:
            vote.attempts += 1
            vote.producers.add(producer)
        begun = now()
        send = {"rest": self.by_rest, "grpc": self.by_grpc, "rest-batch": self.by_rest_batch, "grpc-stream": self.by_grpc_stream}[way]
        try:
            outcomes = await send(votes)
        except Exception as error:  # Any failure of a request is one of its votes.
            outcomes = [f"{way} {type(error).__name__}"] * len(votes)
        second = self.timeline[int(now() - START)]
        for vote, outcome in zip(votes, outcomes):
            if not isinstance(outcome, tuple):
                second[1] += 1
                self.errors[outcome] += 1
                continue
            second[0] += 1
            if vote.id is None:
                self.adopt(vote, outcome[3])
            elif outcome[3] != vote.id:
                self.contradictions.append(f"the receipt of vote {vote.id} has the id {outcome[3]}")
            vote.receipts.append((*outcome[:3], producer))
        if isinstance(outcomes[0], tuple):
            self.durations[way].append(now() - begun)
        return outcomes

    def timeout(self):
        """Returns how long a client waits for a response, in seconds. A few clients give up early."""
        return self.random.choice((0.05, 0.2, 0.8)) if self.random.random() < 0.05 else REQUEST_TIMEOUT

    # The four ways to send votes.

    async def by_rest(self, votes):
        vote = votes[0]
        headers = {}
        if vote.id and self.random.random() < 0.3:
            headers["Idempotency-Key"] = vote.id
        body = body_of(vote, with_id=not headers)
        url = f"http://{self.random.choice(self.rest_addresses)}/v1/votes"
        async with self.session.post(url, json=body, headers=headers, timeout=aiohttp.ClientTimeout(total=self.timeout())) as response:
            outcome = await response.json(content_type=None)
            if response.status == 202:
                return [receipt_of(outcome)]
            if vote.id is None and outcome.get("vote_id"):
                self.adopt(vote, outcome["vote_id"])
            return [self.problem(response.status, outcome)]

    async def by_rest_batch(self, votes):
        if self.random.random() < 0.5:
            body, content_type = json.dumps([body_of(vote) for vote in votes]), "application/json"
        else:
            body, content_type = "\n".join(json.dumps(body_of(vote), ensure_ascii=False) for vote in votes), "application/x-ndjson"
        url = f"http://{self.random.choice(self.rest_addresses)}/v1/votes/batch"
        timeout = aiohttp.ClientTimeout(total=self.timeout() + 4)
        async with self.session.post(url, data=body.encode(), headers={"content-type": content_type}, timeout=timeout) as response:
            answer = await response.json(content_type=None)
            items = answer if response.status == 200 else answer.get("votes") if isinstance(answer, dict) else None
            if not isinstance(items, list) or len(items) != len(votes):
                return [self.problem(response.status, answer if isinstance(answer, dict) else {})] * len(votes)
            outcomes = []
            for vote, item in zip(votes, items):
                if "offset" in item:
                    outcomes.append(receipt_of(item))
                else:
                    if vote.id is None and item.get("vote_id"):
                        self.adopt(vote, item["vote_id"])
                    outcomes.append(self.problem(item.get("status", 0), item))
            return outcomes

    async def by_grpc(self, votes):
        try:
            receipt = await self.random.choice(self.stubs).CastVote(self.message_of(votes[0]), timeout=self.timeout())
            return [(receipt.partition, receipt.offset, receipt.accepted_at_ms, receipt.vote_id)]
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND):
                self.refusals.append((str(error.code()), error.details()))
            return [f"grpc {error.code().name}"]

    async def by_grpc_stream(self, votes):
        outcomes = []
        try:
            call = self.random.choice(self.stubs).CastVotes((self.message_of(vote) for vote in votes), timeout=self.timeout() + 4)
            async for response in call:
                if response.WhichOneof("outcome") == "receipt":
                    receipt = response.receipt
                    outcomes.append((receipt.partition, receipt.offset, receipt.accepted_at_ms, receipt.vote_id))
                else:
                    error, vote = response.error, votes[len(outcomes)]
                    if vote.id is None and error.vote_id:
                        self.adopt(vote, error.vote_id)
                    # INVALID_ARGUMENT, NOT_FOUND and PERMISSION_DENIED.
                    if error.code in (3, 5, 7):
                        self.refusals.append((error.reason, error.message))
                    outcomes.append(f"stream {error.reason}")
        except grpc.aio.AioRpcError as error:
            outcomes += [f"stream {error.code().name}"] * (len(votes) - len(outcomes))
        if len(outcomes) > len(votes):
            self.contradictions.append(f"a stream of {len(votes)} votes has {len(outcomes)} outcomes")
        return (outcomes + ["stream ended"] * len(votes))[: len(votes)]

    def problem(self, status, document):
        """Returns the text of a problem document, and records it if it is a refusal."""
        text = f"{status} {document.get('type', '')}"
        if status < 500 and status != 408:
            self.refusals.append((text, document))
        return text

    def message_of(self, vote):
        message = self.messages.CastVoteRequest(name=vote.name, contest=vote.contest)
        for field in ("album", "year", "rank", "voter"):
            if getattr(vote, field) is not None:
                setattr(message, field, getattr(vote, field))
        if vote.id:
            message.vote_id = vote.id
        return message


def body_of(vote, with_id=True):
    """Returns the JSON object of a vote. A year may be a number or numeric text."""
    body = {"name": vote.name, "contest": vote.contest}
    if vote.year is not None:
        body["year"] = str(vote.year) if vote.year == 1979 else vote.year
    for field in ("album", "rank", "voter"):
        if getattr(vote, field) is not None:
            body[field] = getattr(vote, field)
    if vote.id and with_id:
        body["vote_id"] = vote.id
    return body


def receipt_of(document):
    accepted_at = datetime.datetime.fromisoformat(document["accepted_at"].replace("Z", "+00:00"))
    return (document["partition"], document["offset"], round(accepted_at.timestamp() * 1000), document["vote_id"])
