"""How a configuration comes about."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from avcil.benchmarks.cards import cards
from avcil.incremental.config.config import Config, settings_in
from avcil.incremental.config.recipes import find_recipe
from avcil.incremental.data.clips import Replay
from avcil.incremental.errors import ConfigError
from avcil.incremental.heads import HEADS
from avcil.incremental.heads.network import head_options
from avcil.incremental.methods import METHODS, make_method, method_class, usual_head
from avcil.incremental.methods.base import Method
from avcil.incremental.options import DEFAULT_HEAD, RENAMED_METHODS, build_options
from avcil.registry import Identity

GROUPS = {"method": "method.temperature", "head": "head.width", "losses": "losses.kd"}


MODALITIES = ("av", "audio", "visual")


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
    unit_norm: bool = False
    """Whether the tokens of a modality all have norm one."""


def resolve(request: Request, subject: Subject) -> Config:
    """Return the configuration of a run.

    Raises:
        ConfigError: an unknown name or a value that cannot work; the text lists what is valid.
    """
    if request.modality not in MODALITIES:
        raise ConfigError(
            f"unknown modality {request.modality!r}; choose one of {', '.join(MODALITIES)}"
        )
    request = replace(request, method=RENAMED_METHODS.get(request.method, request.method))
    kind, method = method_class(request.method), METHODS.identify(request.method)
    request = replace(request, method=method.name)
    values: dict[str, Any] = {"selection": kind.selection}
    for layer in (
        *_protocol(request, subject),
        *_recipe_layers(request.recipe, request, subject, kind),
    ):
        _merge(values, layer)
    values["losses"] = {**kind.terms, **values.get("losses", {})}
    known_terms = set(kind.terms)
    _check_names(request.settings)
    _merge(values, _nested(request.settings))
    _check_classify(values, kind, request.method)
    values["losses"] = _checked_terms(values["losses"], known_terms, request.method)
    return _build(values, request, subject, method)


def _check_classify(values: dict[str, Any], kind: type[Method], method: str) -> None:
    """Refuse another classifier where there are no features or clips for it."""
    chosen = values.get("classify")
    if chosen == kind.classify:
        values["classify"] = None  # the name of the run says it already
    elif chosen is not None and not kind.terms:
        raise ConfigError(f"method {method!r} is a classifier itself: leave classify out")
    elif chosen not in (None, "logits") and kind.replay is Replay.NONE:
        raise ConfigError(
            f"classify={chosen} needs clips of all classes, and method {method!r} keeps none"
        )


def _build(values: dict[str, Any], request: Request, subject: Subject, method: Identity) -> Config:
    settings = values.pop("head", {})
    hyper = make_method(method.reference, values.pop("method", {}))
    name = _head_name(request, settings, hyper)
    options = head_options(name, settings_in(settings))
    head = HEADS.identify(name)
    if getattr(hyper, "correction", "none") == "wa" and options.classifier != "linear":
        raise ConfigError(
            f"method.correction=wa needs head.classifier=linear, not {options.classifier}: "
            "the other classifiers do not depend on the norm of their weights"
        )
    fixed = {
        "dataset": subject.dataset,
        "fingerprint": subject.fingerprint,
        "rows": subject.rows,
        "recipe": Path(request.recipe).name,
        "seed": request.seed,
        "modality": request.modality,
        "method": {**_named(method), **asdict(hyper)},  # type: ignore[call-overload]
        "head": {**_named(head), **asdict(options)},
        "plugins": {"method": method.reference, "head": head.reference},
    }
    clash = sorted(set(values) & set(fixed))
    if clash:
        raise ConfigError(f"{clash[0]} is not set with --set: it has an option of its own")
    given = {**values, **fixed}
    missing = [
        each.name
        for each in fields(Config)
        if each.default is MISSING and each.default_factory is MISSING and each.name not in given
    ]
    if missing:
        raise ConfigError(
            f"recipe {request.recipe} does not set {', '.join(missing)}: set them below "
            '[defaults], or write base = "fast" at its top'
        )
    return build_options(Config, given, "the configuration")


def _named(found: Identity) -> dict[str, str]:
    return {"name": found.name, **({"source": found.source} if found.source else {})}


def _head_name(request: Request, settings: Mapping[str, Any], method: Method) -> str:
    """A modality of its own is a head of its own: the guided head needs both."""
    name = request.head or settings.get("name", DEFAULT_HEAD)
    if request.modality == "av":
        return str(name)
    if not method.terms:
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
    card = cards().get(subject.dataset)
    if card is None:
        memory = max(subject.training_clips // 20, subject.classes)
        return [{"tasks": min(5, subject.classes), "memory": memory}]
    return _for_method(card.protocol, request.method)


def _for_method(settings: Mapping[str, Any], method: str) -> list[dict[str, Any]]:
    """Return settings of all methods, then those of one, which are under `methods`."""
    common = {key: value for key, value in settings.items() if key != "methods"}
    return [common, settings.get("methods", {}).get(method, {})]


def _recipe_layers(
    name: str, request: Request, subject: Subject, kind: type[Method]
) -> list[dict[str, Any]]:
    """Return the settings of a recipe, and before them those of the recipe that it is based on."""
    recipe = find_recipe(name)
    for part in (recipe.get("defaults", {}), recipe.get("unit_norm", {})):
        _check_names(_dotted(part), f"recipe {name}: ")
    for part in recipe.get("methods", {}).values():
        _check_names(_dotted(part), f"recipe {name}: ")
    base = recipe.get("base")
    layers = _recipe_layers(base, request, subject, kind) if base else []
    card = cards().get(subject.dataset)
    own = card.recipes.get(name, {}) if card else {}
    benchmark, benchmark_and_method = _for_method(own, request.method)
    method = recipe.get("methods", {}).get(request.method, {})
    scaled = recipe.get("unit_norm", {}) if subject.unit_norm else {}
    return [
        *layers,
        recipe.get("defaults", {}),
        scaled,
        benchmark,
        {"head": usual_head(kind)},
        method,
        benchmark_and_method,
    ]


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


def _dotted(settings: Mapping[str, Any]) -> list[str]:
    """Turn {"losses": {"kd": 1}} into ["losses.kd"]."""
    return [
        name if below is None else f"{name}.{below}"
        for name, value in settings.items()
        for below in (_dotted(value) if isinstance(value, dict) else [None])
    ]


def _check_names(settings: Iterable[str], where: str = "") -> None:
    """Refuse names that are a group where a setting is meant, or the other way round."""
    for name in settings:
        group, *rest = name.split(".")
        if group in GROUPS and len(rest) != 1:
            raise ConfigError(
                f"{where}{name!r} is no setting: {group} is a group, such as {GROUPS[group]}; "
                "--show-config prints every name"
            )
        if group not in GROUPS and rest:
            raise ConfigError(f"{where}{name!r} is no setting: --show-config prints every name")


def _checked_terms(losses: Mapping[str, object], known: set[str], method: str) -> dict[str, float]:
    """Return the weights as floats, so that 0 and 0.0 name the same run."""
    for term, weight in losses.items():
        if term not in known:
            raise ConfigError(
                f"method {method!r} has no loss term {term!r}; "
                f"its terms are {', '.join(sorted(known)) or 'none: it is in closed form'}"
            )
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not math.isfinite(float(str(weight))):
            raise ConfigError(f"losses.{term} takes a number, not {weight!r}")
    return {term: float(str(weight)) for term, weight in losses.items()}
