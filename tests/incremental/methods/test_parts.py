"""AV-CIL's head, layer importance and nearest means, each against a second computation."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from avcil.cache.schema import Encoding
from avcil.incremental.data.clips import TokenSet
from avcil.incremental.data.placement import DeviceTokens, Placement
from avcil.incremental.heads.avcil import AVCILHead, AVCILOptions
from avcil.incremental.heads.base import Batch
from avcil.incremental.heads.classifiers import (
    LinearClassifier,
)
from avcil.incremental.heads.layers import padding_mask
from avcil.incremental.heads.network import Network, head_options
from avcil.incremental.methods.afc import AFCLargestLogit
from avcil.incremental.methods.importance import layer_importance
from avcil.incremental.methods.losses import neighbourhood_loss
from avcil.incremental.train.evaluate import predict
from avcil.incremental.train.rules import class_means, discriminant, nearest_mean
from avcil.incremental.train.teacher import Teacher

ENCODING = Encoding(
    encoder="test",
    fingerprint="0",
    visual_tokens=6,
    visual_width=5,
    audio_tokens=3,
    audio_width=4,
    tokens_per_frame=2,
    visual_rate_hz=1.5,
    audio_rate_hz=1.5,
    seconds=2.0,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def doubles(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_avcil_head_follows_the_published_attention() -> None:
    head = AVCILHead(AVCILOptions(width=8), ENCODING).double().eval()
    visual, audio = doubles(1, 6, 5), doubles(1, 3, 4)
    found = head(Batch(visual, audio, None, None, torch.zeros(1), 1), 0)
    a, v = audio[0].mean(0), visual[0].reshape(3, 2, 5)
    ahat, vhat = head.audio_query(a).tanh(), head.visual_query(v).tanh()
    pooled, scores, spatial = torch.zeros(3, 5).double(), torch.zeros(3, 5).double(), []
    for j in range(3):
        weights = (vhat[j] * ahat).exp() / (vhat[j] * ahat).exp().sum(0)
        spatial.append(weights)
        pooled[j] = (weights * v[j]).sum(0)
        scores[j] = (weights * vhat[j]).sum(0) * ahat
    temporal = scores.exp() / scores.exp().sum(0)
    p = (temporal * pooled).sum(0)
    expected = head.audio_projection(a).relu() + head.visual_projection(p).relu()
    torch.testing.assert_close(found.features[0], expected)
    torch.testing.assert_close(found.attention["spatial"][0].exp(), torch.stack(spatial))
    torch.testing.assert_close(found.attention["temporal"][0].exp(), temporal)


def test_avcil_attention_of_padding_is_the_same_whatever_the_padding_holds() -> None:
    head = AVCILHead(AVCILOptions(width=8), ENCODING).eval()
    visual, audio = torch.randn(2, 6, 5), torch.randn(2, 3, 4)
    mask = padding_mask(torch.tensor([4, 0]), 6)
    other = visual.masked_fill(~mask[:, :, None], 5.0)
    first, second = (
        head(Batch(tokens, audio, mask, None, torch.zeros(2), 2), 0) for tokens in (visual, other)
    )
    torch.testing.assert_close(first.features[0], second.features[0])
    for name in ("spatial", "temporal"):
        torch.testing.assert_close(first.attention[name], second.attention[name])
        assert first.attention[name].isfinite().all()


def network(head: str, **options: object) -> Network:
    settings = {"width": 16, **options}
    made = Network(head, head_options(head, settings), ENCODING, LinearClassifier)
    made.classifier.grow(3)
    return made.eval()


def clips(count: int = 4) -> Batch:
    labels = torch.arange(count) % 3
    return Batch(torch.randn(count, 6, 5), torch.randn(count, 3, 4), None, None, labels, count)


def test_the_layers_of_avcils_head_are_the_pooled_video_and_the_two_streams() -> None:
    """f = f_a + f_v: audio and video have the same gradient, and U_v passes it on to the pool."""
    net, batch = network("avcil"), clips()
    pooled, audio, visual = net.encode(batch).layers
    assert isinstance(net.head, AVCILHead)
    torch.testing.assert_close(net.head.visual_projection(pooled).relu(), visual)
    shares = layer_importance(net, iter([batch]), neighbourhood_loss)
    features = (audio + visual).detach().requires_grad_()
    loss = len(batch.labels) * neighbourhood_loss(net.classifier(features), batch.labels)
    (slope,) = torch.autograd.grad(loss, features)
    before = (slope * (visual > 0)) @ net.head.visual_projection.weight
    norms = torch.stack([before.norm(dim=1).sum(), *2 * [slope.norm(dim=1).sum()]])
    torch.testing.assert_close(shares, norms / norms.sum())
    assert (shares - 1 / 3).abs().max() > 0.05


@pytest.mark.parametrize("size", [3, 2, 1])
def test_importance_is_the_share_of_the_norms_of_each_clips_gradient(size: int) -> None:
    """By differences: a layer's tokens all move alike, and norms are added clip by clip."""
    net, batch = network("guided", input_norm="none"), clips(3)
    # The second layer matters the less, the larger its input: each clip has its own shares.
    batch = replace(batch, visual=torch.tensor([0.3, 3.0, 30.0])[:, None, None] * batch.visual)
    with torch.no_grad():
        for weight in net.head.get_submodule("self.0").parameters():
            weight.mul_(2.0)
    parts = [
        replace(
            batch,
            visual=batch.visual[start : start + size],
            audio=batch.audio[start : start + size],
            labels=batch.labels[start : start + size],
        )
        for start in range(0, 3, size)
    ]
    shares = layer_importance(net, iter(parts), neighbourhood_loss)
    slopes = torch.stack([differences(net, name, batch) for name in ("cross.0", "pool")])
    each = slopes.norm(dim=2).sum(1)  # of [layers, clips, width]
    torch.testing.assert_close(shares, each / each.sum(), atol=1e-3, rtol=0)
    together = slopes.flatten(1).norm(dim=1)
    mean = slopes.sum(1).norm(dim=1)
    for wrong in (together, mean):
        assert (wrong / wrong.sum() - shares).abs().max() > 5e-3


