"""Fetch releases from the Hugging Face Hub, and keep the small part that is used.

The checkpoint of many gigabytes goes to the Hub's own cache, where other programs find it too. The
part that the encoders need is kept in a small folder, which later runs load without the Hub.
"""

from __future__ import annotations

import errno
import json
from http import HTTPStatus
from pathlib import Path

from avcil.extract.encoders.weights import KEPT
from avcil.extract.errors import EncoderError
from avcil.runtime.progress import log

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def kept_folder(repo: str, root: Path) -> Path:
    """Return where the small part of a release is kept."""
    return root / repo.replace("/", "--")


def is_kept(folder: Path) -> bool:
    """Return whether an earlier run kept everything that is needed of a release."""
    return (folder / "config.json").is_file() and (folder / KEPT).is_file()


def fetch_config(repo: str) -> Path:
    """Return a folder with a model's config.json, a kilobyte that describes the model.

    Raises:
        EncoderError: it cannot be fetched.
    """
    return fetch_file(repo, "config.json").parent


def fetch_checkpoint(repo: str, kept: Path) -> Path:
    """Return a folder with the weights of a SAM-Audio release.

    Args:
        repo: owner/model.
        kept: where the small part of it will be kept, for the message.

    Raises:
        EncoderError: the release cannot be fetched.
    """
    log(f"fetching the weights of {repo}; {KEPT} will be kept in {kept} for later runs")
    try:
        return fetch_file(repo, "checkpoint.pt").parent
    except _NoSuchFile:
        return fetch_file(repo, "model.safetensors").parent


def fetch_safetensors(repo: str) -> Path:
    """Return a folder with the weights of a model in transformers' format, of one file or several.

    Raises:
        EncoderError: the model cannot be fetched.
    """
    log(f"fetching the weights of {repo}")
    try:
        return fetch_file(repo, "model.safetensors").parent
    except _NoSuchFile:
        index = fetch_file(repo, "model.safetensors.index.json")
    for name in sorted(set(json.loads(index.read_bytes())["weight_map"].values())):
        fetch_file(repo, name)
    return index.parent


class _NoSuchFile(EncoderError):
    """The model exists, but one of its files does not."""


def fetch_file(repo: str, name: str) -> Path:
    """Return the path of a model's file in the Hub's cache, and download it if it is not there.

    Raises:
        EncoderError: the file cannot be fetched; the message says why, and what to do.
    """
    from huggingface_hub import errors, hf_hub_download

    page = f"https://huggingface.co/{repo}"
    try:
        return Path(hf_hub_download(repo, name))
    except errors.GatedRepoError as error:
        raise EncoderError(_not_granted(repo, page)) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise EncoderError(
            f"no folder {repo!r} here, and no such model on the Hub that your token can access: "
            f"check the name at {page}; SAM-Audio's are facebook/sam-audio-small, -base and "
            "-large, PE-AV's facebook/pe-av-small, -base and -large"
        ) from error
    except errors.LocalEntryNotFoundError as error:  # before its parent EntryNotFoundError
        raise EncoderError(_offline(repo, name)) from error
    except errors.EntryNotFoundError as error:
        raise _NoSuchFile(
            f"{repo} has no {name}, so it is neither a SAM-Audio nor a PE-AV release: see its "
            f"files at {page}/tree/main"
        ) from error
    # HTTPError: a connection that broke; RuntimeError: the same, or a full disk, from hf_xet.
    except (OSError, errors.HTTPError, RuntimeError) as error:  # type: ignore[attr-defined]
        raise EncoderError(_interrupted(repo, name, error)) from error


def _not_granted(repo: str, page: str) -> str:
    from huggingface_hub import get_token

    if get_token() is None:
        return (
            f"access to {repo} is restricted, and no token is set: request access at {page}, "
            "then run `hf auth login` or set HF_TOKEN; to try things out without it, use "
            "--encoder tiny"
        )
    return (
        f"access to {repo} is restricted, and your token's owner has none: request access at "
        f"{page} and wait for approval (a fine-grained token also needs the permission to read "
        "gated repositories); to try things out without it, use --encoder tiny"
    )


def _offline(repo: str, name: str) -> str:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    remedy = (
        "unset HF_HUB_OFFLINE" if HF_HUB_OFFLINE else "check the connection and run again"
    ) + "; or fetch the model elsewhere and give its folder with --encoder"
    why = "HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else "https://huggingface.co does not answer"
    return f"no folder {repo!r} here, no {name} of it in the Hub's cache, and {why}: {remedy}"


def _interrupted(repo: str, name: str, error: Exception) -> str:
    full = "os error 28" in str(error) or getattr(error, "errno", None) in _NO_SPACE
    if full:
        from huggingface_hub.constants import HF_HUB_CACHE

        return (
            f"no space is left for {name} of {repo} in {HF_HUB_CACHE}: make room, or set HF_HOME "
            "to a folder on another disk; the download continues where it stopped"
        )
    if getattr(getattr(error, "response", None), "status_code", None) == HTTPStatus.UNAUTHORIZED:
        return f"the Hub refuses your token for {repo}: run `hf auth login` or set HF_TOKEN anew"
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"{name} of {repo} cannot be fetched ({reason}): run again to continue"
