//! The full path of a key, as messages and as environment variables write it.

use super::document::PREFIX;
use std::fmt;

/// The full path of a key.
#[derive(Clone, Default)]
pub(super) struct KeyPath(Vec<Segment>);

#[derive(Clone)]
enum Segment {
    Key(String),
    /// A name that the administrator chose.
    Name(String),
    Index(usize),
}

impl KeyPath {
    pub(super) fn key(&self, key: &str) -> Self {
        self.with(Segment::Key(key.to_owned()))
    }

    pub(super) fn name(&self, name: &str) -> Self {
        self.with(Segment::Name(name.to_owned()))
    }

    pub(super) fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    fn with(&self, segment: Segment) -> Self {
        let mut path = self.clone();
        path.0.push(segment);
        path
    }

    pub(super) fn variable(&self) -> String {
        let parts = self.0.iter().map(|segment| match segment {
            Segment::Key(key) | Segment::Name(key) => key.to_ascii_uppercase(),
            Segment::Index(index) => index.to_string(),
        });
        format!("{PREFIX}{}", parts.collect::<Vec<_>>().join("__"))
    }

    /// The path without what the administrator chose.
    pub(super) fn pattern(&self) -> String {
        let parts = self.0.iter().filter_map(|segment| match segment {
            Segment::Key(key) => Some(key.as_str()),
            Segment::Name(_) => Some("NAME"),
            Segment::Index(_) => None,
        });
        parts.collect::<Vec<_>>().join(".")
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, segment) in self.0.iter().enumerate() {
            let dot = if n > 0 { "." } else { "" };
            match segment {
                Segment::Key(key) | Segment::Name(key) if is_showable(key) => write!(f, "{dot}{key}")?,
                Segment::Key(_) | Segment::Name(_) => write!(f, "{dot}(…)")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// True for what can be a key and cannot be a secret of Microsoft's, which has 40 characters.
fn is_showable(key: &str) -> bool {
    key.len() <= 30
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_- ".contains(&b))
}
