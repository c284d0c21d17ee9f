#!/usr/bin/env python3
"""Tests a voter that Locust stops. The kill may arrive at any moment, also just after a pause has ended.

    target/tools/locust/bin/python locust/test_ballots.py
"""

import unittest
from unittest import mock

import gevent
from gevent.event import Event

import ballots
from ballots import Verdict


class Producer:
    """A producer that returns the given verdicts, one for each vote. It waits until the test has set `may_respond`."""

    def __init__(self, *verdicts):
        self.verdicts = iter(verdicts)
        self.received = []
        self.has_received, self.may_respond = Event(), Event()

    def send(self, ballot):
        self.received.append(ballot["vote_id"])
        self.has_received.set()
        self.may_respond.wait()
        return next(self.verdicts)


class Voter(unittest.TestCase):
    def setUp(self):
        self.receipts = []
        for patch in (mock.patch.object(ballots, "RETRY_DELAY", 0.001), mock.patch.object(ballots.receipts, "append", self.receipts.append)):
            patch.start()
            self.addCleanup(patch.stop)

    def start_voter(self, producer):
        """Starts a voter, and returns it when the producer has received its vote."""
        voter = gevent.spawn(ballots.cast, producer.send)
        self.assertTrue(producer.has_received.wait(10))
        return voter

    def test_a_vote_is_cast_again_with_the_same_id_until_its_receipt(self):
        producer = Producer(Verdict.RETRY, Verdict.RETRY, Verdict.ACKNOWLEDGED)
        producer.may_respond.set()
        ballots.cast(producer.send)
        self.assertEqual(producer.received, self.receipts * 3)

    def test_a_vote_without_receipt_fails_after_all_tries(self):
        producer = Producer(*[Verdict.RETRY] * ballots.MAX_TRIES)
        producer.may_respond.set()
        with self.assertRaisesRegex(ballots.NoReceipt, "no receipt after 5 tries"):
            ballots.cast(producer.send)
        self.assertEqual((len(producer.received), self.receipts), (ballots.MAX_TRIES, []))

    def test_a_refused_vote_is_not_cast_again(self):
        producer = Producer(Verdict.REFUSED)
        producer.may_respond.set()
        ballots.cast(producer.send)
        self.assertEqual((len(producer.received), self.receipts), (1, []))

    def test_a_user_stopped_while_voting_ends_after_the_receipt(self):
        producer = Producer(Verdict.RETRY, Verdict.ACKNOWLEDGED)
        voter = self.start_voter(producer)
        voter.kill(block=False)
        gevent.sleep(0)
        self.assertFalse(voter.dead, "the user ended before the receipt of its vote")
        producer.may_respond.set()
        voter.join(10)
        self.assertTrue(voter.dead)
        self.assertEqual(producer.received, self.receipts * 2)

    def test_a_second_stop_ends_the_user_at_once(self):
        voter = self.start_voter(Producer())
        voter.kill(block=False)
        gevent.sleep(0)
        voter.kill(timeout=10)
        self.assertTrue(voter.dead)
        self.assertEqual(self.receipts, [])


if __name__ == "__main__":
    unittest.main()
