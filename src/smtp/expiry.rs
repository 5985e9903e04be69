//! The end of a certificate: when it is, and when to speak of it. No I/O; time is an argument.

use crate::mail::Timestamp;
use std::fmt;
use std::time::Duration;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Date, PrimitiveDateTime};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// So many days before the end it is spoken of, once each.
const NEAR: [u8; 5] = [1, 3, 7, 14, 30];

/// How near the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not more than so many days, one of [`NEAR`].
    Near(u8),
    /// It is over.
    Over,
}

/// What was said about the end of a certificate, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    stage: Stage,
    at: Timestamp,
}

/// A warning about the end of a certificate, in words for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Warning {
    end: Timestamp,
    now: Timestamp,
}

/// What is to be said about a certificate that ends then, if anything. It is said when the end is first seen to be
/// near, again as it comes nearer, and on its last day and after it once a day.
pub(super) fn warning(end: Timestamp, now: Timestamp, told: Option<Told>) -> Option<(Warning, Told)> {
    let stage = stage(end, now)?;
    let is_known = told.is_some_and(|told| {
        let is_fresh = now.since(told.at) < DAY;
        told.stage == stage && (is_fresh || matches!(stage, Stage::Near(days) if days > 1))
    });
    (!is_known).then_some((Warning { end, now }, Told { stage, at: now }))
}

fn stage(end: Timestamp, now: Timestamp) -> Option<Stage> {
    if now >= end {
        return Some(Stage::Over);
    }
    let left = end.since(now);
    let near = NEAR.into_iter().find(|&days| left <= DAY * u32::from(days));
    near.map(Stage::Near)
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { end, now } = self;
        if now >= end {
            return write!(
                f,
                "is out of date since {end}: devices that verify certificates send nothing any more"
            );
        }
        // Begun days count.
        match end.since(*now).as_secs().div_ceil(DAY.as_secs()) {
            1 => write!(f, "is good for one more day only, until {end}"),
            days => write!(f, "is good for {days} more days only, until {end}"),
        }
    }
}

/// The first end among these certificates (DER); one that cannot be read is passed over, the TLS library judges it.
pub(super) fn first_end<'a>(chain: impl IntoIterator<Item = &'a [u8]>) -> Option<Timestamp> {
    chain.into_iter().filter_map(not_after).min()
}

/// `notAfter` of a certificate (RFC 5280 §4.1).
fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    // The version may be missing.
    if let (VERSION, _, rest) = element(fields)? {
        fields = rest;
    }
    // The serial number, the algorithm of the signature, and the issuer.
    for _ in 0..3 {
        (_, _, fields) = element(fields)?;
    }
    let (_, validity, _) = element(fields)?;
    let (_, _, end) = element(validity)?;
    let (kind, text, _) = element(end)?;
    time(kind, std::str::from_utf8(text).ok()?)
}

/// Tags of DER (X.690 §8.1.2): `[0]` with something in it, and two ways to write a time.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The first element of some DER: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        // X.690 §8.1.3.5: the number of octets that are the length. No certificate needs more than four.
        0x81..=0x84 => {
            let (octets, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            let length = octets
                .iter()
                .fold(0, |length, &octet| length << 8 | usize::from(octet));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

const TIME: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day][hour][minute][second]Z");

/// RFC 5280 §4.1.2.5: always UTC, with seconds.
fn time(kind: u8, text: &str) -> Option<Timestamp> {
    let text = match kind {
        // §4.1.2.5.1: years from 1950 to 2049.
        UTC_TIME if text.get(..1)? < "5" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let time = PrimitiveDateTime::parse(&text, TIME).ok()?;
    // §4.1.2.5: this year and its end mean that there is none.
    if time.date() == Date::MAX {
        return None;
    }
    Some(Timestamp::from_millis(
        time.assume_utc().unix_timestamp().saturating_mul(1000),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    const NOW: Timestamp = Timestamp::from_millis(1_795_250_820_000);

    fn certificate(year: i32) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["bridge.test".into()]).unwrap();
        params.not_after = date_time_ymd(year, 3, 4);
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_of_a_certificate_is_read() {
        for year in [2027, 2049, 2050, 2999] {
            let der = certificate(year);
            let end = not_after(&der).unwrap();
            assert_eq!(end.to_string(), format!("{year}-03-04T00:00:00.000Z"));
            // What is damaged has no end, and harms nobody.
            for cut in 0..der.len() {
                assert_eq!(not_after(&der[..cut]), None);
            }
        }
        let chain = [
            certificate(2050),
            certificate(2027),
            b"\x30\x84\xff\xff\xff\xff".to_vec(),
        ];
        let end = first_end(chain.iter().map(Vec::as_slice)).unwrap();
        assert_eq!(end.to_string(), "2027-03-04T00:00:00.000Z");
        assert_eq!(first_end([&b""[..]]), None);
    }

    #[test]
    fn times_as_certificates_write_them() {
        for (kind, text, expected) in [
            (UTC_TIME, "491231235959Z", Some("2049-12-31T23:59:59.000Z")),
            (UTC_TIME, "500101000000Z", Some("1950-01-01T00:00:00.000Z")),
            (
                GENERALIZED_TIME,
                "20500101000000Z",
                Some("2050-01-01T00:00:00.000Z"),
            ),
            (GENERALIZED_TIME, "99991231235959Z", None),
            (UTC_TIME, "4912312359Z", None),
            (UTC_TIME, "", None),
            (4, "491231235959Z", None),
        ] {
            let time = time(kind, text).map(|time| time.to_string());
            assert_eq!(time.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_warning_comes_at_each_stage_and_daily_at_the_last() {
        let hour = Duration::from_secs(3600);
        let mut told = None;
        // Hours before the end at which something is said, if somebody looks every hour.
        let mut said = Vec::new();
        let end = NOW.plus(DAY * 40);
        for hours in 0..24 * 43 {
            let now = NOW.plus(hour * hours);
            if let Some((warning, now_told)) = warning(end, now, told) {
                told = Some(now_told);
                said.push((24 * 40 - i64::from(hours), warning.to_string()));
            }
        }
        let hours: Vec<i64> = said.iter().map(|(hours, _)| *hours).collect();
        assert_eq!(hours, [720, 336, 168, 72, 24, 0, -24, -48]);
        assert_eq!(
            said[0].1,
            "is good for 30 more days only, until 2026-12-31T08:47:00.000Z"
        );
        assert_eq!(
            said[4].1,
            "is good for one more day only, until 2026-12-31T08:47:00.000Z"
        );
        assert!(
            said[5]
                .1
                .starts_with("is out of date since 2026-12-31T08:47:00.000Z: "),
            "{}",
            said[5].1
        );

        // Whoever starts in between is told at once; and a clock that is set back says nothing twice.
        let (_, told) = warning(end, end, None).unwrap();
        assert_eq!(warning(end, NOW, Some(told)), None);
        assert!(warning(end, NOW.plus(DAY * 35), None).is_some());
    }
}
