//! The settings `sms_outbox.*`. Their defaults and bounds stand here and nowhere else: SQL reads them by `setting()`.

use std::ffi::{CStr, CString, c_char, c_void};

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};
use pgrx::pg_sys;

use crate::call::{Call, Reply, sql_function, text_datum};
use crate::phone;
use crate::refusal::Refusal;

/// How workers learn of committed messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
#[allow(non_camel_case_types, reason = "the names are the setting's values")]
pub(crate) enum Wakeup {
    coalesced,
    trigger,
    off,
}

const MINUTE: i32 = 60;
const HOUR: i32 = 60 * MINUTE;
const DAY: i32 = 24 * HOUR;
/// Ten years: longer than any partition should be kept, and far from the end of an integer.
const LONGEST: i32 = 3650 * DAY;

static ORGANIZATION_ID: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static DEFAULT_REGION: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"SA"));
static RETENTION_SENT: GucSetting<i32> = GucSetting::<i32>::new(30 * DAY);
static RETENTION_FAILED: GucSetting<i32> = GucSetting::<i32>::new(30 * DAY);
static RETENTION_PENDING: GucSetting<i32> = GucSetting::<i32>::new(7 * DAY);
static SCHEDULE_LIMIT: GucSetting<i32> = GucSetting::<i32>::new(90 * DAY);
static MAX_ATTEMPTS: GucSetting<i32> = GucSetting::<i32>::new(10);
static LEASE_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(2 * MINUTE);
static MAINTENANCE_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(1000);
static OVERRIDE_LIMITS: GucSetting<bool> = GucSetting::<bool>::new(false);
static PLAIN_CREDENTIALS: GucSetting<bool> = GucSetting::<bool>::new(true);
static WAKEUP: GucSetting<Wakeup> = GucSetting::<Wakeup>::new(Wakeup::coalesced);

/// Tells PostgreSQL of the settings, and that nobody else may use the prefix.
pub(crate) fn define() {
    GucRegistry::define_string_guc(
        c"sms_outbox.organization_id",
        c"Organization of messages enqueued without one.",
        c"1 to 64 characters of A-Z a-z 0-9 _ - . : or empty for none.",
        &ORGANIZATION_ID,
        GucContext::Userset,
        GucFlags::default(),
    );
    // SAFETY: the hook neither panics nor keeps its arguments.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"sms_outbox.default_region",
            c"Region of numbers without a country code, where the organization has set none.",
            c"Two capital letters of ISO 3166.",
            &DEFAULT_REGION,
            GucContext::Suset,
            GucFlags::default(),
            Some(check_region),
            None,
            None,
        );
    }
    GucRegistry::define_enum_guc(
        c"sms_outbox.wakeup",
        c"How workers learn of committed messages.",
        c"coalesced: the background worker sends one NOTIFY for many commits (needs shared_preload_libraries); \
          trigger: NOTIFY in each enqueuing transaction, which serializes their commits; off: workers poll.",
        &WAKEUP,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"sms_outbox.plain_credentials",
        c"Whether an app may be installed whose credentials are plain text, neither sealed nor references.",
        c"",
        &PLAIN_CREDENTIALS,
        GucContext::Suset,
        GucFlags::default(),
    );
    seconds(
        c"sms_outbox.retention_sent",
        c"How long a sent message is kept, from when it was sent.",
        &RETENTION_SENT,
        HOUR,
        LONGEST,
    );
    seconds(
        c"sms_outbox.retention_failed",
        c"How long a message that ended otherwise is kept, from its end.",
        &RETENTION_FAILED,
        HOUR,
        LONGEST,
    );
    seconds(
        c"sms_outbox.retention_pending",
        c"How long a message may wait, from when it was due; it then ends as expired.",
        &RETENTION_PENDING,
        MINUTE,
        LONGEST,
    );
    seconds(c"sms_outbox.schedule_limit", c"How far ahead datetime may be.", &SCHEDULE_LIMIT, 0, LONGEST);
    seconds(
        c"sms_outbox.lease_timeout",
        c"How long a worker may take for one attempt; it then counts as unclear.",
        &LEASE_TIMEOUT,
        10,
        HOUR,
    );
    integer(
        c"sms_outbox.max_attempts",
        c"Attempts after which a message fails.",
        &MAX_ATTEMPTS,
        1,
        100,
        GucFlags::default(),
    );
    integer(
        c"sms_outbox.maintenance_interval",
        c"How often the background worker runs maintenance.",
        &MAINTENANCE_INTERVAL,
        100,
        HOUR * 1000,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_bool_guc(
        c"sms_outbox.override_limits",
        c"Lets an operator enqueue and retry what limits and suppression lists refuse.",
        c"Honoured for members of sms_outbox_operator and for superusers only. Meant for SET LOCAL.",
        &OVERRIDE_LIMITS,
        GucContext::Userset,
        GucFlags::default(),
    );
    // SAFETY: a C string that lives for ever.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"sms_outbox".as_ptr()) };
}

