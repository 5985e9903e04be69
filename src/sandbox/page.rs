//! The inbox as a page for people: no scripts, nothing from elsewhere.

use super::message::{Field, Message};
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

/// What the page may load: its own style sheet.
pub(super) const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The newest messages that are shown; all are in the JSON.
const SHOWN: usize = 200;

pub(super) const STYLE: &str = "\
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; margin: .5rem 0; }
h2 { font-size: 1.1rem; margin: 0; }
ul { list-style: none; padding: 0; }
li { border-top: 1px solid var(--line); padding: .75rem 0; }
p { margin: .4rem 0; }
small { opacity: .8; }
pre { background: var(--soft); padding: .75rem; overflow-x: auto; border-radius: .3rem; }
nav a { margin-right: 1rem; }
a:focus-visible { outline: 2px solid; outline-offset: 2px; }
";

/// The whole page: newest first, or how to send a first message.
pub(super) fn render(messages: &[Arc<Message>], dropped: u64, smtp: Option<SocketAddr>) -> String {
    let refresh = if messages.is_empty() {
        "<meta http-equiv=\"refresh\" content=\"3\">\n"
    } else {
        ""
    };
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n{refresh}\
         <title>Sandbox inbox ({})</title>\n<link rel=\"stylesheet\" href=\"/style.css\">\n</head>\n<body>\n\
         <header><h1>Sandbox inbox</h1>\n<p>This is not Microsoft 365 but a look-alike on this machine. Nothing \
         here was sent to anybody, and all of it is forgotten when the sandbox stops.</p>\n<nav>\
         <a href=\"/\">Reload</a><a href=\"/inbox\">JSON</a><a href=\"/requests\">Requests</a>\
         <a href=\"/faults\">Faults</a><a href=\"/tenant\">Tenant</a></nav></header>\n<main>\n",
        messages.len()
    );
    if messages.is_empty() {
        first_message(&mut page, smtp);
    } else {
        page.push_str("<ul>\n");
        for message in messages.iter().rev().take(SHOWN) {
            entry(&mut page, message);
        }
        page.push_str("</ul>\n");
    }
    let hidden = messages.len().saturating_sub(SHOWN);
    if hidden > 0 {
        let _ = writeln!(
            page,
            "<p>{hidden} older ones are in the <a href=\"/inbox\">JSON</a>.</p>"
        );
    }
    if dropped > 0 {
        let _ = writeln!(page, "<p>{dropped} older ones were forgotten to save memory.</p>");
    }
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

fn entry(page: &mut String, message: &Message) {
    let subject = message
        .subject
        .as_deref()
        .filter(|subject| !subject.trim().is_empty());
    let id = message.id;
    let _ = writeln!(
        page,
        "<li><h2><a href=\"/inbox/{id}\">{}</a></h2>\n<p>From {}</p>",
        escaped(subject.unwrap_or("(no subject)")),
        escaped(message.from.as_deref().unwrap_or("(nobody)"))
    );
    for (field, name) in [(Field::To, "To"), (Field::Cc, "Cc"), (Field::Bcc, "Bcc")] {
        let of_field = message.recipients.iter().filter(|r| r.field == field);
        let addresses: Vec<&str> = of_field.map(|r| r.address.as_str()).collect();
        if !addresses.is_empty() {
            let _ = writeln!(page, "<p>{name} {}</p>", escaped(&addresses.join(", ")));
        }
    }
    let _ = writeln!(
        page,
        "<p><small>{} · {} bytes · from the mailbox {} · <a href=\"/inbox/{id}/raw\">as it was posted</a></small></p></li>",
        escaped(&message.received),
        message.size,
        escaped(&message.mailbox)
    );
}

fn first_message(page: &mut String, smtp: Option<SocketAddr>) {
    let smtp = smtp.map_or_else(|| "127.0.0.1:2525".to_owned(), |smtp| smtp.to_string());
    let _ = writeln!(
        page,
        "<h2>Nothing has arrived yet</h2>\n<p>Send a first message to the bridge at {smtp}, for instance:</p>\n\
         <pre>printf 'Subject: Hello\\n\\nMy first message.\\n' |\n  curl smtp://{smtp} --mail-from me@printer.example \\\n    \
         --mail-rcpt you@contoso.example --upload-file -</pre>\n<p>This page looks again every three seconds.</p>"
    );
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_wrote_is_text() {
        let message = Message {
            subject: Some("<script>alert('1')</script>".to_owned()),
            from: Some("\"><b>@x.example".to_owned()),
            ..Message::default()
        };
        let page = render(&[Arc::new(message)], 3, None);
        assert!(!page.contains("<script") && !page.contains("<b>"), "{page}");
        assert!(page.contains("&lt;script&gt;") && page.contains("3 older ones were forgotten"));
    }

    #[test]
    fn an_empty_page_tells_what_to_do() {
        let page = render(&[], 0, Some(SocketAddr::from(([127, 0, 0, 1], 2626))));
        assert!(page.contains("smtp://127.0.0.1:2626") && page.contains("refresh"));
        let page = render(&[Arc::new(Message::default())], 0, None);
        assert!(page.contains("(no subject)") && !page.contains("refresh"));
    }
}
