//! `sms_outbox.enter()`: how each request of the HTTP API begins. It checks the key, and says for the rest of the transaction
//! which organization it acts for.

use std::ffi::CString;

use pgrx::pg_sys;
use subtle::ConstantTimeEq;

use crate::arguments;
use crate::call::{Call, Reply, sql_function, text_datum};
use crate::caller::CLAIMS;
use crate::refusal::{Refusal, State};
use crate::statement::{Spi, Statement, statement};

static API_KEY: Statement = statement!("api_key", [TEXTOID, TEXTOID]);
static USE_KEY: Statement = statement!("use_key", [TEXTOID]);

/// SHA-256 of no key.
const NOBODYS: [u8; 32] = [0; 32];

/// Positions of the arguments, in the order of the SQL declaration.
mod argument {
    pub(super) const SCOPE: usize = 0;
    pub(super) const KEY_ID: usize = 1;
    pub(super) const KEY_DIGEST: usize = 2;
    pub(super) const ORGANIZATION_ID: usize = 3;
}

fn enter(call: &Call) -> Reply {
    let named = call.text(argument::ORGANIZATION_ID);
    let organization = match call.text(argument::KEY_ID) {
        Some(key_id) => {
            let spi = Spi::connect();
            let organization = organization_of(&spi, call, key_id, named)?;
            spi.finish();
            organization
        }
        None => arguments::organization_id(named.unwrap_or_default())?.to_owned(),
    };
    act_for(&organization);
    Ok(Some(text_datum(&organization)))
}

/// The organization of a good key that may do what is asked.
fn organization_of(spi: &Spi, call: &Call, key_id: &str, named: Option<&str>) -> Result<String, Refusal> {
    let scope = call.text(argument::SCOPE);
    let key_id = Some(text_datum(key_id));
    let key = spi.execute(&API_KEY, &[key_id, scope.map(text_datum)]);
    // The same look-up and comparison whatever is wrong, and one wording for it.
    let is_known = key.count() == 1;
    let digest = if is_known { key.bytes(0, 1) } else { None };
    let given = call.bytes(argument::KEY_DIGEST).unwrap_or_default();
    let is_equal = bool::from(digest.unwrap_or(&NOBODYS).ct_eq(given));
    if !(is_equal && is_known && key.flag(0, 3)) {
        return Err(
            Refusal::new(State::Unauthorized, "the credentials are missing or not valid").with_code("unauthorized")
        );
    }
    let organization = key.text(0, 2).unwrap_or_default().to_owned();
    if named.is_some_and(|named| named != organization) {
        return Err(Refusal::new(State::Forbidden, "the key belongs to another organization than the request names")
            .with_column("organization_id")
            .with_code("organization_mismatch"));
    }
    if !key.flag(0, 4) {
        return Err(Refusal::new(State::Forbidden, format!("the key has no scope {:?}", scope.unwrap_or_default()))
            .with_code("missing_scope")
            .with_hint("Make a key with this scope: create_api_key(…, scopes => …)."));
    }
    // To the minute.
    if !key.flag(0, 5) {
        spi.execute(&USE_KEY, &[key_id]);
    }
    Ok(organization)
}

/// Leaves the claim in the transaction, where [`crate::caller`] finds it. As `set_config(…, true)` does.
fn act_for(organization: &str) {
    // An organization's id holds nothing that JSON would escape.
    let claims = CString::new(format!(r#"{{"organization_id":"{organization}"}}"#)).unwrap_or_default();
    // SAFETY: two C strings, which are copied; it raises an ERROR rather than fail.
    unsafe {
        pg_sys::set_config_option(
            CLAIMS.as_ptr(),
            claims.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            0,
            false,
        );
    }
}

sql_function!(enter_wrapper, pg_finfo_enter_wrapper, enter);
