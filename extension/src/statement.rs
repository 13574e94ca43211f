//! SQL statements planned once in a session and kept, run through raw SPI: this is the hot path of an enqueue.

use std::ffi::{c_char, c_int, c_long};
use std::sync::atomic::{AtomicPtr, Ordering};

use pgrx::pg_sys::{self, Datum, Oid};

/// A statement of `sql/statements/`, with the types of its parameters.
pub(crate) struct Statement {
    text: &'static str,
    types: &'static [Oid],
    plan: AtomicPtr<pg_sys::_SPI_plan>,
}

/// A statement from its file.
macro_rules! statement {
    ($file:literal, [$($parameter:ident),* $(,)?]) => {
        $crate::statement::Statement::new(
            concat!(include_str!(concat!("../../sql/statements/", $file, ".sql")), "\0"),
            &[$(pgrx::pg_sys::$parameter),*],
        )
    };
}
pub(crate) use statement;

/// Most parameters of a statement.
const MOST_PARAMETERS: usize = 16;

impl Statement {
    /// `text` ends with a NUL.
    pub(crate) const fn new(text: &'static str, types: &'static [Oid]) -> Self {
        assert!(types.len() <= MOST_PARAMETERS);
        Self { text, types, plan: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// The kept plan. PostgreSQL itself plans it anew when a table changes, goes or comes back, as after
    /// DROP EXTENSION and CREATE EXTENSION in one session.
    fn plan(&self) -> pg_sys::SPIPlanPtr {
        let kept = self.plan.load(Ordering::Relaxed);
        if !kept.is_null() {
            return kept;
        }
        // SAFETY: text ends with a NUL; types outlive the call; a plan is kept before it is remembered. A generic
        // plan from the first call on: these are look-ups by key and plain inserts.
        unsafe {
            let plan = pg_sys::SPI_prepare_cursor(
                self.text.as_ptr().cast(),
                self.types.len() as c_int,
                self.types.as_ptr().cast_mut(),
                pg_sys::CURSOR_OPT_GENERIC_PLAN as c_int,
            );
            assert!(!plan.is_null(), "SPI_prepare failed");
            assert!(pg_sys::SPI_keepplan(plan) == 0, "SPI_keepplan failed");
            self.plan.store(plan, Ordering::Relaxed);
            plan
        }
    }
}

/// An open SPI connection, in which plans that are made read by index. Not closed by a destructor: after an ERROR, the end
/// of the (sub)transaction closes it.
pub(crate) struct Spi(#[expect(dead_code, reason = "acts when it is dropped")] ByIndex);

impl Spi {
    pub(crate) fn connect() -> Self {
        // SAFETY: plain call; it raises an ERROR rather than fail.
        unsafe { pg_sys::SPI_connect() };
        Self(ByIndex::begin())
    }

    /// Closes the connection: memory since [`Spi::connect`] goes.
    pub(crate) fn finish(self) {
        // SAFETY: connected.
        unsafe { pg_sys::SPI_finish() };
    }

    /// Runs a statement, which sees all that was committed, or done by this transaction, until now.
    pub(crate) fn execute(&self, statement: &Statement, arguments: &[Option<Datum>]) -> Rows {
        debug_assert_eq!(arguments.len(), statement.types.len());
        let mut values = [Datum::null(); MOST_PARAMETERS];
        let mut nulls = [b' ' as c_char; MOST_PARAMETERS];
        for (place, argument) in arguments.iter().enumerate() {
            match argument {
                Some(datum) => values[place] = *datum,
                None => nulls[place] = b'n' as c_char,
            }
        }
        // SAFETY: as many values and nulls as the plan has parameters; SPI sets its result variables before it returns.
        unsafe {
            let code =
                pg_sys::SPI_execute_plan(statement.plan(), values.as_mut_ptr(), nulls.as_ptr(), false, 0 as c_long);
            assert!(code > 0, "SPI_execute_plan failed: {code}");
            Rows { count: pg_sys::SPI_processed as usize, table: pg_sys::SPI_tuptable }
        }
    }
}

/// While it lives, plans that are made look rows up by the index of their key. A plan is kept: one that was made while a table
/// was next to empty would read the whole of it, or of an index, for long after. See `sql/schema/42_queue.sql`.
struct ByIndex {
    enable_seqscan: bool,
    enable_mergejoin: bool,
    cpu_operator_cost: f64,
    cpu_index_tuple_cost: f64,
}

impl ByIndex {
    fn begin() -> Self {
        // SAFETY: PostgreSQL's processes have one thread; the planner alone reads them.
        unsafe {
            let before = Self {
                enable_seqscan: pg_sys::enable_seqscan,
                enable_mergejoin: pg_sys::enable_mergejoin,
                cpu_operator_cost: pg_sys::cpu_operator_cost,
                cpu_index_tuple_cost: pg_sys::cpu_index_tuple_cost,
            };
            pg_sys::enable_seqscan = false;
            pg_sys::enable_mergejoin = false;
            pg_sys::cpu_operator_cost = 0.0;
            pg_sys::cpu_index_tuple_cost = 0.0;
            before
        }
    }
}

impl Drop for ByIndex {
    fn drop(&mut self) {
        // SAFETY: as above; an ERROR of the server comes by here too.
        unsafe {
            pg_sys::enable_seqscan = self.enable_seqscan;
            pg_sys::enable_mergejoin = self.enable_mergejoin;
            pg_sys::cpu_operator_cost = self.cpu_operator_cost;
            pg_sys::cpu_index_tuple_cost = self.cpu_index_tuple_cost;
        }
    }
}

/// Rows of one statement, alive until the connection is finished.
pub(crate) struct Rows {
    count: usize,
    table: *mut pg_sys::SPITupleTable,
}

impl Rows {
    /// Rows returned, or written where the statement returns none.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Column `column`, from 1, of row `row`, from 0.
    pub(crate) fn get(&self, row: usize, column: usize) -> Option<Datum> {
        assert!(row < self.count && !self.table.is_null());
        let mut is_null = false;
        // SAFETY: the row exists; SPI answers a column that does not with NULL.
        let datum = unsafe {
            let tuple = *(*self.table).vals.add(row);
            pg_sys::SPI_getbinval(tuple, (*self.table).tupdesc, column as c_int, &raw mut is_null)
        };
        (!is_null).then_some(datum)
    }

    /// A column of type text.
    pub(crate) fn text(&self, row: usize, column: usize) -> Option<&str> {
        // SAFETY: the statement declares the column text; it lives as long as these rows.
        self.get(row, column).and_then(|datum| unsafe { crate::call::text_of(datum) })
    }

    /// A column of type bytea.
    pub(crate) fn bytes(&self, row: usize, column: usize) -> Option<&[u8]> {
        // SAFETY: the statement declares the column bytea; it lives as long as these rows.
        self.get(row, column).map(|datum| unsafe { crate::call::bytes_of(datum) })
    }

    /// A column of type boolean; NULL is false.
    pub(crate) fn flag(&self, row: usize, column: usize) -> bool {
        self.get(row, column).is_some_and(|datum| datum.value() as u8 != 0)
    }
}
