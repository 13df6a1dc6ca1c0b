"""The resolved configuration of a run, and how it comes about.

Later ones win: the benchmark's protocol, the recipe, the recipe's part for the data set, its part
for the method, then the command line. Every name is checked at every stage.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from typing import Any, Literal

from avcil.incremental.errors import ConfigError
from avcil.incremental.heads.base import HeadOptions
from avcil.incremental.heads.network import head_options
from avcil.incremental.methods import make_method, method_class
from avcil.incremental.methods.base import Method, Selection
from avcil.incremental.options import build_options

RECIPES = ("fast", "paper", "avcil")

GROUPS = {"method": "method.temperature", "head": "head.width", "losses": "losses.kd"}

MODALITIES = ("av", "audio", "visual")


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Everything that decides a run's accuracy matrix, on one machine."""

    dataset: str
    fingerprint: str
    """Of the cache's encoder."""
    rows: str
    """Hash of the cache's list of clips."""
    recipe: str
    method: Mapping[str, Any]
    """`name` and the method's hyper-parameters."""
    head: Mapping[str, Any]
    """`name` and the head's options."""
    losses: Mapping[str, float]
    """Weight of each loss term; 0 switches it off."""
    modality: Literal["av", "audio", "visual"] = "av"
    """What the head sees; `audio` and `visual` choose the head of that name."""
    tasks: int
    first_task: int | None = None
    """Classes of the first task, where it differs from the others."""
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
    compiled: bool = False
    """Compile the step with `torch.compile`: slow to start at each task, then faster."""
    graphed: bool = False
    """Replay the step as a CUDA graph: on a GPU, with adam or adamw."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        for name in ("tasks", "epochs", "batch_size", "exemplar_batch_size", "validate_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("learning_rate", "weight_decay", "memory", "warmup"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative: {getattr(self, name)}")
        if self.few_shot is not None and self.few_shot < 1:
            raise ConfigError(f"few_shot must be at least 1, not {self.few_shot}")
        negative = [term for term, weight in self.losses.items() if weight < 0]
        if negative:
            raise ConfigError(f"losses.{negative[0]} must not be negative")

    def make_method(self) -> Method:
        """Build the method with its hyper-parameters."""
        return make_method(self.method["name"], _without_name(self.method))

    def head_options(self) -> HeadOptions:
        """Build the options of the head."""
        return head_options(self.head["name"], _without_name(self.head))

    def plain(self) -> dict[str, Any]:
        """Return the configuration as JSON holds it."""
        return json.loads(json.dumps(asdict(self)))

    @property
    def run_name(self) -> str:
        """A folder name that tells the run, ending in a hash of the whole configuration."""
        text = json.dumps(self.plain(), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        parts = [self.method["name"]]
        if self.head["name"] != "guided":
            parts.append(self.head["name"])
        return "-".join([*parts, f"{self.tasks}tasks", f"seed{self.seed}", digest])


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What the user asked for; None leaves a choice to the recipe."""

    method: str = "guided"
    head: str | None = None
    modality: str = "av"
    recipe: str = "fast"
    seed: int = 0
    settings: Mapping[str, object] = field(default_factory=dict)
    """Fields of `Config` by dotted name, such as `epochs` or `losses.feature`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """The cache to train on, as far as a configuration needs to know it."""

    dataset: str
    fingerprint: str
    rows: str
    training_clips: int
    classes: int


def resolve(request: Request, subject: Subject) -> Config:
    """Return the configuration of a run.

    Raises:
        ConfigError: an unknown name or a value that cannot work; the text lists what is valid.
    """
    if request.modality not in MODALITIES:
        raise ConfigError(
            f"unknown modality {request.modality!r}; choose one of {', '.join(MODALITIES)}"
        )
    kind = method_class(request.method)
    values: dict[str, Any] = {"selection": kind.selection}
    for layer in (*_protocol(request, subject), *_recipe_layers(request, subject.dataset)):
        _merge(values, layer)
    values["losses"] = {**kind.terms, **values.get("losses", {})}
    known_terms = set(kind.terms)
    _check_names(request.settings)
    _merge(values, _nested(request.settings))
    values["losses"] = _checked_terms(values["losses"], known_terms, request.method)
    return _build(values, request, subject)


def _build(values: dict[str, Any], request: Request, subject: Subject) -> Config:
    method, head = values.pop("method", {}), values.pop("head", {})
    name = _head_name(request, head)
    options = head_options(name, {k: v for k, v in head.items() if k != "name"})
    hyper = make_method(request.method, method)
    fixed = {
        "dataset": subject.dataset,
        "fingerprint": subject.fingerprint,
        "rows": subject.rows,
        "recipe": request.recipe,
        "seed": request.seed,
        "modality": request.modality,
        "method": {"name": request.method, **asdict(hyper)},  # type: ignore[call-overload]
        "head": {"name": name, **asdict(options)},
    }
    clash = sorted(set(values) & set(fixed))
    if clash:
        raise ConfigError(f"{clash[0]} is not set with --set: it has an option of its own")
    return build_options(Config, {**values, **fixed}, "the configuration")


def _head_name(request: Request, settings: Mapping[str, Any]) -> str:
    """A modality of its own is a head of its own: the guided head needs both."""
    name = request.head or settings.get("name", "guided")
    if request.modality == "av":
        return str(name)
    if not method_class(request.method).terms:
        raise ConfigError(
            f"method {request.method!r} trains no head and takes the mean tokens of both "
            f"modalities: leave --modality {request.modality} out"
        )
    if request.head not in (None, request.modality):
        raise ConfigError(
            f"modality {request.modality!r} trains the head {request.modality!r}, "
            f"not {request.head!r}: leave one of them out"
        )
    return request.modality


def _protocol(request: Request, subject: Subject) -> list[dict[str, Any]]:
    """Return what a benchmark fixes for all and for the method; elsewhere, a usual choice."""
    known = _read_toml("benchmarks.toml").get(subject.dataset)
    if known is None:
        return [{"tasks": min(5, subject.classes), "memory": subject.training_clips // 20}]
    methods = known.pop("methods", {})
    return [known, methods.get(request.method, {})]


def _recipe_layers(request: Request, dataset: str) -> list[dict[str, Any]]:
    if request.recipe not in RECIPES:
        raise ConfigError(f"unknown recipe {request.recipe!r}; choose one of {', '.join(RECIPES)}")
    recipe = _read_toml(f"{request.recipe}.toml")
    own = recipe.get("datasets", {}).get(dataset, {})
    return [
        recipe["defaults"],
        {key: value for key, value in own.items() if key != "methods"},
        recipe.get("methods", {}).get(request.method, {}),
        own.get("methods", {}).get(request.method, {}),
    ]


def _read_toml(name: str) -> dict[str, Any]:
    return tomllib.loads((resources.files("avcil.incremental.recipes") / name).read_text("utf-8"))


def _nested(settings: Mapping[str, object]) -> dict[str, Any]:
    """Turn {"losses.kd": 1} into {"losses": {"kd": 1}}."""
    result: dict[str, Any] = {}
    for name, value in settings.items():
        *outer, last = name.split(".")
        place = result
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = value
    return result


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, Mapping):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


def _check_names(settings: Mapping[str, object]) -> None:
    """Refuse names that are a group where a setting is meant, or the other way round."""
    for name in settings:
        group, *rest = name.split(".")
        if group in GROUPS and len(rest) != 1:
            raise ConfigError(
                f"{name!r} is no setting: {group} is a group, such as {GROUPS[group]}; "
                "--show-config prints every name"
            )
        if group not in GROUPS and rest:
            raise ConfigError(f"{name!r} is no setting: --show-config prints every name")


def _checked_terms(losses: Mapping[str, object], known: set[str], method: str) -> dict[str, float]:
    """Return the weights as floats, so that 0 and 0.0 name the same run."""
    for term, weight in losses.items():
        if term not in known:
            raise ConfigError(
                f"method {method!r} has no loss term {term!r}; "
                f"its terms are {', '.join(sorted(known)) or 'none: it is in closed form'}"
            )
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ConfigError(f"losses.{term} takes a number, not {weight!r}")
    return {term: float(str(weight)) for term, weight in losses.items()}


def _without_name(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != "name"}
