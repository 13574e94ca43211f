//! What both forms of enqueue do with the tables: what the organization has, keys, and the messages themselves.

use std::cell::OnceCell;

use pgrx::pg_sys::{self, Datum};

use crate::arguments::{self, Payload};
use crate::call::{text_datum, text_of};
use crate::caller::{self, Caller, Standing};
use crate::datetime::Micros;
use crate::ids;
use crate::limits::Limits;
use crate::refusal::{Refusal, State};
use crate::refused;
use crate::settings;
use crate::statement::{Rows, Spi, Statement, statement};

static FACTS: Statement = statement!("organization_facts", [TEXTOID, OIDOID, OIDOID]);
static SLUGS: Statement = statement!("provider_slugs", [TEXTOID]);
static READ_KEYS: Statement = statement!("read_keys", [TEXTOID, TEXTARRAYOID]);
static TAKE_KEY: Statement = statement!("take_key", [TEXTOID, TEXTOID, UUIDOID, UUIDOID]);
static COUNT_MISMATCHES: Statement = statement!("count_mismatches", [TEXTOID, TEXTARRAYOID]);

/// Time zone of an organization that has set none.
const DEFAULT_TIME_ZONE: &str = "Asia/Riyadh";

/// What enqueue has to know of the organization that the caller acts for.
pub(crate) struct Facts {
    /// Its id, as SQL takes it.
    pub(crate) organization: Datum,
    pub(crate) region: String,
    time_zone: String,
    has_app: bool,
    limits: Limits,
    /// Read when the first message names a provider.
    slugs: OnceCell<Slugs>,
}

struct Slugs {
    installed: Vec<String>,
    known: Vec<String>,
}

impl Facts {
    /// Decides for whom the caller acts (`argument` is the one of the call), and reads what is known of that organization.
    pub(crate) fn read(spi: &Spi, argument: Option<&str>) -> Result<Self, Refusal> {
        let caller = Caller::read()?;
        let argument = arguments::given(argument);
        let [login, acting] = caller::roles().map(Some);
        let mut asked = caller.asks_for(argument).map(str::to_owned);
        loop {
            let organization = asked.as_deref().map(text_datum);
            let rows = spi.execute(&FACTS, &[organization, login, acting]);
            let chosen = match caller.standing(argument, rows.text(0, 1))? {
                Standing::One(chosen) => chosen,
                Standing::Nothing => return Err(caller::none_named()),
                Standing::All => {
                    return Err(Refusal::argument(
                        "organization_id",
                        "is missing",
                        "Give organization_id, or SET sms_outbox.organization_id for the session.",
                    ));
                }
            };
            if let Some(organization) = organization
                && asked.as_ref() == Some(&chosen)
            {
                return Ok(Self {
                    organization,
                    region: rows.text(0, 2).map_or_else(settings::default_region, str::to_owned),
                    time_zone: rows.text(0, 3).unwrap_or(DEFAULT_TIME_ZONE).to_owned(),
                    has_app: rows.flag(0, 4),
                    limits: Limits::read(&rows, 5),
                    slugs: OnceCell::new(),
                });
            }
            // A bound role that named no organization: now we know which.
            asked = Some(chosen);
        }
    }

    /// A clock on the organization's wall as a moment.
    pub(crate) fn in_zone(&self, local: Micros) -> Micros {
        // SAFETY: timestamp_zone takes a text and a timestamp; an unknown zone is its own ERROR.
        unsafe {
            pgrx::fcinfo::direct_function_call(
                pg_sys::timestamp_zone,
                &[Some(text_datum(&self.time_zone)), Some(Datum::from(local))],
            )
            .unwrap_or(local)
        }
    }

    /// What the organization may enqueue; see [`Limits::admit`].
    pub(crate) fn admit(&self, spi: &Spi, now: Micros, new: &[&Payload<'_>]) -> Result<(), (usize, Refusal)> {
        let admitted = self.limits.admit(spi, self.organization, &self.time_zone, now, new);
        if let Err((_, refusal)) = &admitted {
            // SAFETY: a text that lives as long as the call.
            refused::count(unsafe { text_of(self.organization) }.unwrap_or_default(), refusal.code.unwrap_or_default());
        }
        admitted
    }

    /// Something must be installed that can send it.
    pub(crate) fn check_apps(&self, spi: &Spi, preferred: Option<&str>) -> Result<(), Refusal> {
        if let Some(slug) = preferred {
            self.check_slug(self.slugs.get_or_init(|| Slugs::read(spi, self.organization)), slug)?;
        }
        if self.has_app {
            return Ok(());
        }
        Err(Refusal::new(State::NotReady, "no SMS app is installed for this organization")
            .with_code("no_sms_app")
            .with_hint("Install one with sms_outbox.install_app(organization_id, provider_slug, …)."))
    }

    fn check_slug(&self, slugs: &Slugs, slug: &str) -> Result<(), Refusal> {
        if slugs.installed.iter().any(|installed| installed == slug) {
            return Ok(());
        }
        if !slugs.known.iter().any(|known| known == slug) {
            let hint = format!("Known providers: {}.", slugs.known.join(", "));
            return Err(Refusal::argument("preferred_provider_slug", "is no provider of the catalog", hint));
        }
        let refusal =
            Refusal::new(State::NotReady, "preferred_provider_slug: this organization has no app of the provider")
                .with_column("preferred_provider_slug")
                .with_code("no_sms_app")
                .with_hint(
                    "Install one with sms_outbox.install_app(organization_id, provider_slug, …), or name no provider.",
                );
        Err(match slugs.installed.as_slice() {
            [] => refusal.with_detail("No SMS app is installed for this organization."),
            installed => refusal.with_detail(format!("Installed: {}.", installed.join(", "))),
        })
    }
}

impl Slugs {
    fn read(spi: &Spi, organization: Datum) -> Self {
        let rows = spi.execute(&SLUGS, &[Some(organization)]);
        let split = |column| {
            let slugs = rows.text(0, column).unwrap_or_default();
            slugs.split(',').filter(|slug| !slug.is_empty()).map(str::to_owned).collect()
        };
        Self { installed: split(1), known: split(2) }
    }
}

/// The message that a key stands for already.
pub(crate) struct Existing {
    pub(crate) id: u128,
    /// Where the message is now, as the enum's value.
    pub(crate) status: Datum,
    mobile: String,
    message: String,
    sender: Option<String>,
    preferred_provider_slug: Option<String>,
    due_at: Option<i64>,
    priority: i16,
}

impl Existing {
    fn read(rows: &Rows, row: usize, id: u128, status: Datum) -> Self {
        let text = |column| rows.text(row, column).map(str::to_owned);
        Self {
            id,
            status,
            mobile: text(4).unwrap_or_default(),
            message: text(5).unwrap_or_default(),
            sender: text(6),
            preferred_provider_slug: text(7),
            due_at: rows.get(row, 8).map(|datum| datum.value() as i64),
            priority: rows.get(row, 9).map_or(0, |datum| datum.value() as i16),
        }
    }

