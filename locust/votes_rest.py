"""People who vote over REST: POST /v1/votes."""

from locust import HttpUser, task

import ballots
from ballots import TIME_OUT, Verdict


class RestVoter(HttpUser):
    host = "http://127.0.0.1:8000"
    wait_time = ballots.linger

    @task
    def vote(self):
        ballots.cast(self.post)

    def post(self, ballot):
        with self.client.post("/v1/votes", json=ballot, timeout=TIME_OUT, catch_response=True) as answer:
            body = body_of(answer)
            if answer.status_code == 202 and body.get("vote_id") == ballot["vote_id"]:
                answer.success()
                return Verdict.ACKNOWLEDGED
            if answer.status_code == 202:
                answer.failure("202 without a receipt of this vote")
            elif answer.status_code:
                answer.failure(f"{answer.status_code} {body.get('type', '')}")
            else:
                answer.failure(f"no answer: {type(answer.error).__name__}")
            # 0: no connection, or none in time. 408: the door waited for the rest of the vote.
            return Verdict.AGAIN if answer.status_code in (0, 408, 503) else Verdict.REFUSED


def body_of(answer):
    """A receipt or a problem document; empty if the answer is neither."""
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
