//! On whose behalf a call is made. The one place that decides it: enqueue asks here, and so does row security.
//!
//! Strongest first: the organization that a role is bound to (`bind_role`), the claim of `request.jwt.claims`, the
//! argument, the setting. A weaker one that names another organization than a stronger one is refused, never ignored.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Datum, Oid};

use crate::arguments::{self, given};
use crate::call::{Call, Reply, sql_function, text_datum};
use crate::refusal::{Refusal, State};
use crate::settings;
use crate::statement::{Spi, Statement, statement};

static ROLE_BINDINGS: Statement = statement!("role_bindings", [OIDOID, OIDOID]);

/// A binding that leaves the organization to each transaction.
const PER_TRANSACTION: &str = "*";

/// The setting in which PostgREST and the API leave the claims of a transaction.
pub(crate) const CLAIMS: &CStr = c"request.jwt.claims";

/// Group of the logins of the API, which are never trusted for all organizations.
const API_GROUP: &CStr = c"sms_outbox_api";

/// What a call says about its organization.
pub(crate) struct Caller {
    claim: Option<String>,
    setting: Option<String>,
    in_api_group: bool,
}

/// Whose rows a call may touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Of this organization.
    One(String),
    /// Of every organization: an operator, or an application that serves them all.
    All,
    /// Of none: the organization comes with each transaction, and this one has brought none.
    Nothing,
}

impl Caller {
    pub(crate) fn read() -> Result<Self, Refusal> {
        Ok(Self { claim: claim()?, setting: settings::organization_id(), in_api_group: is_in_api_group() })
    }

    /// The organization that is asked for before any binding is known.
    pub(crate) fn asks_for<'a>(&'a self, argument: Option<&'a str>) -> Option<&'a str> {
        self.claim.as_deref().or(argument).or(self.setting.as_deref())
    }

    /// Decides. `bindings` are those of both roles, as the statements list them.
    pub(crate) fn standing(&self, argument: Option<&str>, bindings: Option<&str>) -> Result<Standing, Refusal> {
        let mut per_transaction = self.in_api_group;
        let mut bound: Option<&str> = None;
        for binding in bindings.into_iter().flat_map(|bindings| bindings.split(',')) {
            match bound {
                _ if binding == PER_TRANSACTION => per_transaction = true,
                Some(other) if other != binding => {
                    return Err(mismatch("the login and the role of SET ROLE are bound to different organizations"));
                }
                _ => bound = Some(binding),
            }
        }
        let claim = self.claim.as_deref();
        let setting = self.setting.as_deref();
        if per_transaction && bound.or(claim).or(setting).is_none() {
            return Ok(Standing::Nothing);
        }
        let sources = [
            (bound, "this role is bound to another organization"),
            (claim, "the claim organization_id names another organization"),
            (argument, "the argument names another organization"),
            (setting, "the setting sms_outbox.organization_id names another organization"),
        ];
        let mut strongest: Option<(&str, &str)> = None;
        for (named, fault) in sources {
            match (strongest, named) {
                (None, Some(named)) => strongest = Some((named, fault)),
                (Some((chosen, fault)), Some(named)) if chosen != named => return Err(mismatch(fault)),
                _ => {}
            }
        }
        match strongest {
            Some((chosen, _)) => {
                arguments::organization_id(chosen)?;
                Ok(Standing::One(chosen.to_owned()))
            }
            None => Ok(Standing::All),
        }
    }
}

/// The login, and the role that acts: inside a definer function neither is `current_user`.
pub(crate) fn roles() -> [Oid; 2] {
    // SAFETY: plain reads of the session's state.
    unsafe { [pg_sys::GetSessionUserId(), pg_sys::GetOuterUserId()] }
}

fn mismatch(fault: &str) -> Refusal {
    Refusal::new(State::Forbidden, format!("organization_id: {fault}"))
        .with_column("organization_id")
        .with_code("organization_mismatch")
        .with_hint("Leave it out, or name the organization that the caller belongs to.")
}

/// A refusal of a call that names no organization.
pub(crate) fn none_named() -> Refusal {
    Refusal::new(
        State::Forbidden,
        "organization_id: this role acts for one organization a transaction, and this one names none",
    )
    .with_column("organization_id")
    .with_code("organization_mismatch")
    .with_hint("Set the claim organization_id in request.jwt.claims, or SET LOCAL sms_outbox.organization_id.")
}

