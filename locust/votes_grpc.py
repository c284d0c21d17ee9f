"""Voters over gRPC: ovation.v1.VoteService/CastVote."""

import sys
import time
from pathlib import Path

import grpc
import grpc.experimental.gevent
from locust import User, events, task

import ballots
from ballots import REQUEST_TIMEOUT, Verdict

# The generated stubs import each other by paths in this folder.
sys.path.insert(0, str(Path(__file__).parent / "generated"))
try:
    from ovation.v1.votes_pb2 import CastVoteRequest
    from ovation.v1.votes_pb2_grpc import VoteServiceStub
except ModuleNotFoundError as missing:
    sys.exit(f"the gRPC stubs are missing ({missing}): run locust/stubs")

# Without this call, a request blocks all users of the process. It must run before the first channel is created.
grpc.experimental.gevent.init_gevent()

RETRYABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)


class CastVoteFailed(Exception):
    """A failed request. Locust groups failures by their text, so the text has no vote_id."""


class GrpcVoter(User):
    wait_time = ballots.wait_time

    def on_start(self):
        # With this option, each user has a connection of its own. Otherwise all channels of a process share one connection.
        self.channel = grpc.insecure_channel(self.environment.parsed_options.grpc_host,
                                             options=[("grpc.use_local_subchannel_pool", 1)])
        self.stub = VoteServiceStub(self.channel)

    def on_stop(self):
        self.channel.close()

    @task
    def vote(self):
        ballots.cast(self.cast_vote)

    def cast_vote(self, ballot):
        request = CastVoteRequest(name=ballot["name"], album=ballot["album"], year=int(ballot["year"]),
                                  rank=float(ballot["rank"]), vote_id=ballot["vote_id"])
        size, failure, verdict = 0, None, Verdict.ACKNOWLEDGED
        begun = time.perf_counter()
        try:
            receipt = self.stub.CastVote(request, timeout=REQUEST_TIMEOUT)
            size = receipt.ByteSize()
            if receipt.vote_id != ballot["vote_id"]:
                failure, verdict = CastVoteFailed("OK without a receipt of this vote"), Verdict.REFUSED
        except grpc.RpcError as error:
            failure = CastVoteFailed(f"{error.code().name}: {error.details()}")
            verdict = Verdict.RETRY if error.code() in RETRYABLE else Verdict.REFUSED
        self.environment.events.request.fire(
            request_type="gRPC", name="CastVote", response_time=(time.perf_counter() - begun) * 1000,
            response_length=size, exception=failure, context={})
        return verdict


@events.init_command_line_parser.add_listener
def add_options(parser):
    parser.add_argument("--grpc-host", metavar="HOST:PORT", env_var="LOCUST_GRPC_HOST", default="127.0.0.1:50051",
                        help="address of the gRPC producer (default: 127.0.0.1:50051); with a master, set it on the master")
