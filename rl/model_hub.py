"""Whether a model can be had from the hub, before anything is started."""

from __future__ import annotations


def hub_problem(name: str) -> str | None:
    """Why the model's config cannot be had from the hub or its cache; None where it can. Downloads no weights."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        hf_hub_download(name, "config.json", etag_timeout=10)
    except HFValidationError as error:
        return f"it is not a hub name: {_first_line(error)}"
    except LocalEntryNotFoundError:  # also an OSError, and the only one of these that means no answer
        return "the hub does not answer, and its cache here does not hold the model"
    except (HfHubHTTPError, OSError) as error:
        return f"the hub does not give a model of that name: {_first_line(error)}"
    return None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
