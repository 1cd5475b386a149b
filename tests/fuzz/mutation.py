"""Inputs made of other inputs, by chance alone: the same seed makes the same ones everywhere."""

from __future__ import annotations

import random
from collections.abc import Sequence

MAX_BYTES = 2048
# Lengths, ends of lines, signs, the ends of ranges: what parsers take for something.
_BYTES = b"\x00\x01\x02\x7d\x7e\x7f\x80\x81\x82\x88\x89\xc0\xed\xff \t\r\n\"'%&+,-./0:;=?\\{}[]*"


class Mutator:
    """Makes inputs. One thread only.

    Args:
        seed: makes it repeatable.
        seeds: inputs to begin with, at least one.
        words: pieces that mean something to the target.
    """

    def __init__(self, seed: object, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
        # A text, since the hash of other objects differs from one process to the next.
        self._chance = random.Random(str(seed))
        self._seeds = seeds
        self._words = words or [b"\0\0"]

    def make(self) -> bytes:
        """Return the next input, of at most ``MAX_BYTES`` bytes."""
        data = bytearray(self._chance.choice(self._seeds))
        for _ in range(self._chance.choice((1, 1, 2, 3, 5, 8))):
            self._change(data)
        return bytes(data[:MAX_BYTES])

    def _change(self, data: bytearray) -> None:
        chance = self._chance
        place = chance.randrange(len(data) + 1)
        stop = min(len(data), place + chance.choice((1, 1, 2, 4, 16, 64)))
        kind = chance.randrange(9)
        if kind == 0:
            data.insert(place, chance.choice(_BYTES))
        elif kind == 1 and place < len(data):
            data[place] = chance.choice(_BYTES)
        elif kind == 2 and place < len(data):
            data[place] ^= 1 << chance.randrange(8)
        elif kind == 3:
            del data[place:stop]
        elif kind == 4:
            data[place:place] = chance.choice(self._words)
        elif kind == 5:
            word = chance.choice(self._words)
            data[place : place + len(word)] = word
        elif kind == 6:
            data[place:place] = data[place:stop] * chance.choice((1, 2, 3, 50))
        elif kind == 7:
            other = chance.choice(self._seeds)
            start = chance.randrange(len(other) + 1)
            data[place:stop] = other[start : start + chance.choice((4, 32, 400))]
        else:
            data[place:stop] = chance.randbytes(stop - place)