    /// Whether a request asks for the same message. A bad one does not.
    pub(crate) fn is_same(&self, payload: Option<&Payload<'_>>) -> bool {
        payload.is_some_and(|payload| {
            self.mobile == payload.mobile
                && self.message == payload.message
                && self.sender.as_deref() == payload.sender
                && self.preferred_provider_slug.as_deref() == payload.preferred_provider_slug
                && self.due_at == payload.due_at
                && self.priority == payload.priority
        })
    }
}

/// What became of a key that was taken already.
pub(crate) enum Taken {
    /// It stands for this message.
    Replay(Box<Existing>),
    /// Its message was gone, so the new message took it.
    Ours,
    /// Its row went while we looked: try to insert it again.
    Gone,
}

/// Reads what taken keys, sorted, stand for, in statements of their own: only these see what was committed meanwhile.
pub(crate) fn resolve(spi: &Spi, organization: Datum, keys: &[(&str, u128)]) -> Vec<Taken> {
    let texts = array(keys.iter().map(|(key, _)| text_datum(key)), pg_sys::TEXTOID);
    let rows = spi.execute(&READ_KEYS, &[Some(organization), Some(texts)]);
    let mut found: Vec<Taken> = keys.iter().map(|_| Taken::Gone).collect();
    let mut stale = Vec::new();
    for row in 0..rows.count() {
        let Some(place) = rows.text(row, 1).and_then(|key| keys.binary_search_by_key(&key, |(known, _)| known).ok())
        else {
            continue;
        };
        let Some(id) = rows.get(row, 2).map(ids::from_datum) else { continue };
        match rows.get(row, 3) {
            Some(status) => found[place] = Taken::Replay(Box::new(Existing::read(&rows, row, id, status))),
            None => stale.push((place, id)),
        }
    }
    for (place, old) in stale {
        let (key, new) = keys[place];
        let arguments = [Some(organization), Some(text_datum(key)), Some(ids::datum(old)), Some(ids::datum(new))];
        if spi.execute(&TAKE_KEY, &arguments).count() == 1 {
            found[place] = Taken::Ours;
        }
    }
    found
}

/// Times that a key is tried while retention or another caller changes it under our hands.
pub(crate) const KEY_TRIES: usize = 10;

pub(crate) fn key_contended() -> Refusal {
    Refusal::new(State::SerializationFailure, "idempotency_key: the key kept changing hands")
        .with_column("idempotency_key")
        .with_hint("Try the transaction again.")
}

/// Counts that these keys came again with another payload.
pub(crate) fn count_mismatches(spi: &Spi, organization: Datum, keys: &[&str]) {
    if !keys.is_empty() {
        let keys = array(keys.iter().map(|key| text_datum(key)), pg_sys::TEXTOID);
        spi.execute(&COUNT_MISMATCHES, &[Some(organization), Some(keys)]);
    }
}

/// An array of SQL without NULLs.
pub(crate) fn array(elements: impl Iterator<Item = Datum>, element_type: pg_sys::Oid) -> Datum {
    nullable_array(elements.map(Some), element_type)
}

/// An array of SQL.
pub(crate) fn nullable_array(elements: impl Iterator<Item = Option<Datum>>, element_type: pg_sys::Oid) -> Datum {
    let (mut values, mut nulls): (Vec<Datum>, Vec<bool>) =
        elements.map(|element| (element.unwrap_or(Datum::null()), element.is_none())).unzip();
    let (mut length, mut by_value, mut alignment) = (0, false, 0);
    // SAFETY: as many values as nulls; the type's storage is asked of the catalog.
    unsafe {
        pg_sys::get_typlenbyvalalign(element_type, &raw mut length, &raw mut by_value, &raw mut alignment);
        let mut dimension = values.len() as i32;
        let mut lower_bound = 1;
        let array = if values.is_empty() {
            pg_sys::construct_empty_array(element_type)
        } else {
            pg_sys::construct_md_array(
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
                1,
                &raw mut dimension,
                &raw mut lower_bound,
                element_type,
                i32::from(length),
                by_value,
                alignment,
            )
        };
        Datum::from(array)
    }
}
