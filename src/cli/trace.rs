//! `trace`: what became of a message.

use super::args::Trace;
use super::exit::Failure;
use super::{say, surroundings, warn};
use crate::clock::Clock;
use crate::config;
use crate::history::{self, Archive, Found, Target};
use crate::mail::Timestamp;
use crate::spool;
use std::path::Path;

/// Says what is known of the messages that are looked for; the newest first.
pub(super) fn trace(config: Option<&Path>, args: &Trace) -> Result<(), Failure> {
    let target: Target = args
        .target
        .parse()
        .map_err(|error| Failure::data(format!("{:?} {error}", args.target)))?;
    let since = match &args.since {
        None => Timestamp::from_millis(0),
        Some(text) => since(text, Clock::machine().now())?,
    };
    let state_dir = surroundings::load(config)?.config.state_dir;
    let (history, queue) = (
        history::database(&state_dir),
        spool::database(&state_dir.join("spool")),
    );
    let archive = Archive::open(&history, &queue).map_err(Failure::system)?;
    if let Some(trouble) = archive.trouble() {
        warn(&format!(
            "warning: {trouble}; this is only what the queue knows\n\
             hint: run this as the user of the bridge, or as root; a bridge that runs sets a damaged history aside by itself"
        ));
    }
    let Found { stories, more } = archive
        .search(&target, since, args.limit)
        .map_err(Failure::system)?;
    if stories.is_empty() {
        return Err(Failure::refused(nothing(args, &target, &state_dir)));
    }
    for (n, story) in stories.iter().enumerate() {
        if args.json {
            say(&history::json(story));
        } else {
            let space = if n > 0 { "\n" } else { "" };
            say(&format!("{space}{}", history::text(story).trim_end()));
        }
    }
    if more && !args.json {
        say(&format!(
            "\nThere are older ones: see them with --limit {}, or name the day with --since.",
            args.limit.saturating_mul(10).max(10)
        ));
    }
    Ok(())
}

fn since(text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    if let Ok(ago) = config::parse_duration(text) {
        let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        return Ok(Timestamp::from_millis(now.millis().saturating_sub(ago).max(0)));
    }
    Timestamp::parse(text).ok_or_else(|| {
        Failure::data(format!(
            "--since {text:?} is no time: write \"2h\" or \"7d\" for the last hours or days, or \"2026-11-21\" or \
             \"2026-11-21T08:47:00Z\" (UTC)"
        ))
    })
}

/// What to check, for those who find nothing.
fn nothing(args: &Trace, target: &Target, state_dir: &Path) -> String {
    let mut text = format!("nothing is known of {:?}, taken for {target}", args.target);
    if let Some(since) = &args.since {
        text.push_str(&format!(", since {since}"));
    }
    text.push_str(&format!(
        "\nhint: is it spelled as the client said it? Did the client get a 250 (else look for \"refused\" or \"lost\" in the \
         log)? Is it older than `history.keep` in the configuration? Is {} the state_dir of the bridge that took it?",
        state_dir.display()
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_so_long_ago_or_a_moment() {
        let now = Timestamp::parse("2026-11-21T08:47:00Z").unwrap();
        for (text, expected) in [
            ("2h", "2026-11-21T06:47:00.000Z"),
            ("1d12h", "2026-11-19T20:47:00.000Z"),
            ("2026-11-20", "2026-11-20T00:00:00.000Z"),
            ("2026-11-20T10:00:00+01:00", "2026-11-20T09:00:00.000Z"),
            ("36500d", "1970-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(since(text, now).unwrap().to_string(), expected, "{text}");
        }
        for nonsense in ["", "yesterday", "7", "20.11.2026"] {
            assert!(since(nonsense, now).is_err(), "{nonsense}");
        }
    }
}
