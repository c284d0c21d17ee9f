"""What the Locust files here share: ballots, how often a vote is tried, and the receipts of acknowledged votes."""

import itertools
import json
import math
import random
import uuid
from enum import Enum
from pathlib import Path

import gevent
from locust import events
from locust.runners import MasterRunner, WorkerRunner

BANDS = json.loads((Path(__file__).parent.parent / "data/bands.json").read_text())
# Zipf's law: the second band has half the votes of the first, the third a third. The file lists the best known first.
POPULARITY = list(itertools.accumulate(1 / place for place in range(1, len(BANDS) + 1)))

# Seconds until a try has failed.
TIME_OUT = 10
TRIES = 5
# Seconds before the second try, doubled before each further one: what both doors say in Retry-After and RetryInfo.
FIRST_PAUSE = 1


class Verdict(Enum):
    """What an answer means for the vote."""

    ACKNOWLEDGED = 1
    # It may be on the log or not: cast it again with its id.
    AGAIN = 2
    REFUSED = 3


class GivenUp(Exception):
    """Locust lists it under Exceptions, beside the failed tries."""


def draw():
    """A ballot with a vote_id of its own, its fields as JSON has them."""
    band = random.choices(BANDS, cum_weights=POPULARITY)[0]
    return {**band, "vote_id": str(uuid.uuid4())}


def cast(ask):
    """Casts one ballot: calls `ask(ballot)` for a verdict, and again with the same ballot, so the same vote_id, while it may help.

    Locust lets a user who is voting end, but kills one who pauses, even if the pause ends before the kill arrives: then the vote
    would be counted and nobody would have its receipt. So the first kill waits for the receipt; Locust's time-out sends another."""
    casting = gevent.spawn(has_verdict, ask, draw())
    try:
        judged = casting.get()
    except gevent.GreenletExit:
        casting.join()
        raise
    if not judged:
        raise GivenUp(f"a vote has no receipt after {TRIES} tries: see the failures for the reasons")


def has_verdict(ask, ballot):
    """Whether the ballot was acknowledged or refused after all tries."""
    for tried in range(TRIES):
        if tried:
            # The jitter keeps users that failed together from coming back together.
            gevent.sleep(FIRST_PAUSE * 2 ** (tried - 1) * random.uniform(1, 1.5))
        verdict = ask(ballot)
        if verdict is Verdict.ACKNOWLEDGED:
            receipts.note(ballot["vote_id"])
        if verdict is not Verdict.AGAIN:
            return True
    return False


def linger(_user):
    """Seconds until somebody votes again: mostly one to four, seldom more than ten."""
    return min(20, random.lognormvariate(math.log(2), 0.6))


class Receipts:
    """The ids of acknowledged votes in a file, one a line."""

    def __init__(self):
        self.file = None

    def open(self, environment):
        path = environment.parsed_options.receipts
        if path is None or self.file is not None or isinstance(environment.runner, MasterRunner):
            return
        # Workers may share a folder.
        if isinstance(environment.runner, WorkerRunner):
            path += f".worker-{environment.runner.worker_index}"
        # Each line at once, so that a flood that is killed leaves its receipts; at the end, since a flood that came before
        # is counted, too.
        self.file = open(path, "a", buffering=1)

    def note(self, vote_id):
        if self.file is not None:
            self.file.write(vote_id + "\n")


receipts = Receipts()


@events.init_command_line_parser.add_listener
def add_options(parser):
    parser.add_argument("--receipts", metavar="FILE", env_var="LOCUST_RECEIPTS", include_in_web_ui=False,
                        help="append the vote_id of each acknowledged vote to FILE, or to FILE.worker-N in worker N (give it to the master)")


@events.init.add_listener
def let_votes_end(environment, **_):
    # A user who is stopped between a vote and its receipt leaves a vote that is counted and that nobody knows of.
    environment.stop_timeout = environment.stop_timeout or TIME_OUT


@events.test_start.add_listener
def open_receipts(environment, **_):
    receipts.open(environment)
