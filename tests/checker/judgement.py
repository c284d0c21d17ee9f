"""Compares what the clients received with the vote log, the ledger and the tallies."""

import collections
import datetime
import json
import time
import unicodedata
import uuid
import zlib

from processes import now
from programs import OPEN

PARTITIONS = 12
# The windows of the rates, in milliseconds.
WINDOWS = {"10ms": 10, "1s": 1000, "1m": 60_000}
# Windows of 10 ms expire 15 minutes after the end of their group. Those that are older than this, in minutes, may be missing.
SHORT_WINDOWS_COMPARED = 14


def clean(text):
    """Returns a text as a producer stores it."""
    return unicodedata.normalize("NFC", text).strip()


def field(record, name):
    """Returns an optional field of a protobuf message, or None."""
    return getattr(record, name) if record.HasField(name) else None


def album_key(name, album):
    return json.dumps([name, album], ensure_ascii=False, separators=(",", ":"))


class Judgement:
    """The violations of one round, as pairs of a kind and a text. `facts` has numbers for the report that are no violations."""

    def __init__(self, stores, clients):
        self.stores, self.clients = stores, clients
        self.violations, self.facts = [], {}

    def add(self, kind, text):
        self.violations.append((kind, text))

    def kinds(self):
        """Returns the number of violations by kind."""
        return dict(collections.Counter(kind for kind, _ in self.violations))

    def await_counted(self, seconds):
        """Waits until every record of the log is counted."""
        deadline, last_ends = now() + seconds, None
        while True:
            try:
                ends = {partition: end for partition, (_, end) in self.stores.bounds().items()}
                positions = self.stores.positions()
                waiting = {partition: end - positions.get(partition, 0) for partition, end in ends.items() if end > positions.get(partition, 0)}
                if not waiting and ends == last_ends:
                    return
                last_ends = ends
            except Exception as error:  # A store that can't be read yet.
                waiting = f"unknown: {error}"
            if now() > deadline:
                self.add("uncounted", f"not all records were counted within {seconds} s; waiting by partition: {waiting}")
                return
            time.sleep(0.5)

    def compare(self, is_whole=True):
        """Compares everything, and returns numbers for the report. `is_whole` is false if votes expire from the log and the ledger."""
        from ovation.v1 import log_pb2  # generate_messages has generated it.

        self.record_type = log_pb2.VoteRecord
        self.is_whole = is_whole
        self.records, self.bounds = self.stores.log()
        self.ledger = self.stores.ledger()
        self.tallies = self.stores.tallies()
        invalid = self._compare_log()
        if is_whole:
            self._compare_dead_letters(invalid)
        acknowledged, receipts = self._compare_receipts()
        if is_whole:
            self._compare_ledger()
            self._compare_tallies()
        return self._numbers(acknowledged, receipts, len(invalid))

    def _compare_log(self):
        """Compares each record with the vote that was cast, and finds the original of each ballot. Returns the positions of the invalid records."""
        # By ballot key: partition, offset, vote id, record, time.
        self.originals = {}
        times_on_log, ids_of_mark, invalid = collections.Counter(), collections.defaultdict(set), set()
        for (partition, offset), (key, value, timestamp, _) in sorted(self.records.items()):
            where = f"{partition}/{offset}"
            try:
                record = self.record_type.FromString(value or b"")
                vote_id = str(uuid.UUID(bytes=record.vote_id))
                if not record.name or not key:
                    raise ValueError
            except Exception:  # Not a vote.
                invalid.add((partition, offset))
                continue
            key = key.decode()
            vote = self.clients.votes.get(vote_id) or (self.clients.marks.get(record.album) if record.album else None)
            if vote is None:
                self.add("forged", f"{where}: no client cast vote {vote_id}")
                continue
            if vote.mark and record.album == vote.mark and vote.id is None:
                ids_of_mark[vote.mark].add(vote_id)
            expected = vote.key(vote_id)
            if key != expected:
                self.add("key", f"{where}: key {key!r}, expected {expected!r}")
            if zlib.crc32(key.encode()) % PARTITIONS != partition and self.is_whole:
                self.add("partition", f"{where}: {key!r} belongs to {zlib.crc32(key.encode()) % PARTITIONS}")
            content = (record.contest, record.name, field(record, "album"), field(record, "year"), field(record, "rank"))
            if content != (vote.contest, clean(vote.name), vote.album and clean(vote.album), vote.year, vote.rank):
                self.add("content", f"{where}: {record} is not what was cast")
            if record.producer not in vote.producers:
                self.add("producer", f"{where}: {record.producer}, and it was sent to {vote.producers}")
            times_on_log[vote_id] += 1
            if times_on_log[vote_id] > vote.attempts:
                self.facts["more often on the log than sent"] = self.facts.get("more often on the log than sent", 0) + 1
            self.originals.setdefault(key, (partition, offset, vote_id, record, timestamp))
        for mark, ids in ids_of_mark.items():
            attempts = self.clients.marks[mark].attempts
            if len(ids) > attempts:
                self.add("doubled", f"a vote without id, sent {attempts} times, is on the log with {len(ids)} ids, and each counts")
        return invalid

    def _compare_dead_letters(self, invalid):
        """Each invalid record has a dead letter with its bytes, and there is no other dead letter."""
        letters, _ = self.stores.log(self.stores.topic + ".dead")
        times = collections.Counter()
        for key, value, _, headers in letters.values():
            headers = dict(headers)
            position = int(headers["partition"]), int(headers["offset"])
            times[position] += 1
            if position in invalid and (key or b"", value or b"") != tuple(part or b"" for part in self.records[position][:2]):
                self.add("dead letter", f"the dead letter of {position} is not the record that is there")
        if times.keys() != invalid:
            missing, unfounded = len(invalid - times.keys()), len(times.keys() - invalid)
            self.add("dead letter", f"{missing} invalid records have no dead letter, {unfounded} dead letters are of no invalid record")
        if invalid:
            self.facts["invalid records"] = len(invalid)
            self.facts["repeated dead letters"] = sum(times.values()) - len(times)

    def _compare_receipts(self):
        """Each receipt names a record with this vote, and each acknowledged vote is on the log and in the ledger. Returns the numbers of
        acknowledged votes and of receipts."""
        acknowledged = receipts = 0
        for vote in self.clients.votes.values():
            acknowledged += bool(vote.receipts)
            for partition, offset, accepted_at, producer in vote.receipts:
                receipts += 1
                if offset < self.bounds[partition][0]:
                    continue
                where = f"receipt {partition}/{offset} of vote {vote.id}"
                found = self.records.get((partition, offset))
                if found is None:
                    self.add("lost", f"{where}: the log has nothing there (it has {self.bounds[partition]})")
                    continue
                record = self.record_type.FromString(found[1])
                if str(uuid.UUID(bytes=record.vote_id)) != vote.id:
                    self.add("receipt", f"{where}: the log has {uuid.UUID(bytes=record.vote_id)}")
                elif found[2] != accepted_at:
                    self.add("receipt", f"{where}: accepted_at {accepted_at}, on the log {found[2]}")
                elif record.producer != producer:
                    self.add("receipt", f"{where}: from {producer}, on the log {record.producer}")
            if vote.receipts and self.is_whole and vote.key() not in self.originals:
                self.add("lost", f"vote {vote.id} was acknowledged and is not on the log")
            if vote.receipts and self.is_whole and vote.key() not in self.ledger:
                self.add("lost", f"vote {vote.id} ({vote.key()}) was acknowledged and is not in the ledger")
        return acknowledged, receipts

    def _compare_ledger(self):
        """The ledger has the original of each ballot, unchanged, and nothing else."""
        for key, (partition, offset, vote_id, record, timestamp) in self.originals.items():
            document = self.ledger.get(key)
            if document is None:
                self.add("lost", f"{key} is on the log at {partition}/{offset} and not in the ledger")
                continue
            if (document["partition"], document["offset"]) != (partition, offset):
                self.add("not the original", f"{key}: the ledger has {document['partition']}/{document['offset']}, the original is {partition}/{offset}")
            expected = {
                "_id": key,
                "vote_id": vote_id,
                "contest": record.contest,
                "name": record.name,
                "producer": record.producer,
                "partition": partition,
                "offset": offset,
            }
            for name in ("album", "year", "rank"):
                if record.HasField(name):
                    expected[name] = getattr(record, name)
            if record.HasField("voter"):
                expected["voter"] = record.voter.hex()
            found = {name: value for name, value in document.items() if name != "accepted_at"}
            if found != expected:
                self.add("content", f"{key}: the ledger has {found}, the log {expected}")
            if round(document["accepted_at"].replace(tzinfo=datetime.timezone.utc).timestamp() * 1000) != timestamp:
                self.add("content", f"{key}: accepted_at differs")
        for key in self.ledger.keys() - self.originals.keys():
            self.add("forged", f"{key} is in the ledger and not on the log")
        for vote_id, times in collections.Counter(document["vote_id"] for document in self.ledger.values()).items():
            if times > 1:
                self.add("doubled", f"vote {vote_id} is {times} times in the ledger")

    def _compare_tallies(self):
        """The counts in Redis are those of the originals on the log."""
        kinds = ("tally", "albums", "producers")
        expected = {kind: collections.defaultdict(collections.Counter) for kind in (*kinds, "rate")}
        for _, _, _, record, timestamp in self.originals.values():
            expected["tally"][record.contest][record.name] += 1
            if record.HasField("album"):
                expected["albums"][record.contest][album_key(record.name, record.album)] += 1
            expected["producers"][record.contest][record.producer] += 1
            for size, length in WINDOWS.items():
                expected["rate"][record.contest, size][timestamp // length * length] += 1
        for kind in kinds:
            found = self.tallies[kind]
            if kind == "albums":
                found = {contest: {album_key(*json.loads(name)): count for name, count in counts.items()} for contest, counts in found.items()}
            for contest in expected[kind].keys() | found.keys():
                wanted, has = expected[kind][contest], found.get(contest, {})
                for name in wanted.keys() | has.keys():
                    if wanted.get(name, 0) != has.get(name, 0):
                        violation = "lost" if has.get(name, 0) < wanted.get(name, 0) else "doubled"
                        self.add(violation, f"Redis {kind} {contest} {name!r}: {has.get(name, 0)}, expected {wanted.get(name, 0)}")
        self._compare_windows(expected["rate"])

    def _compare_windows(self, expected):
        oldest = time.time() * 1000 - SHORT_WINDOWS_COMPARED * 60_000
        for contest, size in expected:
            found = self.tallies["rate"].get((contest, size), {})
            for start, count in expected[contest, size].items():
                if size == "10ms" and start < oldest:
                    continue
                if found.get(start, 0) != count:
                    self.add("window", f"{contest} {size} {start}: {found.get(start, 0)}, expected {count}")
            for start in found.keys() - expected[contest, size].keys():
                self.add("window", f"{contest} {size} {start}: {found[start]}, expected none")

    def compare_expired(self):
        """For votes that expire from the log and the ledger: of each band, the tallies have at least the votes that were acknowledged, and at
        most those that were sent."""
        counted = collections.Counter(self.tallies["tally"].get(OPEN, {}))
        acknowledged, sent = collections.Counter(), collections.Counter()
        for vote in self.clients.votes.values():
            sent[vote.name] += 1
            acknowledged[vote.name] += bool(vote.receipts)
        for vote in self.clients.marks.values():
            if vote.id is None:
                sent[vote.name] += 1
        for band in sent | counted:
            if counted[band] < acknowledged[band]:
                self.add("lost", f"{band}: {counted[band]} counted, {acknowledged[band]} acknowledged")
            if counted[band] > sent[band]:
                self.add("doubled", f"{band}: {counted[band]} counted, {sent[band]} sent")
        return {"counted, acknowledged, sent": [counted.total(), acknowledged.total(), sent.total()]}

    def _numbers(self, acknowledged, receipts, invalid):
        clients = self.clients
        unknown = sum(1 for vote in clients.marks.values() if vote.id is None)
        durations = sorted(duration for way in ("rest", "grpc") for duration in clients.durations[way])
        return {
            "votes": len(clients.votes) + unknown,
            "acknowledged": acknowledged,
            "receipts": receipts,
            "unacknowledged": sum(1 for vote in clients.votes.values() if not vote.receipts),
            "unknown outcome (no id)": unknown,
            "log": len(self.records),
            "duplicates on the log": len(self.records) - len(self.originals) - invalid,
            "ballots": len(self.originals),
            "ledger": len(self.ledger),
            "tallies": sum(sum(counts.values()) for counts in self.tallies["tally"].values()),
            "attempts failed": clients.errors.total(),
            "errors": dict(clients.errors.most_common(12)),
            "refusals": len(clients.refusals),
            **self.facts,
            "p50_ms": round(1000 * durations[len(durations) // 2], 1) if durations else None,
            "p99_ms": round(1000 * durations[int(len(durations) * 0.99)], 1) if durations else None,
        }


def self_test(stores, clients):
    """Changes a store or a receipt by hand and restores it. Returns for each change whether the judgement found it."""
    ledger, tallies = stores.mongo(), stores.redis()
    found = {}

    def finds(*kinds):
        judgement = Judgement(stores, clients)
        judgement.compare()
        return any(kind in kinds for kind, _ in judgement.violations) if kinds else not judgement.violations

    document = ledger.votes.find_one({"contest": OPEN})
    ledger.votes.delete_one({"_id": document["_id"]})
    found["a deleted vote"] = finds("lost")
    ledger.votes.insert_one(document)

    key = stores.key(f"tally:{OPEN}")
    band = next(iter(tallies.hgetall(key)))
    tallies.hincrby(key, band, 1)
    found["a raised count"] = finds("doubled")
    tallies.hincrby(key, band, -1)

    vote = next(vote for vote in clients.votes.values() if vote.receipts)
    partition, offset, accepted_at, producer = vote.receipts[0]
    vote.receipts.append((partition, offset + 1, accepted_at, producer))
    found["a wrong receipt"] = finds("receipt", "lost")
    vote.receipts.pop()

    found["nothing after all was restored"] = finds()
    return found
