//! `sms_outbox.normalize_mobile()` and `sms_outbox.measure()`: what enqueue does with number and text, for asking.

use pgrx::pg_sys::{self, Datum};

use crate::call::{Call, Reply, sql_function, text_datum};
use crate::phone::{self, Fault};
use crate::refusal::Refusal;
use crate::segments;

fn normalize_mobile(call: &Call) -> Reply {
    let (Some(mobile), Some(region)) = (call.text(0), call.text(1)) else { return Ok(None) };
    phone::normalize(mobile, region).map(|number| Some(text_datum(&number))).map_err(|fault| {
        let column = if fault == Fault::UnknownRegion { "region" } else { "mobile" };
        Refusal::argument(column, fault.fault(), fault.cure())
    })
}

fn measure(call: &Call) -> Reply {
    let Some(message) = call.text(0) else { return Ok(None) };
    let measured = segments::measure(message);
    let mut descriptor = std::ptr::null_mut();
    // SAFETY: a valid frame of a function with two OUT columns, which make its result a row.
    unsafe {
        pg_sys::get_call_result_type(call.frame(), std::ptr::null_mut(), &raw mut descriptor);
        let descriptor = pg_sys::BlessTupleDesc(descriptor);
        let mut values = [text_datum(measured.encoding.word()), Datum::from(measured.segments as i32)];
        let mut nulls = [false; 2];
        let tuple = pg_sys::heap_form_tuple(descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
        Ok(Some(pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)))
    }
}

sql_function!(normalize_mobile_wrapper, pg_finfo_normalize_mobile_wrapper, normalize_mobile);
sql_function!(measure_wrapper, pg_finfo_measure_wrapper, measure);
