"""The profile of a televised vote, used with a file of voters: `-f votes_rest.py,televised.py`.

Few users vote until the vote is announced. Then there is a peak, then fewer users, and most users in the last minutes before the vote closes.
`--users` is the number of users at the end (default: 200), and `--run-time` is the duration of the show (default: 3m).
"""

from itertools import pairwise

from locust import LoadTestShape, events

USERS = 200
SECONDS = 180
# Times, as a share of the run time, and the share of the users at each time. Between two times, the share changes linearly.
MOMENTS = [
    (0.00, 0.10),
    (0.40, 0.10),  # the announcement
    (0.45, 0.80),
    (0.70, 0.25),
    (0.80, 0.25),  # the last call
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
                # Spawn all users at once, because Locust does not call `tick` while it spawns users.
                return users, users
        return None


# This listener runs before Locust sets its own default of one user.
@events.init.add_listener
def set_defaults(environment, **_):
    environment.parsed_options.num_users = environment.parsed_options.num_users or USERS
    environment.parsed_options.run_time = environment.parsed_options.run_time or SECONDS
