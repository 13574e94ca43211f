//! What enqueue has to know of the organization that the caller acts for: remembered by each session until somebody
//! changes it, since reading it costs a third of an enqueue.
//!
//! The tables that it is read from announce their changes as PostgreSQL's own catalogs do: `announce_change()`, a trigger of
//! theirs, sends an invalidation of the relation cache, which every session gets after the commit, and this one at the end
//! of the command, or when it is rolled back.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use pgrx::pg_sys::{self, Datum, Oid};

use crate::arguments::{self, Payload};
use crate::call::{Call, Reply, sql_function, text_datum, text_of};
use crate::caller::{self, Caller, Standing};
use crate::datetime::Micros;
use crate::limits::Limits;
use crate::refusal::{Refusal, State};
use crate::refused;
use crate::settings;
use crate::statement::{Spi, Statement, statement};

static FACTS: Statement = statement!("organization_facts", [TEXTOID, OIDOID, OIDOID]);
static SLUGS: Statement = statement!("provider_slugs", [TEXTOID]);

/// Organizations that a session remembers at once.
const MOST_REMEMBERED: usize = 64;

/// What was read, and for whom: the organization asked for, the login, and the role that acts.
type Remembered = (Option<String>, [Oid; 2], Rc<Row>);

thread_local! {
    static MEMORY: RefCell<Vec<Remembered>> = const { RefCell::new(Vec::new()) };
    /// Changes that this session was told of.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
    /// [`CHANGES`] when the memory was last emptied.
    static EMPTIED: Cell<u64> = const { Cell::new(0) };
}

/// Asks to be told of changes. Once in a session.
pub(crate) fn watch() {
    // SAFETY: the callback touches one cell of this session.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), Datum::null()) };
}

/// Of any relation: changes of tables are rare, and looking which one it is would read catalogs.
unsafe extern "C-unwind" fn relation_changed(_arg: Datum, _relation: Oid) {
    CHANGES.set(CHANGES.get() + 1);
}

/// What the statement gives.
struct Row {
    bindings: Option<String>,
    region: Option<String>,
    time_zone: Option<String>,
    has_app: bool,
    limits: Limits,
    /// Read when the first message names a provider.
    slugs: OnceCell<Slugs>,
}

impl Row {
    /// From memory, or else read anew.
    fn of(spi: &Spi, asked: Option<&str>, roles: [Oid; 2]) -> Rc<Self> {
        // SAFETY: in a transaction; what other sessions have committed is made known. A snapshot older than the command
        // must neither see what is newer, nor leave what is older behind.
        let whole_transaction = unsafe {
            pg_sys::AcceptInvalidationMessages();
            pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32
        };
        if whole_transaction {
            return Rc::new(Self::read(spi, asked, roles));
        }
        let before = CHANGES.get();
        if EMPTIED.replace(before) != before {
            MEMORY.with_borrow_mut(Vec::clear);
        }
        let known = MEMORY.with_borrow(|memory| {
            let known = memory.iter().find(|(known, by, _)| *by == roles && known.as_deref() == asked);
            known.map(|(_, _, row)| Rc::clone(row))
        });
        known.unwrap_or_else(|| {
            let row = Rc::new(Self::read(spi, asked, roles));
            // A change that came while it was read may not be in it.
            if CHANGES.get() == before {
                MEMORY.with_borrow_mut(|memory| {
                    if memory.len() == MOST_REMEMBERED {
                        memory.clear();
                    }
                    memory.push((asked.map(str::to_owned), roles, Rc::clone(&row)));
                });
            }
            row
        })
    }

    fn read(spi: &Spi, asked: Option<&str>, roles: [Oid; 2]) -> Self {
        let [login, acting] = roles.map(|role| Some(Datum::from(role)));
        let rows = spi.execute(&FACTS, &[asked.map(text_datum), login, acting]);
        let text = |column| rows.text(0, column).map(str::to_owned);
        Self {
            bindings: text(1),
            region: text(2),
            time_zone: text(3),
            has_app: rows.flag(0, 4),
            limits: Limits::read(&rows, 5),
            slugs: OnceCell::new(),
        }
    }
}

/// Time zone of an organization that has set none.
const DEFAULT_TIME_ZONE: &str = "Asia/Riyadh";

/// The organization that a call is for.
pub(crate) struct Facts {
    /// Its id, as SQL takes it.
    pub(crate) organization: Datum,
    pub(crate) region: String,
    row: Rc<Row>,
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
        let roles = caller::roles();
        let mut asked = caller.asks_for(argument).map(str::to_owned);
        loop {
            let row = Row::of(spi, asked.as_deref(), roles);
            let chosen = match caller.standing(argument, row.bindings.as_deref())? {
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
            if asked.as_ref() == Some(&chosen) {
                return Ok(Self {
                    organization: text_datum(&chosen),
                    region: row.region.clone().unwrap_or_else(settings::default_region),
                    row,
                });
            }
            // A bound role that named no organization: now we know which.
            asked = Some(chosen);
        }
    }

    fn time_zone(&self) -> &str {
        self.row.time_zone.as_deref().unwrap_or(DEFAULT_TIME_ZONE)
    }

    /// A clock on the organization's wall as a moment.
    pub(crate) fn in_zone(&self, local: Micros) -> Micros {
        // SAFETY: timestamp_zone takes a text and a timestamp; an unknown zone is its own ERROR.
        unsafe {
            pgrx::fcinfo::direct_function_call(
                pg_sys::timestamp_zone,
                &[Some(text_datum(self.time_zone())), Some(Datum::from(local))],
            )
            .unwrap_or(local)
        }
    }

    /// What the organization may enqueue; see [`Limits::admit`].
    pub(crate) fn admit(&self, spi: &Spi, now: Micros, new: &[&Payload<'_>]) -> Result<(), (usize, Refusal)> {
        let admitted = self.row.limits.admit(spi, self.organization, self.time_zone(), now, new);
        if let Err((_, refusal)) = &admitted {
            // SAFETY: a text that lives as long as the call.
            refused::count(unsafe { text_of(self.organization) }.unwrap_or_default(), refusal.code.unwrap_or_default());
        }
        admitted
    }

    /// Something must be installed that can send it.
    pub(crate) fn check_apps(&self, spi: &Spi, preferred: Option<&str>) -> Result<(), Refusal> {
        if let Some(slug) = preferred {
            self.check_slug(self.row.slugs.get_or_init(|| Slugs::read(spi, self.organization)), slug)?;
        }
        if self.row.has_app {
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

/// `sms_outbox.announce_change()`: a statement trigger.
fn announce_change(call: &Call) -> Reply {
    if let Some(relation) = call.trigger_relation() {
        // SAFETY: a table that the statement holds open; in a transaction.
        unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) };
    }
    Ok(Some(Datum::null()))
}

sql_function!(announce_change_wrapper, pg_finfo_announce_change_wrapper, announce_change);
