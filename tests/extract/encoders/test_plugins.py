"""Encoders of other packages are loaded as our own."""

from pathlib import Path

import pytest
import torch

from avcil.extract.encoders import check_encoder, load_encoder
from avcil.extract.errors import EncoderError

CPU = torch.device("cpu")
MODULE = """
from avcil.extract.encoders import tiny

load = tiny.load

def forgets(device):
    tiny.load(device)
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_encoders.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)


def test_an_encoder_of_a_module_is_loaded() -> None:
    check_encoder("their_encoders:load")
    encoding = load_encoder("their_encoders:load", CPU).encoding(seconds=2, visual_rate_hz=8)
    assert encoding.encoder == "tiny"


def test_what_gives_no_encoder_is_refused_by_name() -> None:
    with pytest.raises(EncoderError, match=r"'their_encoders:forgets' .* gives None, not an avcil"):
        load_encoder("their_encoders:forgets", CPU)
    with pytest.raises(EncoderError, match=r"'their_encoders:none' .* cannot be imported"):
        load_encoder("their_encoders:none", CPU)
