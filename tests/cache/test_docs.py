"""The examples in docs/cache.md run as they stand there."""

import re
from pathlib import Path

import pytest

from avcil.cache.format.layout import Header, Record
from avcil.cache.samples import write_sample
from avcil.cache.schema import Encoding

PAGE = Path(__file__).parents[2] / "docs" / "cache.md"


def test_the_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 7
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(blocks), str(PAGE), "exec"), {})
    shown = capsys.readouterr().out
    assert "Straßenmusik" in shown
    assert "no audio stream" in shown


@pytest.mark.parametrize("described", [Header, Record, Encoding])
def test_every_field_on_disk_is_described(described: type) -> None:
    text = PAGE.read_text()
    for name in described.__dataclass_fields__:  # type: ignore[attr-defined]
        assert re.search(rf"\b{name}\b", text), name


def test_every_file_on_disk_is_described(tmp_path: Path) -> None:
    text = PAGE.read_text()
    for path in write_sample(tmp_path / "c").iterdir():
        assert path.name in text, path.name
