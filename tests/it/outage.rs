//! Accounts that break, upstreams that go away and come back, pauses: the queue runner with an upstream that follows a
//! script.

use crate::delivery::{Bridge, MESSAGE, start, start_by};
use crate::support::eventually;
use smtp_oauth_bridge::delivery::{Attention, ControlError, Health, Place, Schedule};
use smtp_oauth_bridge::explain::local;
use smtp_oauth_bridge::mail::{Disposition, QueueId, Receipt};
use smtp_oauth_bridge::upstream::Scripted;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;

/// A schedule whose waits no test can live to see the end of.
fn patient() -> Schedule {
    Schedule {
        waits: vec![Duration::from_secs(3600)],
        give_up_after: Duration::from_secs(86_400),
        delay_warning: None,
        hold_for: Duration::from_secs(86_400),
        uncertain_wait: Duration::from_secs(3600),
        uncertain_retries: 2,
    }
}

fn start_patient(dir: &TempDir, upstream: Scripted) -> Bridge {
    start_by(dir, Arc::new(upstream.clone()), upstream, patient())
}

/// The next thing that somebody should be told and that `wanted` takes.
async fn told<T>(news: &mut Receiver<Attention>, wanted: impl Fn(Attention) -> Option<T>) -> T {
    let next = async {
        loop {
            if let Some(found) = wanted(news.recv().await.unwrap()) {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), next)
        .await
        .expect("somebody is told")
}

fn held_mailbox() -> Disposition {
    local::UNKNOWN_TOO_OFTEN.disposition("denied", None)
}

fn refused(name: &str) -> Disposition {
    let mut disposition = local::MISFIT.disposition("400", None);
    if let Some(cause) = disposition.cause_mut() {
        cause.unknown = Some(name.into());
    }
    disposition
}

async fn send_many(bridge: &Bridge, count: usize) -> Vec<QueueId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(bridge.send(&["bob@y.example"], MESSAGE).await);
    }
    ids
}

#[tokio::test]
async fn a_pause_keeps_the_mail_over_a_restart_and_resume_lets_it_go() {
    let dir = TempDir::new().unwrap();
    let bridge = start(&dir, Scripted::default());
    bridge.control.pause(None).await.unwrap();
    let id = bridge.send(&["bob@y.example"], MESSAGE).await;
    eventually("it was planned", async || {
        let status = bridge.control.status().await.unwrap();
        let office = &status.accounts[0];
        (office.mailboxes.first()?.waiting == 1 && status.paused.is_some()).then_some(())
    })
    .await;
    assert!(bridge.upstream.delivered().is_empty());
    bridge.stop().await;

    let bridge = start(&dir, Scripted::default());
    let other = bridge.send(&["bob@y.example"], MESSAGE).await;
    eventually("both wait", async || {
        let status = bridge.control.status().await.unwrap();
        let waiting = status.accounts[0].mailboxes.first()?.waiting;
        assert!(status.paused.is_some());
        (waiting == 2).then_some(())
    })
    .await;
    assert!(bridge.upstream.delivered().is_empty());
    assert!(matches!(
        bridge.control.resume(Some("office".to_owned())).await,
        Err(ControlError::AllPaused(_))
    ));
    bridge.control.resume(None).await.unwrap();
    bridge.gone(id).await;
    bridge.gone(other).await;
    bridge.stop().await;
}

#[tokio::test]
async fn one_account_is_paused_by_its_name_and_an_unknown_name_is_refused() {
    let dir = TempDir::new().unwrap();
    let bridge = start(&dir, Scripted::default());
    let office = || Some("office".to_owned());
    bridge.control.pause(office()).await.unwrap();
    let id = bridge.send(&["bob@y.example"], MESSAGE).await;
    let status = bridge.control.status().await.unwrap();
    assert!(status.paused.is_none() && status.accounts[0].paused.is_some());
    let error = bridge.control.pause(Some("ofice".to_owned())).await.unwrap_err();
    assert!(error.to_string().contains("office"), "{error}");
    bridge.control.resume(office()).await.unwrap();
    bridge.gone(id).await;
    assert!(
        bridge.control.status().await.unwrap().accounts[0]
            .mailboxes
            .is_empty()
    );
    bridge.stop().await;
}

