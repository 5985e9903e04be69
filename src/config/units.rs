//! Durations and sizes as administrators write them: `1h30m`, `2.9MB`, `10GiB`.

use std::time::Duration;

/// The longest duration that is accepted: about a century. Sums of two of them are far from any overflow.
const MAX_SECONDS: u64 = 36_500 * 86_400;

const TIMES: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads whole seconds: numbers with the units d, h, m and s, each at most once and the largest first.
///
/// # Errors
/// What is wrong with the text; it never contains the text.
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("is empty");
    }
    if rest.bytes().all(|b| b.is_ascii_digit()) {
        return Err("has no unit");
    }
    let mut units = TIMES.iter();
    let mut seconds: u64 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, behind) = rest.split_at(end);
        let number: u64 = number.parse().map_err(|_| "is not a duration")?;
        let unit = behind
            .chars()
            .next()
            .ok_or("has a number without a unit")?
            .to_ascii_lowercase();
        let (_, factor) = units
            .find(|(name, _)| name.starts_with(unit))
            .ok_or("is not a duration")?;
        seconds = number
            .checked_mul(*factor)
            .and_then(|s| s.checked_add(seconds))
            .filter(|s| *s <= MAX_SECONDS)
            .ok_or("is longer than a century")?;
        rest = behind.get(1..).unwrap_or_default();
    }
    Ok(Duration::from_secs(seconds))
}

/// Writes a duration so that [`parse_duration`] reads the same; less than a second is cut off.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let mut seconds = duration.as_secs();
    if seconds == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, factor) in TIMES {
        if seconds >= factor {
            text.push_str(&format!("{}{unit}", seconds / factor));
            seconds %= factor;
        }
    }
    text
}

/// Reads a number of octets: whole, or a decimal fraction with a unit.
///
/// # Errors
/// What is wrong with the text; it never contains the text.
pub fn parse_size(text: &str) -> Result<u64, &'static str> {
    let text = text.trim();
    if text.is_empty() {
        return Err("is empty");
    }
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim();
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 9 || number.ends_with('.') {
        return Err("is not a size");
    }
    if unit.is_empty() && !fraction.is_empty() {
        return Err("has no unit");
    }
    let factor = if unit.is_empty() {
        1
    } else {
        let found = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
        found.ok_or("has an unknown unit")?.1
    };
    let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| "is not a size")?);
    let digits: u128 = format!("{whole}{fraction}")
        .parse()
        .map_err(|_| "is not a size")?;
    let octets = digits.checked_mul(u128::from(factor)).ok_or("is too large")? / scale;
    // SQLite's integers are signed.
    i64::try_from(octets)
        .map(i64::unsigned_abs)
        .map_err(|_| "is too large")
}

/// Writes a size so that [`parse_size`] reads the same: in the largest unit that divides it.
#[must_use]
pub fn format_size(octets: u64) -> String {
    match SIZES
        .iter()
        .find(|(_, factor)| octets >= *factor && octets.is_multiple_of(*factor))
    {
        Some((unit, factor)) if *factor > 1 => format!("{}{unit}", octets / factor),
        _ => octets.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_as_administrators_write_them() {
        for (text, seconds) in [
            ("30s", 30),
            ("2m", 120),
            ("1h30m", 5400),
            ("5d", 432_000),
            ("1D2H", 93_600),
            ("0s", 0),
            (" 1s ", 1),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "5",
            "m",
            "1m1h",
            "1m1m",
            "1.5h",
            "-1s",
            "1h30",
            "1ms",
            "99999999d",
            "1µ",
            "99999999999999999999s",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_as_administrators_write_them() {
        for (text, octets) in [
            ("2900000", 2_900_000),
            ("2.9MB", 2_900_000),
            ("2MiB", 2_097_152),
            ("10GiB", 10_737_418_240),
            ("500 mb", 500_000_000),
            ("1.5KiB", 1536),
            ("7B", 7),
            ("0", 0),
        ] {
            assert_eq!(parse_size(text), Ok(octets), "{text}");
        }
        for text in [
            "",
            "MB",
            "2.9",
            "1.",
            ".5MB",
            "1.2.3MB",
            "-1",
            "10G",
            "1 parsec",
            "9999999999TB",
            "1.0000000001TB",
            "99999999999999999999999999999999999999TB",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_survives_a_round_trip(seconds in 0..=MAX_SECONDS) {
            let duration = Duration::from_secs(seconds);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn a_size_survives_a_round_trip(octets in 0..=i64::MAX as u64, unit in 0..SIZES.len()) {
            prop_assert_eq!(parse_size(&format_size(octets)), Ok(octets));
            let round = octets / SIZES[unit].1 * SIZES[unit].1;
            prop_assert_eq!(parse_size(&format_size(round)), Ok(round));
        }

        #[test]
        fn no_text_breaks_the_units(text in "\\PC*") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
        }
    }
}
