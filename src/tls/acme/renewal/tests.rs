//! Dates, and what must hold on all of them.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::tls::acme::Challenge;

/// When the tests take place.
const NOW: i64 = 1_800_000_000;

fn held(from: i64, until: i64) -> Option<Held> {
    Some(Held { from: NOW + from, until: NOW + until, fits: true })
}

fn case(held: Option<Held>, history: &History) -> Case<'_> {
    Case { held, window: None, history, ways: 1, seed: 0 }
}

fn window(start: i64, end: i64) -> Option<Window> {
    let at = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs((NOW + seconds).try_into().unwrap());
    Some(Window { start: at(start), end: at(end) })
}

fn fail(history: &mut History, kind: Kind, at: i64) {
    failed(history, &Failure::new(kind, "because".to_owned()), at);
}

#[test]
fn a_certificate_is_renewed_when_it_is_due() {
    let nothing = History::default();
    for (from, until, due) in [
        (0, 90 * DAY, 60 * DAY),
        (-10 * DAY, 80 * DAY, 50 * DAY),
        (0, 10 * DAY, 10 * DAY / 3 * 2),
        (0, 6 * DAY, 3 * DAY),
        (0, 60, 30),
        (-90 * DAY, -DAY, -90 * DAY + 89 * DAY / 3 * 2),
    ] {
        assert_eq!(case(held(from, until), &nothing).next(), NOW + due, "{from} {until}");
    }
    assert!(case(None, &nothing).next() <= NOW, "there is none");
    let other = held(0, 90 * DAY).map(|held| Held { fits: false, ..held });
    assert!(case(other, &nothing).next() <= NOW, "there is another");
}

#[test]
fn the_authoritys_window_counts_and_the_name_chooses_a_point_in_it() {
    let nothing = History::default();
    let next = |window, seed| Case { window, seed, ..case(held(0, 90 * DAY), &nothing) }.next() - NOW;
    assert_eq!(next(window(70 * DAY, 72 * DAY), 0), 70 * DAY);
    let chosen = next(window(70 * DAY, 72 * DAY), 1 << 15);
    assert!((71 * DAY - HOUR..71 * DAY + HOUR).contains(&chosen), "{chosen}");
    assert_eq!(next(window(-2 * DAY, -DAY), 0), -2 * DAY, "it is withdrawn soon");
    assert_eq!(next(window(72 * DAY, 70 * DAY), 0), 60 * DAY, "no window");
    assert_eq!(next(window(100 * DAY, 200 * DAY), 0), 81 * DAY, "too late");
    let often = History { issued: vec![NOW - HOUR; CHANGES], ..History::default() };
    let again = Case { window: window(-2 * DAY, -DAY), ..case(held(0, 90 * DAY), &often) }.next();
    assert_eq!(again, NOW + 23 * HOUR, "each new one is to be renewed at once: not for ever");
}

#[test]
fn what_has_not_been_renewed_for_long_is_overdue() {
    for (until, at) in [(90 * DAY, 75 * DAY), (6 * DAY, 4 * DAY + 12 * HOUR), (60, 45)] {
        assert_eq!(overdue(0, until), at);
    }
}

#[test]
fn waits_after_failures_are_those_that_are_promised() {
    let limited = |seconds| Kind::RateLimited(Some(Duration::from_secs(seconds)));
    for (kind, waits) in [
        (Kind::Unreachable, vec![5, 10, 20, 40]),
        (Kind::Ours, vec![5, 10, 20, 40]),
        (Kind::Refused, vec![HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR, 16 * HOUR, DAY, DAY]),
        (Kind::RateLimited(None), vec![HOUR, HOUR]),
        (limited(7 * 86_400), vec![7 * DAY, 7 * DAY]),
        (limited(0), vec![MINUTE, 2 * MINUTE, 4 * MINUTE, 8 * MINUTE, 16 * MINUTE, 32 * MINUTE, HOUR, HOUR]),
        (limited(u64::MAX), vec![7 * DAY]),
        (Kind::Validation, vec![15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR, 12 * HOUR, 12 * HOUR]),
    ] {
        let (mut history, mut now) = (History::default(), NOW);
        for (number, wait) in waits.into_iter().enumerate() {
            fail(&mut history, kind, now);
            let next = case(None, &history).next();
            assert_eq!(next - now, wait, "{kind:?}, failure {}", number + 1);
            now = next;
        }
    }
    let mut long = History::default();
    (0..40).for_each(|_| fail(&mut long, Kind::Unreachable, NOW));
    assert_eq!(case(None, &long).next(), NOW + HOUR);
    let spread = Case { seed: u64::from(u16::MAX) - 1, ..case(None, &long) }.next() - NOW;
    assert!((HOUR + 5 * MINUTE..=HOUR + 6 * MINUTE).contains(&spread), "not all come in one moment: {spread}");
}

