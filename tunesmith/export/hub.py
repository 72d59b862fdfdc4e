"""Uploads a model's folder to Hugging Face.  Knows the hub's client; knows nothing of what is uploaded."""

from pathlib import Path

from tunesmith import log
from tunesmith.log import RunError


def upload(folder: Path, name: str, token: str | None) -> None:
    """Make `name` hold the files of `folder`, in one commit; a new one is as visible as the account makes new models.

    Raises RunError with the hub's reason; the folder stays."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

    hub = HfApi(token=token)
    try:
        place = hub.create_repo(name, exist_ok=True)
        hub.upload_folder(repo_id=place.repo_id, folder_path=folder, commit_message="Upload the model")
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled, OSError) as failure:
        reason = " ".join(str(failure).split())[:300]
        raise RunError(f"export_hub_model_id: {folder} is whole, but {name} was not uploaded: {reason}") from failure
    log.say(f"uploaded to {place}")
