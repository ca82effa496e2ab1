"""Check whether a JPEG file that lacks its end marker has all rows.

libjpeg fills missing rows with gray, and Pillow does not pass on its warning. So the Huffman codes
of the last scan are counted here, without decoding them. This takes about 0.3 s per MB, for the few
files that need it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

END = b"\xff\xd9"
# Larger scans are not checked.
_MOST = 24 << 20
_SOS, _DHT, _DRI, _EOI = 0xDA, 0xC4, 0xDD, 0xD9
_SEQUENTIAL, _PROGRESSIVE = frozenset({0xC0, 0xC1}), 0xC2
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# This many trailing zeros or more are space that was allocated but not written.
ZEROS = 16
_next_marker = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL).search
_split_restarts = re.compile(rb"\xff+[\xd0-\xd7]").split

# Indexed by the next 16 bits: the number of bits of a symbol and its value, and the symbol.
_Table = tuple[list[int], list[int]]
_INVALID = 1 << 20


@dataclass(slots=True)
class _Component:
    across: int
    down: int
    nonzero: list[int] = field(default_factory=list)
    """For each block, a bitmap of the coefficients that scans so far have set to non-zero."""


@dataclass(frozen=True, slots=True)
class _Scan:
    components: list[tuple[_Component, int, int]]
    """Components with the numbers of their DC and AC tables."""
    first: int
    last: int
    high: int
    low: int


class _DamagedError(Exception):
    pass


class _UnknownError(Exception):
    pass


def lacks_only_end_marker(data: bytes) -> bool | None:
    """Return whether a JPEG file is complete except for its end marker.

    Returns None if the marker is there, followed by other bytes, or if this cannot be determined.
    """
    zeros = len(data) - len(data.rstrip(b"\0"))
    if zeros >= ZEROS:
        data = data[:-zeros]
        if data.endswith(b"\xff"):  # the zero after 0xFF belongs to the data
            data += b"\0"
    data = data.removesuffix(END[:1])  # half of the marker
    try:
        return _Image(data).is_whole()
    except _UnknownError:
        return None
    except (_DamagedError, IndexError, ValueError):
        return False


class _Image:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._tables: dict[int, _Table] = {}
        self._components: dict[int, _Component] = {}
        self._missing: dict[int, set[int]] = {}
        self._size = (0, 0)
        self._interval = 0
        self._progressive = False

    def is_whole(self) -> bool:
        segments = list(self._segments())
        if segments and segments[-1][0] == _EOI:
            raise _UnknownError
        for marker, offset, end in segments:
            segment = self._data[offset:end]
            if marker == _DHT:
                self._read_tables(segment)
            elif marker == _DRI:
                self._interval = int.from_bytes(segment[:2], "big")
            elif marker in _FRAMES:
                self._read_frame(marker, segment)
            elif marker == _SOS:
                scan = self._read_scan(segment)
                begin = end
                found = _next_marker(self._data, begin)
                stop = found.start() if found else len(self._data)
                # The scans of sequential images are independent.
                if self._progressive or not found:
                    if stop - begin > _MOST:
                        raise _UnknownError
                    self._count(scan, self._data[begin:stop])
        return bool(self._missing) and not any(self._missing.values())

    def _segments(self) -> Iterator[tuple[int, int, int]]:
        """Yield marker, start and end of the data of each segment."""
        at = 2
        while found := _next_marker(self._data, at):
            marker, offset = self._data[found.end() - 1], found.end()
            if marker == _EOI:
                yield marker, offset, offset
                return
            if marker in (0x01, 0xD8):
                at = offset
                continue
            at = offset + int.from_bytes(self._data[offset : offset + 2], "big")
            if at > len(self._data):
                raise _DamagedError
            yield marker, offset + 2, at

    def _read_frame(self, marker: int, segment: bytes) -> None:
        if marker not in _SEQUENTIAL and marker != _PROGRESSIVE:
            raise _UnknownError  # arithmetic coding, lossless and the like
        self._progressive = marker == _PROGRESSIVE
        self._size = int.from_bytes(segment[3:5], "big"), int.from_bytes(segment[1:3], "big")
        for at in range(6, 6 + 3 * segment[5], 3):
            sampling = segment[at + 1]
            component = _Component(sampling >> 4, sampling & 15)
            if not component.across or not component.down:
                raise _DamagedError
            self._components[segment[at]] = component
            self._missing[segment[at]] = set(range(64))

    def _read_tables(self, segment: bytes) -> None:
        at = 0
        while at < len(segment):
            number, counts = segment[at], segment[at + 1 : at + 17]
            symbols = segment[at + 17 : at + 17 + sum(counts)]
            self._tables[number] = _table(counts, symbols)
            at += 17 + sum(counts)

    def _read_scan(self, segment: bytes) -> _Scan:
        count = segment[0]
        ids, tables = segment[1 : 1 + 2 * count : 2], segment[2 : 2 + 2 * count : 2]
        first, last, bits = segment[1 + 2 * count : 4 + 2 * count]
        if not self._progressive:
            first, last, bits = 0, 63, 0
        components = []
        for id_, numbers in zip(ids, tables, strict=True):
            component = self._components.get(id_)
            if component is None:
                raise _DamagedError
            components.append((component, numbers >> 4, 0x10 | numbers & 15))
            if not bits & 15:
                self._missing[id_].difference_update(range(first, last + 1))
        return _Scan(components, first, last, bits >> 4, bits & 15)

    def _blocks(self, scan: _Scan) -> tuple[list[tuple[_Component, int, int]], int]:
        """Return the blocks of one unit, with their tables, and the number of units."""
        most_across = max(component.across for component in self._components.values())
        most_down = max(component.down for component in self._components.values())
        width, height = self._size
        if len(scan.components) > 1:
            units = _up(width, 8 * most_across) * _up(height, 8 * most_down)
            return [
                entry for entry in scan.components for _ in range(entry[0].across * entry[0].down)
            ], units
        component = scan.components[0][0]
        across = _up(_up(width * component.across, most_across), 8)
        down = _up(_up(height * component.down, most_down), 8)
        return scan.components, across * down

    def _count(self, scan: _Scan, data: bytes) -> None:
        """Count the codes of a scan. Raises _DamagedError if the data end early."""
        blocks, units = self._blocks(scan)
        pieces = _split_restarts(data) if self._interval else [data]
        interval = self._interval or units
        if len(pieces) != _up(units, interval):
            raise _DamagedError
        begin = 0
        for index, piece in enumerate(pieces):
            end = min(units, begin + interval)
            if self._progressive:
                self._count_progressive(scan, blocks, _Bits(piece), begin, end)
            elif index == len(pieces) - 1:
                self._count_sequential(blocks, _Bits(piece), end - begin)
            begin = end

    def _count_sequential(
        self, blocks: list[tuple[_Component, int, int]], bits: "_Bits", units: int
    ) -> None:
        data, at, most = bits.data, 0, bits.count
        tables = [(self._tables_of(dc)[0], self._tables_of(ac)) for _, dc, ac in blocks]
        for _ in range(units):
            for dc, (lengths, symbols) in tables:
                byte = at >> 3
                three = data[byte] << 16 | data[byte + 1] << 8 | data[byte + 2]
                at += dc[three >> (8 - (at & 7)) & 0xFFFF]
                index = 1
                while index < 64:
                    if at > most:
                        raise _DamagedError
                    byte = at >> 3
                    three = data[byte] << 16 | data[byte + 1] << 8 | data[byte + 2]
                    code = three >> (8 - (at & 7)) & 0xFFFF
                    at += lengths[code]
                    symbol = symbols[code]
                    if symbol & 15 or symbol == 0xF0:
                        index += (symbol >> 4) + 1
                    else:
                        break
        if at > most:
            raise _DamagedError

    def _count_progressive(
        self,
        scan: _Scan,
        blocks: list[tuple[_Component, int, int]],
        bits: "_Bits",
        begin: int,
        end: int,
    ) -> None:
        if scan.first == 0:
            for _ in range(begin, end):
                for _, dc, _ in blocks:
                    if scan.high:
                        bits.skip(1)
                    else:
                        bits.symbol(self._tables_of(dc))
            return
        component, _, ac = blocks[0]
        if not component.nonzero:
            component.nonzero = [0] * self._blocks(scan)[1]
        table = self._tables_of(ac)
        run = 0
        for block in range(begin, end):
            if scan.high:
                run = _refine(scan, component.nonzero, block, bits, table, run)
            elif run:
                run -= 1
            else:
                run = _code(scan, component.nonzero, block, bits, table)

    def _tables_of(self, number: int) -> _Table:
        try:
            return self._tables[number]
        except KeyError:
            raise _DamagedError from None


class _Bits:
    """The bits of one restart interval."""

    def __init__(self, piece: bytes) -> None:
        plain = piece.replace(b"\xff\x00", b"\xff")
        self.count = 8 * len(plain)
        self.data = plain + bytes(8)  # so that 16 bits can be read at the end
        self.at = 0

    def symbol(self, table: _Table) -> int:
        """Read a symbol and skip its value."""
        byte = self.at >> 3
        three = self.data[byte] << 16 | self.data[byte + 1] << 8 | self.data[byte + 2]
        code = three >> (8 - (self.at & 7)) & 0xFFFF
        self.skip(table[0][code])
        return table[1][code]

    def value(self, length: int) -> int:
        byte = self.at >> 3
        three = self.data[byte] << 16 | self.data[byte + 1] << 8 | self.data[byte + 2]
        value = (three >> (8 - (self.at & 7)) & 0xFFFF) >> (16 - length)
        self.skip(length)
        return value

    def skip(self, length: int) -> None:
        self.at += length
        if self.at > self.count:
            raise _DamagedError


def _table(counts: bytes, symbols: bytes) -> _Table:
    lengths, values = [_INVALID] * 65536, [0] * 65536
    code, at = 0, 0
    for length, count in enumerate(counts, 1):
        for symbol in symbols[at : at + count]:
            begin, span = code << (16 - length), 1 << (16 - length)
            lengths[begin : begin + span] = [length + (symbol & 15)] * span
            values[begin : begin + span] = [symbol] * span
            code += 1
        at += count
        code <<= 1
    if len(lengths) != 65536 or at > len(symbols):
        raise _DamagedError
    return lengths, values


def _up(amount: int, unit: int) -> int:
    return -(-amount // unit)


def _code(scan: _Scan, nonzero: list[int], block: int, bits: _Bits, table: _Table) -> int:
    """Read the first scan of a block. Returns the number of empty blocks that follow."""
    index = scan.first
    while index <= scan.last:
        symbol = bits.symbol(table)
        run, size = symbol >> 4, symbol & 15
        if size:
            index += run
            nonzero[block] |= 1 << index
        elif run < 15:
            return (1 << run) - 1 + bits.value(run)
        else:
            index += 15
        index += 1
    return 0


def _refine(
    scan: _Scan, nonzero: list[int], block: int, bits: _Bits, table: _Table, left: int
) -> int:
    """Read a refinement scan of a block. Returns the number of blocks without new coefficients."""
    index, known = scan.first, nonzero[block]
    while not left and index <= scan.last:
        symbol = bits.symbol(table)
        run, size = symbol >> 4, symbol & 15
        if not size and run < 15:
            left = (1 << run) + bits.value(run)
            break
        while index <= scan.last:
            if known >> index & 1:
                bits.skip(1)
            elif run:
                run -= 1
            else:
                break
            index += 1
        if size and index <= scan.last:
            nonzero[block] |= 1 << index
        index += 1
    if left:
        bits.skip((known >> index & (1 << max(0, scan.last + 1 - index)) - 1).bit_count())
        left -= 1
    return left
