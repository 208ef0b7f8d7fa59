//! `pierhead cert renew`: has certificates ordered now, and follows the orders to their end.

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use jiff::{SignedDuration, Timestamp};

use super::cert::{asked, shown};
use super::terminal::{Output, Progress, remark};
use super::{Failure, control};
use crate::server::control::Command;
use crate::tls::Status;

/// How often we look how far it is.
const LOOK: Duration = Duration::from_millis(500);
/// What is tried again this soon has not failed yet: by another way to prove the names, say.
const SOON: SignedDuration = SignedDuration::from_secs(8);

/// How long we follow orders: longer than one may take. A server that was restarted meanwhile has forgotten that we asked.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What to order.
#[derive(Debug, Args)]
pub struct Renew {
    /// A DNS name of a certificate that is ordered; may be several [default: every certificate that is ordered]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Do not wait for the orders: `cert status` shows what becomes of them
    #[arg(long)]
    no_wait: bool,
    /// How to show what came of it
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// So long after an order what came of it is shown: files are looked at every second.
const SHOWN_WITHIN: SignedDuration = SignedDuration::from_secs(10);

/// How far an order is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Course {
    /// It goes on, as this says.
    Going(String),
    Done,
    Failed(String),
}

/// Does it.
pub(super) fn run(renew: &Renew, state: &Path) -> Result<(), Failure> {
    let said = control::ask(state, &Command::CertRenew { names: renew.names.clone() })?;
    let before: Vec<Status> = serde_json::from_str(&said).map_err(Failure::failed)?;
    if renew.no_wait {
        remark("ordered; `pierhead cert status` shows what becomes of it");
        return shown(renew.output, &before);
    }
    let mut progress = Progress::begin();
    let followed = follow(state, &before, &mut progress);
    progress.end();
    let (after, courses) = followed?;
    shown(renew.output, &after)?;
    let failures = before.iter().zip(courses).filter_map(|(one, course)| match course {
        Course::Failed(why) => Some(format!("{}: {why}", label(one))),
        Course::Done | Course::Going(_) => None,
    });
    let failures: Vec<String> = failures.collect();
    if failures.is_empty() { Ok(()) } else { Err(Failure::failed(failures.join("\n"))) }
}

/// Until every order came to an end: how the certificates are then, and what came of each order.
fn follow(state: &Path, before: &[Status], progress: &mut Progress) -> Result<(Vec<Status>, Vec<Course>), Failure> {
    let begun = Instant::now();
    loop {
        let now = asked(state)?;
        let after = |one: &Status| now.iter().find(|status| status.file == one.file);
        let courses: Vec<Course> = before.iter().map(|one| course(one, after(one), Timestamp::now())).collect();
        let going = before.iter().zip(&courses).filter_map(|(one, course)| match course {
            Course::Going(how) => Some(format!("{}: {how}", label(one))),
            Course::Done | Course::Failed(_) => None,
        });
        let going = going.collect::<Vec<_>>().join("; ");
        if going.is_empty() {
            return Ok((before.iter().filter_map(after).cloned().collect(), courses));
        }
        if begun.elapsed() > PATIENCE {
            let message = format!("not done yet: {going}; `pierhead cert status` shows what becomes of it");
            return Err(Failure { code: 75, message });
        }
        progress.show(&going);
        std::thread::sleep(LOOK);
    }
}

fn label(status: &Status) -> &str {
    let ordered = status.acme.as_ref().and_then(|orders| orders.names.first());
    ordered.unwrap_or(&status.file)
}

