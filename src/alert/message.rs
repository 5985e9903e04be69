//! An alert in the words of each way: our own JSON, Slack, Teams, ntfy, mail. Pure.

use super::decide::Tell;
use super::topic::Topic;
use crate::mail::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

/// An alert as programs read it. Never has a secret in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Message {
    /// The version of this format.
    pub(super) version: u32,
    pub(super) event: Event,
    /// What it is about; alert and all-clear have the same.
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) account: Option<String>,
    pub(super) mailbox: Option<String>,
    pub(super) host: String,
    pub(super) since: String,
    pub(super) at: String,
    pub(super) title: String,
    pub(super) text: String,
    pub(super) detail: String,
}

/// What an alert says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Event {
    /// Something is wrong.
    Alert,
    /// It is wrong still.
    Reminder,
    /// It is over.
    AllClear,
}

impl Event {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Reminder => "reminder",
            Self::AllClear => "all_clear",
        }
    }
}

/// Octets of an upstream's own words that are passed on at most.
const MAX_DETAIL: usize = 1000;

impl Message {
    pub(super) fn new(tell: &Tell, host: &str, at: Timestamp) -> Self {
        let (event, name, since, text, detail) = match tell {
            Tell::Trouble { trouble, again } => (
                if *again { Event::Reminder } else { Event::Alert },
                trouble.topic.to_string(),
                trouble.since,
                trouble.text.clone(),
                bounded(&trouble.detail),
            ),
            Tell::Over(told) => (
                Event::AllClear,
                told.name.clone(),
                told.since,
                format!("It is over. What it was about: {}", told.text),
                String::new(),
            ),
        };
        let topic = Topic::named(&name);
        let mailbox = match &topic {
            Some(Topic::Mailbox { mailbox, .. }) => Some(mailbox.clone()),
            _ => None,
        };
        let word = match event {
            Event::Alert => "Alert",
            Event::Reminder => "Still",
            Event::AllClear => "Over",
        };
        Self {
            version: 1,
            event,
            title: format!("{word}: {name} ({host})"),
            kind: topic.as_ref().map_or("other", Topic::kind),
            account: topic.as_ref().and_then(Topic::account).map(str::to_owned),
            mailbox,
            name,
            host: host.to_owned(),
            since: since.to_string(),
            at: at.to_string(),
            text,
            detail,
        }
    }

    /// Our own JSON.
    pub(super) fn json(&self) -> Value {
        // Strings and numbers only: this cannot fail.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// For an incoming webhook of Slack. `&`, `<` and `>` must be escaped in `text`, so that nobody can make links or
    /// call a whole channel with the words of a server.
    pub(super) fn slack(&self) -> Value {
        let escape = |text: &str| {
            text.replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
        };
        let icon = match self.event {
            Event::AllClear => ":white_check_mark:",
            Event::Alert | Event::Reminder => ":warning:",
        };
        let mut text = format!("{icon} *{}*\n{}", escape(&self.title), escape(&self.text));
        if !self.detail.is_empty() {
            text.push_str(&format!("\n```{}```", escape(&self.detail.replace("```", "'''"))));
        }
        json!({ "text": text })
    }

    /// An Adaptive Card, as the template "Post to a channel when a webhook request is received" of Teams takes it.
    pub(super) fn teams(&self) -> Value {
        let colour = match self.event {
            Event::AllClear => "Good",
            Event::Alert | Event::Reminder => "Attention",
        };
        let mut body = vec![
            json!({ "type": "TextBlock", "text": self.title, "weight": "Bolder", "size": "Medium", "color": colour, "wrap": true }),
            json!({ "type": "TextBlock", "text": self.text, "wrap": true }),
            json!({ "type": "FactSet", "facts": [
                { "title": "Since", "value": self.since },
                { "title": "Host", "value": self.host },
            ]}),
        ];
        if !self.detail.is_empty() {
            body.push(json!({ "type": "TextBlock", "text": self.detail, "wrap": true, "isSubtle": true, "fontType": "Monospace" }));
        }
        json!({
            "type": "message",
            "attachments": [{
                "contentType": "application/vnd.microsoft.card.adaptive",
                "contentUrl": null,
                "content": {
                    "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                    "type": "AdaptiveCard",
                    "version": "1.4",
                    "msteams": { "width": "Full" },
                    "body": body,
                },
            }],
        })
    }

    /// For ntfy, published as JSON, which takes any characters.
    pub(super) fn ntfy(&self, topic: &str) -> Value {
        let (priority, tag) = match self.event {
            Event::Alert => (4, "warning"),
            Event::Reminder => (3, "warning"),
            Event::AllClear => (3, "white_check_mark"),
        };
        json!({ "topic": topic, "title": self.title, "message": self.with_detail(), "priority": priority, "tags": [tag] })
    }

    /// For mail: subject and text.
    pub(super) fn mail(&self) -> (String, String) {
        let text = format!(
            "{}\n\nSince: {}\nHost:  {}\n\nThis was written by smtp-oauth-bridge. It is told once a day while it lasts, \
             and when it is over.\n",
            self.with_detail(),
            self.since,
            self.host
        );
        (self.title.clone(), text)
    }

    /// For a command: what it finds in its environment besides the JSON on standard input.
    pub(super) fn variables(&self) -> [(&'static str, &str); 5] {
        [
            ("ALERT_EVENT", self.event.as_str()),
            ("ALERT_NAME", &self.name),
            ("ALERT_KIND", self.kind),
            ("ALERT_TITLE", &self.title),
            ("ALERT_TEXT", &self.text),
        ]
    }

    fn with_detail(&self) -> String {
        if self.detail.is_empty() {
            return self.text.clone();
        }
        format!("{}\n\n{}", self.text, self.detail)
    }
}

/// The beginning of a text that comes from elsewhere, without control characters.
fn bounded(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_DETAIL);
    let clean = text[..end].chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.collect()
}

#[cfg(test)]
mod tests {
    use super::super::decide::Told;
    use super::super::topic::Trouble;
    use super::*;
    use std::time::Duration;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn alert(detail: &str) -> Message {
        let trouble = Trouble {
            topic: Topic::Mailbox {
                account: "office".to_owned(),
                mailbox: "scanner@x.example".to_owned(),
            },
            since: NOW,
            text: "The mailbox <!channel> & more".to_owned(),
            detail: detail.to_owned(),
            repeat: Some(Duration::from_secs(1)),
        };
        Message::new(
            &Tell::Trouble {
                trouble,
                again: false,
            },
            "bridge.example",
            NOW,
        )
    }

