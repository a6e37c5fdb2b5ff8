"""Encoders of words: numbers, a table, a transformer; what is empty, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.guidance import CFG
from sdegen.networks import UNet
from sdegen.text import (
    NO_TEXT,
    Captioned,
    Reading,
    TransformerReader,
    Words,
    WordTransformer,
    encoded,
)
from tests.cases import close, refused_with

SAID = ("a red one", "two", "", "a red two")


def network(encoder: Words | WordTransformer, seed: int = 0) -> Reading | UNet:
    """A U-Net that attends to an encoder's tokens, with no weight at zero."""
    torch.manual_seed(seed)
    told = {"token_width": encoder.width, "words": encoder.words, "length": encoder.most}
    net = UNet(1, width=8, mults=(1,), attention=(0,), heads=2, **told)
    reader = encoder.reader()
    whole = net if reader is None else Reading(net, reader)
    for weight in whole.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return whole


def test_captions_are_numbers_of_one_length() -> None:
    words = Words(8).learn(SAID)
    assert words.known == {"vocabulary": ["a", "one", "red", "two"], "length": 3}
    told = words(["two red", ""])
    assert told["tokens"].tolist() == [[4, 3, 0], [0, 0, 0]]
    assert told["mask"].tolist() == [[True, True, False], [False] * 3]
    with refused_with("The word 'blue' is not among the 4 that are known"):
        words(["a blue one"])
    with refused_with("The caption 'a a a a' has 4 words, but 3 are the most"):
        words(["a a a a"])
    with refused_with("There are no words to learn"):
        Words().learn(["", "!"])
    with refused_with("text.vocabulary is of different words"):
        Words(vocabulary=["a", "a"]).learn(SAID)
    assert Words(**{"width": 8, **words.known}) == Words(8, ["a", "one", "red", "two"], 3)


def test_each_caption_is_encoded_once() -> None:
    words, asked = Words(8).learn(SAID), list[str]()

    class Asked:
        def __call__(self, captions: list[str]) -> dict[str, torch.Tensor]:
            asked.extend(captions)
            return words(captions)

    told, which = encoded(Asked(), [*SAID, *SAID[::-1]], batch=3)  # type: ignore[arg-type]
    assert asked == list(SAID) and which.tolist() == [0, 1, 2, 3, 3, 2, 1, 0]
    assert torch.equal(told["tokens"][which], words([*SAID, *SAID[::-1]])["tokens"])
    data = sg.data.ArrayData(torch.arange(8.0)[:, None], torch.arange(8) % 2)
    x, given = Captioned(data, told, which)[5]
    assert float(x) == 5 and torch.equal(given["tokens"], told["tokens"][2])
    assert Captioned(data, told, which).plain[5][0] == 5


@pytest.mark.parametrize("encoder", [Words(8), WordTransformer(8, heads=2)])
def test_without_a_token_a_caption_is_the_learned_null(encoder: Words | WordTransformer) -> None:
    encoder = encoder.learn(SAID)
    net, told = network(encoder), encoder(SAID)
    x, t = torch.randn(4, 1, 4, 4), torch.full((4,), 0.3)
    plain, said = net(x, t), net(x, t, **told)
    close(said[2], plain[2], atol=1e-6)  # the empty caption
    assert float((said - plain).detach()[[0, 1, 3]].abs().amax((1, 2, 3)).min()) > 1e-4
    mask = torch.zeros_like(told["mask"])
    close(net(x, t, tokens=told["tokens"], mask=mask), plain, atol=1e-6)
    model = sg.ScoreModel(net, sg.VPSDE(), "eps")
    free = CFG(model.given(**told), 0, without=NO_TEXT)
    start = torch.randn(4, 1, 4, 4)
    how = {"nfe": 3, "seed": 0}
    close(sg.sample(free, start, **how), sg.sample(model, start, **how), atol=1e-5)


def test_what_stands_where_no_word_is_changes_nothing() -> None:
    encoder = WordTransformer(8, heads=2).learn(SAID)
    reader = encoder.reader().double()
    told = encoder(["two", "a red two"])
    vectors, mask = reader(told["tokens"], told["mask"])
    assert vectors.shape == (2, 4, 8) and mask.tolist() == [[True, True, False, False], [True] * 4]
    other = told["tokens"].clone()
    other[0, 1:] = 1  # behind the mask
    again, _ = reader(other, told["mask"])
    assert torch.equal(again[mask], vectors[mask])
    alone, _ = reader(told["tokens"][:1, :1], told["mask"][:1, :1])
    close(alone[0], vectors[0, :2], atol=1e-12)
    # The words of one caption see each other, and their order.
    turned, _ = reader(told["tokens"][1:].flip(1), told["mask"][1:])
    assert float((turned[0, 0] - vectors[1, 0]).detach().abs().max()) > 1e-6


def test_wrong_tokens_are_refused() -> None:
    reader = TransformerReader(8, words=3, length=2, layers=1, heads=2)
    ids, mask = torch.ones(2, 2, dtype=torch.int64), torch.ones(2, 2, dtype=torch.bool)
    with refused_with("tokens are torch.int64 of shape (2, 3), expected torch.int64 of (b, m)"):
        reader(torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.bool))
    with refused_with("tokens are torch.float32 of shape (2, 2)"):
        reader(ids.float(), mask)
    with refused_with("mask is torch.bool of shape (2, 1), expected torch.bool of (2, 2)"):
        reader(ids, mask[:, :1])
    with refused_with("mask is torch.int64 of shape (2, 2)"):
        reader(ids, ids)
    with refused_with("tokens have numbers outside 0 .. 3"):
        reader(4 * ids, mask)
    with refused_with("heads = 3 does not divide"):
        TransformerReader(8, 3, 2, 1, 3)
    net = network(WordTransformer(8, heads=2).learn(SAID))
    x, t = torch.randn(2, 1, 4, 4), torch.full((2,), 0.3)
    with refused_with("tokens and mask belong together"):
        net(x, t, tokens=ids)
    with refused_with("tokens and mask belong together"):
        net(x, t, mask=mask)


@pytest.mark.parametrize("kind", [Words, WordTransformer])
def test_a_vocabulary_is_a_list_of_texts(kind: Any) -> None:
    for words in (("a", "b"), ["a"], np.array(["a", "b"]), None):
        kind(vocabulary=words)
    for wrong in ("abc", 5, [1, 2]):
        with refused_with("Words of text.vocabulary are a list of texts"):
            kind(vocabulary=wrong)
    with refused_with("text.length must be a whole number >= 1, but it is 0"):
        kind(length=0)
