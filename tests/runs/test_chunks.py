"""Samples in chunks: what is there is not made again, and nothing is mixed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sdegen.data import from_uint8
from sdegen.files import PART, read_tensors
from sdegen.runs.chunks import PARTS, SAMPLES, Chunk, Part, Share, Shelf, among, gathered, jobs
from sdegen.runs.exports import refuse_export, save_npz, save_png
from sdegen.workers import Ended, Team, ended
from tests.cases import refused


class Killed(Exception):
    pass


class Maker:
    """Sample i is i, until a number of chunks have been made."""

    def __init__(self, most: int = 1000) -> None:
        self.most, self.asked = most, list[tuple[int, int]]()

    def __call__(self, first: int, m: int) -> Chunk:
        if len(self.asked) == self.most:
            raise Killed
        self.asked.append((first, m))
        return Chunk({"x": torch.arange(first, first + m).double()[:, None]}, 1.0)


def made(folder: Path, n: int, size: int, make: Any, **same: Any) -> Chunk:
    return gathered(Shelf(folder, {"n": n}, same), n, size, make)


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        made(tmp_path, 10, 3, Maker(2))
    assert not (tmp_path / SAMPLES).exists()
    assert len(list((tmp_path / PARTS).iterdir())) == 2
    again = Maker()
    chunk = made(tmp_path, 10, 2, again)  # in other chunks: samples 0 to 5 are there
    assert again.asked == [(6, 2), (8, 2)]
    assert chunk.tensors["x"].flatten().tolist() == list(range(10)) and chunk.seconds == 4
    assert {path.name for path in tmp_path.iterdir()} == {SAMPLES}
    more = Maker()
    assert len(made(tmp_path, 14, 10, more).tensors["x"]) == 14 and more.asked == [(10, 4)]
    fewer = Maker()
    assert len(made(tmp_path, 4, 10, fewer).tensors["x"]) == 4 and not fewer.asked
    assert len(read_tensors(tmp_path / SAMPLES)[0]["x"]) == 14  # a look at few takes none away


def test_a_chunk_that_a_killed_process_was_writing_goes(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        made(tmp_path, 10, 3, Maker(2))
    half = tmp_path / PARTS / f"{PART}000000006-x.safetensors"
    half.write_bytes(b"half")
    os.utime(half, (0, 0))
    assert made(tmp_path, 10, 3, Maker()).tensors["x"].flatten().tolist() == list(range(10))
    assert {path.name for path in tmp_path.iterdir()} == {SAMPLES}


def test_a_chunk_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Killed):
        made(tmp_path, 10, 2, Maker(3))
    looked = Counter[str]()
    look = Shelf.look_at
    monkeypatch.setattr(Shelf, "look_at", lambda s, f: looked.update([f.stem]) or look(s, f))
    made(tmp_path, 10, 2, Maker())
    assert looked == {f"{first:09}": 1 for first in range(0, 10, 2)}


def test_samples_of_other_settings_are_not_mixed_in(tmp_path: Path) -> None:
    made(tmp_path, 4, 10, Maker(), solver={"order": 2})
    for same in ({"solver": {"order": 3}}, {"solver": {"order": 2}, "eta": 1.0}):
        with refused(r"holds samples with (solver.order = 2|eta = None), where it is .* name="):
            made(tmp_path, 8, 10, Maker(), **same)
    with pytest.raises(Killed):
        made(tmp_path, 8, 2, Maker(1), solver={"order": 2})
    with refused("holds samples with solver.order = 2"):
        made(tmp_path, 8, 2, Maker(), solver={"order": 3})


def test_a_chunk_after_a_gap_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        made(tmp_path, 10, 2, Maker(3))
    (tmp_path / PARTS / f"{2:09}.safetensors").unlink()
    again = Maker()
    chunk = made(tmp_path, 10, 2, again)
    assert again.asked[0] == (2, 2)
    assert chunk.tensors["x"].flatten().tolist() == list(range(10))


@contextmanager
def elsewhere(todo: list[tuple[int, int]]) -> Iterator[Share]:
    """Among two, of which the other's chunks come to another folder."""
    yield Share(todo[::2], lambda look: look())


def test_samples_that_others_made_are_to_be_in_the_folder(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, {}, {})
    with refused("Sample 2 of 9 is not in .*: do all processes see the same folder"):
        gathered(shelf, 9, 2, Maker(), elsewhere)
    assert not (tmp_path / SAMPLES).exists()
    again = Maker()
    chunk = gathered(shelf, 9, 2, again)
    assert again.asked == [(2, 2), (6, 2)] and chunk.seconds == 5
    assert chunk.tensors["x"].flatten().tolist() == list(range(9))


@contextmanager
def with_one_that_dies(todo: list[tuple[int, int]]) -> Iterator[Share]:
    """Among two, of which the other one is killed."""

    def wait(look: Any) -> None:
        raise Ended(ended(1, -9))

    yield Share(todo[::2], wait)


