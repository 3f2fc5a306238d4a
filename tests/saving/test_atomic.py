from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cascade.errors import OutputError
from cascade.saving import atomic
from cascade.saving.atomic import (
    atomic_file,
    atomic_folder,
    check_folder_can_be_written,
    check_writable_folder,
    remove_leftovers,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def replace_folder(path: Path, error: Exception | None = None) -> None:
    with atomic_folder(path, owned=["mark", "only in the old one"]) as temporary:
        (temporary / "mark").write_text("new")
        if error is not None:
            raise error


# ---- files --------------------------------------------------------------------------------------


def test_a_file_stands_under_its_name_only_when_it_is_complete(tmp_path):
    target = tmp_path / "deep" / "a.txt"
    with atomic_file(target) as temporary:
        temporary.write_text("whole")
        assert not target.exists()
        assert temporary.parent == target.parent  # so that the rename is atomic
    assert content(target.parent) == {"a.txt": "whole"}


@pytest.mark.parametrize(
    "error", [RuntimeError("x"), KeyboardInterrupt(), OSError(28, "disk full")]
)
def test_a_failing_write_keeps_the_old_file_and_leaves_no_rubbish(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")
    expected = OutputError if isinstance(error, OSError) else type(error)

    def write() -> None:
        with atomic_file(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(expected):
        write()
    assert content(tmp_path) == {"a.txt": "old"}


def test_a_file_below_a_file_is_one_clear_error(tmp_path):
    (tmp_path / "a").write_text("x")
    with pytest.raises(OutputError, match="cannot write"), atomic_file(tmp_path / "a" / "b"):
        pass


# ---- folders ------------------------------------------------------------------------------------


def test_a_folder_stands_under_its_name_only_when_it_is_complete(tmp_path):
    target = tmp_path / "deep" / "a"
    with atomic_folder(target, owned=["mark", "only in the old one"]) as temporary:
        (temporary / "mark").write_text("x")
        assert not target.exists()
    assert names(tmp_path / "deep") == ["a"]
    assert content(target) == {"mark": "x"}
    assert target.stat().st_mode & 0o777 == 0o755


def test_an_older_version_is_replaced_as_a_whole(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("mark", "only in the old one"):
        (tmp_path / "a" / name).write_text("old")
    replace_folder(tmp_path / "a")
    assert content(tmp_path / "a") == {"mark": "new"}
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    "error", [RuntimeError("x"), KeyboardInterrupt(), OSError(28, "disk full")]
)
def test_a_failing_save_keeps_the_old_folder_and_leaves_no_rubbish(tmp_path, error):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mark").write_text("old")
    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
        replace_folder(tmp_path / "a", error)
    assert content(tmp_path / "a") == {"mark": "old"}
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("failing_call", [1, 2])
def test_a_failing_rename_puts_the_old_folder_back(tmp_path, monkeypatch, failing_call):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mark").write_text("old")
    calls = []

    def rename(source, target, replace=os.replace):
        calls.append(source)
        if len(calls) == failing_call:
            raise OSError(5, "bad disk")
        replace(source, target)

    monkeypatch.setattr(atomic.os, "replace", rename)
    with pytest.raises(OutputError, match=r"cannot write .*: bad disk"):
        replace_folder(tmp_path / "a")
    assert content(tmp_path / "a") == {"mark": "old"}
    assert names(tmp_path) == ["a"]


def test_other_people_s_folders_and_files_are_never_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_text("x")
    (tmp_path / "letter").write_text("x")
    with pytest.raises(OutputError, match=r"photos holds other things, such as holiday\.jpg"):
        replace_folder(tmp_path / "photos")
    with pytest.raises(OutputError, match="letter is a file; choose another folder"):
        replace_folder(tmp_path / "letter")
    assert content(tmp_path / "photos") == {"holiday.jpg": "x"}
    assert names(tmp_path) == ["letter", "photos"]


def test_a_link_stays_and_its_folder_is_replaced_only_where_links_are_followed(tmp_path):
    (tmp_path / "far").mkdir()
    replace_folder(tmp_path / "far" / "a")
    link, inner = tmp_path / "link", tmp_path / "inner"
    for each in (link, inner):
        each.symlink_to(tmp_path / "far" / "a", target_is_directory=True)
    with atomic_folder(link, owned=["mark"], follow=True) as temporary:
        (temporary / "mark").write_text("newer")
    assert link.is_symlink()
    assert content(tmp_path / "far" / "a") == content(link) == {"mark": "newer"}
    (tmp_path / "far" / "a" / "letter").write_text("x")
    with (
        pytest.raises(OutputError, match="holds other things, such as letter"),
        atomic_folder(link, owned=["mark"], follow=True),
    ):
        pass
    (tmp_path / "far" / "a" / "letter").unlink()
    replace_folder(inner)
    assert not inner.is_symlink()
    assert content(inner) == {"mark": "new"}
    assert content(tmp_path / "far" / "a") == {"mark": "newer"}


@pytest.mark.parametrize("follow", [False, True])
def test_a_link_to_nothing_is_refused(tmp_path, follow):
    (tmp_path / "link").symlink_to(tmp_path / "no")
    with (
        pytest.raises(OutputError, match="link is a link to nothing; make the folder, or remove"),
        atomic_folder(tmp_path / "link", owned=[], follow=follow),
    ):
        pass
    assert names(tmp_path) == ["link"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "a").mkdir()
    replace_folder(tmp_path / "a")
    assert content(tmp_path / "a") == {"mark": "new"}


def test_an_error_of_safetensors_is_an_output_error(tmp_path):
    with (
        pytest.raises(OutputError, match="cannot write"),
        atomic_folder(tmp_path / "a", owned=[]) as temporary,
    ):
        save_file({"x": torch.zeros(1)}, temporary / "missing" / "a.safetensors")
    assert names(tmp_path) == []


# ---- output folders -----------------------------------------------------------------------------


def test_a_writable_folder_is_made_and_left_empty(tmp_path):
    check_writable_folder(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == []


def test_whether_a_folder_can_be_written_is_told_without_making_it(tmp_path):
    check_folder_can_be_written(tmp_path / "a" / "b")
    assert names(tmp_path) == []
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below" / "deep"):
        for check in (check_writable_folder, check_folder_can_be_written):
            with pytest.raises(OutputError, match="cannot write to folder") as error:
                check(path)
            assert str(path) in str(error.value)


def test_a_folder_without_permission_is_told(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o555)
    if os.access(tmp_path / "closed", os.W_OK):
        pytest.skip("this user may write everywhere")
    for path in (tmp_path / "closed", tmp_path / "closed" / "a" / "b"):
        with pytest.raises(OutputError, match=r"cannot write to folder .*: Permission denied"):
            check_folder_can_be_written(path)


@pytest.mark.parametrize("path", ["file", "file/below", "/proc/below"])
def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path, path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write to folder") as error:
        check_writable_folder(tmp_path / path)
    assert str(tmp_path / path) in str(error.value)
    assert "\n" not in str(error.value)


# ---- killed writers -----------------------------------------------------------------------------


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path):
    for name in (".a.png.12.tmp", "b.tmp", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / ".c.xyz.tmp").mkdir()
    (tmp_path / ".c.xyz.tmp" / "half").touch()
    remove_leftovers(tmp_path, ["a.png"])
    assert names(tmp_path) == [".c.xyz.tmp", ".hidden", "b.tmp"]
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".hidden", "b.tmp"]


@pytest.mark.parametrize("died_before_rename", [True, False])
def test_a_folder_whose_replacement_was_killed_gets_its_name_back(tmp_path, died_before_rename):
    aside = tmp_path / ".stage.xyz.old"
    (aside / "stage").mkdir(parents=True)
    (aside / "stage" / "mark").write_text("old")
    if not died_before_rename:
        (tmp_path / "stage").mkdir()
        (tmp_path / "stage" / "mark").write_text("new")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["stage"]
    assert content(tmp_path / "stage") == {"mark": "old" if died_before_rename else "new"}


# ---- long names ---------------------------------------------------------------------------------

LONG = ("n" * 251 + ".png", "ä" * 127 + "x", "n" * 201)  # of up to 255 bytes


@pytest.mark.parametrize("name", LONG)
def test_a_name_may_fill_all_255_bytes(tmp_path, name):
    with atomic_file(tmp_path / "files" / name) as temporary:
        temporary.write_text("whole")
    assert content(tmp_path / "files") == {name: "whole"}
    for text in ("first", "second"):
        with atomic_folder(tmp_path / name, owned=["mark"]) as temporary:
            (temporary / "mark").write_text(text)
    assert content(tmp_path / name) == {"mark": "second"}
    assert names(tmp_path) == sorted(["files", name])


@pytest.mark.parametrize("name", LONG)
def test_leftovers_of_long_names_are_found_and_folders_get_their_names_back(
    tmp_path, name, monkeypatch
):
    def die(*arguments, **options):
        raise SystemExit(1)

    (tmp_path / "other").mkdir()
    (tmp_path / name).mkdir()
    (tmp_path / name / "mark").write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "replace", die)
        patch.setattr(atomic.Path, "unlink", lambda path: None)
        with pytest.raises(SystemExit), atomic_file(tmp_path / "other" / name) as temporary:
            temporary.write_text("half")
    aside = tmp_path / f"{atomic._prefix(tmp_path / name)}xyz.old"
    aside.mkdir()
    (tmp_path / name).rename(aside / name)
    assert names(tmp_path / "other") != []
    remove_leftovers(tmp_path / "other", ["another name"])
    assert names(tmp_path / "other") != []
    remove_leftovers(tmp_path / "other", [name])
    remove_leftovers(tmp_path, [name])
    assert names(tmp_path / "other") == []
    assert names(tmp_path) == sorted([name, "other"])
    assert content(tmp_path / name) == {"mark": "old"}


def test_files_that_systems_put_into_every_folder_are_nobody_s_work(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / ".DS_Store").write_bytes(b"")
    with atomic_folder(folder, owned=["a"]) as temporary:
        (temporary / "a").write_text("new")
    assert [each.name for each in folder.iterdir()] == ["a"]