#[tokio::test]
async fn a_broken_mailbox_is_probed_with_a_different_message_each_time_and_told_of() {
    let dir = TempDir::new().unwrap();
    let upstream = Scripted::default();
    upstream.will_answer([held_mailbox(), held_mailbox(), held_mailbox()]);
    let bridge = start(&dir, upstream);
    bridge.control.pause(None).await.unwrap();
    let mut news = bridge.control.attention();
    // One alone breaks it: the others find it closed.
    let ids = send_many(&bridge, 5).await;
    eventually("all wait", async || {
        let status = bridge.control.status().await.unwrap();
        (status.accounts[0].mailboxes.first()?.waiting == 5).then_some(())
    })
    .await;
    bridge.control.resume(None).await.unwrap();
    let place = told(&mut news, |attention| match attention {
        Attention::Broken { place, trouble } => {
            assert!(trouble.cause.diagnostic.contains("denied"));
            Some(place)
        }
        _ => None,
    })
    .await;
    assert_eq!(place.mailbox.as_deref(), Some("scanner@x.example"));
    let status = bridge.control.status().await.unwrap();
    assert!(matches!(status.accounts[0].health, Health::Well));
    assert!(matches!(
        status.accounts[0].mailboxes[0].health,
        Health::Broken(_)
    ));
    told(&mut news, |attention| {
        matches!(attention, Attention::Well { .. }).then_some(())
    })
    .await;
    for id in ids {
        bridge.gone(id).await;
    }
    bridge.stop().await;
}

#[tokio::test]
async fn probes_of_an_account_without_a_token_touch_no_message() {
    let dir = TempDir::new().unwrap();
    let upstream = Scripted::default();
    upstream.will_prepare(std::iter::repeat_n(
        Err(local::UNTRUSTED.disposition("", None)),
        2,
    ));
    let bridge = start(&dir, upstream);
    let mut news = bridge.control.attention();
    let id = bridge.send(&["bob@y.example"], MESSAGE).await;
    let place = told(&mut news, |attention| match attention {
        Attention::Broken { place, .. } => Some(place),
        _ => None,
    })
    .await;
    let office = Place {
        account: "office".to_owned(),
        mailbox: None,
    };
    assert_eq!(place, office);
    bridge.gone(id).await;
    assert_eq!(bridge.upstream.delivered().len(), 1);
    bridge.stop().await;
}

#[tokio::test]
async fn ten_different_messages_with_one_unknown_refusal_break_the_mailbox_and_the_tenth_goes_out_later() {
    let dir = TempDir::new().unwrap();
    let upstream = Scripted::default();
    upstream.will_answer(std::iter::repeat_n(refused("400 ErrorNew"), 10));
    let bridge = start(&dir, upstream);
    let mut news = bridge.control.attention();
    let ids = send_many(&bridge, 12).await;
    let why = told(&mut news, |attention| match attention {
        Attention::Broken { trouble, .. } => Some(trouble.cause.diagnostic),
        _ => None,
    })
    .await;
    assert!(why.contains("ErrorNew"), "{why}");
    bridge.at_rest().await;
    let store = bridge.spool.store();
    let mut left = 0;
    for id in ids {
        left += usize::from(store.message(id).await.is_ok());
    }
    drop(store);
    assert_eq!(left, 9, "nine dead letters; the tenth was held and relayed");
    bridge.stop().await;
}

