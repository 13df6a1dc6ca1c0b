"""An encoder that needs no network, by the name that its tokens give it."""

import torch

from tests.extract.fakes import MeanEncoder

NAME = "tests.api.clips:mean"


def mean(device: torch.device) -> MeanEncoder:
    return MeanEncoder(NAME)


def other(device: torch.device) -> MeanEncoder:
    return MeanEncoder("other weights")
