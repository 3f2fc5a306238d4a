"""Folders to and from the Hugging Face Hub; whatever goes wrong there is one clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cascade.errors import OutputError, WeightsError

PATTERNS = ["*.json", "*.safetensors", "*.md", "*.yaml", "pipeline.py"]


def download(repo_id: str, **options: Any) -> Path:
    """Fetch a saved pipeline into the Hub's cache.

    Args:
        repo_id: such as `user/name`.
        options: `revision`, `token`, `cache_dir`, `local_files_only`.

    Raises:
        WeightsError: if it cannot be fetched.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo_id, allow_patterns=PATTERNS, **options))
    except Exception as error:  # the hub raises many kinds, from bad names to no network
        raise WeightsError(
            f"{repo_id!r} is neither a folder nor could it be fetched from the Hub "
            f"({_reason(error)})."
        ) from error


def upload(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
) -> str:
    """Put a folder's files into a repository, which is created if there is none.

    Args:
        folder: to upload.
        repo_id: such as `user/name`.
        private: whether a new repository is private; default: as the account has it.
        token: default: the one that `hf auth login` stored.
        commit_message: default: "Upload a cascade".
        create_pr: whether to open a pull request instead.

    Returns:
        The address of the commit.

    Raises:
        OutputError: if the Hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=commit_message or "Upload a cascade",
            create_pr=create_pr,
        )
    except Exception as error:
        raise OutputError(
            f"{repo_id!r} could not be uploaded to the Hub ({_reason(error)})."
        ) from error
    return commit.commit_url


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else repr(error)
