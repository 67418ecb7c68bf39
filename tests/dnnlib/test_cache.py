"""The one rule for where the cache is."""

import pytest

from dnnlib.cache import cache_folder, users_cache


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("INFOSTYLEGAN_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return tmp_path


def test_it_is_in_the_users_cache_unless_a_variable_moves_it(home, monkeypatch):
    assert cache_folder() == home / ".cache" / "infostylegan"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "xdg"))
    assert cache_folder() == home / "xdg" / "infostylegan"
    monkeypatch.setenv("INFOSTYLEGAN_CACHE", "~/own")
    assert cache_folder() == home / "own"
    assert users_cache() == home / "xdg" / "infostylegan"


def test_one_that_exists_in_the_home_folder_stays_in_use(home, monkeypatch):
    (home / ".cache" / "infostylegan").mkdir(parents=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "xdg"))
    assert cache_folder() == home / ".cache" / "infostylegan"
