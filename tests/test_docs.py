"""The commands in README, CONTRIBUTING and docs are valid."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.core
import typer.main

from avcil.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
COMMANDS = sorted(
    {
        command.replace("\\\n", "")
        for page in PAGES
        for command in re.findall(
            r"^(?:    )?(avcil (?:.*\\\n)*.*)$", page.read_text(encoding="utf-8"), re.MULTILINE
        )
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_docs_is_valid(command: str) -> None:
    name: str | None
    name, *arguments = shlex.split(command, comments=True)
    known: Any = typer.main.get_command(app)
    context = known.make_context(name, [*arguments])
    while isinstance(known, typer.core.TyperGroup):
        name, known, arguments = known.resolve_command(context, arguments)
        context = known.make_context(name, [*arguments], parent=context)
    assert context.args == []
