"""An encoder and a decoder with one interface, so that a model of the data is written once.

Every call takes what is to be coded, or None when decoding, and returns it: whoever describes the
data walks through it in one order for both. Numbers are coded by the range coder of constriction
under probabilities that are whole numbers of a power of two, or counts; it turns them into its
24-bit intervals by single IEEE operations, which are the same everywhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradprune.compression.logistic import PROBABILITY_BITS, Bits, Integers
from gradprune.errors import FileFormatError
from gradprune.state.headroom import require

__all__ = ["Coder", "Decoder", "Encoder"]

_UNIFORM_BITS = 16  # coded at once
_UNPAID = 1 << 14  # bits whose costs are added up at once
_ROOM = 24  # bytes a symbol that constriction may take on the way
_SLACK = 1e-3  # of costs, since constriction rounds probabilities
_FREE = 64  # bits that zeros, which are not written, may stand for at the end


def _constriction() -> Any:
    try:
        import constriction
    except ImportError as error:
        raise ImportError(
            'packed models need constriction: pip install "gradprune[compress]"'
        ) from error
    return constriction.stream


class Coder(ABC):
    """What Encoder and Decoder share.

    Attributes:
        costs: bits spent so far on each named part, by the probabilities of what was coded.
    """

    def __init__(self) -> None:
        self._stream = _constriction()
        self._bernoulli = self._stream.model.Bernoulli(perfect=False)
        self.costs: dict[str, float] = {}
        self._part = ""
        self._unpaid: list[tuple[Integers, Bits]] = []
        self._entries = 0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What is coded within is accounted to this part of the file."""
        self._settle()
        outer, self._part = self._part, name
        try:
            yield
            self._settle()
        finally:
            self._part = outer

    def _owe(self, ones: Integers, coded: Bits) -> None:
        """Account bits, when there are enough of them."""
        self._unpaid.append((ones, coded))
        self._entries += ones.size
        if self._entries > _UNPAID:
            self._settle()

    def _settle(self) -> None:
        """Pay for bits."""
        if self._unpaid:
            ones, coded = (np.concatenate(each) for each in zip(*self._unpaid, strict=True))
            self._unpaid.clear()
            self._entries = 0
            chosen = np.where(coded, ones, (1 << PROBABILITY_BITS) - ones)
            self._pay(PROBABILITY_BITS * chosen.size - float(np.log2(chosen).sum()))

    def _pay(self, bits: float) -> None:
        self.costs[self._part] = self.costs.get(self._part, 0.0) + bits

    @property
    def total(self) -> float:
        """Bits spent so far."""
        self._settle()
        return sum(self.costs.values())

    @abstractmethod
    def _code(self, symbols: NDArray[np.int32] | None, model: Any, *parameters: Any) -> Any:
        """Code symbols; parameters are an array for each of them or the number of them."""

    def bits(self, ones: Integers, bits: Bits | None) -> Bits:
        """Bits (n,), each with a probability of ones / 2**22 of being 1."""
        if ones.size == 0:
            return np.zeros(0, np.bool_)
        p = ones / 2.0**PROBABILITY_BITS
        given = None if bits is None else bits.astype(np.int32)
        coded: Bits = self._code(given, self._bernoulli, p) != 0
        self._owe(ones, coded)
        return coded

    def symbols(self, counts: Integers, symbols: Integers | None, size: int) -> Integers:
        """Symbols (size,) below len(counts), with probabilities in proportion to counts >= 1."""
        if size == 0 or len(counts) == 1:
            return np.zeros(size, np.int64)
        p = counts.astype(np.float64)
        require(_ROOM * len(p))
        model = self._stream.model.Categorical(p, perfect=False)
        given = None if symbols is None else symbols.astype(np.int32)
        coded: Integers = np.asarray(self._code(given, model, size), np.int64)
        self._pay(-float(np.log2(p[coded] / p.sum()).sum()))
        return coded

    def adaptive(self, alphabet: int, symbols: Integers | None, size: int) -> Integers:
        """Symbols (size,) below ``alphabet``, by the counts of those before them.

        Counts are taken anew after every eighth of what was coded, and begin at 1/2 each or, of
        large alphabets, at less (Krichevsky and Trofimov 1981).
        """
        weight = max(2, alphabet // 8)  # of a symbol that was seen, against one that was not
        counts = np.ones(alphabet, np.int64)
        out = np.zeros(size, np.int64)
        start = 0
        while start < size:
            stop = min(size, start + max(4, start // 8))
            given = None if symbols is None else symbols[start:stop]
            out[start:stop] = self.symbols(counts, given, stop - start)
            counts += weight * np.bincount(out[start:stop], minlength=alphabet)
            start = stop
        return out

    def uniform(self, width: int, numbers: Integers | None, size: int) -> Integers:
        """Numbers (size,) of so many bits, all alike."""
        out = np.zeros(size, np.int64)
        for low in range(0, width, _UNIFORM_BITS) if size else ():
            bits = min(_UNIFORM_BITS, width - low)
            model = self._stream.model.Uniform(1 << bits)
            given = None
            if numbers is not None:
                given = ((numbers >> low) & ((1 << bits) - 1)).astype(np.int32)
            out |= np.asarray(self._code(given, model, size), np.int64) << low
            self._pay(float(bits * size))
        return out

    def number(self, number: int | None) -> int:
        """A whole number from 0 to 2**48 - 2, small ones in few bits (Elias's gamma code)."""
        length = None if number is None else np.array([(number + 1).bit_length() - 1])
        length = self.symbols(_LENGTHS, length, 1)
        first = 1 << int(length[0])
        rest = None if number is None else np.array([number + 1 - first])
        return int(self.uniform(int(length[0]), rest, 1)[0]) + first - 1

    def flag(self, flag: bool | None) -> bool:
        """Yes or no."""
        return bool(self.uniform(1, None if flag is None else np.array([flag], np.int64), 1)[0])

    def weights(self, size: int, weights: Integers | None) -> Integers:
        """Weights (size,) of a logistic regression: which are not 0, and a byte for each."""
        used = self.uniform(1, None if weights is None else (weights != 0) * 1, size) == 1
        out = np.zeros(size, np.int64)
        given = None if weights is None else weights[used] + 128
        out[used] = self.uniform(8, given, int(used.sum())) - 128
        return out


_LENGTHS = np.array([max(1, 2 ** (14 - length)) for length in range(48)])


class Encoder(Coder):
    """Writes; ``data`` is what was written so far."""

    def __init__(self) -> None:
        super().__init__()
        self._encoder = self._stream.queue.RangeEncoder()

    def _code(self, symbols: NDArray[np.int32] | None, model: Any, *parameters: Any) -> Any:
        assert symbols is not None
        require(_ROOM * len(symbols) + 12 * self._encoder.num_words())
        if isinstance(parameters[0], int):
            self._encoder.encode(symbols, model)
        else:
            self._encoder.encode(symbols, model, *parameters)
        return symbols

    @property
    def data(self) -> bytes:
        """The bytes, without zeros at the end: a decoder puts them back.

        But as many as a decoder asks for: what is coded by zeros alone may be long.
        """
        require(12 * self._encoder.num_words())
        words: bytes = self._encoder.get_compressed().astype(">u4").tobytes()
        least = ceil((self.total - _FREE) / (8 * (1 + _SLACK)))
        return words[: max(len(words.rstrip(b"\0")), least)]


class Decoder(Coder):
    """Reads what an Encoder has written; a FileFormatError if something else turns out."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        padded = data + bytes(-len(data) % 4)
        words = np.frombuffer(padded, ">u4").astype(np.uint32)
        require(3 * words.nbytes)
        self._decoder = self._stream.queue.RangeDecoder(words)
        self._most = 8.0 * len(data) * (1 + _SLACK) + _FREE
        self._spent = 0.0

    def _code(self, symbols: NDArray[np.int32] | None, model: Any, *parameters: Any) -> Any:
        assert symbols is None
        size = parameters[0]
        require(_ROOM * (size if isinstance(size, int) else len(size)))
        try:
            return self._decoder.decode(model, *parameters)
        except AssertionError as error:
            raise FileFormatError("damaged: no model gives these bits") from error

    def run(self, ones: Integers) -> int:
        """How many bits are 1 before the first 0, which is read, too, or before all have been.

        They are read in pieces that become twice as long, as long as all are 1; of a piece with a 0
        the part up to it is read again. So a long run takes few calls.

        Args:
            ones: (n,) probability / 2**22 of each to be 1, if those before it are.
        """
        found, size = 0, 1
        while found < len(ones):
            piece = ones[found : found + size]
            p = piece / 2.0**PROBABILITY_BITS
            again = self._decoder.clone() if len(piece) > 1 else None
            try:
                bits = self._code(None, self._bernoulli, p) != 0
            except FileFormatError:  # perhaps behind the first 0, where anything may stand
                if again is None:
                    raise
                self._decoder, size = again, 1
                continue
            run = len(bits) if bits.all() else int(bits.argmin())
            if run + 1 < len(bits):
                assert again is not None
                self._decoder = again
                bits = self._code(None, self._bernoulli, p[: run + 1]) != 0
            self._owe(piece[: len(bits)], bits)
            found += run
            if run < len(bits):
                break
            size *= 2
        return found

    def _pay(self, bits: float) -> None:
        super()._pay(bits)
        self._spent += bits
        if self._spent > self._most:
            raise FileFormatError("truncated: more is described than there are bytes")

    def finish(self) -> None:
        """Everything must have been read."""
        if not self._decoder.maybe_exhausted():
            raise FileFormatError("damaged: bytes are left over at the end")
