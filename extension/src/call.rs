//! How SQL calls a function of this library: version-1 entry points, arguments, and the raising of refusals.

use std::ffi::{CStr, c_char, c_int};

use pgrx::pg_sys::elog::PgLogLevel;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use pgrx::varlena::{rust_str_to_text_p, text_to_rust_str, varlena_to_byte_slice, varsize_any_exhdr};

use crate::refusal::{Refusal, State, Texts};

/// Makes the entry point of a SQL function: `<name>_wrapper` and its version record.
macro_rules! sql_function {
    ($symbol:ident, $record:ident, $body:path) => {
        #[unsafe(no_mangle)]
        extern "C-unwind" fn $record() -> &'static pgrx::pg_sys::Pg_finfo_record {
            const RECORD: pgrx::pg_sys::Pg_finfo_record = pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
            &RECORD
        }

        #[unsafe(no_mangle)]
        unsafe extern "C-unwind" fn $symbol(fcinfo: pgrx::pg_sys::FunctionCallInfo) -> pgrx::pg_sys::Datum {
            // SAFETY: PostgreSQL calls this with a valid call frame, and it is the outermost Rust frame.
            unsafe { $crate::call::run(fcinfo, $body) }
        }
    };
}
pub(crate) use sql_function;

/// What a function gives back; `None` is NULL.
pub(crate) type Reply = Result<Option<Datum>, Refusal>;

/// The frame of one call.
pub(crate) struct Call {
    fcinfo: FunctionCallInfo,
}

impl Call {
    /// The raw frame, for the server's own helpers.
    pub(crate) fn frame(&self) -> FunctionCallInfo {
        self.fcinfo
    }

    /// The table whose trigger calls; none where no trigger does.
    pub(crate) fn trigger_relation(&self) -> Option<pg_sys::Oid> {
        // SAFETY: a valid frame; what a node of this tag points to is the trigger's data, with the table open.
        unsafe {
            let context = (*self.fcinfo).context;
            if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
                return None;
            }
            Some((*(*context.cast::<pg_sys::TriggerData>()).tg_relation).rd_id)
        }
    }

    /// Argument `n`, unless it is NULL.
    pub(crate) fn datum(&self, n: usize) -> Option<Datum> {
        // SAFETY: `run`'s caller promised a valid frame; SQL declares as many arguments as are read.
        unsafe {
            debug_assert!(n < (*self.fcinfo).nargs as usize);
            let argument = &*(*self.fcinfo).args.as_ptr().add(n);
            (!argument.isnull).then_some(argument.value)
        }
    }

    /// Argument `n` of type text. The database is UTF-8, which the install script makes sure of.
    pub(crate) fn text(&self, n: usize) -> Option<&str> {
        // SAFETY: the argument is declared text; the detoasted copy lives in the context of this call.
        self.datum(n).and_then(|datum| unsafe { text_of(datum) })
    }

    /// Argument `n` of type timestamptz.
    pub(crate) fn timestamp(&self, n: usize) -> Option<i64> {
        self.datum(n).map(|datum| datum.value() as i64)
    }

    /// Argument `n` of type bytea.
    pub(crate) fn bytes(&self, n: usize) -> Option<&[u8]> {
        // SAFETY: the argument is declared bytea; the detoasted copy lives in the context of this call.
        self.datum(n).map(|datum| unsafe { bytes_of(datum) })
    }

    /// Argument `n` of type integer.
    pub(crate) fn integer(&self, n: usize) -> Option<i32> {
        self.datum(n).map(|datum| datum.value() as i32)
    }
}

/// The text behind a datum.
///
/// # Safety
/// `datum` is a text that lives as long as the result is used.
pub(crate) unsafe fn text_of<'a>(datum: Datum) -> Option<&'a str> {
    // SAFETY: by the caller's promise.
    unsafe { text_to_rust_str(pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr())).ok() }
}

/// The bytes behind a datum.
///
/// # Safety
/// `datum` is a bytea that lives as long as the result is used.
pub(crate) unsafe fn bytes_of<'a>(datum: Datum) -> &'a [u8] {
    // SAFETY: by the caller's promise.
    unsafe { varlena_to_byte_slice(pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr())) }
}

/// A text for SQL, in the current memory context.
pub(crate) fn text_datum(text: &str) -> Datum {
    Datum::from(rust_str_to_text_p(text).into_pg())
}

/// A `jsonb` argument, detoasted.
#[derive(Clone, Copy)]
pub(crate) struct Jsonb {
    value: *mut pg_sys::Jsonb,
    size: usize,
}

impl Jsonb {
    /// Bytes of the empty object.
    const EMPTY: usize = 4;

    /// # Safety
    /// `datum` is a jsonb of the current call.
    pub(crate) unsafe fn new(datum: Datum) -> Self {
        // SAFETY: by the caller's promise; containers need the unpacked form.
        unsafe {
            let varlena = pg_sys::pg_detoast_datum(datum.cast_mut_ptr());
            Self { value: varlena.cast(), size: varsize_any_exhdr(varlena) }
        }
    }

