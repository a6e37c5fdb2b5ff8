"""Chorales as rolls: what is written is what is read, in one key, window by window."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from music21 import corpus, interval, key, meter, note, stream

from sdegen.data import bach, notes, rolls
from sdegen.data import chorales as loaded
from sdegen.data.bach import VOICES, sounding, voice_rows, windows_of
from tests.cases import refused, refused_with

LOWEST = torch.tensor([low for low, _ in VOICES.values()])[None, :, None]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_rolls_are_read_back() -> None:
    y = LOWEST + torch.randint(28, (5, 4, 64), generator=torch.Generator().manual_seed(0))
    x = rolls(y)
    assert x.shape == (5, 117, 64) and set(x.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(notes(x), y) and bool(((x > 0).sum(1) == 4).all())
    assert torch.equal(notes(x + 0.99 * (2 * torch.rand(x.shape) - 1)), y)
    tops = torch.tensor([high - 1 for _, high in VOICES.values()])[None, :, None]
    assert torch.equal(notes(rolls(tops)), tops)  # the last row of each


def test_a_voice_has_its_rows() -> None:
    y = LOWEST.expand(1, 4, 3).clone()
    other = y.clone()
    other[:, 1] += 5
    changed = (rolls(y) != rolls(other)).any(2)[0].nonzero().flatten()
    rows = range(117)[voice_rows("alto")]
    assert len(rows) == 28 and set(changed.tolist()) == {rows[0], rows[5]}
    assert [k for name in VOICES for k in range(117)[voice_rows(name)]] == list(range(117))


def test_what_sounds() -> None:
    line = [note.Note(60, quarterLength=1), note.Rest(quarterLength=0.5)]
    line += [note.Note(62, quarterLength=0.25)]
    part = stream.Part()
    for each in line:
        part.append(each)
    assert sounding(part.flatten().notes, 0).tolist() == [60] * 6 + [62]
    assert sounding(part.flatten().notes, 5).tolist() == [60, 62]


def score(sharps: int, beat: str = "4/4", voices: int = 4) -> stream.Score:
    """Six bars in which each voice holds its note of a chord of the key's tonic, a bar long."""
    tonic = (7 * sharps) % 12
    found = stream.Score()
    for low in [72, 64, 55, 48][:voices]:
        part = stream.Part()
        for k in range(6):
            bar = stream.Measure(number=k + 1)
            if k == 0:
                bar.append(key.KeySignature(sharps))
                bar.append(meter.TimeSignature(beat))
            pitch = low + (tonic if tonic < 6 else tonic - 12) + k % 2
            bar.append(note.Note(pitch, quarterLength=4))
            part.append(bar)
        found.append(part)
    return found


@pytest.mark.parametrize("sharps", [-5, -3, -1, 0, 1, 4, 6])
def test_pieces_are_moved_to_one_key(sharps: int) -> None:
    """By six semitones at most, all voices alike; a window begins at every bar."""
    first, second, third = windows_of(score(sharps))
    assert first[:, 0].tolist() == [72, 64, 55, 48] and first[:, 16].tolist() == [73, 65, 56, 49]
    assert torch.equal(second, first + torch.where(first == first[:, :1], 1, -1))
    assert torch.equal(third, first)


def test_other_pieces_have_no_windows() -> None:
    assert not list(windows_of(score(0, "3/4"))) and not list(windows_of(score(0, voices=3)))


def test_real_ones_are_as_music21_moves_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside music21's own transposition; and the split is by piece."""
    names = ("bwv10.7", "bwv103.6")  # of two flats and of two sharps
    files = [corpus.getWork(f"bach/{name}") for name in names]
    monkeypatch.setattr(bach, "pieces", lambda: files)
    data = loaded("all")
    assert data.shape == (117, 64) and len(data) > 8 and data.levels == 2
    first = windows_of(corpus.parse(files[0]).transpose(interval.Interval(2)))
    wanted = torch.stack(list(first))
    assert torch.equal(notes(data.x)[: len(wanted)], wanted)
    assert len(loaded("train")) == len(data)  # there are fewer than ten pieces
    monkeypatch.setattr(bach, "pieces", lambda: 1 / 0)
    assert len(loaded("all")) == len(data)  # and they are kept


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with refused("Unknown split 'novel'"):
        loaded("novel")
    with refused("whole numbers, but some of these lie between"):
        rolls(LOWEST + 0.5)
    with refused("Unknown voice"):
        voice_rows("descant")
    with refused_with("(n, 4, k), but these are (2, 3, 5)"):
        rolls(torch.zeros(2, 3, 5))
    with refused("The tenor has pitches from 43 to 70"):
        rolls(LOWEST - torch.tensor([0, 0, 1, 0])[None, :, None])
    with refused(r"Rolls are \(n, 117, k\)"):
        notes(torch.zeros(1, 4, 64))
    monkeypatch.setitem(sys.modules, "music21", None)
    with refused(r"sdegen\[music\]"):
        loaded()
