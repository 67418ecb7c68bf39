"""Generators on the Hugging Face hub (extra `hub`): the exported folder there and back. docs/export.md.

What comes from the hub is read as any other exported folder: safetensors and JSON; nothing in it is executed.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from infostylegan.export.errors import ExportError, SnapshotError
from infostylegan.export.folders import new_folder
from infostylegan.export.snapshot import load_snapshot
from infostylegan.export.tensors import CARD, CONFIG, WEIGHTS, save_folder
from infostylegan.networks import Generator

try:
    from huggingface_hub import ModelHubMixin, snapshot_download
except ImportError:
    raise ExportError("the hub needs huggingface_hub, which is not installed: pip install '.[hub]'") from None


class HubGenerator(ModelHubMixin, library_name="infostylegan", tags=["gan", "infostylegan"]):
    """A snapshot's content with `from_pretrained`, `save_pretrained` and `push_to_hub`."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = dict(content)

    @property
    def generator(self) -> Generator:
        generator: Generator = self.content["G_ema"]
        return generator

    def _save_pretrained(self, save_directory: Path) -> None:
        save_folder(save_directory, self.content)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> HubGenerator:
        known = ("revision", "cache_dir", "force_download", "local_files_only", "token")
        options = {key: value for key, value in options.items() if key in known}
        if Path(model_id).is_dir():
            return cls(load_snapshot(model_id))
        return cls(
            load_snapshot(snapshot_download(model_id, allow_patterns=[WEIGHTS, CONFIG, CARD], **options))
        )


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """What the hub or the network answered as one line."""
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError

    try:
        yield
    except (OSError, HFValidationError) as error:  # its HTTP errors are OSErrors, as are refused connections
        text = " ".join(str(error).split())
        if isinstance(error, LocalTokenNotFoundError) or "401" in text or "403" in text:
            text += " (is your token set? `hf auth login`, or HF_TOKEN)"
        raise ExportError(f"{what}: {text[:400]}") from error
    except Exception as error:
        # Its HTTP client is not ours to import; the errors of that have no common base of the hub's.
        if not type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3")):
            raise
        raise ExportError(f"{what}: no connection to the hub ({error})") from error


def upload(content: Mapping[str, Any], repo: str, *, private: bool = True, message: str = "Generator") -> str:
    """Upload the exported folder of a snapshot's content; the address of the commit. Raises ExportError."""
    with _explained(f"upload to {repo}"):
        return str(HubGenerator(content).push_to_hub(repo, private=private, commit_message=message))


def download(repo: str, folder: Path, revision: str | None = None) -> dict[str, Any]:
    """Download a generator into `folder`, which appears once it is whole and was read; its content.

    Raises ExportError where the hub does not give it and SnapshotError where it holds no generator of ours.
    """
    with new_folder(folder, marks=[WEIGHTS]) as made:
        with _explained(f"download of {repo}"):
            snapshot_download(repo, revision=revision, local_dir=made, allow_patterns=[WEIGHTS, CONFIG, CARD])
        shutil.rmtree(made / ".cache", ignore_errors=True)
        try:
            content = load_snapshot(made)
        except SnapshotError as error:
            raise SnapshotError(str(error).replace(str(made), repo)) from error
    return content
