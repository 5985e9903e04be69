use super::*;
use crate::delivery::{self, MailboxStatus};
use crate::mail::{EnhancedCode, Scope};

const MINUTE: Duration = Duration::from_secs(60);
const GIB: u64 = 1 << 30;

fn at(minutes: u32) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000).plus(MINUTE * minutes)
}

fn trouble(since: Timestamp) -> delivery::Trouble {
    delivery::Trouble {
        since,
        cause: Cause {
            code: "test",
            scope: Scope::Account,
            status: EnhancedCode::new(7, 8),
            public: "the client secret has expired: make a new one".to_owned(),
            remedy: "make a new one",
            diagnostic: "AADSTS7000222".to_owned(),
            unknown: None,
            retry_after: None,
        },
        next_probe: since,
    }
}

fn mailbox(name: &str, health: Health) -> MailboxStatus {
    MailboxStatus {
        mailbox: name.to_owned(),
        health,
        waiting: 1,
        held: 0,
        failed: 0,
        under_way: 0,
    }
}

/// A bridge that is well for an hour already, with one account.
fn facts() -> Facts {
    Facts {
        started: at(0),
        status: Some(Status {
            at: at(60),
            paused: None,
            accounts: vec![AccountStatus {
                name: "office".to_owned(),
                configured: true,
                paused: None,
                health: Health::Well,
                mailboxes: vec![mailbox("a@x.example", Health::Well)],
            }],
            planning: 0,
        }),
        well: Vec::new(),
        ages: Some(Ages::default()),
        room: Some(SpoolRoom {
            used: 0,
            max_size: 10 * GIB,
            free: Some(100 * GIB),
            min_free: GIB,
        }),
        ends: Some(Vec::new()),
        found: Vec::new(),
    }
}

fn account(facts: &mut Facts) -> &mut AccountStatus {
    &mut facts.status.as_mut().unwrap().accounts[0]
}

fn told(name: &str, since: Timestamp) -> Told {
    Told {
        name: name.to_owned(),
        since,
        told: since,
        over: None,
        text: String::new(),
    }
}

const LIMITS: Limits = Limits {
    queue: Some(Duration::from_secs(3600)),
    hold_for: Duration::from_secs(14 * 86_400),
};

fn names(world: &World) -> Vec<String> {
    world.troubles.iter().map(|t| t.topic.to_string()).collect()
}

#[test]
fn what_is_in_trouble() {
    let old = |minutes, mailbox: &str| Oldest {
        arrived: at(minutes),
        account: Some("office".to_owned()),
        mailbox: Some(mailbox.to_owned()),
    };
    type Change = Box<dyn Fn(&mut Facts)>;
    let waiting = move |minutes| -> Change {
        Box::new(move |f| f.ages.as_mut().unwrap().waiting = Some(old(minutes, "a@x.example")))
    };
    let room = |used, free| -> Change {
        Box::new(move |f| {
            let room = f.room.as_mut().unwrap();
            (room.used, room.free) = (used, Some(free));
        })
    };
    let ending = |days| -> Change {
        Box::new(move |f| {
            f.ends = Some(vec![Expiring {
                what: "the secret".to_owned(),
                at: at(60).plus(DAY * days),
                remedy: "make a new one".to_owned(),
            }]);
        })
    };
    let table: Vec<(&str, Change, &[&str])> = vec![
        ("nothing", Box::new(|_| {}), &[]),
        (
            "an account",
            Box::new(|f| account(f).health = Health::Broken(trouble(at(9)))),
            &["account broken: office"],
        ),
        (
            "what passes by itself",
            Box::new(|f| account(f).health = Health::Throttled(trouble(at(9)))),
            &[],
        ),
        (
            "a mailbox",
            Box::new(|f| account(f).mailboxes[0].health = Health::Broken(trouble(at(9)))),
            &["mailbox broken: a@x.example (office)"],
        ),
        (
            "many mailboxes are one trouble",
            Box::new(|f| {
                account(f).mailboxes = (0..4)
                    .map(|n| mailbox(&format!("{n}@x.example"), Health::Broken(trouble(at(9)))))
                    .collect();
            }),
            &["mailboxes broken: office"],
        ),
        (
            "a message for a person",
            Box::new(|f| account(f).mailboxes[0].held = 2),
            &["mail waits for you"],
        ),
        ("59 minutes old", waiting(1), &[]),
        ("an hour old", waiting(0), &["mail is late"]),
        (
            "old because the account is broken",
            Box::new(move |f| {
                account(f).health = Health::Broken(trouble(at(0)));
                f.ages.as_mut().unwrap().waiting = Some(Oldest {
                    arrived: at(0),
                    account: Some("office".to_owned()),
                    mailbox: None,
                });
            }),
            &["account broken: office"],
        ),
        (
            "room for a tenth",
            room(9 * GIB, 100 * GIB),
            &["little room for mail"],
        ),
        (
            "no room in the spool",
            room(10 * GIB, 100 * GIB),
            &["no room for mail"],
        ),
        ("a short disk", room(0, GIB + GIB / 4), &["little room for mail"]),
        ("a full disk", room(0, GIB - 1), &["no room for mail"]),
        ("good for 31 days", ending(31), &[]),
        ("good for 30 days", ending(30), &["expiring: the secret"]),
        ("over today", ending(0), &["expiring: the secret"]),
        (
            "nothing can be found out",
            Box::new(|f| (f.status, f.ages, f.room, f.ends) = (None, None, None, None)),
            &[],
        ),
    ];
    for (case, change, expected) in table {
        let mut facts = facts();
        change(&mut facts);
        assert_eq!(names(&world(&facts, &LIMITS, &[], at(60))), expected, "{case}");
    }
}

