use super::*;

/// A moment by both clocks, in seconds from the beginning of some hour.
fn clock() -> impl Fn(u64) -> Now {
    let start = Instant::now();
    move |seconds| Now {
        time: Timestamp::from_millis(500_000 * 3_600_000).plus(Duration::from_secs(seconds)),
        moment: start + Duration::from_secs(seconds),
    }
}

fn lane(account: &str, mailbox: &str) -> Lane {
    Lane {
        account: account.to_owned(),
        mailbox: mailbox.to_owned(),
    }
}

fn pace(change: impl Fn(&mut Terms)) -> Pace {
    let terms = |cloud: &str| {
        let mut terms = Terms {
            cloud: cloud.to_owned(),
            application: "app".to_owned(),
            ..Terms::default()
        };
        change(&mut terms);
        terms
    };
    let names = [("office", "global"), ("again", "global"), ("china", "china")];
    Pace::new(names.map(|(name, cloud)| (name.to_owned(), terms(cloud))).into())
}

fn load(transport: Transport, size: u64, recipients: u64) -> Load<'static> {
    Load {
        transport,
        size,
        recipients,
        sender: "10.0.0.1 <a@x.example>",
    }
}

fn small() -> Load<'static> {
    load(Transport::Graph, 1000, 1)
}

/// What is written down of an attempt.
fn sent(lane: &Lane, load: Load<'_>, now: Now) -> Sent {
    Sent {
        sender: load.sender.to_owned(),
        ..Terms::default().sent(&lane.mailbox, &Turn::default(), load.recipients, now.time)
    }
}

/// One attempt from beginning to end at `now`, relayed.
fn send(pace: &mut Pace, lane: &Lane, load: Load<'_>, now: Now) -> Result<(), Wait> {
    let ticket = pace.begin(lane, load, now)?;
    let sent = sent(lane, load, now);
    pace.end(ticket, true, Some(&sent), now);
    Ok(())
}

#[test]
fn a_mailbox_has_its_requests_in_its_cloud_whichever_account_sends() {
    let (at, mut pace) = (clock(), pace(|_| {}));
    let mut tickets = Vec::new();
    for account in ["office", "again", "office", "again"] {
        let lane = lane(
            account,
            if account == "again" {
                "S@X.example"
            } else {
                "s@x.example"
            },
        );
        tickets.push(pace.begin(&lane, small(), at(0)).unwrap());
    }
    let full = lane("office", "s@x.example");
    assert_eq!(pace.room(&full, Transport::Graph, at(0)), Err(Wait::Turn));
    assert_eq!(pace.begin(&full, small(), at(0)), Err(Wait::Turn));
    for other in [lane("office", "t@x.example"), lane("china", "s@x.example")] {
        assert_eq!(pace.room(&other, Transport::Graph, at(0)), Ok(4));
    }
    pace.end(tickets.pop().unwrap(), true, None, at(1));
    assert_eq!(pace.room(&full, Transport::Graph, at(1)), Ok(1));
    // SMTP has connections of its own.
    assert_eq!(pace.room(&full, Transport::Smtp, at(1)), Ok(3));
}

#[test]
fn upload_counts_while_it_goes_and_five_minutes_more() {
    let (at, mut pace) = (clock(), pace(|terms| terms.graph.upload = 10_000_000));
    let lane = lane("office", "s@x.example");
    let big = load(Transport::Graph, 3_000_000, 1);
    let first = pace.begin(&lane, big, at(0)).unwrap();
    let second = pace.begin(&lane, big, at(0)).unwrap();
    assert_eq!(pace.begin(&lane, big, at(0)), Err(Wait::Turn), "12 MB of base64");
    assert!(send(&mut pace, &lane, small(), at(0)).is_ok(), "what fits may go");
    pace.end(first, true, None, at(60));
    pace.end(second, false, None, at(60));
    // The second had never left us; the first is over five minutes after its end, not its beginning.
    assert!(send(&mut pace, &lane, big, at(61)).is_ok());
    let Err(Wait::Until(free)) = pace.begin(&lane, big, at(62)) else {
        panic!("10 MB are used")
    };
    let free = free - at(0).moment;
    assert!(
        free >= Duration::from_secs(360) && free <= Duration::from_secs(366),
        "{free:?}"
    );
    assert!(send(&mut pace, &lane, big, at(366)).is_ok());
}

