"""Compares receipts with the stores, read by their public drivers and with none of our code: each acknowledged vote is in the book
once and in the tallies once.

Reads one JSON object, {"book": URL, "tally": URL, "contest": NAME, "receipts": [FILE...]}, and prints one: how many votes were
acknowledged, which of them the book lacks, how many the tallies have of them and beyond them, by band."""

import json
import sys
from collections import Counter
from pathlib import Path

import pymongo
import redis

# Ids that are asked for at once.
CHUNK = 1000


def prove(book, tally, contest, receipts):
    acknowledged = [line for file in receipts for line in Path(file).read_text().split()]
    distinct = list(set(acknowledged))
    votes = pymongo.MongoClient(book).get_default_database()["votes"]
    found, booked = Counter(), Counter()
    for start in range(0, len(distinct), CHUNK):
        keys = [f"{contest}|{vote_id}" for vote_id in distinct[start : start + CHUNK]]
        for vote in votes.find({"_id": {"$in": keys}}, {"vote_id": 1, "name": 1}):
            found[vote["vote_id"]] += 1
            booked[vote["name"]] += 1
    bands = redis.Redis.from_url(tally, decode_responses=True).hgetall(f"{{ovation}}:tally:{contest}")
    tallies = Counter({band: int(count) for band, count in bands.items()})
    return {
        "acknowledged": len(acknowledged),
        "twice_acknowledged": len(acknowledged) - len(distinct),
        "lost": sorted(set(distinct) - set(found)),
        "twice_in_the_book": sorted(vote_id for vote_id, count in found.items() if count > 1),
        "uncounted": dict(booked - tallies),
        "beyond": (tallies - booked).total(),
    }


print(json.dumps(prove(**json.load(sys.stdin))))
