"""Files of a run: written whole or not at all, read back with care; folders of one process."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdegen.checks import warn

PART = ".part-"
"""How the names of files begin that are being written."""

COMPILED = "_orig_mod."
"""What torch.compile puts into the names of a module's weights."""

LOCK = "lock"
"""The file in a folder that says who is at work there."""

HELD: dict[tuple[int, Path], tuple[int, int]] = {}
"""Folders that a process has locked, by its number, which what it forks has not: the open file,
and how often."""


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` that becomes it when the block ends well, else vanishes."""
    name_of_part = f"{PART}{path.stem[:100]}-"
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=name_of_part, suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """A text file, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """A JSON file, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """What a JSON file holds; ValueError, with its name, if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): delete it.") from None


def write_tensors(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Named tensors as safetensors, with JSON in its header: one file, so one moment in time.

    A sum of all bytes is in the header too, by which ``read_tensors`` knows a damaged file.
    """
    from safetensors.torch import save

    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(about)
    header = {"sdegen": text, "sum": checksum(whole, text)}
    with atomic(path) as temporary:
        # Written by Python, whose error on a full disk is an OSError like any other.
        temporary.write_bytes(save(whole, metadata=header))


def join_tensors(path: Path, parts: Sequence[Path], about: dict[str, Any]) -> None:
    """Files of ``write_tensors`` as one, the tensors of a name end to end along the first axis.

    One tensor of one part is in the memory at a time; the file is what ``write_tensors`` makes of
    the whole.  Raises ValueError where a part is missing or damaged, and where its names, types or
    other axes are not those of the first one.
    """
    kinds = [kinds_of(part) for part in parts]
    for part, kind in zip(parts, kinds, strict=True):
        if {k: v.tail for k, v in kind.items()} != {k: v.tail for k, v in kinds[0].items()}:
            raise ValueError(f"{part} has other tensors than {parts[0]}: delete it.")
    lengths = {name: sum(kind[name].n for kind in kinds) for name in kinds[0]}
    shapes = {name: (lengths[name], *each.tail[1]) for name, each in kinds[0].items()}
    # As safetensors orders them, so that every tensor is aligned: the widest types first.
    order = sorted(kinds[0], key=lambda name: (-kinds[0][name].dtype.itemsize, name))
    text, entries, end = json.dumps(about), dict[str, Any](), 0
    total = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(order):
        total.update(named(name, kinds[0][name].dtype, shapes[name]))
        for part in parts:
            total.update(bytes_in(part, name))
    for name in order:
        begin, end = end, end + math.prod(shapes[name]) * kinds[0][name].dtype.itemsize
        entry = {"dtype": kinds[0][name].tail[0], "shape": shapes[name]}
        entries[name] = {**entry, "data_offsets": (begin, end)}
    said = {"__metadata__": {"sdegen": text, "sum": total.hexdigest()}, **entries}
    header = json.dumps(said, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name in order:
            for part in parts:
                file.write(bytes_in(part, name))


class Kind(NamedTuple):
    """Of a tensor in a file: how long its first axis is, its type, and what its parts share: the
    type's name in the file and the other axes."""

    n: int
    dtype: torch.dtype
    tail: tuple[str, tuple[int, ...]]


def kinds_of(path: Path) -> dict[str, Kind]:
    """Of all tensors of a file, by name; ValueError if it is missing or damaged."""
    found = {}
    with opened(path) as file:
        for name in file.keys():  # noqa: SIM118
            some = file.get_slice(name)
            n, *rest = some.get_shape()
            found[name] = Kind(n, some[:0].dtype, (some.get_dtype(), tuple(rest)))
    return found


def bytes_in(path: Path, name: str) -> memoryview:
    """Of one tensor of a file."""
    with opened(path) as file:
        return raw(file.get_tensor(name))


def raw(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor in the host's memory."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def named(name: str, dtype: torch.dtype, shape: Sequence[int]) -> bytes:
    """What a sum has of a tensor before its bytes."""
    return f"{name} {dtype} {tuple(shape)} ".encode()


def checksum(tensors: dict[str, Tensor], text: str) -> str:
    """Of names, types, shapes and bytes of contiguous tensors in the host's memory, and a text."""
    total = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(named(name, tensor.dtype, tensor.shape))
        total.update(raw(tensor))
    return total.hexdigest()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What ``write_tensors`` wrote; ValueError if the file is missing or damaged."""
    with opened(path) as file:
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        # Files of earlier versions have no sum.
        if header.get("sum") not in (None, checksum(tensors, header["sdegen"])):
            raise ValueError("its bytes are not those that were written")
        return tensors, json.loads(header["sdegen"])


def read_header(path: Path) -> dict[str, Any]:
    """The JSON in the header of what ``write_tensors`` wrote; ValueError as of the whole."""
    with opened(path) as file:
        header: dict[str, Any] = json.loads((file.metadata() or {})["sdegen"])
        return header


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A file of tensors, open; ValueError if it is missing, or turns out to be damaged."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ValueError(
            f"There is no checkpoint {path}: train first, or name another run folder."
        )
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise ValueError(
            f"The file {path} is damaged or not sdegen's ({error}): "
            "restore a copy, or delete it to make it again."
        ) from error


def content(tensors: Mapping[str, Tensor]) -> str:
    """Names and bytes of tensors in a few letters that only these have."""
    hashed = hashlib.sha256()
    for name in sorted(tensors):
        hashed.update(name.encode())
        hashed.update(raw(tensors[name].cpu().contiguous()))
    return hashed.hexdigest()[:16]


def load_weights(module: torch.nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Weights into a module; ValueError if the names or shapes are those of another network.

    What torch.compile puts into the names of a network that it has wrapped makes no difference.
    """
    named_here = {name.replace(COMPILED, ""): name for name in module.state_dict()}
    names = {name: named_here.get(name.replace(COMPILED, ""), name) for name in tensors}
    tensors = {names[name]: value for name, value in tensors.items()}
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"The checkpoint {path} belongs to another network: {reason[:300]}"
        ) from error


def claim(folder: Path) -> None:
    """Make a run folder and make sure it can be written; ValueError if not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=PART):
            pass
    except OSError as error:
        raise ValueError(
            f"The run folder {folder} cannot be written ({error.strerror}): choose another one."
        ) from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """A folder for this process alone, which may lock it again; what a killed one left half
    written there is removed.

    The system lets go of the lock when its process ends, however it ends: a file that stays
    behind locks nothing. Processes that this one forks do not have it.

    Raises ValueError where another process has it.
    """
    place = folder.resolve()
    mine = os.getpid(), place
    if mine not in HELD:
        HELD[mine] = (hold(place / LOCK), 0)
        clear_parts(place)
    handle, times = HELD[mine]
    HELD[mine] = (handle, times + 1)
    try:
        yield
    finally:
        handle, times = HELD.pop(mine)
        if times > 1:
            HELD[mine] = (handle, times - 1)
        else:
            with contextlib.suppress(OSError):  # where open files cannot be removed
                (place / LOCK).unlink()
            os.close(handle)


def clear_parts(folder: Path, age: float = 0.0) -> None:
    """Remove what killed processes left half written in a folder; files of at least so many
    seconds alone, where others may be at work."""
    for part in folder.glob(f"{PART}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime >= age:
                part.unlink()


def hold(path: Path) -> int:
    """An open file that this process has locked; ValueError where another one has."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            lock(handle)
        except (BlockingIOError, PermissionError):
            who = os.read(handle, 200).decode(errors="replace")
            os.close(handle)
            raise ValueError(
                f"The folder {path.parent} is in use by {who or 'another process'}: wait for its "
                "end, or choose another folder."
            ) from None
        except OSError as error:
            warn(f"{path.parent} cannot be locked ({error.strerror}): let no other run use it.")
        # Between open and lock the file may have been removed by the one that had it.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(handle).st_ino:
                break
        os.close(handle)
    os.ftruncate(handle, 0)
    os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return handle


def lock(handle: int) -> None:
    """Lock an open file for this process, without waiting; OSError where another one has."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(handle, 1000, os.SEEK_SET)  # beyond the text, which others may read
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)
    else:
        import fcntl

        # Of a process, where flock's is of an open file, which loaders' workers would share.
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def short(name: str, most: int = 120) -> str:
    """A name that a file can have: itself, or its beginning and a hash of it all where it is
    longer than ``most`` bytes or has a slash."""
    plain = re.sub(r"[/\\]+", "_", name)
    if plain == name and len(name.encode()) <= most:
        return name
    begin = plain.encode()[: most - 11].decode(errors="ignore")
    return f"{begin}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"
