"""The network of a run: new, grown for a task, or read from the run folder."""

from __future__ import annotations

import torch

from avcil.cache.schema import Encoding
from avcil.incremental.config.config import Config
from avcil.incremental.data.tasks import Task
from avcil.incremental.errors import RunDamaged
from avcil.incremental.heads.classifiers import CLASSIFIERS, Classifier
from avcil.incremental.heads.network import Network
from avcil.incremental.methods.base import Method
from avcil.incremental.runs.folder import RunFolder
from avcil.incremental.train.precision import autocast_type


def new_network(
    config: Config, method: Method, encoding: Encoding, device: torch.device
) -> Network:
    """Return the network of a configuration with initial weights and no class."""
    options = config.head_options()

    def make_classifier(width: int) -> Classifier:
        own = method.classifier(width)
        return CLASSIFIERS[options.classifier](width) if own is None else own

    autocast = autocast_type(config, encoding, device)
    network = Network(config.head_class(), options, encoding, make_classifier, autocast)
    return network.to(device)


def add_classes(network: Network, task: Task) -> None:
    """Add the missing classes to the classifier, task by task, up to those of `task`."""
    for span in (*task.earlier, task.new):
        if network.classifier.classes < span.stop:
            network.classifier.grow(len(span))


def load_network(network: Network, folder: RunFolder, task: Task) -> None:
    """Load the weights after a task from a run folder into a new network.

    Raises:
        RunDamaged: the file cannot be read, or its weights do not fit the network.
    """
    add_classes(network, task)
    weights = folder.weights(task.index, next(network.parameters()).device)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise RunDamaged(
            f"the weights of task {task.index + 1} in {folder.path} do not fit this version's "
            "network: delete the folder to train the run again"
        ) from error
