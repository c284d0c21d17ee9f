"""A vote on television, added to a file with voters: `-f votes_rest.py,televised.py`.

The show is calm, then the vote is announced and phones come out, most are put away again, and in the last minutes everybody who
hasn't voted does. `--users` is the number of users at the peak (default 200), `--run-time` the length of the show (default 3m).
"""

from itertools import pairwise

from locust import LoadTestShape, events

USERS = 200
SECONDS = 180
# When, as a part of the run time, and how many of the users are there; straight lines in between.
MOMENTS = [
    (0.00, 0.10),
    (0.40, 0.10),  # the announcement
    (0.45, 0.80),
    (0.70, 0.25),
    (0.80, 0.25),  # lines close soon
    (1.00, 1.00),
]


class Televised(LoadTestShape):
    use_common_options = True

    def tick(self):
        options = self.runner.environment.parsed_options
        now = self.get_run_time() / options.run_time
        for (begin, before), (end, after) in pairwise(MOMENTS):
            if now < end:
                share = before + (after - before) * (now - begin) / (end - begin)
                users = max(1, round(share * options.num_users))
                # All at once: Locust doesn't ask for the next moment while it still spawns users for this one.
                return users, users
        return None


# Before Locust takes one user for what nobody set.
@events.init.add_listener
def fill_in(environment, **_):
    environment.parsed_options.num_users = environment.parsed_options.num_users or USERS
    environment.parsed_options.run_time = environment.parsed_options.run_time or SECONDS