    pub(crate) fn datum(self) -> Datum {
        Datum::from(self.value)
    }

    pub(crate) fn is_object(self) -> bool {
        // SAFETY: every jsonb begins with its root container.
        unsafe { (*self.value).root.header & pg_sys::JB_FOBJECT != 0 }
    }

    pub(crate) fn is_empty_object(self) -> bool {
        self.size == Self::EMPTY && self.is_object()
    }

    /// The value as SQL writes it.
    pub(crate) fn text<'a>(self) -> &'a str {
        // SAFETY: a valid root container; the C string lives in the current context and is UTF-8 like the database.
        unsafe {
            let text = pg_sys::JsonbToCString(std::ptr::null_mut(), &raw mut (*self.value).root, self.size as c_int);
            CStr::from_ptr(text).to_str().unwrap_or_default()
        }
    }
}

/// Runs a function's body and raises its refusal.
///
/// # Safety
/// Called by PostgreSQL with a valid frame, as the outermost Rust frame.
pub(crate) unsafe fn run(fcinfo: FunctionCallInfo, body: fn(&Call) -> Reply) -> Datum {
    // SAFETY: outermost Rust frame, as the guard asks for.
    let raised = unsafe {
        pg_sys::submodules::panic::pgrx_extern_c_guard(|| match body(&Call { fcinfo }) {
            Ok(Some(datum)) => Ok(datum),
            Ok(None) => {
                (*fcinfo).isnull = true;
                Ok(Datum::null())
            }
            Err(refusal) => Err(Raised::new(refusal.c_strings())),
        })
    };
    match raised {
        Ok(datum) => datum,
        // SAFETY: this frame holds plain old data only.
        Err(raised) => unsafe { raised.raise() },
    }
}

/// A refusal in memory of PostgreSQL, which needs no destructor.
#[derive(Clone, Copy)]
struct Raised {
    state: c_int,
    column: *const c_char,
    code: *const c_char,
    message: *const c_char,
    detail: *const c_char,
    hint: *const c_char,
}

// pgrx keeps these out of its bindings, lest someone raise an ERROR over frames with destructors.
unsafe extern "C-unwind" {
    fn errstart(level: c_int, domain: *const c_char) -> bool;
    fn errcode(state: c_int) -> c_int;
    fn errmsg(format: *const c_char, ...) -> c_int;
    fn errdetail(format: *const c_char, ...) -> c_int;
    fn errhint(format: *const c_char, ...) -> c_int;
    fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
}

impl Raised {
    fn new(texts: Texts) -> Self {
        let copy = |text: Option<&CStr>| -> *const c_char {
            // SAFETY: pstrdup copies a valid C string into the current context.
            text.map_or(std::ptr::null(), |text| unsafe { pg_sys::pstrdup(text.as_ptr()) })
        };
        Self {
            state: texts.state,
            column: copy(texts.column.as_deref()),
            code: copy(texts.code.as_deref()),
            message: copy(Some(&texts.message)),
            detail: copy(texts.detail.as_deref()),
            hint: copy(texts.hint.as_deref()),
        }
    }

    /// # Safety
    /// No frame between here and PostgreSQL holds anything with a destructor.
    unsafe fn raise(self) -> ! {
        const TEXT: *const c_char = c"%s".as_ptr();
        // SAFETY: the strings are valid or null and outlive the report, which copies them; errfinish jumps out.
        unsafe {
            errstart(PgLogLevel::ERROR as c_int, std::ptr::null());
            errcode(self.state);
            errmsg(TEXT, self.message);
            if !self.detail.is_null() {
                errdetail(TEXT, self.detail);
            }
            if !self.hint.is_null() {
                errhint(TEXT, self.hint);
            }
            if !self.column.is_null() {
                pg_sys::err_generic_string(pg_sys::PG_DIAG_COLUMN_NAME as c_int, self.column);
            }
            if !self.code.is_null() {
                pg_sys::err_generic_string(pg_sys::PG_DIAG_CONSTRAINT_NAME as c_int, self.code);
            }
            errfinish(c"sms_outbox".as_ptr(), 0, std::ptr::null());
            std::process::abort()
        }
    }
}

/// The place of an enum's label, looked up by name: a type made anew in this session has new ones.
pub(crate) fn enum_label(enum_type: pg_sys::Oid, label: &CStr) -> Result<Datum, Refusal> {
    // SAFETY: a syscache look-up by type and name; the tuple is released before return.
    unsafe {
        let tuple = pg_sys::SearchSysCache2(
            pg_sys::SysCacheIdentifier::ENUMTYPOIDNAME as c_int,
            Datum::from(enum_type),
            Datum::from(label.as_ptr()),
        );
        if tuple.is_null() {
            return Err(Refusal::new(State::NotReady, "sms_outbox is not installed as this library expects")
                .with_hint("Run ALTER EXTENSION sms_outbox UPDATE."));
        }
        let label = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_enum>()).oid;
        pg_sys::ReleaseSysCache(tuple);
        Ok(Datum::from(label))
    }
}
