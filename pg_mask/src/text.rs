//! `text` arguments read in place, and UTF-8 from and to the server's encoding.

use crate::{memory, unguarded};
use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::{Datum, UnboxDatum};
use pgrx::prelude::*;
use pgrx::varlena;
use std::borrow::Cow;
use std::ffi::c_char;

/// The bytes of a `text` value in the server's encoding, where PostgreSQL has them.
#[derive(Clone, Copy)]
pub(crate) struct Text<'a>(&'a [u8]);

impl_sql_translatable!(Text<'_>, "text");

impl<'a> Text<'a> {
    /// # Safety
    /// `datum` is a `text` that is not NULL and outlives `'a`.
    #[inline]
    unsafe fn read(datum: pg_sys::Datum) -> Self {
        let mut value: *mut pg_sys::varlena = datum.cast_mut_ptr();
        // SAFETY: the caller gives a varlena. Whatever is short or plain is read where it is; only
        // what is compressed or out of line is copied, into the caller's memory context.
        unsafe {
            let in_place = varlena::varatt_is_4b_u(value)
                || (varlena::varatt_is_1b(value) && !varlena::varatt_is_1b_e(value));
            if !in_place {
                value = in_room_of_the_caller(|| {
                    let whole = pg_sys::pg_detoast_datum_packed(value);
                    std::slice::from_raw_parts(whole.cast(), varlena::varsize_any(whole))
                })
                .as_ptr()
                .cast_mut()
                .cast();
            }
            Self(std::slice::from_raw_parts(
                varlena::vardata_any(value).cast(),
                varlena::varsize_any_exhdr(value),
            ))
        }
    }

    /// A text of ASCII characters, which every encoding of the server writes alike.
    pub(crate) fn from_ascii(text: &'a str) -> Self {
        debug_assert!(text.is_ascii());
        Self(text.as_bytes())
    }

    /// The bytes in the server's encoding.
    pub(crate) fn as_server_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The value as UTF-8, or as it is where the server knows no encoding (`SQL_ASCII`). It raises an
    /// error for what has no Unicode character.
    pub(crate) fn to_utf8(self) -> &'a [u8] {
        bytes_to_utf8(self.0)
    }

    /// The value as UTF-8; as it is where that can't be had.
    pub(crate) fn to_utf8_if_it_can(self) -> Cow<'a, [u8]> {
        if server_is_utf8_or_unknown() || self.0.is_ascii() {
            return Cow::Borrowed(self.0);
        }
        let utf8 = convert(self.0, server_encoding(), pg_sys::pg_enc::PG_UTF8);
        utf8.map_or(Cow::Borrowed(self.0), Cow::Owned)
    }
}

// SAFETY: `read` is given a non-null text datum that lives as long as the call.
unsafe impl<'fcx> ArgAbi<'fcx> for Text<'fcx> {
    #[inline]
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        struct Raw(pg_sys::Datum);
        impl FromDatum for Raw {
            #[inline]
            unsafe fn from_polymorphic_datum(
                datum: pg_sys::Datum,
                null: bool,
                _: pg_sys::Oid,
            ) -> Option<Self> {
                (!null).then_some(Self(datum))
            }
        }
        // SAFETY: PostgreSQL gives a text here, by the function's SQL declaration.
        unsafe {
            match arg.unbox_arg_using_from_datum::<Raw>() {
                Some(Raw(datum)) => Self::read(datum),
                None => Self(&[]), // not reached: functions that take a bare Text are STRICT
            }
        }
    }
}

// SAFETY: the elements of a text[] are text, and live as long as the array.
unsafe impl UnboxDatum for Text<'_> {
    type As<'src>
        = Text<'src>
    where
        Self: 'src;

    unsafe fn unbox<'src>(datum: Datum<'src>) -> Text<'src>
    where
        Self: 'src,
    {
        // SAFETY: by the caller.
        unsafe { Text::read(datum.sans_lifetime()) }
    }
}

/// A `text` value of its own, in the server's encoding: a column of a row, a parameter, or a result.
pub(crate) struct OwnedText(pub(crate) Vec<u8>);

impl_sql_translatable!(OwnedText, "text");

impl OwnedText {
    pub(crate) fn as_text(&self) -> Text<'_> {
        Text(&self.0)
    }
}

impl FromDatum for OwnedText {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, null: bool, _: pg_sys::Oid) -> Option<Self> {
        // SAFETY: PostgreSQL says that it is a text, and it is copied.
        (!null).then(|| Self(memory::copy(unsafe { Text::read(datum) }.0).unwrap_or_else(|_| memory::out())))
    }
}

impl IntoDatum for OwnedText {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        self.0.into_datum() // a text has the layout of a bytea
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::TEXTOID
    }
}

