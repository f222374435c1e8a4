"""CRC-32C of many records at once: TFRecord files need two for each record, and Python alone would take minutes."""

from functools import cache

import numpy as np

_POLYNOMIAL = np.uint32(0x82F63B78)
_BLOCK = 256


def _append_zeros(crc: np.ndarray, num_bytes: int) -> np.ndarray:
    """Carries checksums, without their initial value, over bytes that are zero."""
    table = _byte_table()
    for _byte in range(num_bytes):
        crc = table[crc & 255] ^ (crc >> np.uint32(8))
    return crc


@cache
def _byte_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _bit in range(8):
        table = np.where(table & 1, (table >> np.uint32(1)) ^ _POLYNOMIAL, table >> np.uint32(1))
    return table


@cache
def _word_tables() -> tuple[np.ndarray, ...]:
    """What each two bytes of an eight-byte word add to the checksum, for the four places in the word."""
    pairs = np.arange(1 << 16, dtype=np.uint32)
    return tuple(_append_zeros(pairs, 8 - 2 * place) for place in range(4))


@cache
def _block_tables() -> tuple[np.ndarray, np.ndarray]:
    """Carries the lower and the upper half of a checksum over a block."""
    halves = np.arange(1 << 16, dtype=np.uint32)
    return _append_zeros(halves, _BLOCK), _append_zeros(halves << np.uint32(16), _BLOCK)


def _append(crc: np.ndarray, words: np.ndarray, starts: np.ndarray, num_words: int) -> np.ndarray:
    tables = _word_tables()
    for word in range(num_words):
        pairs = (words[starts + 8 * word] ^ crc).view("<u2").reshape(-1, 4)
        crc = tables[0][pairs[:, 0]] ^ tables[1][pairs[:, 1]] ^ tables[2][pairs[:, 2]] ^ tables[3][pairs[:, 3]]
    return crc


def crc32c(buffer: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Computes the CRC-32C of pieces of a buffer.

    Args:
        buffer: `[num_bytes]` uint8, contiguous, with at least seven bytes behind the last piece.
        starts: `[num_pieces]` int64, where each piece begins.
        lengths: `[num_pieces]` int64 bytes.

    Returns:
        `[num_pieces]` uint32.

    Source: RFC 3720, appendix B.4; checksums are linear, so blocks are summed apart and carried over one another.
    """
    words = np.ndarray(shape=(max(len(buffer) - 7, 0),), dtype="<u8", buffer=buffer.data, strides=(1,))
    num_blocks = lengths // _BLOCK
    crc = np.full(len(starts), 0xFFFFFFFF, dtype=np.uint32)
    # Blocks of all pieces, each as if nothing came before it; then carried over one another, the first one of each
    # piece after the initial value.
    first = np.cumsum(num_blocks) - num_blocks
    piece = np.repeat(np.arange(len(starts)), num_blocks)
    number = np.arange(len(piece)) - first[piece]
    summed = _append(np.zeros(len(piece), np.uint32), words, starts[piece] + number * _BLOCK, _BLOCK // 8)
    low, high = _block_tables()
    for block in range(int(num_blocks.max(initial=0))):
        rows = np.flatnonzero(num_blocks > block)
        carried = low[crc[rows] & 0xFFFF] ^ high[crc[rows] >> np.uint32(16)]
        crc[rows] = carried ^ summed[first[rows] + block]
    # What is left of each piece: words, then bytes.
    starts, left = starts + num_blocks * _BLOCK, lengths % _BLOCK
    for word in range(int(left.max(initial=0)) // 8):
        rows = np.flatnonzero(left >= 8 * (word + 1))
        crc[rows] = _append(crc[rows], words, starts[rows] + 8 * word, 1)
    starts, left = starts + left // 8 * 8, left % 8
    table = _byte_table()
    for byte in range(int(left.max(initial=0))):
        rows = np.flatnonzero(left > byte)
        crc[rows] = table[(crc[rows] ^ buffer[starts[rows] + byte]) & 255] ^ (crc[rows] >> np.uint32(8))
    return crc ^ np.uint32(0xFFFFFFFF)