#[test]
fn each_way_to_prove_names_is_tried_before_the_wait() {
    let ways = [Challenge::TlsAlpn01, Challenge::Http01];
    let (mut history, mut now, mut waits, mut tried) = (History::default(), NOW, Vec::new(), Vec::new());
    for _ in 0..4 {
        tried.push(history.ways(&ways)[0]);
        fail(&mut history, Kind::Validation, now);
        let next = Case { ways: 2, ..case(None, &history) }.next();
        waits.push(next - now);
        now = next;
    }
    assert_eq!(tried, [ways, ways].concat());
    let since_the_first = PROOFS_WITHIN - (5 + 15 * MINUTE + 5);
    assert_eq!(waits, [5, 15 * MINUTE, 5, since_the_first], "no fifth within an hour");
    done(&mut history, Challenge::Http01);
    assert_eq!(history.ways(&ways)[0], Challenge::Http01, "what worked is tried first");
    assert_eq!((history.failures(), history.failed_proofs.len()), (0, 4));
    fail(&mut history, Kind::Validation, now);
    assert_eq!(history.ways(&ways)[0], Challenge::TlsAlpn01);
    assert_eq!(History::default().ways(&[]), []);
}

#[test]
fn no_wait_is_longer_than_a_tenth_of_what_is_left() {
    for (left, kind, wait) in [
        (30 * DAY, Kind::Refused, HOUR),
        (5 * HOUR, Kind::Refused, 30 * MINUTE),
        (30, Kind::Refused, 3),
        (30, Kind::Unreachable, 3),
        (5, Kind::RateLimited(None), 1),
        (0, Kind::Refused, 1),
        (-5 * HOUR, Kind::Refused, 30 * MINUTE), // it is over; attempts become rarer again
        (HOUR, Kind::Validation, 6 * MINUTE),
    ] {
        let mut history = History::default();
        fail(&mut history, kind, NOW);
        assert_eq!(case(held(-90 * DAY, left), &history).next() - NOW, wait, "{left} {kind:?}");
    }
}

#[test]
fn nodes_that_replace_each_others_certificates_do_so_a_few_times_a_day() {
    let (mut history, mut times) = (History::default(), Vec::new());
    let mut now = NOW;
    for _ in 0..9 {
        let other = Some(Held { from: now, until: now + 90 * DAY, fits: false });
        now = now.max(case(other, &history).next());
        times.push(now);
        issued(&mut history, now);
        done(&mut history, Challenge::Http01);
    }
    assert_eq!(times[8] - times[0], 2 * DAY);
}

#[test]
fn what_failed_for_other_names_or_elsewhere_does_not_count() {
    let of = |directory: &str, name: &str| super::super::history::Purpose {
        directory: directory.to_owned(),
        names: vec![name.to_owned()],
    };
    let mut history = History::default().for_purpose(&of("https://one", "a.test"));
    history.issued = vec![NOW];
    fail(&mut history, Kind::Validation, NOW);
    let same = history.clone().for_purpose(&of("https://one", "a.test"));
    assert_eq!(same, history);
    let other_name = history.clone().for_purpose(&of("https://one", "b.test"));
    assert_eq!((other_name.failures(), other_name.failed_proofs.len(), other_name.issued.len()), (0, 1, 1));
    let elsewhere = history.for_purpose(&of("https://other", "a.test"));
    assert_eq!((elsewhere.failures(), elsewhere.failed_proofs.len(), elsewhere.issued.len()), (0, 1, 1));
    let limited = |name: &str, directory: &str| {
        let mut history = History::default().for_purpose(&of("https://one", "a.test"));
        fail(&mut history, Kind::RateLimited(None), NOW);
        history.for_purpose(&of(directory, name)).failures()
    };
    assert_eq!((limited("b.test", "https://one"), limited("a.test", "https://other")), (1, 0));
}

#[test]
fn what_failed_for_both_of_two_purposes_makes_both_wait() {
    let of = |name: &str| super::super::history::Purpose { directory: "one".to_owned(), names: vec![name.to_owned()] };
    let mut history = History::default().for_purpose(&of("a.test"));
    for name in ["a.test", "b.test"] {
        history = history.for_purpose(&of(name));
        assert!(case(None, &history).next() <= NOW, "{name} has not failed yet");
        fail(&mut history, Kind::Refused, NOW);
    }
    for name in ["a.test", "b.test", "a.test"] {
        history = history.for_purpose(&of(name));
        assert_eq!(case(None, &history).next(), NOW + HOUR, "{name}");
    }
}

