//! How log lines look and where they go: standard error, as text for people or as JSON for programs.

use std::fmt;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, fmt as subscriber};

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `2026-11-21T08:47:00.123Z INFO  accepted id=… size=…`
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends all log lines of this process to standard error. Lines of `level` and above are shown: `error`, `warn`,
/// `info`, `debug` or `trace`.
///
/// # Errors
/// A text, if `level` is none of these or logging was set up already.
pub fn init(format: Format, level: &str) -> Result<(), String> {
    let level: tracing::Level = level
        .parse()
        .map_err(|_| format!("{level:?} is not a log level"))?;
    // Libraries speak up only when something is wrong with them.
    let filter = EnvFilter::try_new(format!(
        "warn,smtp_oauth_bridge={level},mail={level},sandbox={level}"
    ))
    .map_err(|e| e.to_string())?;
    let builder = subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let set = match format {
        Format::Text => builder.event_format(Text).try_init(),
        Format::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .try_init(),
    };
    set.map_err(|e| e.to_string())
}

/// `time LEVEL message key=value …`: values with blanks or control characters are quoted and escaped, so that a
/// client can neither forge a line nor colour a terminal.
struct Text;

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let now = crate::clock::Clock::machine().now();
        let mut fields = Fields::default();
        event.record(&mut fields);
        writeln!(
            out,
            "{now} {:5} {}{}",
            event.metadata().level(),
            fields.message,
            fields.rest
        )
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
}

impl Fields {
    fn add(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = escaped(value);
        } else {
            let plain = !value.is_empty()
                && value
                    .chars()
                    .all(|c| c.is_ascii_graphic() && c != '"' && c != '=');
            let value = if plain {
                value.to_owned()
            } else {
                format!("\"{}\"", escaped(value).replace('"', "\\\""))
            };
            self.rest.push_str(&format!(" {}={value}", field.name()));
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

fn escaped(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() {
                c.escape_default().to_string()
            } else {
                c.to_string()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_cannot_be_forged() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = subscriber::fmt()
            .event_format(Text)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(
                greeting = "x\r\nINFO accepted \"y\"\u{1b}[31m",
                id = "1",
                "refused"
            );
        });
        let line = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(
            line.ends_with(" INFO  refused greeting=\"x\\r\\nINFO accepted \\\"y\\\"\\u{1b}[31m\" id=1\n"),
            "{line}"
        );
    }
}