// SAFETY: a text, in the memory of the moment.
unsafe impl BoxRet for OwnedText {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        match self.into_datum() {
            // SAFETY: see above.
            Some(datum) => unsafe { fcinfo.return_raw_datum(datum) },
            None => fcinfo.return_null(),
        }
    }
}

/// A `bytea` value of its own: a column of a row.
pub(crate) struct OwnedBytes(pub(crate) Vec<u8>);

impl FromDatum for OwnedBytes {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, null: bool, oid: pg_sys::Oid) -> Option<Self> {
        // SAFETY: by the caller; a bytea has the layout of a text.
        unsafe { OwnedText::from_polymorphic_datum(datum, null, oid) }.map(|text| Self(text.0))
    }
}

impl IntoDatum for OwnedBytes {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        self.0.into_datum()
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::BYTEAOID
    }
}

/// A `text` result, built in place.
#[derive(Clone, Copy)]
pub(crate) struct NewText(*mut pg_sys::varlena);

impl_sql_translatable!(NewText, "text");

impl NewText {
    /// A text of `len` bytes of the server's encoding, which `fill` writes.
    #[inline]
    pub(crate) fn with(len: usize, fill: impl FnOnce(&mut [u8])) -> Self {
        let size = pg_sys::VARHDRSZ + len;
        // SAFETY: `size` bytes are ours, and all of them are written before they are read.
        unsafe {
            let value: *mut pg_sys::varlena = allocate(size).cast();
            varlena::set_varsize_4b(value, i32::try_from(size).unwrap_or(i32::MAX));
            let data: *mut u8 = value.cast::<u8>().add(pg_sys::VARHDRSZ);
            data.write_bytes(0, len);
            fill(std::slice::from_raw_parts_mut(data, len));
            Self(value)
        }
    }
}

impl NewText {
    /// UTF-8 as it was kept. A text of this database may not have all of it, such as a NUL, or characters that
    /// its encoding lacks: then it is shown as PostgreSQL writes a `bytea`, `\x` and hexadecimal digits.
    pub(crate) fn of_utf8_or_bytea(bytes: &[u8]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        if let Some(text) = bytes_to_server(bytes) {
            return Self::with(text.len(), |to| to.copy_from_slice(&text));
        }
        Self::with(2 + 2 * bytes.len(), |text| {
            text[..2].copy_from_slice(b"\\x");
            for (pair, byte) in text[2..].chunks_exact_mut(2).zip(bytes) {
                pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
            }
        })
    }

    /// The first argument of a call as its result, without a copy.
    ///
    /// # Safety
    /// The first argument is a text that is not NULL.
    #[inline]
    pub(crate) unsafe fn first_argument(fcinfo: pg_sys::FunctionCallInfo) -> Self {
        // SAFETY: by the caller. Arguments outlive the call, as results have to.
        Self(unsafe { (*(*fcinfo).args.as_ptr()).value.cast_mut_ptr() })
    }
}

/// A token that is kept to be given out again and again. It is never given out itself, as it may be written again.
pub(crate) struct KeptText {
    bytes: [u8; Self::LONGEST],
    len: usize,
}

impl KeptText {
    /// Room for a token of any generation.
    const LONGEST: usize = "m4294967295_".len() + 64;

    pub(crate) const EMPTY: Self = Self { bytes: [0; Self::LONGEST], len: 0 };

    /// Makes it a text of `len` bytes of the server's encoding, which `fill` writes.
    #[inline]
    pub(crate) fn write(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) {
        fill(&mut self.bytes[..len]);
        self.len = len;
    }

    /// A result of its own.
    #[inline]
    pub(crate) fn copy(&self) -> NewText {
        NewText::with(self.len, |text| text.copy_from_slice(&self.bytes[..self.len]))
    }
}

/// The four bytes before a plain varlena's data (`SET_VARSIZE`).
pub(crate) fn varlena_header(len: usize) -> [u8; pg_sys::VARHDRSZ] {
    let size = (len + pg_sys::VARHDRSZ) as u32;
    if cfg!(target_endian = "big") { size.to_ne_bytes() } else { (size << 2).to_ne_bytes() }
}

/// What `work` makes in PostgreSQL's memory, where there is room for its errors, copied into the memory context of the
/// call.
#[cold]
fn in_room_of_the_caller<'a>(work: impl FnOnce() -> &'a [u8]) -> &'a [u8] {
    // SAFETY: a plain read.
    let context = unsafe { pg_sys::CurrentMemoryContext };
    memory::with_room(|| {
        let made = work();
        // SAFETY: with this flag NULL says that memory is out; the size is one that PostgreSQL itself has just allocated.
        // What was made lives until here.
        unsafe {
            let copy = unguarded::MemoryContextAllocExtended(
                context,
                made.len().max(1),
                pg_sys::MCXT_ALLOC_NO_OOM as i32,
            );
            if copy.is_null() {
                memory::out();
            }
            copy.cast::<u8>().copy_from_nonoverlapping(made.as_ptr(), made.len());
            std::slice::from_raw_parts(copy.cast(), made.len())
        }
    })
}

