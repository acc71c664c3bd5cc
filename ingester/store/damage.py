"""What reading a Parquet file raises that is damaged, missing, or none."""

from __future__ import annotations

import pyarrow as pa

__all__ = ["UNREADABLE"]

# A name of a column in the footer, which has no checksum, is decoded outside of Arrow's errors.
UNREADABLE = (OSError, pa.ArrowException, UnicodeDecodeError)
