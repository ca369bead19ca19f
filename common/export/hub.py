"""Uploads an export to the hub, with the token of the environment."""

import os

from common import checkpoints, qlora
from common.console import InputError, say


def check(repo):
    """Raises InputError if `repo` is no name of a repository, no token is set, or the hub does not answer."""
    check_name(repo)
    if not os.environ.get("HF_TOKEN"):
        raise InputError("no token: set HF_TOKEN to one of yours that may write, from huggingface.co/settings/tokens")
    if not checkpoints.hub_answers():
        raise InputError("the hub does not answer: nothing was written or sent; --dry_run needs no hub")


def check_name(repo):
    """Raises InputError unless `repo` is owner/name."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError:
        repo = None
    if not repo or repo.count("/") != 1:
        raise InputError("--push_to_hub takes the name of a repository: owner/name")


def push(folder, repo, left_out):
    """Upload the files in `folder`. A new repository is private. left_out: name of a file that stays here. Raises
    InputError."""
    import huggingface_hub

    token = os.environ["HF_TOKEN"]
    hub = huggingface_hub.HfApi(token=token)
    try:
        hub.create_repo(repo, private=True, exist_ok=True)
        hub.upload_folder(repo_id=repo, folder_path=folder, ignore_patterns=[left_out])
    except Exception as error:  # the hub's, requests' and the file system's own types
        reason = qlora.first_line(error).replace(token, "(token)")
        raise InputError(f"cannot upload to {repo}: {reason}; {folder} is whole, the same command sends it") from None
    say(f"uploaded to https://huggingface.co/{repo}")
