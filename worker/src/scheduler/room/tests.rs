use proptest::prelude::*;

use super::*;
use crate::outbox::Rate;

fn app(max_in_flight: u32, rate: Option<Rate>, state: AppState) -> App {
    App {
        id: AppId(7),
        organization: "shop".into(),
        slug: "sandbox".into(),
        position: 100,
        weight: 1,
        max_in_flight,
        rate,
        state,
    }
}

fn limited(max_in_flight: u32, per_second: f64, burst: u32, unit: RateUnit) -> App {
    app(max_in_flight, Some(Rate { per_second, burst, unit }), AppState::Open)
}

const NOW: Duration = Duration::from_secs(1000);

/// Takes as many messages of so many segments as may go at `at`; what they were says the claim's answer.
fn take_all(room: &mut Room, at: Duration, segments: u16) -> u32 {
    let (mut taken, mut charges) = (0, Vec::new());
    while room.opening(at) == Opening::Now {
        charges.push(room.take());
        taken += 1;
    }
    for charge in charges {
        room.settle(charge, segments);
        room.release();
    }
    taken
}

proptest! {
    #[test]
    fn the_parts_of_all_workers_add_up_to_the_limits(
        max_in_flight in 0..40_u32, per_second in 0.1..50.0_f64, burst in 1..40_u32, workers in 1..9_usize,
    ) {
        let app = limited(max_in_flight, per_second, burst, RateUnit::Messages);
        let rooms: Vec<Room> = (0..workers).map(|rank| Room::new(NOW, &app, workers, rank)).collect();
        prop_assert_eq!(rooms.iter().map(|room| room.limit).sum::<u32>(), max_in_flight);
        let flows: Vec<Flow> = rooms.iter().filter_map(|room| room.flow).collect();
        prop_assert!((flows.iter().map(|flow| flow.rate).sum::<f64>() - per_second).abs() < 1e-9);
        prop_assert_eq!(flows.iter().map(|flow| flow.burst).sum::<f64>(), f64::from(burst));
        // No part of one lies with a worker that has none of the other.
        let idle = |room: &Room| (room.limit == 0) != room.flow.is_some_and(|flow| flow.burst == 0.0);
        prop_assert!(max_in_flight == 0 || !rooms.iter().any(idle));
    }

    /// Whatever comes when: in no stretch of time more than the burst and what the rate brings, but for the rest of the
    /// one message at each worker that went on its first token; and in the long run the whole rate is used.
    #[test]
    fn a_fleet_keeps_to_rate_and_burst(
        per_second in 2.0..20.0_f64, burst in 1..30_u32, workers in 1..4_usize,
        sizes in proptest::collection::vec(1..7_u16, 1..40), in_segments in any::<bool>(),
    ) {
        let unit = if in_segments { RateUnit::Segments } else { RateUnit::Messages };
        let app = limited(1000, per_second, burst, unit);
        let mut fleet: Vec<Room> = (0..workers).map(|rank| Room::new(NOW, &app, workers, rank)).collect();
        let (mut sizes, mut sent) = (sizes.iter().cycle(), Vec::new());
        for step in 0..400_u32 {
            let at = NOW + Duration::from_millis(u64::from(step) * 50);
            for room in &mut fleet {
                // A claim of one answers before the next is planned: what a batch may err by has its own test.
                while room.opening(at) == Opening::Now {
                    let size = *sizes.next().unwrap();
                    let charge = room.take();
                    room.settle(charge, size);
                    room.release();
                    sent.push((at, if in_segments { f64::from(size) } else { 1.0 }));
                }
            }
        }
        let debt = if in_segments { 6.0 * workers as f64 } else { 0.0 };
        for (place, (from, _)) in sent.iter().enumerate().step_by(7) {
            let mut sum = 0.0;
            for (at, cost) in &sent[place..] {
                sum += cost;
                let most = f64::from(burst) + (*at - *from).as_secs_f64() * per_second + debt;
                prop_assert!(sum <= most + 1e-6, "{sum} of {most} within {:?}", *at - *from);
            }
        }
        let total: f64 = sent.iter().map(|(_, cost)| cost).sum();
        // Tokens that come between two steps are lost where the burst has no room for them.
        if f64::from(burst) / workers as f64 > per_second * 0.1 + 1.0 {
            prop_assert!(total >= 19.0 * per_second, "{total} in 20 s at {per_second}");
        }
    }
}

