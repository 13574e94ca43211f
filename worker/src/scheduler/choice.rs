//! Which app an entry goes by: the organization's order, then weight among equals; never one that refused it, and
//! one that failed in this round only where no other may be used.

use std::time::Duration;

use super::room::Opening;
use super::share::mix;
use super::window::Waiting;
use crate::message::{AppId, MessageId};
use crate::outbox::App;

/// What there is for one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// This app, now.
    Go(AppId),
    /// None now; some at this time, if that is known.
    Wait(Option<Duration>),
    /// None ever: no installed app matches.
    Never,
}

/// Chooses among the organization's apps, each with its opening.
pub(super) fn choose(id: MessageId, pinned: Option<&str>, entry: &Waiting, apps: &[(&App, Opening)]) -> Choice {
    let matches = |app: &App| pinned.is_none_or(|slug| slug == &*app.slug) && !entry.refused_by.contains(&app.id);
    let mut candidates: Vec<&(&App, Opening)> = apps.iter().filter(|(app, _)| matches(app)).collect();
    if candidates.is_empty() {
        return Choice::Never;
    }
    // Where another app is merely full, the entry waits for it: an app that just failed would only burn its attempts.
    let others =
        |(app, opening): &(&App, Opening)| !entry.avoid.contains(&app.id) && !matches!(opening, Opening::Closed(_));
    if candidates.iter().any(|candidate| others(candidate)) {
        candidates.retain(|candidate| others(candidate));
    }
    let open = candidates.iter().filter(|(_, opening)| *opening == Opening::Now).map(|(app, _)| *app);
    let Some(position) = open.clone().map(|app| app.position).min() else {
        let times = candidates.iter().filter_map(|(_, opening)| match opening {
            Opening::Now => None,
            Opening::Full(at) | Opening::Closed(at) => *at,
        });
        return Choice::Wait(times.min());
    };
    weighted(id, open.filter(|app| app.position == position))
}

/// By the id, so that the same message makes the same choice: the point that its hash takes on the line of weights.
fn weighted<'a>(id: MessageId, equals: impl Iterator<Item = &'a App> + Clone) -> Choice {
    let weight = |app: &App| u64::from(app.weight.max(1));
    let total: u64 = equals.clone().map(weight).sum();
    let bits = id.0.as_u128();
    let mut point = mix(mix((bits >> 64) as u64) ^ bits as u64) % total.max(1);
    for app in equals {
        if point < weight(app) {
            return Choice::Go(app.id);
        }
        point -= weight(app);
    }
    Choice::Wait(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::AppState;
    use uuid::Uuid;

    fn app(id: i64, slug: &str, position: i32, weight: u32) -> App {
        App {
            id: AppId(id),
            organization: "shop".into(),
            slug: slug.into(),
            position,
            weight,
            max_in_flight: 16,
            rate: None,
            state: AppState::Open,
        }
    }

    fn entry(refused_by: &[i64], avoid: &[i64]) -> Waiting {
        let ids = |ids: &[i64]| ids.iter().copied().map(AppId).collect();
        Waiting { refused_by: ids(refused_by), avoid: ids(avoid) }
    }

    const ID: MessageId = MessageId(Uuid::from_u128(0x019a_b000_0000_7000_8000_0000_0000_0001));
    const SOON: Duration = Duration::from_secs(9);

    #[test]
    fn order_refusals_failures_and_room_decide_in_this_order() {
        let (first, second, third) = (app(1, "a", 1, 1), app(2, "b", 2, 1), app(3, "c", 3, 1));
        let now = Opening::Now;
        let (full, closed) = (Opening::Full(Some(SOON)), Opening::Closed(Some(SOON)));
        let cases = [
            ([now, now, now], entry(&[], &[]), None, Choice::Go(AppId(1))),
            ([full, now, now], entry(&[], &[]), None, Choice::Go(AppId(2))),
            ([now, now, now], entry(&[1], &[]), None, Choice::Go(AppId(2))),
            ([now, now, now], entry(&[], &[1, 2]), None, Choice::Go(AppId(3))),
            // The one that has not failed is full: wait for it.
            ([now, full, full], entry(&[], &[1]), None, Choice::Wait(Some(SOON))),
            // Those that have not failed are closed: the failed one after all.
            ([now, closed, closed], entry(&[], &[1]), None, Choice::Go(AppId(1))),
            ([now, now, closed], entry(&[], &[]), Some("c"), Choice::Wait(Some(SOON))),
            ([now, now, now], entry(&[3], &[]), Some("c"), Choice::Never),
            ([now, now, now], entry(&[], &[]), Some("d"), Choice::Never),
            ([closed, closed, closed], entry(&[1, 2, 3], &[]), None, Choice::Never),
            ([Opening::Closed(None), Opening::Full(None), full], entry(&[], &[]), None, Choice::Wait(Some(SOON))),
        ];
        for (openings, entry, pinned, expected) in cases {
            let apps = [(&first, openings[0]), (&second, openings[1]), (&third, openings[2])];
            assert_eq!(choose(ID, pinned, &entry, &apps), expected, "{openings:?} {entry:?} {pinned:?}");
        }
    }

    #[test]
    fn weight_divides_equals() {
        let (light, heavy) = (app(1, "a", 1, 1), app(2, "b", 1, 3));
        let apps = [(&light, Opening::Now), (&heavy, Opening::Now)];
        let ids = (0..8000_u128).map(|number| MessageId(Uuid::from_u128(number << 80 | number)));
        let to_heavy = ids.filter(|id| choose(*id, None, &entry(&[], &[]), &apps) == Choice::Go(AppId(2))).count();
        assert!((5800..6200).contains(&to_heavy), "{to_heavy}");
    }
}