/// `palloc`, at less cost where `size` is small. It raises an error where memory is out.
///
/// # Safety
/// As for `palloc`.
#[inline]
unsafe fn allocate(size: usize) -> *mut std::ffi::c_void {
    const SMALL: usize = 1024;
    if size <= SMALL {
        // SAFETY: with this flag NULL says that memory is out. The only error besides is for a size that
        // the context refuses, and the one of a call takes any that is small (mcxt.c, aset.c).
        let small = unsafe { unguarded::palloc_extended(size, pg_sys::MCXT_ALLOC_NO_OOM as i32) };
        if small.is_null() {
            // Not by pgrx, which copies PostgreSQL's error into the context that has no memory, and again, to a PANIC.
            memory::out();
        }
        return small;
    }
    // SAFETY: by the caller.
    unsafe { pg_sys::palloc(size) }
}

// SAFETY: the pointer is to a complete varlena in the memory context of the call.
unsafe impl BoxRet for NewText {
    #[inline]
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: see above.
        unsafe { fcinfo.return_raw_datum(pg_sys::Datum::from(self.0)) }
    }
}

fn server_encoding() -> pg_sys::pg_enc::Type {
    // SAFETY: a look-up.
    unsafe { pg_sys::GetDatabaseEncoding() as pg_sys::pg_enc::Type }
}

/// Whether texts of the server are UTF-8, or are taken as they are.
pub(crate) fn server_is_utf8_or_unknown() -> bool {
    matches!(server_encoding(), pg_sys::pg_enc::PG_UTF8 | pg_sys::pg_enc::PG_SQL_ASCII)
}

/// Bytes of the server's encoding as UTF-8, or as they are where it knows none (`SQL_ASCII`).
pub(crate) fn bytes_to_utf8(bytes: &[u8]) -> &[u8] {
    if server_is_utf8_or_unknown() { bytes } else { convert_to_utf8(bytes) }
}

fn convert_to_utf8(bytes: &[u8]) -> &[u8] {
    if bytes.is_ascii() {
        return bytes;
    }
    // SAFETY: pointer and length belong together; the result is a C string, or the argument itself.
    in_room_of_the_caller(|| unsafe {
        let from: *const c_char = bytes.as_ptr().cast();
        let to = pg_sys::pg_server_to_any(from, bytes.len() as i32, pg_sys::pg_enc::PG_UTF8 as i32);
        if std::ptr::eq(to.cast_const(), from) { bytes } else { std::ffi::CStr::from_ptr(to).to_bytes() }
    })
}

/// What [`Text::to_utf8_if_it_can`] gave, in the server's encoding; `None` if that can't hold it.
pub(crate) fn bytes_to_server(bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) if server_encoding() != pg_sys::pg_enc::PG_SQL_ASCII => to_server(Cow::Borrowed(text))?,
        _ => Cow::Borrowed(bytes),
    };
    // SAFETY: pointer and length belong together; with no_error set nothing is raised. It also refuses 0.
    let is_valid = unsafe { pg_sys::pg_verifymbstr(text.as_ptr().cast(), text.len() as i32, true) };
    is_valid.then_some(text)
}

/// `text` in the server's encoding; `None` if that has no such character.
pub(crate) fn to_server(text: Cow<'_, str>) -> Option<Cow<'_, [u8]>> {
    if server_is_utf8_or_unknown() || text.is_ascii() {
        return Some(match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        });
    }
    convert(text.as_bytes(), pg_sys::pg_enc::PG_UTF8, server_encoding()).map(Cow::Owned)
}

/// Text of one encoding in another; `None` if that has no such character, or nobody knows how.
fn convert(text: &[u8], from: pg_sys::pg_enc::Type, to: pg_sys::pg_enc::Type) -> Option<Vec<u8>> {
    // Worst case of any server encoding: four bytes a character.
    let mut buffer = memory::list(text.len() * 4 + 1).unwrap_or_else(|_| memory::out());
    buffer.resize(text.len() * 4 + 1, 0u8);
    // SAFETY: the buffer is as large as it says; with no_error set nothing is raised, and the
    // number of source bytes that could be converted is returned.
    let converted = unsafe {
        let how = pg_sys::FindDefaultConversionProc(from as i32, to as i32);
        if how == pg_sys::InvalidOid {
            return None;
        }
        pg_sys::pg_do_encoding_conversion_buf(
            how,
            from as i32,
            to as i32,
            text.as_ptr().cast_mut(),
            text.len() as i32,
            buffer.as_mut_ptr().cast(),
            buffer.len() as i32,
            true,
        )
    };
    if usize::try_from(converted) != Ok(text.len()) {
        return None;
    }
    let end = buffer.iter().position(|byte| *byte == 0)?;
    buffer.truncate(end);
    Some(buffer)
}
