"""Bach's chorales, as they come with music21: four voices, bar by bar, in one key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sdegen.checks import one_of, whole
from sdegen.data.arrays import ArrayData
from sdegen.data.cache import cached

VOICES = {"soprano": (57, 85), "alto": (50, 78), "tenor": (43, 71), "bass": (33, 66)}
"""Of each the lowest pitch and the one above the highest, in MIDI's numbers: 60 is middle C."""
STEPS = 64
"""Sixteenths of a window: four bars."""
PARTS = {"train": (0, 9), "test": (9, 10), "all": (0, 10)}


def chorales(split: str = "train") -> ArrayData:
    """Four bars each of Bach's chorales in 4/4: what sounds in each sixteenth, as a roll (n, 117,
    64) of -1 and, for the one pitch of each voice, 1; see ``notes``.

    They are moved by their key signature to that of C major or A minor, by six semitones at most;
    a window begins at every bar. A rest goes on with the note before it, and of notes that are
    struck again nothing is seen. split: "train", "test" (every tenth piece) or "all".

    The files are read once, which takes minutes, and kept in the user's cache folder. Raises
    ValueError for another split, and where there is no music21: ``pip install 'sdegen[music]'``.
    """
    low, high = one_of(split, "split", PARTS)
    try:
        from music21 import __version__
    except ImportError:
        raise ValueError(
            "Bach's chorales are in music21's package: pip install 'sdegen[music]'."
        ) from None
    about = {"music21": __version__, "voices": VOICES, "steps": STEPS}
    found = cached("chorales", about, windows_of_all)
    tenth = found["piece"] % 10
    return ArrayData(rolls(found["notes"][(low <= tenth) & (tenth < high)]), levels=2)


def rolls(pitches: Tensor) -> Tensor:
    """Pitches (n, 4, k) as rolls (n, 117, k) of -1 and 1.

    Raises ValueError for other shapes, and a pitch that its voice has not.
    """
    if pitches.ndim != 3 or pitches.shape[1] != len(VOICES):
        raise ValueError(f"Pitches are (n, 4, k), but these are {tuple(pitches.shape)}.")
    found = []
    if not bool((pitches == pitches.round()).all()):
        raise ValueError("Pitches are MIDI's whole numbers, but some of these lie between.")
    for voice, (name, (low, high)) in zip(pitches.unbind(1), VOICES.items(), strict=True):
        if voice.numel() and not low <= int(voice.min()) <= int(voice.max()) < high:
            raise ValueError(f"The {name} has pitches from {low} to {high - 1}, not all of these.")
        found.append(voice[:, None] == torch.arange(low, high)[:, None])
    return 2 * torch.cat(found, 1).float() - 1


def notes(x: Tensor) -> Tensor:
    """Of rolls (n, 117, k) the pitches (n, 4, k): of each voice's rows the largest."""
    sizes = [high - low for low, high in VOICES.values()]
    if x.ndim != 3 or x.shape[1] != sum(sizes):
        raise ValueError(f"Rolls are (n, {sum(sizes)}, k), but these are {tuple(x.shape)}.")
    lows = (low for low, _ in VOICES.values())
    parts = zip(lows, x.split(sizes, 1), strict=True)
    return torch.stack([low + part.argmax(1) for low, part in parts], 1)


def voice_rows(voice: str) -> slice:
    """The rows of a roll that are a voice's."""
    low, high = one_of(voice, "voice", VOICES)
    names = list(VOICES)
    first = sum(VOICES[each][1] - VOICES[each][0] for each in names[: names.index(voice)])
    return slice(first, first + high - low)


def windows_of_all() -> dict[str, Tensor]:
    """Windows (n, 4, 64) of all pieces, and which piece each is of, (n,)."""
    from music21 import corpus

    found, piece = list[Tensor](), list[int]()
    for k, path in enumerate(pieces()):
        windows = list(windows_of(corpus.parse(path)))
        found += windows
        piece += [k] * len(windows)
    return {"notes": torch.stack(found).to(torch.uint8), "piece": torch.tensor(piece)}


def pieces() -> list[Any]:
    """The files of Bach's pieces in music21's corpus."""
    from music21 import corpus

    return sorted(corpus.getComposer("bach"))


def windows_of(score: Any) -> Iterator[Tensor]:
    """A piece's windows (4, 64), none where it is not of four voices in 4/4, or leaves their
    compass."""
    parts = list(score.parts)
    times = {each.ratioString for each in score.recurse().getElementsByClass("TimeSignature")}
    keys = {each.sharps for each in score.recurse().getElementsByClass("KeySignature")}
    if len(parts) != len(VOICES) or times != {"4/4"} or len(keys) != 1:
        return
    by = (-7 * keys.pop() + 5) % 12 - 5  # a fifth for each sharp, by the shorter way
    bars = list(parts[0].getElementsByClass("Measure"))
    begins = next((bar.offset for bar in bars if bar.duration.quarterLength == 4), 0)
    voices = [sounding(part.flatten().notes, round(4 * begins)) for part in parts]
    long = min(map(len, voices))
    pitches = torch.stack([voice[:long] for voice in voices]) + by
    spans = torch.tensor(list(VOICES.values()))
    for first in range(0, long - STEPS + 1, 16):
        window = pitches[:, first : first + STEPS]
        if bool((window >= spans[:, :1]).all() and (window < spans[:, 1:]).all()):
            yield window


def sounding(played: Any, first: int) -> Tensor:
    """The pitch in each sixteenth from a first one on; of a chord the highest, in a rest the one
    before, and 0 before any."""
    pitches = list[int]()
    for note in played:
        at, end = (round(4 * t) for t in (note.offset, note.offset + note.quarterLength))
        pitches += [pitches[-1] if pitches else 0] * (at - len(pitches))
        pitches[at:end] = [max(pitch.midi for pitch in note.pitches)] * (end - at)
    return torch.tensor(pitches[whole("first", first, 0) :], dtype=torch.int64)