#[test]
fn an_attempt_that_came_to_no_end_counts_as_a_failed_proof() {
    let mut history = History::default();
    history.begin(NOW);
    assert_eq!(case(None, &history).next(), NOW + 5, "another node may be at it");
    (1..PROOFS as i64).for_each(|crash| history.begin(NOW + crash));
    assert_eq!(case(None, &history).next(), NOW + 1 + PROOFS_WITHIN, "although no failure is known");
    history.begin(NOW + 4);
    fail(&mut history, Kind::Unreachable, NOW + 9);
    assert_eq!(case(None, &history).next(), NOW + 1 + PROOFS_WITHIN);
}

#[test]
fn a_failure_after_proofs_were_asked_for_is_in_their_budget() {
    for (proven, next) in [(false, NOW + 40), (true, NOW + PROOFS_WITHIN)] {
        let mut history = History::default();
        for _ in 0..PROOFS {
            let failure = Failure { proven, ..Failure::new(Kind::Unreachable, "cut off".to_owned()) };
            failed(&mut history, &failure, NOW);
        }
        assert_eq!(case(None, &history).next(), next, "{proven}");
    }
}

#[test]
fn times_of_a_clock_that_was_wrong_do_not_stop_us() {
    let mut history = History::default();
    fail(&mut history, Kind::Refused, NOW + 1000 * DAY);
    assert!(history.clamp(NOW) && !history.clamp(NOW));
    assert!(!history.clamp(NOW - 60) && history.clamp(NOW - DAY), "the clocks of two nodes are never the same");
    assert!(!history.clamp(NOW), "it stays there");
    fail(&mut history, Kind::Refused, NOW);
    history.refused = 1;
    assert_eq!(case(None, &history).next(), NOW + HOUR);
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Validation),
        Just(Kind::Refused),
        Just(Kind::Unreachable),
        Just(Kind::Ours),
        proptest::option::of(0..10_000_000_u64).prop_map(|said| Kind::RateLimited(said.map(Duration::from_secs))),
    ]
}

proptest! {
    #[test]
    fn proofs_fail_at_most_four_times_in_any_hour(
        kinds in proptest::collection::vec(kinds(), 1..80),
        life in 1..100 * DAY, ways in 1..4_u32, seed: u64,
    ) {
        let (mut history, mut now, mut proofs) = (History::default(), NOW, Vec::new());
        for kind in kinds {
            now = now.max(Case { ways, seed, ..case(held(0, life), &history) }.next());
            fail(&mut history, kind, now);
            if kind == Kind::Validation {
                proofs.push(now);
            }
        }
        for five in proofs.windows(5) {
            prop_assert!(five[4] - five[0] > HOUR);
        }
    }

    #[test]
    fn waits_are_bounded_by_what_is_left_and_by_the_budget(
        kinds in proptest::collection::vec(kinds(), 1..40), life in 1..100 * DAY, ways in 1..4_u32, seed: u64,
    ) {
        let (mut history, mut now) = (History::default(), NOW);
        for kind in kinds {
            fail(&mut history, kind, now);
            let case = Case { ways, seed, ..case(held(-life, life), &history) };
            let (next, before) = (case.next(), now);
            prop_assert!(next > now, "there is always a pause");
            let tenth = ((NOW + life - before).abs() / 10).max(1);
            prop_assert!(next <= case.due().max(before + tenth).max(case.proofs_free()));
            now = next;
        }
    }

    #[test]
    fn one_more_failure_never_makes_the_next_attempt_earlier(
        kind in kinds(), failures in 1..60_usize, seed: u64, life in proptest::option::of(1..100 * DAY),
    ) {
        let held = life.and_then(|life| held(-life, life));
        let mut history = History::default();
        (0..failures).for_each(|_| fail(&mut history, kind, NOW));
        let before = Case { seed, ..case(held, &history) }.next();
        fail(&mut history, kind, NOW);
        let after = Case { seed, ..case(held, &history) }.next();
        prop_assert!(after >= before);
    }

    #[test]
    fn a_renewal_begins_while_there_is_time_for_attempts(
        from in -100 * DAY..100 * DAY, life in 10..400 * DAY, seed: u64,
        start in -100 * DAY..500 * DAY, length in -DAY..100 * DAY,
    ) {
        let nothing = History::default();
        let window = window(start, start + length);
        let next = Case { seed, window, ..case(held(from, from + life), &nothing) }.next() - NOW;
        prop_assert!(next <= from + life - life / 10);
    }
}
