"""Facts about what command lines say of errors."""

import errno
import os

import pytest

from dnnlib.cli import told
from dnnlib.errors import UserError
from dnnlib.files import DiskFull


def test_an_error_of_the_system_is_told_by_its_file_and_without_its_number(tmp_path):
    with pytest.raises(OSError, match="No such file") as missing:
        (tmp_path / "nothing").read_bytes()
    assert told(missing.value) == f"{tmp_path / 'nothing'}: no such file or directory"


def test_a_file_in_the_place_of_a_folder_has_a_remedy(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError) as taken:
        (tmp_path / "file").mkdir()
    assert told(taken.value) == f"{tmp_path / 'file'}: file exists; choose another place"
    with pytest.raises(NotADirectoryError) as under:
        (tmp_path / "file" / "folder").mkdir()
    assert told(under.value).endswith("not a directory; choose another place")


@pytest.mark.parametrize(
    "error",
    [UserError("words"), OSError("words"), OSError(errno.EIO, "words"), DiskFull("a.pt", 1, 0)],
    ids=repr,
)
def test_errors_with_words_of_their_own_keep_them(error):
    assert told(error) == str(error)


def test_a_name_that_is_no_text_is_told(tmp_path):
    error = OSError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsencode(tmp_path))
    assert str(tmp_path) in told(error)
