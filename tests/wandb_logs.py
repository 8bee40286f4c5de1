"""What an offline run of Weights & Biases holds, read back from its own log."""

import struct

BLOCK, HEADER, FILE_HEADER = 32768, 7, 7


def records_of(file):
    """Protocol buffers of a run's log: LevelDB's format, blocks of 32 KiB holding pieces of records."""
    from wandb.proto.wandb_internal_pb2 import Record as Logged

    data, at, piece = file.read_bytes(), FILE_HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        piece += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # whole, or the last piece
            yield Logged.FromString(piece)
            piece = b""


def of_kind(file, kind):
    """Those of one kind: `run`, `history`, `exit`."""
    return [getattr(record, kind) for record in records_of(file) if record.WhichOneof("record_type") == kind]
