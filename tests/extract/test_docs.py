"""docs/extraction.md: its commands are taken, and the messages that it explains exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from avcil.cli import app

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "extraction.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^(?:    )?(avcil .+)$", TEXT, re.MULTILINE)
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


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_page_are_taken(command: str) -> None:
    _, name, *arguments = shlex.split(command, comments=True)
    known = typer.main.get_command(app)
    with known.make_context("avcil", [name, *arguments]) as context:
        found = known.resolve_command(context, [name, *arguments])[1]  # type: ignore[attr-defined]
        with found.make_context(name, arguments, parent=context) as inner:
            assert inner.args == []


@pytest.mark.parametrize("message", rows())
def test_every_message_that_the_page_explains_exists(message: str) -> None:
    parts = re.split(r"\.\.\.|'[^']*'|\d+|SIGSEGV|vision_encoder\.name", message)
    for part in filter(None, (part.strip(" :()") for part in parts)):
        assert part in SOURCE, part
