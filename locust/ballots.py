"""The common code of the Locust files: ballots, retries, and the receipts of acknowledged votes."""

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
# Cumulative weights according to Zipf's law: the second band gets half as many votes as the first, the third a third as many. The file lists
# the most popular band first.
CUMULATIVE_WEIGHTS = list(itertools.accumulate(1 / rank for rank in range(1, len(BANDS) + 1)))

# The time-out of a request, in seconds.
REQUEST_TIMEOUT = 10
# The maximum number of times that a vote is sent.
MAX_TRIES = 5
# The delay before the second try, in seconds. It doubles with each further try. Both producers send this value in Retry-After and RetryInfo.
RETRY_DELAY = 1


class Verdict(Enum):
    """What a response means for the vote."""

    ACKNOWLEDGED = 1
    # The vote may or may not be on the log, so it must be cast again with the same id.
    RETRY = 2
    REFUSED = 3


class NoReceipt(Exception):
    """A vote has no receipt after all tries. Locust lists this under Exceptions; the tries themselves are listed under Failures."""


def draw():
    """Returns a random ballot with a new vote_id, as a dictionary with the fields of its JSON."""
    band = random.choices(BANDS, cum_weights=CUMULATIVE_WEIGHTS)[0]
    return {**band, "vote_id": str(uuid.uuid4())}


def cast(send):
    """Draws a ballot and casts it: calls `send(ballot)`, which returns a verdict, and calls it again with the same ballot after RETRY.

    At the end of a flood, Locust waits for users that run a task, and kills users that pause between two tasks. If a pause ends just before
    the kill arrives, the kill hits a user that casts a vote. This vote could be counted without a receipt. So after a first kill, this
    function waits for the receipt before the user ends. After its stop time-out, Locust sends a second kill, which ends the user at once."""
    casting = gevent.spawn(send_with_retries, send, draw())
    try:
        has_verdict = casting.get()
    except gevent.GreenletExit:
        casting.join()
        raise
    if not has_verdict:
        raise NoReceipt(f"a vote has no receipt after {MAX_TRIES} tries; the failures have the reasons")


def send_with_retries(send, ballot):
    """Sends the ballot up to MAX_TRIES times, and writes its receipt. Returns whether the ballot was acknowledged or refused."""
    for attempt in range(MAX_TRIES):
        if attempt:
            # The jitter spreads the retries of users that failed at the same time.
            gevent.sleep(RETRY_DELAY * 2 ** (attempt - 1) * random.uniform(1, 1.5))
        verdict = send(ballot)
        if verdict is Verdict.ACKNOWLEDGED:
            receipts.append(ballot["vote_id"])
        if verdict is not Verdict.RETRY:
            return True
    return False


def wait_time(_user):
    """Returns the seconds until a user votes again: mostly one to four, rarely more than ten."""
    return min(20, random.lognormvariate(math.log(2), 0.6))


class Receipts:
    """A file with the ids of acknowledged votes, one in each line."""

    def __init__(self):
        self.file = None

    def open(self, environment):
        path = environment.parsed_options.receipts
        if path is None or self.file is not None or isinstance(environment.runner, MasterRunner):
            return
        # Workers may share a folder, so each worker has a file of its own.
        if isinstance(environment.runner, WorkerRunner):
            path += f".worker-{environment.runner.worker_index}"
        # With a line buffer, the file has all receipts even if the flood is killed. The file may have receipts of earlier floods, whose votes are
        # also counted, so append to it.
        self.file = open(path, "a", buffering=1)

    def append(self, vote_id):
        if self.file is not None:
            self.file.write(vote_id + "\n")


receipts = Receipts()


@events.init_command_line_parser.add_listener
def add_options(parser):
    parser.add_argument("--receipts", metavar="FILE", env_var="LOCUST_RECEIPTS", include_in_web_ui=False,
                        help="append the vote_id of each acknowledged vote to FILE, or to FILE.worker-N in worker N; with a master, set it on the master")


@events.init.add_listener
def set_stop_timeout(environment, **_):
    # Without a stop time-out, a user may be stopped between a vote and its receipt. The vote would then be counted without a receipt.
    environment.stop_timeout = environment.stop_timeout or REQUEST_TIMEOUT


@events.test_start.add_listener
def open_receipts(environment, **_):
    receipts.open(environment)