/// How far the order of a certificate is that was like `before` when it was asked for.
fn course(before: &Status, after: Option<&Status>, now: Timestamp) -> Course {
    let Some((status, orders)) = after.and_then(|status| Some((status, status.acme.as_ref()?))) else {
        return Course::Failed("it is ordered no more, the configuration has changed".to_owned());
    };
    let old = before.acme.as_ref();
    let ordered = orders.ordered.filter(|ordered| old.is_none_or(|old| old.ordered != Some(*ordered)));
    if let Some(ordered) = ordered {
        let refused = status.refused.as_ref().filter(|refused| before.refused.as_ref() != Some(refused));
        if let Some(refused) = refused {
            return Course::Failed(format!("a certificate came, and is not shown: {}", refused.reason));
        }
        let span = |status: &Status| (status.stands_in, status.not_before, status.not_after);
        let is_shown = span(before) != span(status) || now.duration_since(ordered) > SHOWN_WITHIN;
        return if is_shown { Course::Done } else { Course::Going("it is there".to_owned()) };
    }
    if let Some(since) = orders.since {
        return Course::Going(format!("ordered from {} since {since:.0}", orders.directory));
    }
    let error = orders.error.as_ref().filter(|error| old.and_then(|old| old.error.as_ref()) != Some(error));
    match (error, orders.next) {
        (None, _) => Course::Going("waiting for its turn".to_owned()),
        (Some(_), Some(next)) if next.duration_since(now) <= SOON => {
            Course::Going(format!("did not work, tried again at {next:.0}"))
        }
        (Some(error), next) => {
            let next = next.map(|next| format!("; the next attempt is at {next:.0}")).unwrap_or_default();
            Course::Failed(format!("{}{next}", error.reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::tls::Refused;
    use crate::tls::acme::{self, LastError};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// Shown since a second, with orders like these.
    fn status(shown: i64, change: impl FnOnce(&mut acme::Status)) -> Status {
        let mut orders = acme::Status {
            names: vec!["a.test".to_owned()],
            directory: "https://authority.test".to_owned(),
            next: Some(at(10)),
            since: None,
            error: None,
            failures: 0,
            ordered: None,
        };
        change(&mut orders);
        Status {
            file: "a.test.pem".to_owned(),
            names: vec!["a.test".to_owned()],
            issuer: String::new(),
            not_before: Some(at(shown)),
            not_after: Some(at(shown + 90)),
            days_left: 0,
            chain: Vec::new(),
            refused: None,
            stands_in: false,
            acme: Some(orders),
        }
    }

    fn error(second: i64) -> LastError {
        LastError { at: at(second), reason: "the name does not point here".to_owned() }
    }

    #[test]
    fn an_order_is_followed_until_what_it_brought_is_shown() {
        let before = status(0, |orders| orders.error = Some(error(1)));
        let going = |after: &Status| assert!(matches!(course(&before, Some(after), at(10)), Course::Going(_)));
        going(&before);
        going(&status(0, |orders| orders.since = Some(at(9))));
        going(&status(0, |orders| orders.ordered = Some(at(9))));
        let there = |orders: &mut acme::Status| orders.ordered = Some(at(9));
        assert_eq!(course(&before, Some(&status(9, there)), at(10)), Course::Done);
        assert_eq!(course(&before, Some(&status(0, there)), at(60)), Course::Done, "as if it were the one before");
        let refused = Some(Refused { at: at(9), reason: "a name is missing".to_owned() });
        let refused = Status { refused, ..status(0, there) };
        assert!(matches!(course(&before, Some(&refused), at(10)), Course::Failed(why) if why.contains("is missing")));
        assert!(matches!(course(&before, None, at(10)), Course::Failed(_)));
    }

    #[test]
    fn an_order_has_failed_when_it_is_not_soon_tried_again() {
        let before = status(0, |orders| orders.error = Some(error(1)));
        let after = |next: i64| {
            status(0, |orders| {
                orders.error = Some(error(9));
                orders.next = Some(at(next));
            })
        };
        assert!(matches!(course(&before, Some(&after(15)), at(10)), Course::Going(_)), "by another way");
        let Course::Failed(why) = course(&before, Some(&after(910)), at(10)) else { panic!("it failed") };
        assert!(why.contains("does not point here; the next attempt is at 2027"), "{why}");
    }
}
