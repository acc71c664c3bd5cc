"""The storing half of a bulk upload: slices into one transaction, then the commit.

Its calls block and are made in a thread, one at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ...doors.bulk_lane import BulkUpload, refuse_if_rejected
from ...errors import BodyTooLarge
from ...messages import RequestRecord
from ...protocol.columns import REJECT_SCHEMA, REQUEST_SCHEMA, reject_rows, request_rows
from ...protocol.dedup_columns import UPLOAD_DEDUP_SCHEMA, upload_dedup_rows
from ...protocol.forms import form_text
from ...protocol.small_rows import row_widths
from ...store.ledger import AppliedBatch
from ...store.pinned import PINNED_ROWS
from ...store.rejects import RejectBudget
from ...store.store import Store, Transaction
from .decode import Slice

__all__ = ["BulkInsert"]


class BulkInsert:
    """One upload's rows on their way into the store."""

    def __init__(
        self,
        upload: BulkUpload,
        transaction: Transaction,
        *,
        store: Store,
        rejects: RejectBudget,
        upload_file_bytes_min: int,
    ) -> None:
        self._upload = upload
        self._transaction = transaction
        self._store = store
        self._rejects = rejects
        self._upload_file_bytes_min = upload_file_bytes_min
        self._batches: list[AppliedBatch] = []
        self._inserted_bytes = 0
        self._is_file = False
        self._reject_bytes = 0
        self._is_committed = False

    def prepare(self) -> None:
        target = self._upload.target
        self._transaction.prepare(target.table, target.schema)
        self._transaction.prepare("rejects", REJECT_SCHEMA)
        self._transaction.prepare("requests", REQUEST_SCHEMA)
        if self._upload.dedup is not None:
            self._transaction.prepare("dedup_keys", UPLOAD_DEDUP_SCHEMA)

    def slice(self, ready: Slice) -> None:
        upload = self._upload
        if not self._is_file:
            self._is_file = self._expected_bytes() >= self._upload_file_bytes_min
        batch_id = self._store.ledger.take_batch_id()
        number = upload.request_number
        self._batches.append(AppliedBatch(batch_id, "bulk", 0, 0, ready.row_count, number))
        if ready.rows is not None:
            constants: dict[str, str | int] = {
                "request_number": number,
                "received_at_us": upload.received_at_us,
                "batch_id": batch_id,
                **upload.target.constants,
            }
            self._take_rows(ready.rows, ready.byte_count, constants)
        if ready.digests:
            assert upload.dedup is not None
            scope: dict[str, str | int] = {
                "source": upload.dedup.window.scope,
                "received_at_us": upload.received_at_us,
            }
            self._transaction.insert("dedup_keys", upload_dedup_rows(ready.digests), scope)
        rejects = self._rejects.take(
            ready.rejects, bytes_max=self._store.pinned_bytes_max - self._reject_bytes
        )
        if rejects:
            lengths = np.fromiter((len(r.line) for r in rejects), np.int64, len(rejects))
            self._reject_bytes += int(lengths.sum())
            self._transaction.count_pinned("rejects", lengths)
            origin = upload.origin
            rows = reject_rows(
                rejects,
                number,
                upload.received_at_us,
                origin.door,
                origin.source,
                form_text(origin.form),
            )
            self._transaction.insert("rejects", rows, {"batch_id": batch_id})

    def _take_rows(self, rows: pa.Table, byte_count: int, constants: dict[str, str | int]) -> None:
        upload, table = self._upload, self._upload.target.table
        if self._is_file:
            self._transaction.write_upload(
                table, rows, constants, request_number=upload.request_number
            )
            return
        self._inserted_bytes += byte_count
        # One chunk: the store works in vectors of 2,048 rows and does not fill them across
        # chunks (measured: 0.1 to 0.2 of 1.9 CPU-s per million rows).
        rows = rows.combine_chunks()
        self._refuse_if_too_wide(table, row_widths(table, rows))
        self._transaction.insert(table, rows, constants)

    def _expected_bytes(self) -> int:
        """How large the upload becomes, decoded: as announced, at the ratio seen so far."""
        inflater = self._upload.inflater
        announced = self._upload.content_length or 0
        expected = announced * inflater.output_bytes // max(1, inflater.input_bytes)
        return max(expected, self._inserted_bytes)

    def commit(self) -> RequestRecord:
        """Raises LinesRefused when the door wants the request refused for its rejects."""
        upload = self._upload
        decoder = upload.decoder
        refuse_if_rejected(
            upload.refused_by, decoder.accepted_count, decoder.rejected_count, upload.first_rejects
        )
        record = RequestRecord(
            request_number=upload.request_number,
            received_at_us=upload.received_at_us,
            door=upload.origin.door,
            source=upload.origin.source,
            credential=upload.origin.credential,
            accepted=decoder.accepted_count - upload.deduplicated,
            rejected=decoder.rejected_count,
            bytes_in=upload.inflater.input_bytes,
            bytes_raw=upload.inflater.output_bytes,
            encoding=upload.encoding_name,
            idempotency_key=upload.idempotency_key,
            fingerprint=upload.digest.digest()[:16] if upload.digest is not None else None,
            deduplicated=upload.deduplicated,
        )
        if not self._batches:
            batch_id = self._store.ledger.take_batch_id()
            self._batches.append(AppliedBatch(batch_id, "bulk", 0, 0, 0, upload.request_number))
        self._transaction.insert("requests", request_rows([record]))
        self._transaction.commit(self._batches)
        self._is_committed = True
        return record

    def _refuse_if_too_wide(self, table: str, widths: np.ndarray[Any, Any]) -> None:
        """Before the rows are sent: the COMMIT would fail, in every attempt."""
        pinned_bytes = self._transaction.count_pinned(table, widths)
        bytes_max = self._store.pinned_bytes_max
        if pinned_bytes > bytes_max:
            raise BodyTooLarge(
                f"{table} in a row add up to {pinned_bytes >> 20} MiB within {PINNED_ROWS:,}; the "
                f"store takes {bytes_max >> 20} MiB: split the upload, or raise [store] "
                "memory_bytes_max"
            )

    def end(self) -> None:
        """End the transaction, however it went."""
        self._transaction.__exit__()
        if not self._is_committed:  # nothing was kept: another upload may keep as many
            self._rejects.give_back(self._reject_bytes)
