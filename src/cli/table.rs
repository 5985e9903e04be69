//! Tables for people: columns below each other, as wide as the terminal. Nothing that came from outside can move the
//! cursor or change a colour.

use std::fmt::Write;

/// Blanks between two columns.
const GAP: usize = 2;

/// A column never gets narrower than this.
const NARROWEST: usize = 8;

/// Puts rows below their headings. With a `width`, the columns named in `elastic` are cut so that lines fit it.
pub(super) fn table(
    headings: &[&str],
    rows: &[Vec<String>],
    elastic: &[usize],
    width: Option<usize>,
) -> String {
    let clean = |row: &Vec<String>| row.iter().map(|cell| visible(cell)).collect::<Vec<_>>();
    let mut lines: Vec<Vec<String>> = vec![headings.iter().map(ToString::to_string).collect()];
    lines.extend(rows.iter().map(clean));
    let widest = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(|cell| length(cell))
            .max()
    };
    let mut widths: Vec<usize> = (0..headings.len())
        .map(|column| widest(column).unwrap_or(0))
        .collect();
    if let Some(width) = width {
        // The widest of those that may shrink gives first.
        let needed = |widths: &[usize]| widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        while needed(&widths) > width {
            let widest = elastic
                .iter()
                .copied()
                .filter(|column| widths[*column] > NARROWEST);
            let Some(column) = widest.max_by_key(|column| widths[*column]) else {
                break;
            };
            widths[column] -= 1;
        }
    }
    let mut text = String::new();
    for line in &lines {
        let mut cells = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            let cell = cut(cell, *width);
            // Writing to a String cannot fail.
            let _ = write!(cells, "{cell}{}", " ".repeat(width - length(&cell) + GAP));
        }
        text.push_str(cells.trim_end());
        text.push('\n');
    }
    text
}

/// A duration as people say it: the two largest units.
pub(super) fn ago(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, ..) => format!("{hours}h{minutes:02}m"),
        (1..10, ..) => format!("{days}d{hours:02}h"),
        _ => format!("{days}d"),
    }
}

/// The text without anything that a terminal would obey.
pub(super) fn visible(text: &str) -> String {
    // Control characters, and those that turn the direction of writing around.
    let obeyed = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars()
        .map(|c| if obeyed(c) { '\u{fffd}' } else { c })
        .collect()
}

/// How wide standard output is, if it is a terminal.
#[cfg(unix)]
pub(super) fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|width| *width > 0)
}

/// How wide standard output is, if it is a terminal; on this system that is not asked.
#[cfg(not(unix))]
pub(super) fn terminal_width() -> Option<usize> {
    None
}

fn length(text: &str) -> usize {
    text.chars().count()
}

fn cut(text: &str, width: usize) -> String {
    if length(text) <= width {
        return text.to_owned();
    }
    let kept = text.chars().take(width.saturating_sub(1));
    kept.chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<String>> {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        vec![
            row(["1", "scanner@contoso.example", "a"]),
            row(["22", "x\u{1b}[31m@y", ""]),
        ]
    }

    #[test]
    fn columns_stand_below_each_other_and_lines_have_no_tail() {
        let text = table(&["ID", "FROM", "WHY"], &rows(), &[1, 2], None);
        assert_eq!(
            text,
            "ID  FROM                     WHY\n\
             1   scanner@contoso.example  a\n\
             22  x\u{fffd}[31m@y\n"
        );
    }

    #[test]
    fn what_is_too_wide_is_cut_where_it_may_be() {
        let text = table(&["ID", "FROM", "WHY"], &rows(), &[1], Some(20));
        assert_eq!(text.lines().nth(1), Some("1   scanner@co…  a"));
        let narrow = table(&["ID", "FROM", "WHY"], &rows(), &[1], Some(3));
        assert_eq!(
            narrow.lines().nth(1),
            Some("1   scanner…  a"),
            "never less than this"
        );
    }

    #[test]
    fn durations_are_short() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3_599, "59m"),
            (3_600, "1h00m"),
            (86_399, "23h59m"),
            (90_000, "1d01h"),
            (864_000, "10d"),
        ] {
            assert_eq!(ago(seconds), text);
        }
    }

    #[test]
    fn nothing_from_outside_moves_the_cursor() {
        assert_eq!(
            visible("a\u{1b}[2Jb\r\nc\u{202e}d"),
            "a\u{fffd}[2Jb\u{fffd}\u{fffd}c\u{fffd}d"
        );
    }
}