#[test]
fn in_flight_is_bounded_and_a_release_makes_room() {
    let mut room = Room::new(NOW, &app(2, None, AppState::Open), 1, 0);
    for _ in 0..2 {
        assert_eq!(room.opening(NOW), Opening::Now);
        room.take();
    }
    assert_eq!(room.opening(NOW), Opening::Full(None));
    room.release();
    assert_eq!(room.opening(NOW), Opening::Now);
}

#[test]
fn after_a_pause_goes_a_burst_and_a_restart_is_none() {
    let app = limited(1000, 20.0, 8, RateUnit::Messages);
    let mut rested = Room::new(NOW, &app, 2, 0);
    assert_eq!(take_all(&mut rested, NOW, 1), 4);
    assert_eq!(take_all(&mut rested, NOW + Duration::from_secs(1), 1), 4);
    let full = rested.opening(NOW + Duration::from_secs(1));
    assert!(matches!(full, Opening::Full(Some(at)) if rested.opening(at) == Opening::Now), "{full:?}");
    let mut restarted = Room::new(Duration::ZERO, &app, 2, 0);
    assert_eq!(take_all(&mut restarted, Duration::ZERO, 1), 1);
}

#[test]
fn a_room_is_forgotten_only_with_all_its_tokens() {
    let mut room = Room::new(NOW, &limited(1000, 1.0, 10, RateUnit::Messages), 1, 0);
    assert!(room.is_fresh(NOW));
    assert_eq!(take_all(&mut room, NOW, 1), 10);
    assert!(!room.is_fresh(NOW + Duration::from_secs(9)));
    assert!(room.is_fresh(NOW + Duration::from_secs(10)));
}

#[test]
fn segments_are_known_from_the_first_and_larger_ones_are_a_debt() {
    let mut room = Room::new(NOW, &limited(1000, 10.0, 30, RateUnit::Segments), 1, 0);
    assert_eq!(take_all(&mut room, NOW, 5), 1, "nothing is known of their size");
    assert_eq!(take_all(&mut room, NOW, 5), 5, "25 segments are left");
    assert_eq!(take_all(&mut room, NOW + Duration::from_millis(99), 5), 0);
    assert_eq!(take_all(&mut room, NOW + Duration::from_millis(100), 5), 1, "one token, and a debt of four");
    assert_eq!(take_all(&mut room, NOW + Duration::from_millis(590), 5), 0);
    assert_eq!(take_all(&mut room, NOW + Duration::from_millis(600), 5), 1);
}

#[test]
fn a_limit_that_is_set_later_finds_no_debt() {
    let mut room = Room::new(NOW, &app(1000, None, AppState::Open), 1, 0);
    for _ in 0..500 {
        let charge = room.take();
        room.settle(charge, 3);
        room.release();
    }
    room.read(NOW, &limited(1000, 10.0, 5, RateUnit::Segments), 1, 0);
    assert_eq!(room.opening(NOW), Opening::Now);
}

#[test]
fn what_did_not_go_costs_nothing() {
    let mut room = Room::new(NOW, &limited(1000, 10.0, 3, RateUnit::Segments), 1, 0);
    for _ in 0..10 {
        assert_eq!(room.opening(NOW), Opening::Now);
        let charge = room.take();
        room.give_back(charge);
    }
    assert_eq!((room.tokens, room.in_flight), (3.0, 0));
}

#[test]
fn a_block_ends_with_one_probe_until_the_app_is_read_again() {
    let blocked = app(16, None, AppState::Blocked(Duration::from_secs(5)));
    let mut room = Room::new(NOW, &blocked, 1, 0);
    let over = NOW + Duration::from_secs(5);
    assert_eq!(room.opening(NOW), Opening::Closed(Some(over)));
    assert_eq!(room.opening(over), Opening::Now);
    room.take();
    assert_eq!(room.opening(over), Opening::Closed(None));
    room.read(over, &app(16, None, AppState::Open), 1, 0);
    assert_eq!(room.opening(over), Opening::Now);
    room.read(over, &app(16, None, AppState::Paused), 1, 0);
    assert_eq!(room.opening(over), Opening::Closed(None));
}
