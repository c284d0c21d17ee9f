"""The classic profile, used with a file of voters: `-f votes_rest.py,classic.py`.

20 users vote for one minute. Each of them pauses for 233 ms after a request. `--users` and `--run-time` change the number and the duration.
"""

from locust import LoadTestShape, constant, events

USERS = 20
SECONDS = 60
PAUSE_SECONDS = 0.233


class Classic(LoadTestShape):
    use_common_options = True

    def tick(self):
        options = self.runner.environment.parsed_options
        if self.get_run_time() >= options.run_time:
            return None
        return options.num_users, options.num_users


# This listener runs before Locust sets its own default of one user.
@events.init.add_listener
def set_defaults(environment, **_):
    environment.parsed_options.num_users = environment.parsed_options.num_users or USERS
    environment.parsed_options.run_time = environment.parsed_options.run_time or SECONDS
    for voter in environment.user_classes:
        voter.wait_time = constant(PAUSE_SECONDS)