#[test]
fn a_message_larger_than_all_that_is_allowed_goes_alone() {
    let (at, mut pace) = (
        clock(),
        pace(|terms| {
            terms.graph.upload = 1_000_000;
            terms.recipients_per_day = 10;
        }),
    );
    let lane = lane("office", "s@x.example");
    let huge = load(Transport::Graph, 3_000_000, 50);
    send(&mut pace, &lane, huge, at(0)).unwrap();
    assert!(matches!(pace.begin(&lane, huge, at(1)), Err(Wait::Day(_))));
    let tomorrow = at(25 * 3600);
    assert!(send(&mut pace, &lane, huge, tomorrow).is_ok());
}

#[test]
fn submission_has_a_burst_and_then_one_message_every_two_seconds() {
    let (at, mut pace) = (clock(), pace(|_| {}));
    let lane = lane("office", "s@x.example");
    let message = load(Transport::Smtp, 1000, 1);
    for _ in 0..30 {
        send(&mut pace, &lane, message, at(0)).unwrap();
    }
    let next = at(2).moment;
    assert_eq!(pace.begin(&lane, message, at(0)), Err(Wait::Until(next)));
    assert_eq!(pace.room(&lane, Transport::Smtp, at(0)), Err(Wait::Until(next)));
    assert!(send(&mut pace, &lane, message, at(2)).is_ok());
    assert!(send(&mut pace, &lane, message, at(3)).is_err());
    // Graph is not meant.
    assert!(send(&mut pace, &lane, small(), at(3)).is_ok());
}

#[test]
fn a_used_up_day_stops_one_mailbox_until_an_hour_of_it_is_over() {
    let (at, mut pace) = (clock(), pace(|_| {}));
    let (full, other) = (lane("office", "s@x.example"), lane("office", "t@x.example"));
    send(&mut pace, &full, load(Transport::Graph, 1000, 4000), at(0)).unwrap();
    send(&mut pace, &full, load(Transport::Smtp, 1000, 5999), at(7200)).unwrap();
    assert!(matches!(
        pace.begin(&full, load(Transport::Graph, 1000, 2), at(7200)),
        Err(Wait::Day(_))
    ));
    send(&mut pace, &full, small(), at(7200)).unwrap();
    let free = at(25 * 3600).time;
    assert_eq!(pace.room(&full, Transport::Graph, at(7200)), Err(Wait::Day(free)));
    assert_eq!(
        pace.room(&full, Transport::Smtp, at(24 * 3600)),
        Err(Wait::Day(free))
    );
    assert_eq!(pace.room(&full, Transport::Graph, at(25 * 3600)), Ok(4));
    assert_eq!(pace.room(&other, Transport::Graph, at(7200)), Ok(4));
}

#[test]
fn what_is_under_way_is_counted_before_it_is_sent() {
    let (at, mut pace) = (clock(), pace(|terms| terms.recipients_per_day = 100));
    let lane = lane("office", "s@x.example");
    let many = load(Transport::Graph, 1000, 60);
    let under_way = pace.begin(&lane, many, at(0)).unwrap();
    assert_eq!(pace.begin(&lane, many, at(0)), Err(Wait::Turn));
    // It was refused: its recipients are free again.
    pace.end(under_way, true, None, at(1));
    assert!(pace.begin(&lane, many, at(1)).is_ok());
}

#[test]
fn a_day_survives_a_restart_by_what_was_written_down() {
    let (at, mut before) = (clock(), pace(|_| {}));
    let lane = lane("office", "S@x.example");
    let sent = sent(&lane, load(Transport::Graph, 1, 10_000), at(0));
    assert_eq!((sent.mailbox.as_str(), sent.hour), ("s@x.example", 500_000));
    before.restore([sent.clone()]);
    let mut after = pace(|_| {});
    after.restore([sent]);
    for pace in [&before, &after] {
        assert!(matches!(
            pace.room(&lane, Transport::Graph, at(60)),
            Err(Wait::Day(_))
        ));
    }
}

#[test]
fn the_last_tenth_of_a_day_is_for_those_who_sent_little() {
    let (at, mut pace) = (clock(), pace(|terms| terms.recipients_per_day = 1000));
    let lane = lane("office", "s@x.example");
    let of = |sender| Load { sender, ..small() };
    // As long as it is alone, it may have the whole day.
    for _ in 0..890 {
        send(&mut pace, &lane, of("runaway"), at(0)).unwrap();
    }
    for _ in 0..10 {
        send(&mut pace, &lane, of("printer"), at(0)).unwrap();
    }
    assert!(matches!(
        pace.begin(&lane, of("runaway"), at(0)),
        Err(Wait::Share(_))
    ));
    let until = Some(at(25 * 3600).time);
    assert_eq!(
        pace.barred(&lane, at(0)),
        (HashSet::from(["runaway".to_owned()]), until)
    );
    for sender in ["printer", "fax"] {
        for _ in 0..50 {
            send(&mut pace, &lane, of(sender), at(3600)).unwrap();
        }
    }
    assert!(matches!(
        pace.begin(&lane, of("fax"), at(3600)),
        Err(Wait::Day(_))
    ));
    assert_eq!(pace.barred(&lane, at(25 * 3600)), (HashSet::new(), None));
    assert!(send(&mut pace, &lane, of("runaway"), at(25 * 3600)).is_ok());
}

