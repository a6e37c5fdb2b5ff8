"""Files that are whole or absent, folders that one process has, names that fit."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sdegen.files import (
    HELD,
    LOCK,
    atomic,
    claim,
    clear_parts,
    join_tensors,
    locked,
    read_tensors,
    short,
    write_json,
    write_tensors,
)
from tests.cases import refused
from tests.processes import another_at_work


def test_no_half_written_file(tmp_path: Path) -> None:
    """Whatever goes wrong while writing, the old file stands and nothing else is left."""
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(OSError, match="No space left"), atomic(path) as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_no_space_for_a_checkpoint(tmp_path: Path) -> None:
    """A file may not grow beyond 4 KiB: the write fails as on a full disk, the old file stands."""
    path = tmp_path / "w.safetensors"
    write_tensors(path, {"a": torch.zeros(3)}, {"step": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_tensors(path, {"a": torch.zeros(10_000)}, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_tensors(path)[1] == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="cannot be written"):
        claim(tmp_path / "file" / "run")


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    with another_at_work(tmp_path) as process:
        with refused(f"{tmp_path} is in use by process 7 on elsewhere: wait"), locked(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / LOCK).exists()  # and locks nothing
        with locked(tmp_path):
            assert "process" in (tmp_path / LOCK).read_text()
    assert not HELD and not list(tmp_path.iterdir())


def test_a_locked_folder_is_locked_for_others(tmp_path: Path) -> None:
    """The other way round, until the outermost block ends; a process may lock its own again."""
    ask = f"import fcntl; fcntl.lockf(open({str(tmp_path / LOCK)!r}, 'a'), 6)"  # EX | NB

    def free() -> bool:
        return not subprocess.run([sys.executable, "-c", ask], capture_output=True).returncode

    outer, inner = locked(tmp_path), locked(tmp_path / ".." / tmp_path.name)
    with outer:
        inner.__enter__()
        assert not free()
    assert not free()
    inner.__exit__(None, None, None)
    assert free() and not HELD


def test_what_a_killed_save_left_goes_with_the_next_lock(tmp_path: Path) -> None:
    save = atomic(tmp_path / "a.json")  # whose end never comes
    save.__enter__().write_text("half")
    (left,) = tmp_path.iterdir()
    (tmp_path / ".mine").write_text("not a part")
    with locked(tmp_path):
        assert not left.exists() and (tmp_path / ".mine").exists()


def test_parts_of_others_are_left_while_they_are_young(tmp_path: Path) -> None:
    for name, age in (("young", 10), ("old", 4000)):
        path = tmp_path / f".part-{name}"
        path.write_text("half")
        os.utime(path, (time.time() - age,) * 2)
    clear_parts(tmp_path, age=3600)
    assert [path.name for path in tmp_path.iterdir()] == [".part-young"]
    clear_parts(tmp_path / "nowhere")


def test_long_names_are_cut_and_stay_different() -> None:
    for name in ("net.width=8,sde=vp", "7-eta[0, 0.5]", "x" * 120):
        assert short(name) == name
    long = [f"data.root=/a/b,{'x' * 300}{i}" for i in range(50)] + ["a/b", "a_b", "\u00fc" * 100]
    names = [short(name) for name in long]
    assert len(set(names)) == len(long) and names == [short(name) for name in long]
    assert all(len(name.encode()) <= 120 and "/" not in name for name in names)
    assert names[0].startswith("data.root=_a_b,xxx")


@pytest.mark.parametrize("place", [9, -1, -200])
def test_one_bit_of_a_file_tells(place: int, tmp_path: Path) -> None:
    """In the header, in the numbers: weights that are not those that were saved are not read."""
    path = tmp_path / "a.safetensors"
    tensors = {"w": torch.arange(60.0), "half": torch.ones(3, dtype=torch.bfloat16)}
    write_tensors(path, {**tensors, "none": torch.zeros(0, 4), "one": torch.tensor(2)}, {"a": 1})
    assert read_tensors(path)[1] == {"a": 1}
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)
    with refused("is damaged or not sdegen's"):
        read_tensors(path)


def test_a_file_without_a_sum_is_read(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "old.safetensors", {"sdegen": "{}"})
    assert torch.equal(read_tensors(tmp_path / "old.safetensors")[0]["w"], torch.ones(2))


def test_what_a_process_forks_has_no_lock(tmp_path: Path) -> None:
    with locked(tmp_path):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with locked(tmp_path):
                    pass
            except ValueError:
                status = 0
            os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
    with locked(tmp_path):
        pass


def test_files_are_joined_as_what_is_written_whole(tmp_path: Path) -> None:
    """End to end, of every type, with a sum of its own; what differs or is damaged is refused."""

    def part(n: int, seed: int) -> dict[str, torch.Tensor]:
        x = torch.randn(n, 3, 2, generator=torch.Generator().manual_seed(seed))
        status = torch.full((n,), seed, dtype=torch.int8)
        return {"x": x, "status": status, "y": torch.arange(n), "half": x[:, 0].bfloat16()}

    every = [part(4, 0), part(1, 1), part(3, 2)]
    paths = [tmp_path / f"{k}.safetensors" for k in range(3)]
    for path, each in zip(paths, every, strict=True):
        write_tensors(path, each, {"of": "a part"})
    joined = tmp_path / "joined.safetensors"
    join_tensors(joined, paths, {"of": "all"})
    found, about = read_tensors(joined)  # which looks at the sum
    assert about == {"of": "all"} and found.keys() == every[0].keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, torch.cat([each[name] for each in every]))
    join_tensors(joined, [joined, paths[1]], {})  # onto itself
    assert len(read_tensors(joined)[0]["x"]) == 9
    write_tensors(paths[1], {"x": torch.zeros(2, 5)}, {})
    with refused("1.safetensors has other tensors than .*0.safetensors: delete it"):
        join_tensors(joined, paths, {})
    paths[1].write_bytes(paths[0].read_bytes()[:-20])
    with refused("1.safetensors is damaged"):
        join_tensors(joined, paths, {})
    assert len(read_tensors(joined)[0]["x"]) == 9
