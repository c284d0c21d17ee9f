#!/usr/bin/env python3
"""What a voter does whom Locust stops: a kill comes at any moment, also just after a pause has ended.

    target/tools/locust/bin/python locust/test_ballots.py
"""

import unittest
from unittest import mock

import gevent
from gevent.event import Event

import ballots
from ballots import Verdict


class Door:
    """Gives verdicts one after the other, each when the test lets it."""

    def __init__(self, *verdicts):
        self.verdicts = iter(verdicts)
        self.asked = []
        self.was_asked, self.may_answer = Event(), Event()

    def ask(self, ballot):
        self.asked.append(ballot["vote_id"])
        self.was_asked.set()
        self.may_answer.wait()
        return next(self.verdicts)


class Voter(unittest.TestCase):
    def setUp(self):
        self.noted = []
        for patch in (mock.patch.object(ballots, "FIRST_PAUSE", 0.001), mock.patch.object(ballots.receipts, "note", self.noted.append)):
            patch.start()
            self.addCleanup(patch.stop)

    def voting(self, door):
        voter = gevent.spawn(ballots.cast, door.ask)
        self.assertTrue(door.was_asked.wait(10))
        return voter

    def test_casts_again_with_the_same_id_until_the_receipt(self):
        door = Door(Verdict.AGAIN, Verdict.AGAIN, Verdict.ACKNOWLEDGED)
        door.may_answer.set()
        ballots.cast(door.ask)
        self.assertEqual(door.asked, self.noted * 3)

    def test_gives_up_after_all_tries(self):
        door = Door(*[Verdict.AGAIN] * ballots.TRIES)
        door.may_answer.set()
        with self.assertRaisesRegex(ballots.GivenUp, "no receipt after 5 tries"):
            ballots.cast(door.ask)
        self.assertEqual((len(door.asked), self.noted), (ballots.TRIES, []))

    def test_does_not_cast_again_what_was_refused(self):
        door = Door(Verdict.REFUSED)
        door.may_answer.set()
        ballots.cast(door.ask)
        self.assertEqual((len(door.asked), self.noted), (1, []))

    def test_who_is_stopped_while_voting_ends_with_the_receipt(self):
        door = Door(Verdict.AGAIN, Verdict.ACKNOWLEDGED)
        voter = self.voting(door)
        voter.kill(block=False)
        gevent.sleep(0)
        self.assertFalse(voter.dead, "it left its vote")
        door.may_answer.set()
        voter.join(10)
        self.assertTrue(voter.dead)
        self.assertEqual(door.asked, self.noted * 2)

    def test_who_is_stopped_once_more_ends_at_once(self):
        voter = self.voting(Door())
        voter.kill(block=False)
        gevent.sleep(0)
        voter.kill(timeout=10)
        self.assertTrue(voter.dead)
        self.assertEqual(self.noted, [])


if __name__ == "__main__":
    unittest.main()
