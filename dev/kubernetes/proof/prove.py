"""Compares receipts with the ledger and the tallies. It reads the stores with their public drivers, and uses none of our code.

It reads a JSON object, {"ledger": URL, "tallies": URL, "contest": NAME, "receipts": [FILE...]}, and prints a JSON object with these fields:
  acknowledged           number of receipts
  twice_acknowledged     number of receipts that have the id of an earlier receipt
  lost                   ids of acknowledged votes that are not in the ledger
  twice_in_the_ledger    ids of acknowledged votes that are in the ledger more than once
  uncounted              band -> acknowledged votes that are missing in the tallies
  beyond                 number of votes in the tallies without a receipt
"""

import json
import sys
from collections import Counter
from pathlib import Path

import pymongo
import redis

# The maximum number of ids in a query.
MAX_IDS_PER_QUERY = 1000


def prove(ledger, tallies, contest, receipts):
    acknowledged = [line for file in receipts for line in Path(file).read_text().split()]
    distinct = list(set(acknowledged))
    votes = pymongo.MongoClient(ledger).get_default_database()["votes"]
    found, recorded = Counter(), Counter()
    for start in range(0, len(distinct), MAX_IDS_PER_QUERY):
        keys = [f"{contest}|{vote_id}" for vote_id in distinct[start : start + MAX_IDS_PER_QUERY]]
        for vote in votes.find({"_id": {"$in": keys}}, {"vote_id": 1, "name": 1}):
            found[vote["vote_id"]] += 1
            recorded[vote["name"]] += 1
    bands = redis.Redis.from_url(tallies, decode_responses=True).hgetall(f"{{ovation}}:tally:{contest}")
    counted = Counter({band: int(count) for band, count in bands.items()})
    return {
        "acknowledged": len(acknowledged),
        "twice_acknowledged": len(acknowledged) - len(distinct),
        "lost": sorted(set(distinct) - set(found)),
        "twice_in_the_ledger": sorted(vote_id for vote_id, count in found.items() if count > 1),
        "uncounted": dict(recorded - counted),
        "beyond": (counted - recorded).total(),
    }


print(json.dumps(prove(**json.load(sys.stdin))))
