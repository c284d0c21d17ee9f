"""People who vote over REST and people who vote over gRPC, in proportion to two weights."""

from argparse import ArgumentTypeError

from locust import events

from votes_grpc import GrpcVoter
from votes_rest import RestVoter


def weight(text):
    if not text.isdigit() or int(text) == 0:
        raise ArgumentTypeError(f"{text} is not a whole number from 1; for one door alone run votes_rest.py or votes_grpc.py")
    return int(text)


@events.init_command_line_parser.add_listener
def add_options(parser):
    for door in ("rest", "grpc"):
        parser.add_argument(f"--{door}-weight", metavar="N", type=weight, default=1, include_in_web_ui=False,
                            env_var=f"LOCUST_{door.upper()}_WEIGHT", help=f"the share of {door} voters (default: 1)")


# Not at the start of a test: a master has shared out its users by then.
@events.init.add_listener
def weigh(environment, **_):
    RestVoter.weight = environment.parsed_options.rest_weight
    GrpcVoter.weight = environment.parsed_options.grpc_weight
