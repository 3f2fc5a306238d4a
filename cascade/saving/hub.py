"""Downloads and uploads folders of the Hugging Face Hub; every failure is one clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cascade.errors import OutputError, WeightsError, first_line

PATTERNS = ["*.json", "*.safetensors", "*.md", "*.yaml", "pipeline.py"]


def download(repo_id: str, **options: Any) -> Path:
    """Download a saved pipeline into the Hub's cache.

    Args:
        repo_id: name of the repository, such as `user/name`.
        options: `revision`, `token`, `cache_dir` or `local_files_only` of `snapshot_download`.

    Returns:
        The downloaded folder.

    Raises:
        WeightsError: if it cannot be downloaded.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo_id, allow_patterns=PATTERNS, **options))
    except Exception as error:  # the Hub raises many kinds, from bad names to no network
        raise WeightsError(
            f"{repo_id!r} is neither a folder nor available on the Hub ({first_line(error)})."
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
    """Upload a folder to a repository, which is created if it does not exist.

    Args:
        folder: the folder to upload.
        repo_id: name of the repository, such as `user/name`.
        private: whether a new repository is private; default: the account's own default.
        token: access token; default: the one stored by `hf auth login`.
        commit_message: default: "Upload a cascade".
        create_pr: whether to open a pull request instead of committing.

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
            f"{repo_id!r} could not be uploaded to the Hub ({first_line(error)})."
        ) from error
    return commit.commit_url