def test_who_is_left_says_what_is_missing_and_how_to_go_on(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, {}, {})
    with refused(
        "Process 1 beside this one was ended by SIGKILL before its part was done. 5 of 9 samples "
        "are in .*, and the same command makes the other 4"
    ):
        gathered(shelf, 9, 2, Maker(), with_one_that_dies)
    again = Maker()
    chunk = gathered(shelf, 9, 2, again)
    assert again.asked == [(2, 2), (6, 2)]
    assert chunk.tensors["x"].flatten().tolist() == list(range(9))


def test_who_fails_again_is_not_begun_again(tmp_path: Path) -> None:
    """The same command is advised where a signal ended a worker, not where it says a reason."""

    @contextmanager
    def with_one_that_fails(todo: list[tuple[int, int]]) -> Iterator[Share]:
        said = SimpleNamespace(empty=lambda: False, get=lambda: "No room.")
        member = SimpleNamespace(is_alive=lambda: False, exitcode=1)
        yield Share(todo[::2], Team([member], said).wait)

    with refused(r"No room. 5 of 9 samples are in [^,]*\.$"):
        gathered(Shelf(tmp_path, {}, {}), 9, 2, Maker(), with_one_that_fails)
    killed = SimpleNamespace(is_alive=lambda: False, exitcode=-9)
    with pytest.raises(Ended, match="SIGKILL"):
        Team([killed], SimpleNamespace(empty=lambda: True)).wait(lambda: None)


def test_all_processes_have_as_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    told, before = list[int](), torch.get_num_threads()

    @contextmanager
    def at_work(other: Any, parts: Any, threads: int) -> Iterator[Any]:
        told.append(threads)
        yield SimpleNamespace(wait=lambda look: None)

    monkeypatch.setattr("sdegen.runs.chunks.at_work", at_work)
    torch.set_num_threads(4)
    try:
        with among(2, silent)([(0, 1), (1, 1)]):
            assert told == [torch.get_num_threads()] == [2]
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def silent(k: int, part: list[tuple[int, int]]) -> None:
    pass


def test_what_is_missing() -> None:
    def there(*pairs: tuple[int, int]) -> dict[int, Part]:
        return {a: Part(Path(), b - a, 1.0) for a, b in pairs}

    assert jobs({}, 5, 2) == [(0, 2), (2, 2), (4, 1)]
    assert jobs(there((0, 2), (4, 5), (7, 9)), 12, 2) == [(2, 2), (5, 2), (9, 2), (11, 1)]
    assert jobs(there((2, 5)), 3, 9) == [(0, 2)]
    assert jobs(there((0, 1), (6, 9)), 4, 9) == [(1, 3)]
    assert jobs(there((0, 9)), 9, 2) == jobs(there((0, 9)), 4, 2) == []


def half(shelf: Shelf, k: int, part: list[tuple[int, int]]) -> None:
    make = Maker()
    for first, m in part:
        shelf.put(first, make(first, m))


def at_fault(shelf: Shelf, k: int, part: list[tuple[int, int]]) -> None:
    raise ValueError(f"no room for {part}")


def leaving(shelf: Shelf, k: int, part: list[tuple[int, int]]) -> None:
    os._exit(7)


@pytest.mark.slow
def test_chunks_of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    shelf, mine = Shelf(tmp_path, {}, {}), Maker()
    chunk = gathered(shelf, 9, 2, mine, among(2, partial(half, shelf)))
    assert mine.asked == [(0, 2), (4, 2), (8, 1)]
    assert chunk.tensors["x"].flatten().tolist() == list(range(9)) and chunk.seconds == 5
    assert {path.name for path in tmp_path.iterdir()} == {SAMPLES}


@pytest.mark.slow
@pytest.mark.parametrize(("other", "says"), [(at_fault, "no room for "), (leaving, "code 7")])
def test_a_process_that_fails_is_heard(tmp_path: Path, other: Any, says: str) -> None:
    shelf = Shelf(tmp_path, {}, {})
    with refused(says):
        gathered(shelf, 4, 2, Maker(), among(2, partial(other, shelf)))
    assert len(gathered(shelf, 4, 2, Maker()).tensors["x"]) == 4


@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_for_other_programs(tmp_path: Path, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 4, channels), np.uint8)
    x, y = from_uint8(torch.from_numpy(pixels).permute(0, 3, 1, 2)), torch.tensor([2, 0, 1])
    save_png(x, y, range(len(x)), tmp_path)
    save_npz(x, y, range(len(x)), tmp_path)
    found = np.load(tmp_path / "samples.npz")
    assert found["arr_0"].dtype == np.uint8 and np.array_equal(found["arr_0"], pixels)
    assert found["arr_1"].tolist() == [2, 0, 1]
    for i, image in enumerate(pixels):
        read = np.asarray(Image.open(tmp_path / "png" / f"{i:08}.png"))
        assert np.array_equal(read, image[..., 0] if channels == 1 else image)
    save_npz(x, None, range(len(x)), tmp_path)
    assert np.load(tmp_path / "samples.npz").files == ["arr_0"]


def test_what_is_no_image_is_not_exported() -> None:
    for shape in ([2], [2, 8, 8], [3, 8]):
        refuse_export([], shape)
        with refused("are for images of 1 or 3 channels"):
            refuse_export(["png"], shape)
