"""SAM-Audio's frozen encoders: PE-Core's vision tower and the DAC-VAE audio encoder.

A release is a folder with `config.json` and `checkpoint.pt` (or safetensors). Only the tensors of
the two encoders are read; they are kept as `encoders.safetensors`, so that the next run does not
need the checkpoint of many gigabytes.

Source: facebook/sam-audio-{small,base,large}; the tensors' names are those of the release.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from avcil.extract.encoders.base import Encoder
from avcil.extract.encoders.towers import AudioTower, TowerEncoder, Towers, VisionTower
from avcil.extract.encoders.weights import keep_release, read_tensors, what_is
from avcil.extract.errors import EncoderError

VISION = "vision_encoder.model.visual."
AUDIO = "audio_codec.encoder."
PROJECTION = "audio_codec.quantizer.in_proj."
PREFIXES = (VISION, AUDIO, PROJECTION)

# Names of the perception models -> names of timm, whose defaults have the right head and pooling.
VISION_MODELS = {
    "PE-Core-L14-336": "vit_pe_core_large_patch14_336",
    "PE-Core-B16-224": "vit_pe_core_base_patch16_224",
    "PE-Core-S16-384": "vit_pe_core_small_patch16_384",
    "PE-Core-T16-384": "vit_pe_core_tiny_patch16_384",
}

SETTINGS: dict[tuple[str, str], object] = {
    ("vision_encoder", "normalize_feature"): True,
    ("vision_encoder", "interpolation_mode"): "BICUBIC",
    ("audio_codec", "mean"): 0.0,
    ("audio_codec", "std"): 1.0,
}

# Inside one block of the codec's encoder: three residual units, a snake and a strided convolution.
_UNIT_PARTS = ("snake1", "conv1", "snake2", "conv2")


def load(release: Path, device: torch.device, kept: Path | None = None) -> Encoder:
    """Load the encoders of a release, and keep their weights for the next run.

    Args:
        release: a folder with config.json and the weights; or a file of weights with config.json in
            the same folder.
        device: where to run them.
        kept: folder for the weights of the encoders; None keeps them in the release itself. If
            `release` is a file, nothing is kept.

    Raises:
        EncoderError: a file is missing, the configuration is not understood, or tensors are
            missing, unexpected or of the wrong shape.
    """
    config = read_config(release if release.is_dir() else release.parent)
    tensors = read_tensors(release, PREFIXES)
    vision = vision_tower(config["vision_encoder"]["name"], below(tensors, VISION))
    _check_sizes(config["vision_encoder"], vision)
    audio = audio_tower(config["audio_codec"], tensors)
    if release.is_dir():
        keep_release(release, kept or release, tensors)
    rate = int(config["audio_codec"]["sample_rate"])
    return TowerEncoder(Towers(name="sam-audio", sample_rate=rate), vision, audio, device)


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json and check that it describes both encoders."""
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_bytes())  # in UTF-8 or UTF-16, as marked
    except FileNotFoundError as error:
        raise EncoderError(
            f"{folder} has no config.json: give the folder of a SAM-Audio release"
        ) from error
    except ValueError as error:
        raise EncoderError(f"{path} is not valid JSON: {what_is(path) or error}") from error
    if not isinstance(config, dict):
        raise EncoderError(f"{path} holds a {type(config).__name__} instead of named settings")
    for name, fields in {
        "vision_encoder": ("name", "image_size", "dim"),
        "audio_codec": (
            "encoder_dim",
            "encoder_rates",
            "latent_dim",
            "codebook_dim",
            "sample_rate",
        ),
    }.items():
        part = config.get(name)
        missing = [field for field in fields if not isinstance(part, dict) or field not in part]
        if missing:
            raise EncoderError(f"{path} has no {name}.{', '.join(missing)}")
    _check_settings(path, config)
    return config