#[tokio::test]
async fn after_an_outage_nothing_waits_for_its_own_schedule() {
    let dir = TempDir::new().unwrap();
    let upstream = Scripted::default();
    upstream.will_answer(std::iter::repeat_n(local::CUT.disposition("", None), 7));
    let bridge = start_patient(&dir, upstream);
    let ids = send_many(&bridge, 12).await;
    for id in ids {
        bridge.gone(id).await;
    }
    let delivered = bridge.upstream.delivered();
    let tried: HashSet<QueueId> = delivered.iter().map(|(parcel, _)| parcel.id).collect();
    assert_eq!((tried.len(), delivered.len()), (12, 19));
    bridge.stop().await;
}

#[tokio::test]
async fn in_an_outage_of_unknown_outcomes_only_probes_are_spent() {
    let dir = TempDir::new().unwrap();
    let upstream = Scripted::default();
    upstream.will_answer(std::iter::repeat_n(local::UNHEARD.disposition("", None), 6));
    let bridge = start_patient(&dir, upstream);
    let ids = send_many(&bridge, 30).await;
    let store = bridge.spool.store();
    eventually("all went but those of unknown outcome", async || {
        let mut left = 0;
        for id in &ids {
            left += usize::from(store.message(*id).await.is_ok());
        }
        (left == 6).then_some(())
    })
    .await;
    drop(store);
    bridge.stop().await;
}

#[tokio::test]
async fn what_is_held_for_too_long_is_warned_of_and_told_and_stays() {
    let dir = TempDir::new().unwrap();
    let upstream = Scripted::default();
    let untrusted = || std::iter::repeat_n(Err(local::UNTRUSTED.disposition("", None)), 1000);
    upstream.will_prepare(untrusted());
    let schedule = Schedule {
        hold_for: Duration::from_secs(4),
        ..patient()
    };
    let bridge = start_by(&dir, Arc::new(upstream.clone()), upstream, schedule.clone());
    let mut news = bridge.control.attention();
    let id = bridge.send(&["bob@y.example"], MESSAGE).await;
    told(&mut news, |attention| {
        matches!(attention, Attention::Broken { .. }).then_some(())
    })
    .await;
    // What counts is not begun anew by a restart.
    bridge.stop().await;
    let upstream = Scripted::default();
    upstream.will_prepare(untrusted());
    let bridge = start_by(&dir, Arc::new(upstream.clone()), upstream, schedule);
    let mut news = bridge.control.attention();
    told(&mut news, |attention| {
        matches!(attention, Attention::HoldEnds { .. }).then_some(())
    })
    .await;
    let told_of = told(&mut news, |attention| match attention {
        Attention::HeldTooLong { place, messages } => Some((place.unwrap().account, messages)),
        _ => None,
    })
    .await;
    assert_eq!(told_of, ("office".to_owned(), 1));
    let status = bridge.control.status().await.unwrap();
    let mailbox = &status.accounts[0].mailboxes[0];
    assert_eq!((mailbox.waiting, mailbox.held), (0, 1));
    assert!(bridge.spool.store().message(id).await.is_ok(), "it stays");
    assert!(bridge.upstream.delivered().is_empty());
    bridge.stop().await;
}

#[tokio::test]
async fn a_pause_that_the_upstream_asked_for_is_told_as_throttled() {
    let dir = TempDir::new().unwrap();
    let upstream = Scripted::default();
    upstream.will_answer([Disposition::Relayed(Receipt {
        diagnostic: String::new(),
        pause: Some(Duration::from_secs(600)),
    })]);
    let bridge = start(&dir, upstream);
    let id = bridge.send(&["bob@y.example"], MESSAGE).await;
    bridge.gone(id).await;
    let trouble = eventually("it is throttled", async || {
        let status = bridge.control.status().await.unwrap();
        match &status.accounts[0].mailboxes.first()?.health {
            Health::Throttled(trouble) => Some((trouble.clone(), status.at)),
            _ => None,
        }
    })
    .await;
    let (trouble, at) = trouble;
    let wait = trouble.next_probe.since(at);
    assert!((590..=600).contains(&wait.as_secs()), "{wait:?}");
    bridge.stop().await;
}
