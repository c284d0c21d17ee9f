"""Voters over REST: POST /v1/votes."""

from locust import HttpUser, task

import ballots
from ballots import REQUEST_TIMEOUT, Verdict


class RestVoter(HttpUser):
    host = "http://127.0.0.1:8000"
    wait_time = ballots.wait_time

    @task
    def vote(self):
        ballots.cast(self.post)

    def post(self, ballot):
        with self.client.post("/v1/votes", json=ballot, timeout=REQUEST_TIMEOUT, catch_response=True) as response:
            body = body_of(response)
            if response.status_code == 202 and body.get("vote_id") == ballot["vote_id"]:
                response.success()
                return Verdict.ACKNOWLEDGED
            if response.status_code == 202:
                response.failure("202 without a receipt of this vote")
            elif response.status_code:
                response.failure(f"{response.status_code} {body.get('type', '')}")
            else:
                response.failure(f"no response: {type(response.error).__name__}")
            # The status is 0 if there was no connection or no response in time, and 408 if the body did not arrive in time.
            return Verdict.RETRY if response.status_code in (0, 408, 503) else Verdict.REFUSED


def body_of(response):
    """Returns the receipt or the problem document of a response; an empty dictionary if it is neither."""
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