fn seconds(name: &'static CStr, meaning: &'static CStr, setting: &'static GucSetting<i32>, least: i32, most: i32) {
    integer(name, meaning, setting, least, most, GucFlags::UNIT_S);
}

fn integer(
    name: &'static CStr,
    meaning: &'static CStr,
    setting: &'static GucSetting<i32>,
    least: i32,
    most: i32,
    unit: GucFlags,
) {
    GucRegistry::define_int_guc(name, meaning, c"", setting, least, most, GucContext::Suset, unit);
}

/// Refuses a region that no number can belong to: found now rather than in every enqueue.
unsafe extern "C-unwind" fn check_region(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL passes the proposed value, which may be null.
    unsafe { !(*value).is_null() && CStr::from_ptr(*value).to_str().is_ok_and(phone::is_region) }
}

/// `sms_outbox.organization_id`, unless it is empty.
pub(crate) fn organization_id() -> Option<String> {
    text(&ORGANIZATION_ID).filter(|id| !id.is_empty())
}

/// `sms_outbox.default_region`.
pub(crate) fn default_region() -> String {
    text(&DEFAULT_REGION).unwrap_or_default()
}

fn text(setting: &GucSetting<Option<CString>>) -> Option<String> {
    setting.get().and_then(|text| text.into_string().ok())
}

/// `sms_outbox.schedule_limit`, in seconds.
pub(crate) fn schedule_limit() -> i32 {
    SCHEDULE_LIMIT.get()
}

/// `sms_outbox.maintenance_interval`, in milliseconds.
pub(crate) fn maintenance_interval() -> i32 {
    MAINTENANCE_INTERVAL.get()
}

/// `sms_outbox.override_limits`, whoever has set it.
pub(crate) fn override_limits() -> bool {
    OVERRIDE_LIMITS.get()
}

/// `sms_outbox.wakeup`.
pub(crate) fn wakeup() -> Wakeup {
    WAKEUP.get()
}

/// `sms_outbox.setting(name)`: the value as SHOW prints it.
fn setting(call: &Call) -> Reply {
    let Some(name) = call.text(0) else { return Ok(None) };
    let unknown = || {
        Refusal::argument(
            "name",
            "is no setting of sms_outbox",
            "SELECT name FROM pg_settings WHERE name LIKE 'sms\\_outbox.%' lists them.",
        )
    };
    let full = CString::new(format!("sms_outbox.{name}")).map_err(|_| unknown())?;
    // SAFETY: a valid C string; an unknown name gives null; the value is copied before the call ends.
    unsafe {
        let value = pg_sys::GetConfigOptionByName(full.as_ptr(), std::ptr::null_mut(), true);
        if value.is_null() {
            return Err(unknown());
        }
        Ok(Some(text_datum(&CStr::from_ptr(value).to_string_lossy())))
    }
}

sql_function!(setting_wrapper, pg_finfo_setting_wrapper, setting);
