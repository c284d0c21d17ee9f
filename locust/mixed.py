"""Voters over REST and voters over gRPC, in proportion to two weights."""

from argparse import ArgumentTypeError

from locust import events

from votes_grpc import GrpcVoter
from votes_rest import RestVoter


def weight(text):
    if not text.isdigit() or int(text) == 0:
        raise ArgumentTypeError(f"{text} is not a whole number from 1; for one producer only, run votes_rest.py or votes_grpc.py")
    return int(text)


@events.init_command_line_parser.add_listener
def add_options(parser):
    for producer in ("rest", "grpc"):
        parser.add_argument(f"--{producer}-weight", metavar="N", type=weight, default=1, include_in_web_ui=False,
                            env_var=f"LOCUST_{producer.upper()}_WEIGHT", help=f"the weight of {producer} voters (default: 1)")


# The weights are set at initialisation, because a master distributes its users before the start of a test.
@events.init.add_listener
def set_weights(environment, **_):
    RestVoter.weight = environment.parsed_options.rest_weight
    GrpcVoter.weight = environment.parsed_options.grpc_weight
