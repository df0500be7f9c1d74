//! Arrays to give to a statement: one piece of memory each, however many elements.

use crate::memory;
use crate::text::varlena_header;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::varlena;

/// An array of one dimension in the making (PostgreSQL's `array.h` describes the layout).
pub(crate) struct ArrayBuilder {
    element_type: pg_sys::Oid,
    array_type: pg_sys::Oid,
    present: Vec<bool>,
    data: Vec<u8>,
}

impl ArrayBuilder {
    fn new(element_type: pg_sys::Oid, array_type: pg_sys::Oid) -> Self {
        Self { element_type, array_type, present: Vec::new(), data: Vec::new() }
    }

    /// `text[]` of values in the server's encoding.
    pub(crate) fn text() -> Self {
        Self::new(pg_sys::TEXTOID, pg_sys::TEXTARRAYOID)
    }

    /// `bytea[]`.
    pub(crate) fn bytea() -> Self {
        Self::new(pg_sys::BYTEAOID, pg_sys::BYTEAARRAYOID)
    }

    /// `smallint[]`.
    pub(crate) fn smallint() -> Self {
        Self::new(pg_sys::INT2OID, pg_sys::INT2ARRAYOID)
    }

    /// `integer[]`.
    pub(crate) fn integer() -> Self {
        Self::new(pg_sys::INT4OID, pg_sys::INT4ARRAYOID)
    }

    /// `bigint[]`.
    pub(crate) fn bigint() -> Self {
        Self::new(pg_sys::INT8OID, pg_sys::INT8ARRAYOID)
    }

    /// `date[]`, of days since 2000-01-01.
    pub(crate) fn date() -> Self {
        Self::new(pg_sys::DATEOID, pg_sys::DATEARRAYOID)
    }

    /// `timestamptz[]`, of microseconds since 2000-01-01 UTC.
    pub(crate) fn timestamptz() -> Self {
        Self::new(pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZARRAYOID)
    }

    /// `uuid[]`.
    pub(crate) fn uuid() -> Self {
        Self::new(pg_sys::UUIDOID, pg_sys::UUIDARRAYOID)
    }

    /// `tid[]`: addresses of rows.
    pub(crate) fn tid() -> Self {
        Self::new(pg_sys::TIDOID, pg_sys::TIDARRAYOID)
    }

    /// Whether nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.present.is_empty()
    }

    /// Adds a value of variable length, aligned to four bytes.
    pub(crate) fn push_bytes(&mut self, value: Option<&[u8]>) {
        self.note(value.is_some());
        if let Some(value) = value {
            self.reserve(value.len() + 2 * size_of::<u32>());
            self.data.resize(self.data.len().next_multiple_of(4), 0);
            self.data.extend(varlena_header(value.len()));
            self.data.extend(value);
        }
    }

    /// Adds a value of fixed length: its bytes as the machine has them, aligned to their number
    /// (a uuid, at 16, needs no alignment and keeps it; so does a tid, at 6, that of 2).
    pub(crate) fn push_fixed<const N: usize>(&mut self, value: Option<[u8; N]>) {
        self.note(value.is_some());
        if let Some(value) = value {
            self.reserve(N);
            self.data.extend(value);
        }
    }

    fn note(&mut self, is_present: bool) {
        if self.present.try_reserve(1).is_err() {
            memory::out();
        }
        self.present.push(is_present);
    }

    fn reserve(&mut self, bytes: usize) {
        if self.data.try_reserve(bytes).is_err() {
            memory::out();
        }
    }

    /// The array as a parameter. Memory of the current context.
    pub(crate) fn finish<'a>(self) -> DatumWithOid<'a> {
        const FIXED_HEADER: usize = 16; // length, dimensions, offset of the data, element type
        let count = self.present.len();
        let mut header: Vec<u8> = vec![0; 4]; // the length, set below
        if count == 0 {
            for word in [0, 0, self.element_type.to_u32()] {
                header.extend(word.to_ne_bytes());
            }
        } else {
            let with_nulls = self.present.contains(&false);
            let bitmap = if with_nulls { count.div_ceil(8) } else { 0 };
            let start = (FIXED_HEADER + 8 + bitmap).next_multiple_of(8);
            let offset = if with_nulls { start as u32 } else { 0 };
            for word in [1, offset, self.element_type.to_u32(), count as u32, 1] {
                header.extend(word.to_ne_bytes());
            }
            if with_nulls {
                for eight in self.present.chunks(8) {
                    header.push(
                        (0..).zip(eight).fold(0, |bits, (at, present)| bits | u8::from(*present) << at),
                    );
                }
            }
            header.resize(start, 0);
        }
        let size = header.len() + self.data.len();
        // SAFETY: `size` bytes are ours and all of them are written; the header is complete, and the
        // array's type is the one given with it.
        unsafe {
            let array: *mut pg_sys::varlena = pg_sys::palloc(size).cast();
            let to: *mut u8 = array.cast();
            to.copy_from_nonoverlapping(header.as_ptr(), header.len());
            to.add(header.len()).copy_from_nonoverlapping(self.data.as_ptr(), self.data.len());
            varlena::set_varsize_4b(array, size as i32);
            DatumWithOid::new(Array(array), self.array_type)
        }
    }
}

/// A finished array, on its way into a parameter.
struct Array(*mut pg_sys::varlena);

impl IntoDatum for Array {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(pg_sys::Datum::from(self.0))
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::InvalidOid // each array says its own
    }
}
