"""Output is whole or not there, whoever stops it."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from medseg3d.errors import ConfigError
from medseg3d.io.atomic import (
    fill_folder,
    open_atomically,
    prepare_folder,
    remove_unfinished,
    write_atomically,
)

ROOT = Path(__file__).parents[2]
SHM = Path("/dev/shm")

LIMITED = """
import resource, sys
from pathlib import Path
from medseg3d.io.atomic import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_atomically(Path(sys.argv[1]), b"x" * 10_000)
"""

ENDLESS = """
import sys
from pathlib import Path
from medseg3d.io.atomic import write_atomically
while True:
    for letter in b"ab":
        write_atomically(Path(sys.argv[1]), bytes([letter]) * 1_000_000)
        print("written", flush=True)
"""


class TestWriting:
    def test_a_file_is_written_and_replaced(self, tmp_path: Path):
        path = tmp_path / "a.bin"
        for data in (b"first", b"", b"second"):
            write_atomically(path, data)
            assert path.read_bytes() == data
        assert [*tmp_path.iterdir()] == [path]

    def test_a_file_may_be_read_by_whom_the_umask_lets(self, tmp_path: Path):
        before = os.umask(0o027)
        try:
            write_atomically(tmp_path / "a", b"")
            assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
        finally:
            os.umask(before)

    def test_a_file_written_piece_by_piece_is_there_at_the_end_only(self, tmp_path: Path):
        path = tmp_path / "a"
        with open_atomically(path) as stream:
            stream.write(b"first, ")
            assert not path.exists()
            stream.write(b"second")
        assert path.read_bytes() == b"first, second"
        assert [*tmp_path.iterdir()] == [path]

    def test_a_file_whose_writer_fails_is_as_before(self, tmp_path: Path):
        path = tmp_path / "a"
        path.write_bytes(b"old")
        with pytest.raises(KeyboardInterrupt), open_atomically(path) as stream:  # noqa: PT012
            stream.write(b"half")
            raise KeyboardInterrupt
        assert path.read_bytes() == b"old"
        assert [*tmp_path.iterdir()] == [path]

    def test_a_missing_folder_is_an_error(self, tmp_path: Path):
        with pytest.raises(ConfigError, match=r"none/a': No such file"):
            write_atomically(tmp_path / "none" / "a", b"")

    def test_where_the_name_cannot_be_taken_nothing_is_left(self, tmp_path: Path):
        (tmp_path / "a").mkdir()
        with pytest.raises(ConfigError, match=r"Is a directory\. Nothing was left behind"):
            write_atomically(tmp_path / "a", b"data")
        assert [path.name for path in tmp_path.iterdir()] == ["a"]

    @pytest.mark.skipif(not SHM.is_dir(), reason="needs a second file system")
    def test_a_file_on_another_file_system_than_the_temporary_folder_is_written(self):
        with tempfile.TemporaryDirectory(dir=SHM) as folder:
            write_atomically(Path(folder) / "a", b"data")
            assert (Path(folder) / "a").read_bytes() == b"data"

    def test_a_full_disk_leaves_the_old_file_and_nothing_else(self, tmp_path: Path):
        path = tmp_path / "a"
        path.write_bytes(b"old")
        command = [sys.executable, "-c", LIMITED, path]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "/a': File too large. Nothing was left behind" in done.stderr
        assert path.read_bytes() == b"old"
        assert [*tmp_path.iterdir()] == [path]

    def test_a_killed_writer_never_leaves_half_a_file_under_the_name(self, tmp_path: Path):
        path = tmp_path / "a"
        for _ in range(3):
            writer = subprocess.Popen(
                [sys.executable, "-c", ENDLESS, path], cwd=ROOT, stdout=subprocess.PIPE
            )
            assert writer.stdout is not None
            for _ in range(4):
                writer.stdout.readline()
            writer.kill()
            writer.wait()
            writer.stdout.close()
            assert path.read_bytes() in (b"a" * 1_000_000, b"b" * 1_000_000)


class TestFilling:
    def test_a_folder_is_there_when_it_is_full(self, tmp_path: Path):
        with fill_folder(tmp_path / "a") as folder:
            (folder / "file").write_bytes(b"data")
            assert not (tmp_path / "a").exists()
        assert (tmp_path / "a" / "file").read_bytes() == b"data"
        assert [path.name for path in tmp_path.iterdir()] == ["a"]

    def test_of_two_who_fill_one_folder_the_first_gives_it(self, tmp_path: Path):
        with fill_folder(tmp_path / "a") as late:
            (late / "file").write_bytes(b"late")
            with fill_folder(tmp_path / "a") as early:
                (early / "file").write_bytes(b"early")
        assert (tmp_path / "a" / "file").read_bytes() == b"early"
        assert [path.name for path in tmp_path.iterdir()] == ["a"]

    def test_of_a_filling_that_fails_nothing_is_left(self, tmp_path: Path):
        with pytest.raises(KeyboardInterrupt), fill_folder(tmp_path / "a") as folder:  # noqa: PT012
            (folder / "file").write_bytes(b"data")
            raise KeyboardInterrupt
        assert [*tmp_path.iterdir()] == []

    def test_a_file_in_its_place_is_an_error(self, tmp_path: Path):
        (tmp_path / "a").touch()
        with pytest.raises(ConfigError, match=r"cannot write '.*a': Not a directory"):  # noqa: SIM117
            with fill_folder(tmp_path / "a") as folder:
                (folder / "file").touch()
        assert [path.name for path in tmp_path.iterdir()] == ["a"]


class TestFolders:
    def test_a_folder_is_made_with_all_above_it(self, tmp_path: Path):
        prepare_folder(tmp_path / "a" / "b")
        prepare_folder(tmp_path / "a" / "b")
        assert [*(tmp_path / "a" / "b").iterdir()] == []

    @pytest.mark.parametrize("name", ["file", "file/below"])
    def test_a_file_in_its_place_is_told_with_a_way_out(self, tmp_path: Path, name: str):
        (tmp_path / "file").touch()
        with pytest.raises(ConfigError) as refused:
            prepare_folder(tmp_path / name)
        assert f"output folder '{tmp_path / name}' cannot be written to: " in str(refused.value)
        assert "Choose another --out." in str(refused.value)

    @pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder nobody can write")
    def test_a_folder_nobody_can_write_to_is_told_before_any_work(self):
        with pytest.raises(ConfigError, match=r"^output folder '/proc/self' cannot be written to"):
            prepare_folder(Path("/proc/self"))

    def test_results_that_are_there_are_not_overwritten(self, tmp_path: Path):
        results = [tmp_path / f"{n}.nii.gz" for n in range(6)]
        prepare_folder(tmp_path, keep=results)
        for path in results[1:]:
            path.touch()
        with pytest.raises(ConfigError) as refused:
            prepare_folder(tmp_path, keep=iter(results))
        assert "holds 1.nii.gz, 2.nii.gz, 3.nii.gz and 2 more. " in str(refused.value)
        assert "--overwrite" in str(refused.value)

    def test_only_our_own_unfinished_files_are_removed(self, tmp_path: Path):
        (tmp_path / "deep").mkdir()
        ours = tmp_path / ".model.safetensors.0123abcd.part"
        others = [tmp_path / ".firefox.iso.part", tmp_path / "a.part", tmp_path / "deep/.b.part"]
        for path in (ours, *others):
            path.touch()
        remove_unfinished(tmp_path)
        assert not ours.exists()
        assert all(path.exists() for path in others)

    def test_unfinished_folders_are_removed_with_what_is_in_them(self, tmp_path: Path):
        unfinished = tmp_path / ".p1.key.0123abcd.part"
        unfinished.mkdir()
        (unfinished / "image.npy").touch()
        remove_unfinished(tmp_path)
        assert [*tmp_path.iterdir()] == []

    def test_what_another_may_be_writing_is_spared(self, tmp_path: Path):
        new, old = (tmp_path / f".{name}.0123abcd.part" for name in ("new", "old"))
        for folder in (new, old):
            folder.mkdir()
        os.utime(old, (1, 1))
        remove_unfinished(tmp_path, older_than_s=60.0)
        assert [*tmp_path.iterdir()] == [new]