    #[test]
    fn our_own_json_has_these_fields() {
        let expected = json!({
            "version": 1, "event": "alert", "name": "mailbox broken: scanner@x.example (office)",
            "kind": "mailbox_broken", "account": "office", "mailbox": "scanner@x.example",
            "host": "bridge.example", "since": "2027-01-15T08:00:00.000Z", "at": "2027-01-15T08:00:00.000Z",
            "title": "Alert: mailbox broken: scanner@x.example (office) (bridge.example)",
            "text": "The mailbox <!channel> & more", "detail": "ErrorAccessDenied x",
        });
        assert_eq!(alert("ErrorAccessDenied\nx").json(), expected);
        let over = Tell::Over(Told {
            name: "no room for mail".to_owned(),
            since: NOW,
            told: NOW,
            over: None,
            text: "Full.".to_owned(),
        });
        let over = Message::new(&over, "bridge.example", NOW).json();
        assert_eq!(
            (
                over["event"].as_str(),
                over["kind"].as_str(),
                over["account"].is_null()
            ),
            (Some("all_clear"), Some("room_gone"), true)
        );
        assert_eq!(over["text"], "It is over. What it was about: Full.");
    }

    #[test]
    fn the_words_of_servers_stay_words_in_slack() {
        let text = alert("``` <https://evil.example|click>").slack()["text"].to_string();
        assert!(!text.contains('<') && !text.contains('>'), "{text}");
        assert_eq!(text.matches("```").count(), 2, "{text}");
    }

    #[test]
    fn each_way_gets_title_and_text() {
        let alert = alert(&"ü".repeat(900));
        let teams = alert.teams();
        assert_eq!(teams["type"], "message");
        let card = &teams["attachments"][0];
        assert_eq!(card["contentType"], "application/vnd.microsoft.card.adaptive");
        assert_eq!(card["content"]["type"], "AdaptiveCard");
        assert_eq!(card["content"]["body"][1]["text"], alert.text);
        // A card may have 28 KB, a notification of ntfy 4 KB.
        assert!(teams.to_string().len() < 20_000);
        let ntfy = alert.ntfy("it");
        assert_eq!(
            (ntfy["topic"].as_str(), ntfy["priority"].as_u64()),
            (Some("it"), Some(4))
        );
        assert!(ntfy.to_string().len() < 4096);
        assert!(alert.mail().1.starts_with("The mailbox <!channel> & more\n\nü"));
        assert_eq!(alert.detail.len(), 1000);
        assert!(alert.variables().iter().all(|(_, value)| !value.contains('\0')));
    }
}
