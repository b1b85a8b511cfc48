"""The codec's face: every name that other packages use to turn bytes into our own types and back.

Pure functions; whatever is wrong with bytes from outside ends here, as the error the function's docstring names.
"""

from __future__ import annotations

from replicad.wire.faults import (
    GRPC_STATUS_NUMBERS,
    error_from_detail,
    error_from_trailer,
    error_to_detail,
    status_text,
    status_trailer,
)
from replicad.wire.frames import decode_master_frame, decode_worker_frame, encode_master_frame, encode_worker_frame
from replicad.wire.posts import (
    FrameError,
    decode_post_frame,
    decode_post_request,
    decode_post_results,
    encode_post_frame,
    encode_post_results,
)
from replicad.wire.records import decode_list_response, decode_records, encode_list_response, encode_records
from replicad.wire.types import PostFrame, PostFrameResult, PostRun, Record

__all__ = [
    "GRPC_STATUS_NUMBERS",
    "FrameError",
    "PostFrame",
    "PostFrameResult",
    "PostRun",
    "Record",
    "decode_list_response",
    "decode_master_frame",
    "decode_post_frame",
    "decode_post_request",
    "decode_post_results",
    "decode_records",
    "decode_worker_frame",
    "encode_list_response",
    "encode_master_frame",
    "encode_post_frame",
    "encode_post_results",
    "encode_records",
    "encode_worker_frame",
    "error_from_detail",
    "error_from_trailer",
    "error_to_detail",
    "status_text",
    "status_trailer",
]
