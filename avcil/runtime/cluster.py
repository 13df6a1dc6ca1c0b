"""Connect to a Ray cluster."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from avcil.errors import AvcilError

Engine = Literal["local", "ray"]
"""Where processes run: on this machine, or on a Ray cluster."""


class NoCluster(AvcilError, ConnectionError):
    """Ray is not installed, or its cluster does not respond."""


@contextmanager
def joined() -> Iterator[None]:
    """Connect to the Ray cluster of this machine or of RAY_ADDRESS, or start one here.

    A cluster that was started here is shut down at the end of the context.

    Raises:
        NoCluster: Ray is not installed, or no cluster responds at RAY_ADDRESS.
    """
    try:
        import ray
    except ImportError as error:
        raise NoCluster("--engine ray needs the extra `ray`: pip install 'avcil[ray]'") from error
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": True, "logging_level": "warning"}
    address = os.environ.get("RAY_ADDRESS", "")
    try:
        _check_address(address)
        ray.init(address="auto", **quiet)
    except OSError as error:
        if address:
            raise NoCluster(
                f"no Ray cluster answers at RAY_ADDRESS={address}: start it, or unset RAY_ADDRESS "
                "to use this machine alone"
            ) from error
        ray.init(include_dashboard=False, **quiet)
    try:
        yield
    finally:
        ray.shutdown()


def settings_from_environment() -> dict[str, str]:
    """Return the settings of this program that workers on other machines must have, too.

    They look for plug-ins where this process does: in its folder and along its PYTHONPATH.
    """
    settings = {name: value for name, value in os.environ.items() if name.startswith("AVCIL_")}
    folders = [os.environ.get(name, "") for name in ("AVCIL_PLUGIN_PATH", "PYTHONPATH")]
    return settings | {
        "AVCIL_PLUGIN_PATH": os.pathsep.join([str(Path.cwd()), *filter(None, folders)])
    }


def _check_address(address: str) -> None:
    """Raise OSError if HOST:PORT does not respond; Ray itself would retry for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.rpartition("/")[2], int(port)), timeout=10).close()