#[test]
fn what_an_administrator_should_know_is_said_once() {
    let (at, mut pace) = (clock(), pace(|terms| terms.recipients_per_day = 100));
    let lane = lane("office", "s@x.example");
    let mut heard = Vec::new();
    for n in 0..100 {
        send(&mut pace, &lane, small(), at(n)).unwrap();
        heard.extend(pace.notices(&lane, at(n)));
    }
    let (mailbox, limit) = ("s@x.example".to_owned(), 100);
    let until = at(25 * 3600).time;
    assert_eq!(
        heard,
        [
            Notice::Near {
                mailbox: mailbox.clone(),
                used: 90,
                limit
            },
            Notice::Reached {
                mailbox,
                limit,
                until
            },
        ]
    );
    assert_eq!(pace.notices(&lane, at(24 * 3600)), []);
    assert_eq!(pace.notices(&lane, at(25 * 3600)), []);
    send(&mut pace, &lane, load(Transport::Graph, 1, 95), at(25 * 3600)).unwrap();
    assert_eq!(pace.notices(&lane, at(25 * 3600)).len(), 1, "a new day");
}

#[test]
fn an_application_narrows_itself_when_graph_complains_about_several_mailboxes() {
    let (at, mut pace) = (clock(), pace(|_| {}));
    let (one, two) = (lane("office", "s@x.example"), lane("again", "t@x.example"));
    let mut ones: Vec<Ticket> = (0..4)
        .map(|_| pace.begin(&one, small(), at(0)).unwrap())
        .collect();
    let twos: Vec<Ticket> = (0..3)
        .map(|_| pace.begin(&two, small(), at(0)).unwrap())
        .collect();
    assert_eq!(
        pace.over_concurrency(&one, &ones[0]),
        None,
        "the mailbox's own four"
    );
    let narrowed = Notice::Narrowed {
        application: "app".to_owned(),
        at_once: 4,
    };
    assert_eq!(pace.over_concurrency(&two, &twos[0]), Some(narrowed));
    assert_eq!(pace.over_concurrency(&two, &twos[1]), None, "said once");
    for ticket in twos {
        pace.end(ticket, true, None, at(1));
    }
    assert_eq!(
        pace.room(&two, Transport::Graph, at(1)),
        Err(Wait::Turn),
        "four in all"
    );
    pace.end(ones.pop().unwrap(), true, None, at(1));
    assert_eq!(pace.room(&two, Transport::Graph, at(1)), Ok(1));
    // Still too many: fewer, but never none.
    for expected in [2, 1] {
        let narrowed = Notice::Narrowed {
            application: "app".to_owned(),
            at_once: expected,
        };
        assert_eq!(pace.over_concurrency(&one, &ones[0]), Some(narrowed));
        pace.end(ones.pop().unwrap(), true, None, at(1));
    }
    assert_eq!(pace.over_concurrency(&one, &ones[0]), None);
}

#[test]
fn a_configured_number_for_the_application_holds_for_all_its_mailboxes() {
    let (at, mut pace) = (clock(), pace(|terms| terms.max_in_flight = 2));
    for n in 0..2 {
        let _ticket = pace
            .begin(&lane("office", &format!("m{n}@x.example")), small(), at(0))
            .unwrap();
    }
    assert_eq!(
        pace.begin(&lane("again", "n@x.example"), small(), at(0)),
        Err(Wait::Turn)
    );
}

#[test]
fn limits_of_nothing_are_no_limits() {
    let (at, mut pace) = (
        clock(),
        pace(|terms| {
            terms.recipients_per_day = 0;
            terms.graph.upload = 0;
            terms.smtp.per_minute = 0;
        }),
    );
    let lane = lane("office", "s@x.example");
    for transport in [Transport::Graph, Transport::Smtp] {
        for _ in 0..100 {
            send(&mut pace, &lane, load(transport, 3_000_000, 1000), at(0)).unwrap();
        }
    }
    assert_eq!(pace.notices(&lane, at(0)), []);
}