/// `organization_id` of the transaction's claims.
fn claim() -> Result<Option<String>, Refusal> {
    // SAFETY: a placeholder or no setting at all; the value is copied before anything can change it.
    let claims = unsafe {
        let value = pg_sys::GetConfigOption(CLAIMS.as_ptr(), true, false);
        if value.is_null() { return Ok(None) } else { CStr::from_ptr(value).to_string_lossy().into_owned() }
    };
    #[derive(serde::Deserialize)]
    struct Claims {
        organization_id: Option<String>,
    }
    if claims.is_empty() {
        return Ok(None);
    }
    let claims: Claims = serde_json::from_str(&claims).map_err(|_| {
        Refusal::new(
            State::Forbidden,
            "organization_id: request.jwt.claims is no JSON object with a text organization_id",
        )
        .with_column("organization_id")
        .with_code("organization_mismatch")
        .with_hint("The claim organization_id is a text like \"shop\".")
    })?;
    Ok(claims.organization_id.filter(|id| given(Some(id)).is_some()))
}

fn is_in_api_group() -> bool {
    // SAFETY: catalog look-ups through the syscache, in a transaction.
    unsafe {
        let group = pg_sys::get_role_oid(API_GROUP.as_ptr(), true);
        group != Oid::INVALID
            && (pg_sys::is_member_of_role_nosuper(pg_sys::GetSessionUserId(), group)
                || pg_sys::is_member_of_role_nosuper(pg_sys::GetOuterUserId(), group))
    }
}

/// `sms_outbox.visible_organization()`: what row security lets through.
fn visible_organization(_: &Call) -> Reply {
    let caller = Caller::read()?;
    let spi = Spi::connect();
    let roles = roles().map(Datum::from);
    let rows = spi.execute(&ROLE_BINDINGS, &roles.map(Some));
    let standing = caller.standing(None, rows.text(0, 1))?;
    spi.finish();
    Ok(match standing {
        Standing::One(organization) => Some(text_datum(&organization)),
        Standing::All => Some(text_datum("*")),
        Standing::Nothing => None,
    })
}

sql_function!(visible_organization_wrapper, pg_finfo_visible_organization_wrapper, visible_organization);

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(claim: Option<&str>, setting: Option<&str>, in_api_group: bool) -> Caller {
        Caller { claim: claim.map(str::to_owned), setting: setting.map(str::to_owned), in_api_group }
    }

    fn one(organization: &str) -> Result<Standing, ()> {
        Ok(Standing::One(organization.to_owned()))
    }

    #[test]
    fn the_strongest_decides_and_the_others_must_agree() {
        for (bindings, claim, argument, setting, expected) in [
            (None, None, None, None, Ok(Standing::All)),
            (None, None, None, Some("s"), one("s")),
            (None, None, Some("a"), None, one("a")),
            (None, None, Some("a"), Some("s"), Err(())),
            (None, Some("c"), None, None, one("c")),
            (None, Some("c"), Some("c"), Some("c"), one("c")),
            (None, Some("c"), Some("a"), None, Err(())),
            (Some("b"), None, None, None, one("b")),
            (Some("b"), Some("c"), None, None, Err(())),
            (Some("b"), None, Some("a"), None, Err(())),
            (Some("b"), None, None, Some("s"), Err(())),
            (Some("b,b"), None, Some("b"), None, one("b")),
            (Some("b,x"), None, None, None, Err(())),
            (Some("*"), None, None, None, Ok(Standing::Nothing)),
            (Some("*"), None, Some("a"), None, Ok(Standing::Nothing)),
            (Some("*"), Some("c"), None, None, one("c")),
            (Some("*"), Some("c"), Some("a"), None, Err(())),
            (Some("*,b"), None, None, None, one("b")),
            (None, Some("not valid"), None, None, Err(())),
        ] {
            let standing = caller(claim, setting, false).standing(argument, bindings).map_err(drop);
            assert_eq!(standing, expected, "{bindings:?} {claim:?} {argument:?} {setting:?}");
        }
    }

    #[test]
    fn the_api_is_never_trusted_for_all() {
        assert_eq!(caller(None, None, true).standing(Some("a"), None), Ok(Standing::Nothing));
        assert_eq!(caller(Some("c"), None, true).standing(None, None), Ok(Standing::One("c".to_owned())));
    }
}
