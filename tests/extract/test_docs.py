"""docs/extraction.md: the messages that it explains exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "extraction.md").read_text(encoding="utf-8")
SOURCE = "".join(
    re.sub(r'"\s*(?:rf|f|r)?"', "", path.read_text(encoding="utf-8"))
    for folder in ("extract", "cache", "avcil/commands", "avcil/runtime")
    for path in sorted((ROOT / folder).rglob("*.py"))
)


def rows() -> list[str]:
    """Return the messages in the first column of the tables under "Troubleshooting"."""
    section = TEXT.split("\n## Troubleshooting\n")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("message", rows())
def test_every_message_that_the_page_explains_exists(message: str) -> None:
    parts = re.split(r"\.\.\.|'[^']*'|\d+|SIGSEGV|vision_encoder\.name", message)
    for part in filter(None, (part.strip(" :()") for part in parts)):
        assert part in SOURCE, part
