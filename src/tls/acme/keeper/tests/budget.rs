//! However often it fails, whoever asks and whoever ends: an authority is asked no more often than it likes.

use super::*;

#[tokio::test(start_paused = true)]
async fn ways_to_prove_a_name_take_turns_within_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new().always(Deed::Fail(Kind::Validation));
    let node = Node::start(config(folder.path(), &[&["a.test"]]), &fake);
    node.until_orders(9).await;
    let orders = fake.orders.lock().clone();
    for five in orders.windows(5) {
        assert!(five[4].0 - five[0].0 > HOUR, "{orders:?}");
    }
    for two in orders.windows(2) {
        assert_ne!(two[0].2, two[1].2);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_is_ended_in_the_middle_of_orders_stays_within_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new().always(Deed::Hang);
    for _ in 0..60 {
        let node = Node::start(config(folder.path(), &[&["a.test"]]), &fake);
        tokio::time::sleep(Duration::from_secs(120)).await;
        drop(node);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let times = fake.times();
    assert!(times.len() >= 5, "{times:?}");
    assert!(times.windows(5).all(|five| five[4] - five[0] > HOUR.as_secs()), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn nodes_that_differ_and_fail_pause_all_the_same() {
    let limited = Kind::RateLimited(Some(HOUR));
    for (kind, most) in [(Kind::Validation, 4), (Kind::Refused, 2), (limited, 1), (Kind::Unreachable, 14)] {
        let folder = tempfile::tempdir().unwrap();
        let fake = Fake::new().always(Deed::Fail(kind));
        let _one = Node::start(config(folder.path(), &[&["a.test", "b.test"]]), &fake);
        let _other = Node::start(config(folder.path(), &[&["a.test", "c.test"]]), &fake);
        tokio::time::sleep(HOUR - Duration::from_secs(60)).await;
        let times = fake.times();
        assert!((1..=most).contains(&times.len()), "{kind:?}: {times:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_orders_again_and_again_gets_a_few_and_none_while_the_authority_wants_none() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new();
    let node = Node::start(config(folder.path(), &[&["a.test"]]), &fake);
    let mut refused = Vec::new();
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        refused.extend(node.orders.order_now(&[], fake.time()).err().map(|refusal| refusal.to_string()));
    }
    assert_eq!(fake.times().len(), 4, "{:?}", fake.times());
    assert!(refused.last().unwrap().contains("4 were issued within a day"), "{refused:?}");
    tokio::time::sleep(24 * HOUR).await;
    fake.always(Deed::Fail(Kind::RateLimited(Some(24 * HOUR))));
    node.orders.order_now(&[], fake.time()).unwrap();
    node.until(|status| status[0].failures == 1).await;
    let limited = node.orders.order_now(&[], fake.time()).unwrap_err().to_string();
    assert!(limited.contains("wants to be left alone"), "{limited}");
}

#[tokio::test(start_paused = true)]
async fn an_order_is_made_when_somebody_asks_unless_the_budget_is_spent() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new();
    let node = Node::start(config(folder.path(), &[&["a.test", "b.test"]]), &fake);
    let ask = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        node.orders.order_now(&names, fake.time())
    };
    node.until(|status| status[0].ordered.is_some()).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let early = ask(&[]).unwrap_err().to_string();
    assert!(early.contains("issued within the last hour"), "{early}");
    tokio::time::sleep(HOUR).await;
    assert!(matches!(ask(&["c.test"]), Err(Refusal::Unknown { .. })));
    assert!(ask(&["B.test"]).unwrap()[0].ends_with("certificates/a.test.pem"));
    node.until_orders(2).await;
    tokio::time::sleep(HOUR + Duration::from_secs(10)).await;
    fake.always(Deed::Fail(Kind::Validation));
    for failures in 1..=4 {
        ask(&[]).unwrap();
        node.until(|status| status[0].failures == failures).await;
    }
    let refused = ask(&[]).unwrap_err().to_string();
    assert!(refused.contains("could not be proven 4 times within an hour"), "{refused}");
    assert!(node.status()[0].ordered.is_some());
    fake.always(Deed::Issue { life: 90 * DAY });
    tokio::time::sleep(HOUR + Duration::from_secs(120)).await;
    ask(&["a.test"]).unwrap();
    node.until(|status| status[0].failures == 0).await;
}