def _check_settings(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse settings that would change tokens and that no release has had so far."""
    for (part, name), known in SETTINGS.items():
        found = config[part].get(name, known)
        if found != known:
            raise EncoderError(
                f"{path} says {part}.{name} = {found!r}; this version encodes with {known!r} only"
            )


def vision_tower(name: str, tensors: Mapping[str, Tensor]) -> VisionTower:
    """Build the vision tower of a name in VISION_MODELS, with these weights."""
    import timm
    from timm.models.eva import checkpoint_filter_fn

    if name not in VISION_MODELS:
        raise EncoderError(f"unknown vision encoder {name!r}; known are {', '.join(VISION_MODELS)}")
    with WithoutInitialWeights():
        model: Any = timm.create_model(VISION_MODELS[name])
    # timm's filter silently keeps unknown tensors; the strict load reports them.
    load_strictly(model, checkpoint_filter_fn(dict(tensors), model), "vision encoder")
    return VisionTower(model, model.patch_embed.img_size[0], model.num_classes)


def _check_sizes(config: Mapping[str, Any], tower: VisionTower) -> None:
    if (config["image_size"], config["dim"]) != (tower.size, tower.width):
        raise EncoderError(
            f"{config['name']} takes {tower.size} pixels and gives {tower.width} numbers; the "
            f"configuration says {config['image_size']} and {config['dim']}"
        )


def audio_tower(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> AudioTower:
    """Build the audio tower that the configuration describes, with these weights."""
    from transformers import DacConfig
    from transformers.models.dac.modeling_dac import DacEncoder

    strides = [int(stride) for stride in config["encoder_rates"]]
    dac = DacConfig(
        encoder_hidden_size=config["encoder_dim"],
        downsampling_ratios=strides,
    )
    dac.hidden_size = config["latent_dim"]
    with WithoutInitialWeights():
        encoder = DacEncoder(dac)
    folded = fold_weight_norm(below(tensors, AUDIO))
    renamed = {codec_name(name, len(strides)): tensor for name, tensor in folded.items()}
    load_strictly(encoder, renamed, "audio encoder")
    return AudioTower(encoder, _projection(config, tensors), math.prod(strides))


def _projection(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Conv1d:
    """Return the projection to the bottleneck's mean, the first half of its outputs."""
    width = config["codebook_dim"]
    projection = nn.Conv1d(config["latent_dim"], width, 1)
    folded = fold_weight_norm(below(tensors, PROJECTION))
    halves = {name: tensor[: len(tensor) // 2] for name, tensor in folded.items()}
    load_strictly(projection, halves, "audio bottleneck")
    return projection


def codec_name(name: str, strides: int) -> str:
    """Translate a tensor's name from the codec's encoder to transformers' DacEncoder."""
    match = re.fullmatch(r"block\.(\d+)\.(.+)", name)
    if match is None:
        return name
    block, rest = int(match[1]), match[2]
    if block == 0:
        return f"conv1.{rest}"
    if block == strides + 1:
        return f"snake1.{rest}"
    if block == strides + 2:
        return f"conv2.{rest}"
    return f"block.{block - 1}.{_part_name(rest)}"


def _part_name(name: str) -> str:
    """Translate a name within one block: residual units 0 to 2, snake 3, convolution 4."""
    unit = re.fullmatch(r"block\.([0-2])\.block\.([0-3])\.(.+)", name)
    if unit is not None:
        return f"res_unit{int(unit[1]) + 1}.{_UNIT_PARTS[int(unit[2])]}.{unit[3]}"
    return name.replace("block.3.", "snake1.", 1).replace("block.4.", "conv1.", 1)


def fold_weight_norm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace every pair of length and direction by the resulting weight.

    Source: Salimans and Kingma, Weight Normalization, NeurIPS 2016, equation 2.
    """
    spelled = {_plain_spelling(name): tensor for name, tensor in tensors.items()}
    folded = {}
    for name, tensor in spelled.items():
        if name.endswith("weight_v"):
            length = spelled.get(name.removesuffix("v") + "g")
            if length is None:
                raise EncoderError(f"tensor {name} has no partner weight_g")
            norm = torch._weight_norm(tensor, length, 0)
            folded[name.removesuffix("_v")] = norm
        elif not name.endswith("weight_g"):
            folded[name] = tensor
    return folded


def _plain_spelling(name: str) -> str:
    """Return the older name of a weight-norm tensor, whichever PyTorch version saved it."""
    return name.replace("parametrizations.weight.original0", "weight_g").replace(
        "parametrizations.weight.original1", "weight_v"
    )


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with a prefix, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


class WithoutInitialWeights(TorchFunctionMode):
    """Leave the weights of modules built in this context undefined, for `load_strictly` to set.

    To draw random ones was 3 of the 5 s of processor time in which PE-Core-L14-336 was built.
    """

    _DRAWS = frozenset({
        nn.init.kaiming_uniform_, nn.init.normal_, nn.init.uniform_,
        Tensor.erfinv_, Tensor.normal_, Tensor.uniform_,
    })  # fmt: skip

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in self._DRAWS:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Load tensors into a module of the same names and shapes.

    Raises:
        EncoderError: tensors are missing, unexpected or of the wrong shape.
    """
    own = module.state_dict()
    faults = [f"missing {name}" for name in own.keys() - tensors.keys()]
    faults += [f"unexpected {name}" for name in tensors.keys() - own.keys()]
    faults += [
        f"{name} is {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own.keys() & tensors.keys()
        if own[name].shape != tensors[name].shape
    ]
    if faults:
        shown = "; ".join(sorted(faults)[:5])
        raise EncoderError(
            f"the weights of the {what} do not fit, {len(faults)} tensors: {shown}"
            f"{' ...' if len(faults) > 5 else ''}"
        )
    module.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
