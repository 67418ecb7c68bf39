"""What records say of the code that made them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from infostylegan import __version__
from infostylegan.code_version import code_version, commit_of


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout of one commit, with a file and a folder."""
    if shutil.which("git") is None:
        pytest.skip("no git here")
    folder = tmp_path / "checkout"
    (folder / "package").mkdir(parents=True)
    (folder / "file").write_text("one")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=n", "-c", "user.email=e", "commit", "-q", "-m", "first")
    git(folder, "tag", "v1")  # which is not a commit's name
    return folder


def git(folder: Path, *args: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *args], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_checkout_is_named_by_its_whole_commit(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert commit_of(checkout) == commit
    assert len(commit) == 40


def test_changed_files_are_told_and_new_ones_are_not(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    (checkout / "results").write_text("a run's")
    assert commit_of.__wrapped__(checkout) == commit
    (checkout / "file").write_text("two")
    assert commit_of.__wrapped__(checkout) == f"{commit}-dirty"


def test_an_installed_package_does_not_take_the_commit_of_what_it_lies_in(checkout: Path) -> None:
    assert commit_of(checkout / "package") is None


def test_the_environment_of_a_hook_in_another_repository_changes_nothing(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    other = checkout.parent / "other"
    git(checkout, "init", "-q", str(other))
    index = checkout / ".git" / "index"
    (checkout / "file").write_text("one")  # the same, but newer than the index knows
    before = index.stat().st_mtime_ns
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert commit_of(checkout) == commit
    assert index.stat().st_mtime_ns == before


def test_without_git_there_is_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    assert commit_of(checkout) is None


def test_a_record_tells_version_and_commit() -> None:
    assert code_version().keys() == {"version", "commit"}
    assert code_version()["version"] == __version__
