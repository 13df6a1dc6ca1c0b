"""The resolved configuration of a run, and how it comes about.

Later ones win: the benchmark's protocol, the recipe, the recipe's part for the data set, the head
that the method is made for, the recipe's part for the method, then the command line. Every name is
checked at every stage.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from avcil.incremental.errors import ConfigError
from avcil.incremental.heads import HEADS
from avcil.incremental.heads.base import Head, HeadOptions
from avcil.incremental.heads.network import head_options
from avcil.incremental.methods import make_method, method_class
from avcil.incremental.methods.base import Classify, Method, Selection
from avcil.incremental.options import DEFAULT_HEAD, build_options, later, without_later

LONGEST_NAME = 60
"""Characters of the name of a method or head in that of a run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Everything that decides a run's accuracy matrix, on one machine.

    Machines differ in what `precision = "auto"` means: it is resolved when a run begins and kept in
    `results.json`, so a run that goes on elsewhere stays in its precision.
    """

    dataset: str
    fingerprint: str
    """Of the cache's encoder."""
    rows: str
    """Hash of the cache's list of clips."""
    recipe: str
    method: Mapping[str, Any]
    """`name` and the method's hyper-parameters; of a plug-in also `source`, a hash of its files."""
    head: Mapping[str, Any]
    """`name` and the head's options; of a plug-in also `source`."""
    losses: Mapping[str, float]
    """Weight of each loss term; 0 switches it off."""
    modality: Literal["av", "audio", "visual"] = "av"
    """What the head sees; `audio` and `visual` choose the head of that name."""
    tasks: int
    first_task: int | None = None
    """Classes of the first task, where it differs from the others."""
    task_sizes: tuple[int, ...] | None = field(default=None, metadata=later(None))
    """Classes of every task, where `tasks` and `first_task` do not say them."""
    order_seed: int | None = None
    """Shuffles the learning order of the classes."""
    class_order: tuple[str, ...] | None = None
    """The learning order itself."""
    seed: int = 0
    """Decides initial weights, exemplars and the order of clips."""
    few_shot: int | None = None
    """Training clips of each class in every task but the first; the others are not used."""
    memory: int
    """Exemplars in all, shared evenly by the classes seen."""
    memory_per_class: bool = False
    """Whether `memory` counts the exemplars of each class instead."""
    selection: Selection
    """How exemplars are chosen; methods have different defaults."""
    classify: Classify | None = field(default=None, metadata=later(None))
    """What decides the class of a clip, in validation and test; None for what the method does."""
    epochs: int
    """Passes over the clips of a task."""
    batch_size: int
    exemplar_batch_size: int
    """Exemplars that join each batch in methods with paired replay."""
    optimizer: Literal["adamw", "adam", "sgd"]
    learning_rate: float
    weight_decay: float
    momentum: float = 0.9
    """Of SGD alone."""
    schedule: Literal["cosine", "constant"]
    """`cosine` falls to zero over the steps of a task."""
    warmup: float = 0.0
    """Share of a task's steps in which the learning rate rises from zero."""
    validate_every: int = 1
    """Epochs between looks at the validation clips, of which the best is kept; the last epoch is
    always looked at."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the head's products: `auto` is bf16 on a device with instructions for it, but fp32 where
    that does not pay: in the small runs that a CPU trains on one thread."""
    select: Literal["best", "last"] = field(default="best", metadata=later("best"))
    """Which epoch of a task is kept: the best on the validation clips, or the last one, which
    needs none."""
    classes: tuple[str, ...] | None = field(default=None, metadata=later(None))
    """The classes to learn, if not all of the cache."""
    compiled: bool = False
    """Compile the step with `torch.compile`: slow to start at each task, then faster."""
    graphed: bool = False
    """Replay the step as a CUDA graph: on a GPU, with adam or adamw."""
    plugins: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Where the `method` and `head` are found on this machine, if their names do not say; run
    folders do not keep it."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        for name in ("tasks", "epochs", "batch_size", "exemplar_batch_size", "validate_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("learning_rate", "weight_decay", "memory", "warmup", "seed", "order_seed"):
            if (getattr(self, name) or 0) < 0:
                raise ConfigError(f"{name} must not be negative: {getattr(self, name)}")
        if self.few_shot is not None and self.few_shot < 1:
            raise ConfigError(f"few_shot must be at least 1, not {self.few_shot}")
        if self.compiled and self.graphed:
            raise ConfigError(
                "compiled=true and graphed=true cannot be combined: set only one of them"
            )
        negative = [term for term, weight in self.losses.items() if weight < 0]
        if negative:
            raise ConfigError(f"losses.{negative[0]} must not be negative")

    def make_method(self) -> Method:
        """Build the method with its hyper-parameters."""
        return make_method(self.reference("method"), settings_in(self.method), _source(self.method))

    def head_options(self) -> HeadOptions:
        """Build the options of the head."""
        values = settings_in(self.head)
        return head_options(self.reference("head"), values, _source(self.head))

    def method_class(self) -> type[Method]:
        """Return the class of the method."""
        return method_class(self.reference("method"), _source(self.method))

    def head_class(self) -> type[Head]:
        """Return the class of the head."""
        return HEADS.use(self.reference("head"), _source(self.head))

    def reference(self, part: Literal["method", "head"]) -> str:
        """Return by what the method or the head is found on this machine."""
        named: Mapping[str, Any] = getattr(self, part)
        return self.plugins.get(part, str(named["name"]))

    @property
    def rule(self) -> Classify:
        """What decides the class of a clip."""
        return self.classify or self.method_class().classify

    def plain(self) -> dict[str, Any]:
        """Return every setting, as JSON holds it."""
        plain = json.loads(json.dumps(asdict(self)))
        del plain["plugins"]
        return plain

    def stored(self) -> dict[str, Any]:
        """Return the configuration as run folders keep it.

        Settings that came after 0.1.0 are left out where they are as they were then. What changed
        since then without a setting is added.
        """
        plain = without_later(Config, self.plain())
        plain["method"] = without_later(self.method_class(), plain["method"])
        head = self.head_class()
        plain["head"] = without_later(head.options, plain["head"])
        if head.averages and self.head["input_norm"] == "standardize":
            plain["head"]["statistics"] = "clips"
        return plain

    @classmethod
    def of_stored(cls, stored: Mapping[str, Any]) -> Config:
        """Return the configuration that `stored` returned, also in an earlier version.

        Raises:
            ConfigError: an unknown setting, or a value that cannot work.
        """
        head = {name: value for name, value in stored["head"].items() if name != "statistics"}
        return build_options(cls, {**stored, "head": head}, "the configuration of the run")

    @property
    def run_name(self) -> str:
        """A name for its folder, ending in a hash of the whole configuration."""
        text = json.dumps(self.stored(), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        parts = [self.method["name"][:LONGEST_NAME]]
        if self.head["name"] != DEFAULT_HEAD:
            parts.append(self.head["name"][:LONGEST_NAME])
        name = "-".join([*parts, f"{self.tasks}tasks", f"seed{self.seed}", digest])
        return re.sub(r"[^\w.-]+", "_", name)  # `module:Class` is no name of a folder everywhere


def settings_in(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a method or head, without what says which one it is."""
    return {key: value for key, value in part.items() if key not in ("name", "source")}


def _source(part: Mapping[str, Any]) -> str:
    return str(part.get("source", ""))


def derive_seed(seed: int, purpose: str, *numbers: int) -> int:
    """Return 32 bits that depend on all arguments and on nothing else."""
    words = [seed, *numbers, *purpose.encode()]
    return int(np.random.SeedSequence(words).generate_state(1)[0])