#[test]
fn the_text_says_what_is_wrong_and_what_to_do() {
    let mut facts = facts();
    account(&mut facts).health = Health::Broken(trouble(at(9)));
    let world = world(&facts, &LIMITS, &[], at(60));
    let text = &world.troubles[0].text;
    assert_eq!(
        text,
        "No mail goes out through the account \"office\": the client secret has expired: make a new one. Nothing is \
         lost: it waits, and goes out by itself once this is put right."
    );
    assert_eq!(world.troubles[0].detail, "AADSTS7000222");
}

#[test]
fn what_is_held_for_long_is_counted_over_restarts() {
    let days = |n: u32| at(60).minus(DAY * n);
    // It broke again, as far as this run knows, an hour ago.
    let mut facts = facts();
    account(&mut facts).health = Health::Broken(trouble(at(0)));
    for (since, expected) in [(days(10), false), (days(11), true), (days(20), true)] {
        let told = [told("account broken: office", since)];
        let is_long = names(&world(&facts, &LIMITS, &told, at(60))).contains(&Topic::HeldLong.to_string());
        assert_eq!(is_long, expected, "{since}");
    }
    let mut facts = self::facts();
    facts.ages.as_mut().unwrap().held = Some(Oldest {
        arrived: days(12),
        account: None,
        mailbox: None,
    });
    assert_eq!(
        names(&world(&facts, &LIMITS, &[], at(60))),
        ["mail waits for you for long"]
    );
}

#[test]
fn what_was_told_is_over_only_when_it_is_known_to_be() {
    const NAME: &str = "account broken: office";
    type Change = Box<dyn Fn(&mut Facts)>;
    let table: Vec<(&str, Change, u32, bool)> = vec![
        ("an account that is well for long", Box::new(|_| {}), 60, true),
        (
            "nothing was tried yet after a restart",
            Box::new(|_| {}),
            1,
            false,
        ),
        (
            "it was heard to be well",
            Box::new(|f| f.well.push(NAME.to_owned())),
            1,
            true,
        ),
        (
            "a paused account is not tried",
            Box::new(|f| account(f).paused = Some(at(0))),
            60,
            false,
        ),
        (
            "another trouble came before it could be tried",
            Box::new(|f| account(f).health = Health::Throttled(trouble(at(9)))),
            60,
            false,
        ),
        (
            "the runner does not answer",
            Box::new(|f| f.status = None),
            60,
            false,
        ),
        (
            "the configuration has it no more",
            Box::new(|f| account(f).configured = false),
            1,
            true,
        ),
    ];
    for (case, change, minute, over) in table {
        let mut facts = facts();
        change(&mut facts);
        let world = world(&facts, &LIMITS, &[told(NAME, at(0))], at(minute));
        assert_eq!(!world.unknown.contains(&NAME.to_owned()), over, "{case}");
    }
    // Neither is what cannot be found out, nor a mailbox that is now one of many.
    let mut facts = facts();
    (facts.room, facts.ends, facts.ages) = (None, None, None);
    account(&mut facts).mailboxes = (0..4)
        .map(|n| mailbox(&format!("{n}@x.example"), Health::Broken(trouble(at(9)))))
        .collect();
    let before = [
        "no room for mail",
        "little room for mail",
        "mail is late",
        "mail waits for you for long",
        "expiring: the secret",
        "mailbox broken: 1@x.example (office)",
    ];
    let told: Vec<Told> = before.iter().map(|name| told(name, at(0))).collect();
    let world = world(&facts, &LIMITS, &told, at(60));
    for name in before {
        assert!(world.unknown.contains(&name.to_owned()), "{name}");
    }
}