def differences(net: Network, layer: str, batch: Batch) -> Tensor:
    """Slopes of each clip's loss as all tokens of a layer, or their mean, move along each axis."""
    step, columns = 1e-2, []
    for axis in torch.eye(16):
        ends = []
        for shift in (step * axis, -step * axis):
            handle = net.head.get_submodule(layer).register_forward_hook(
                lambda _module, _args, found, shift=shift: (
                    (found[0] + shift, found[1]) if layer == "pool" else found + shift
                )
            )
            with torch.no_grad():
                logits = net(batch).logits
            handle.remove()
            ends.append(
                torch.stack(
                    [
                        neighbourhood_loss(logits[i : i + 1], batch.labels[i : i + 1])
                        for i in range(len(logits))
                    ]
                )
            )
        columns.append((ends[0] - ends[1]) / (2 * step))
    return torch.stack(columns, dim=1)


def test_nearest_mean_goes_by_direction() -> None:
    net, batch = network("mean"), clips(8)
    lengths = torch.full((8,), 6), torch.full((8,), 3)
    source = DeviceTokens(batch.visual, batch.audio)
    tokens = TokenSet(source, *lengths, batch.labels, (False, False))
    means = class_means(net, tokens)
    answers = predict(net, tokens, nearest_mean(means))
    features = torch.cat([net.encode(each).features for each in tokens.batches(3)]).detach()
    unit = features / features.norm(dim=1, keepdim=True)
    for clip, answer in enumerate(answers.tolist()):
        gaps = []
        for c in range(3):
            mean = unit[batch.labels == c].mean(0)
            gaps.append(float((unit[clip] - mean / mean.norm()).norm()))
        assert answer == int(np.argmin(gaps))


def test_the_discriminant_is_the_most_likely_class_under_the_shrunk_covariance() -> None:
    """Each term by a loop over clips; fewer clips than channels."""
    features, labels = doubles(9, 12), torch.arange(9) % 3
    means = torch.stack([features[labels == c].mean(0) for c in range(3)])
    apart = [x - means[y] for x, y in zip(features, labels, strict=True)]
    covariance = sum((torch.outer(d, d) for d in apart), torch.zeros(12, 12).double()) / 9
    scale = covariance.diagonal().mean()
    target = scale * torch.eye(12).double()
    distance = (covariance - target).square().sum()
    error = sum(float((torch.outer(d, d) - covariance).square().sum()) for d in apart) / 9**2
    share = min(1.0, error / float(distance))
    assert 0.05 < share < 0.95
    shrunk = (1 - share) * covariance + share * target
    density = [torch.distributions.MultivariateNormal(mean, shrunk) for mean in means]
    points = doubles(20, 12)
    expected = torch.stack([each.log_prob(points) for each in density], dim=1).softmax(1)
    weight, bias = discriminant(features, labels, 3)
    torch.testing.assert_close((points @ weight + bias).softmax(1), expected)


def test_the_discriminant_of_equal_clips_is_the_nearest_mean() -> None:
    centres = doubles(3, 4)
    weight, bias = discriminant(centres.repeat(2, 1), torch.arange(6) % 3, 3)
    assert (centres @ weight + bias).argmax(1).tolist() == [0, 1, 2]


def test_each_clip_weighs_the_layers_by_its_own_gradient() -> None:
    """In the old network, stored once or computed at each step."""
    net, batch = network("avcil"), clips(5)
    shown = [
        replace(
            batch,
            visual=batch.visual[i : i + 1],
            audio=batch.audio[i : i + 1],
            labels=batch.labels[i : i + 1],
        )
        for i in range(5)
    ]
    alone = [layer_importance(net, iter([each]), neighbourhood_loss) for each in shown]
    method = AFCLargestLogit()
    source = DeviceTokens(batch.visual, batch.audio)
    lengths = torch.full((5,), 6), torch.full((5,), 3)
    tokens = TokenSet(source, *lengths, batch.labels, (False, False))
    for stored in (True, False):
        teacher = Teacher(copy.deepcopy(net), method.reads(), method.importance)
        if stored:
            teacher.precompute(tokens, 5, Placement(torch.device("cpu"), keep_teacher=True))
        index = torch.tensor([3, 0, 4])
        chosen = next(tokens.batches(chosen=index))
        found = teacher.outputs(index, chosen).notes["importance"]
        torch.testing.assert_close(found, torch.stack([alone[i] for i in (3, 0, 4)]))
        assert not any(weight.requires_grad for weight in teacher.network.parameters())
