"""A trained network as its run folder keeps it, ready to classify clips.

Shapes: N clips, C classes learned, Tv and Ta tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avcil.cache.schema import Clips, Encoding, Storage, Tokens
from avcil.incremental.config.config import Config
from avcil.incremental.data.clips import TokenSet
from avcil.incremental.data.tasks import Task
from avcil.incremental.errors import ConfigError, NoModel
from avcil.incremental.heads.network import Network
from avcil.incremental.runs.folder import RunFolder
from avcil.incremental.runs.results import Run
from avcil.incremental.train.networks import load_network, new_network
from avcil.incremental.train.precision import compute_deterministically, suitable_threads
from avcil.incremental.train.rules import Rule, restore_rule
from avcil.runtime.progress import log


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trained:
    """A network after its last finished task."""

    config: Config
    network: Network
    rule: Rule
    encoding: Encoding
    """Of the tokens that it takes."""
    storage: Storage
    """How the tokens were rounded on which it was trained."""
    classes: tuple[str, ...]
    """The classes learned, in learning order."""
    device: torch.device

    def pad(self, clips: Sequence[Tokens]) -> Clips:
        """Return tokens padded with zeros to the nominal length.

        Raises:
            ConfigError: tokens of another shape than those of the run.
        """
        encoding = self.encoding
        shapes = {
            "visual": (encoding.visual_tokens, encoding.visual_width),
            "audio": (encoding.audio_tokens, encoding.audio_width),
        }
        arrays, lengths = {}, {}
        for name, (most, width) in shapes.items():
            arrays[name] = np.zeros((len(clips), most, width), np.float16)
            lengths[name] = np.array([len(getattr(clip, name)) for clip in clips], np.int64)
            for place, clip in enumerate(clips):
                tokens = getattr(clip, name)
                if tokens.ndim != 2 or tokens.shape[1] != width or not 1 <= len(tokens) <= most:
                    raise ConfigError(
                        f"{name} tokens of clip {place} have the shape {list(tokens.shape)}; the "
                        f"run takes [1 to {most}, {width}]"
                    )
                arrays[name][place, : len(tokens)] = tokens
        labels = np.zeros(len(clips), np.int64)
        return Clips(arrays["visual"], arrays["audio"], lengths["visual"], lengths["audio"], labels)

    @torch.no_grad()
    def scores(self, clips: Clips) -> Tensor:
        """Return the scores of the classes for each clip, [N, C] on the CPU, in float64."""
        tokens = TokenSet.of(clips, self.encoding, self.device)
        with suitable_threads(self.config, self.encoding):
            scores = [self.rule(self.network, batch) for batch in tokens.batches()]
        return torch.cat(scores).double().cpu()

    @torch.no_grad()
    def attention(self, clips: Clips) -> list[Tensor] | None:
        """Return the weight of each audio token for each visual token of each clip.

        Returns:
            [t, s] for a clip of t visual and s audio tokens; rows add up to one. None if audio does
            not guide video in the head.
        """
        tokens = TokenSet.of(clips, self.encoding, self.device)
        weights = self.network.attention_weights(next(tokens.batches(len(tokens))))
        if weights is None:
            return None
        lengths = zip(clips.visual_lengths, clips.audio_lengths, strict=True)
        return [each[:t, :s].float().cpu() for each, (t, s) in zip(weights, lengths, strict=True)]


def load_trained(run: Run, device: torch.device) -> Trained:
    """Return the network of a run after its last finished task.

    Raises:
        NoModel: no task is finished, or the run does not keep what prediction needs.
        RunDamaged: the weights cannot be read.
    """
    results, folder = run.results, RunFolder(run.folder)
    done = len(results.correct)
    if not done:
        raise NoModel(f"{run.folder} has finished no task: run its `avcil train` command again")
    if results.encoding is None or results.storage is None:
        raise NoModel(
            f"{run.folder} was written by a version of avcil that did not keep the encoder's "
            "settings: delete the folder and run its `avcil train` command again"
        )
    if not results.complete:
        log(f"{run.folder} is unfinished: only the classes of {done} tasks are predicted")
    compute_deterministically()
    config = Config.of_stored(run.config)
    began: Any = results.versions.get("precision", config.precision)
    config = replace(config, precision=began)
    method = config.make_method()
    network = new_network(config, method, results.encoding, device)
    load_network(network, folder, _task(results.tasks[:done]))
    fitted = {} if config.rule == "logits" else folder.rule(done - 1, device)
    return Trained(
        config=config,
        network=network.eval(),
        rule=restore_rule(config.rule, method, fitted),
        encoding=results.encoding,
        storage=results.storage,
        classes=tuple(name for task in results.tasks[:done] for name in task),
        device=device,
    )


def _task(classes: list[list[str]]) -> Task:
    """Return the last of some tasks, of which the class names are given."""
    spans, start = [], 0
    for names in classes:
        spans.append(range(start, start + len(names)))
        start += len(names)
    return Task(len(spans) - 1, spans[-1], tuple(spans[:-1]))
