"""When the outputs of the teacher are computed changes nothing but the time it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Encoding
from avcil.incremental.config.config import Config
from avcil.incremental.data.clips import TokenSet
from avcil.incremental.data.placement import (
    DeviceTokens,
    Placement,
)
from avcil.incremental.heads.classifiers import LinearClassifier
from avcil.incremental.heads.network import Network, head_options
from avcil.incremental.methods import METHODS, make_method
from avcil.incremental.train.teacher import Teacher

CPU = torch.device("cpu")
WIDE = Encoding(
    encoder="wide",
    fingerprint="0",
    visual_tokens=10,
    visual_width=1024,
    audio_tokens=10,
    audio_width=128,
    visual_rate_hz=1.0,
    audio_rate_hz=1.0,
    seconds=10.0,
)


COMPARED = ({"feature": "pooled"}, {"feature_of": "all"}, {"feature": "cosine"})
CASES = [
    (method, {"head.name": head})
    for method in METHODS
    if make_method(method, {}).reads()
    for head in ("guided", "avcil")
] + [("guided", {f"method.{k}": v for k, v in each.items()}) for each in COMPARED]


@pytest.mark.parametrize(("method", "settings"), CASES, ids=str)
def test_stored_outputs_of_the_teacher_equal_those_computed_at_each_step(
    ragged_store: FeatureStore,
    tmp_path: Path,
    method: str,
    settings: dict[str, str],
    configure: Callable[..., Config],
    run: Callable[..., Path],
    outcome: Callable[[Path], dict[str, object]],
) -> None:
    config = configure(ragged_store, method, **settings)
    kept, computed = (
        run(ragged_store, config, tmp_path / str(keep), Placement(CPU, keep_teacher=keep))
        for keep in (True, False)
    )
    assert outcome(kept) == outcome(computed)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_the_teacher_gives_the_outputs_of_its_network_for_wide_tokens(
    autocast: torch.dtype | None,
) -> None:
    """Products of the real width, whose kernels differ from those of the toy's."""
    torch.manual_seed(0)
    options = head_options("guided", {})
    network = Network("guided", options, WIDE, LinearClassifier, autocast).eval()
    network.classifier.grow(20)
    source = DeviceTokens(torch.randn(75, 10, 1024).half(), torch.randn(75, 10, 128).half())
    tens = torch.full((75,), 10)
    clips = TokenSet(source, tens, tens, torch.zeros(75, dtype=torch.int64), (False, False))
    kept, computed = (Teacher(network, {"logits": "all", "tokens": "exemplars"}) for _ in range(2))
    kept.precompute(clips, 40, Placement(CPU, keep_teacher=True))
    for new in (32, 17):
        plan = [torch.cat([torch.randperm(40)[:new], 40 + torch.randperm(35)[:20]])]
        ((index, whole),) = clips.draw(plan)
        batch = replace(whole, current=new)
        once, each_step = kept.outputs(index, batch), computed.outputs(index, batch)
        assert torch.equal(once.logits, each_step.logits)
        assert torch.equal(once.encoded.tokens, each_step.encoded.tokens)
        assert len(once.encoded.tokens) == 20
        plain = network(batch, tokens_from=new)
        near = partial(torch.testing.assert_close, rtol=0, atol=0.1 if autocast else 1e-5)
        near(once.logits, plain.logits)
        near(once.encoded.tokens, plain.encoded.tokens)
