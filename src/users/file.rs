//! The text of the users file: one user a line, `NAME HASH [SENDER,SENDER…]`.
//!
//! Lines that begin with `#`, and empty ones, mean nothing. A name with blanks, quotes or `#` stands in double quotes,
//! in which `\"` and `\\` are a quote and a backslash. The hash is a PHC string (`$argon2id$…`). A sender is an
//! address, or `*@domain`; without any, the user may send as anybody.

use super::password;
use crate::mail::Address;
use crate::mail::ReversePath;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// Everybody who may log in.
#[derive(Clone, Default)]
pub struct Users {
    by_name: HashMap<String, User>,
    /// What a password of nobody is compared with.
    nobody: String,
}

/// One of them.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// What it logs in as; compared octet for octet.
    pub name: String,
    /// The argon2id hash of its password, as a PHC string that is known to be good.
    pub hash: String,
    /// Which reverse-paths it may use.
    pub senders: Senders,
    /// The line of the file that names it, from 1.
    pub line: usize,
}

/// Which reverse-paths a user may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Senders(Vec<Sender>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Sender {
    Address(Address),
    /// `*@domain`, in lower case.
    Domain(String),
}

/// A line that is not a user, and why. The others stay in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// From 1.
    pub line: usize,
    /// What is wrong and what to do; repeats nothing of the line.
    pub reason: String,
}

/// Why a name is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing.
    #[error("the name is empty")]
    Empty,
    /// More than 255 octets.
    #[error("the name is longer than {MAX_NAME} octets")]
    TooLong,
    /// It could not stand on a line of a file, or not be said in AUTH PLAIN (RFC 4616 §2).
    #[error("the name has a control character")]
    Control,
}

/// Why a sender is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an address nor *@domain: write scanner@contoso.example or *@contoso.example")]
pub struct SenderError(String);

/// Why the file is not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// Nobody to remove.
    #[error("there is no user {0:?}; `user list` shows those that there are")]
    NoSuchUser(String),
}

/// The longest name.
const MAX_NAME: usize = 255;

impl Users {
    /// Reads the text of a users file: who is in it, and which lines are not understood.
    #[must_use]
    pub fn parse(text: &str) -> (Self, Vec<BadLine>) {
        let (mut users, mut bad) = (Self::default(), Vec::new());
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (n, line) in text.lines().enumerate() {
            let number = n + 1;
            match user(line, number) {
                Ok(None) => {}
                Ok(Some(user)) => match users.by_name.get(&user.name) {
                    None => {
                        users.by_name.insert(user.name.clone(), user);
                    }
                    Some(first) => bad.push(BadLine {
                        line: number,
                        reason: format!(
                            "the user of this line is on line {} already, which counts: remove one of them",
                            first.line
                        ),
                    }),
                },
                Err(reason) => bad.push(BadLine { line: number, reason }),
            }
        }
        // As costly as ours if any is, else as the first.
        let like = users.by_name.values();
        let like = like.min_by_key(|user| (!password::is_as_costly_as_ours(&user.hash), user.line));
        users.nobody = password::nobody(like.map(|user| user.hash.as_str()));
        (users, bad)
    }

    /// The user of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&User> {
        self.by_name.get(name)
    }

    /// All of them, in the order of the file.
    #[must_use]
    pub fn all(&self) -> Vec<&User> {
        let mut all: Vec<&User> = self.by_name.values().collect();
        all.sort_by_key(|user| user.line);
        all
    }

    /// A hash that no password belongs to, for names that nobody has: to compare with it costs as much as with others.
    #[must_use]
    pub fn nobody(&self) -> &str {
        &self.nobody
    }

    /// The lines whose hashes cost more or less than ours, in their order. How long the answer to a wrong password
    /// takes then tells that these users exist.
    #[must_use]
    pub fn unlike_ours(&self) -> Vec<usize> {
        let users = self.by_name.values();
        let unlike = users.filter(|user| !password::is_as_costly_as_ours(&user.hash));
        let mut lines: Vec<usize> = unlike.map(|user| user.line).collect();
        lines.sort_unstable();
        lines
    }

    /// True if nobody is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

impl Senders {
    /// These addresses and domains; without any, everybody.
    ///
    /// # Errors
    /// [`SenderError`] for the first that is neither.
    pub fn new(senders: &[String]) -> Result<Self, SenderError> {
        senders
            .iter()
            .map(|sender| sender.parse())
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// True if a message with this reverse-path may be sent. `<>` always may: it names nobody, and reports need it
    /// (RFC 5321 §4.5.5).
    #[must_use]
    pub fn allow(&self, path: &ReversePath) -> bool {
        let ReversePath::Address(address) = path else {
            return true;
        };
        self.0.is_empty()
            || self.0.iter().any(|sender| match sender {
                Sender::Address(allowed) => allowed.key() == address.key(),
                Sender::Domain(domain) => address.domain().eq_ignore_ascii_case(domain),
            })
    }

    /// True if any reverse-path is allowed.
    #[must_use]
    pub fn is_everybody(&self) -> bool {
        self.0.is_empty()
    }
}

/// The text with this user in it: on its old line if it has one, else at the end. All other lines stay as they are.
#[must_use]
pub fn add(text: &str, name: &str, hash: &str, senders: &Senders) -> String {
    let mut line = format!("{} {hash}", quoted(name));
    if !senders.is_everybody() {
        line = format!("{line} {senders}");
    }
    let mut lines: Vec<&str> = text.lines().collect();
    match place_of(text, name) {
        // The index was made by `place_of` from the same lines.
        Some(at) => lines.splice(at..=at, [line.as_str()]).for_each(drop),
        None => lines.push(&line),
    }
    lines.join("\n") + "\n"
}

/// The text without this user. All other lines stay as they are.
///
/// # Errors
/// [`EditError::NoSuchUser`]
pub fn remove(text: &str, name: &str) -> Result<String, EditError> {
    let mut kept = text.to_owned();
    let mut found = false;
    // Also lines that are there twice: whoever is removed is gone.
    while let Some(at) = place_of(&kept, name) {
        found = true;
        let lines = kept.lines().enumerate().filter(|(n, _)| *n != at);
        kept = lines.map(|(_, line)| format!("{line}\n")).collect();
    }
    if found {
        Ok(kept)
    } else {
        Err(EditError::NoSuchUser(name.to_owned()))
    }
}

/// Checks a name that somebody chose.
///
/// # Errors
/// [`NameError`]
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        Err(NameError::Empty)
    } else if name.len() > MAX_NAME {
        Err(NameError::TooLong)
    } else if name.chars().any(char::is_control) {
        Err(NameError::Control)
    } else {
        Ok(())
    }
}

/// Which line, from 0, begins with this name, whatever follows it.
fn place_of(text: &str, name: &str) -> Option<usize> {
    text.lines().position(|line| {
        let line = line.trim_start_matches('\u{feff}').trim();
        !line.is_empty() && !line.starts_with('#') && first_word(line).is_ok_and(|(found, _)| found == name)
    })
}

fn user(line: &str, number: usize) -> Result<Option<User>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (name, rest) = first_word(line)?;
    check_name(&name).map_err(|error| error.to_string())?;
    let mut words = rest.split_whitespace();
    let hash = words.next().ok_or(
        "there is no password hash after the name: remove the line, then run `smtp-oauth-bridge user add NAME`",
    )?;
    password::check_hash(hash).map_err(|error| error.to_string())?;
    let senders: Vec<String> = words
        .flat_map(|word| word.split(','))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    let senders = Senders::new(&senders).map_err(|_| {
        "an allowed sender is neither an address nor *@domain: write scanner@contoso.example or *@contoso.example"
    })?;
    Ok(Some(User {
        name,
        hash: hash.to_owned(),
        senders,
        line: number,
    }))
}

/// The first word, in quotes or not, and what follows it.
fn first_word(line: &str) -> Result<(String, &str), String> {
    let Some(inside) = line.strip_prefix('"') else {
        let end = line.find(char::is_whitespace).unwrap_or(line.len());
        let (word, rest) = line.split_at(end);
        return Ok((word.to_owned(), rest));
    };
    let mut word = String::new();
    let mut chars = inside.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((word, inside.get(at + 1..).unwrap_or_default())),
            '\\' => word.extend(chars.next().map(|(_, c)| c)),
            c => word.push(c),
        }
    }
    Err("the name begins with a quote and has none at its end".to_owned())
}

fn quoted(name: &str) -> String {
    if name.starts_with('#') || name.contains(|c: char| c.is_whitespace() || c == '"' || c == '\u{feff}') {
        format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        name.to_owned()
    }
}

impl FromStr for Sender {
    type Err = SenderError;

    fn from_str(text: &str) -> Result<Self, SenderError> {
        let wrong = || SenderError(text.to_owned());
        let breaks_the_line = |c: char| c.is_whitespace() || c.is_control() || c == ',';
        let plain = !text.contains(breaks_the_line);
        if let Some(domain) = text.strip_prefix("*@").filter(|_| plain) {
            // A domain is one if it can stand in an address.
            let address: Address = format!("a@{domain}").parse().map_err(|_| wrong())?;
            return Ok(Self::Domain(address.domain().to_ascii_lowercase()));
        }
        match text.parse::<Address>() {
            Ok(address) if plain && !address.domain().is_empty() => Ok(Self::Address(address)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Users").field(&self.by_name).finish()
    }
}

impl fmt::Display for Senders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, sender) in self.0.iter().enumerate() {
            f.write_str(if n > 0 { "," } else { "" })?;
            match sender {
                Sender::Address(address) => write!(f, "{address}")?,
                Sender::Domain(domain) => write!(f, "*@{domain}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for User {
    /// Without the hash: who has it can guess at leisure.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .field("senders", &self.senders)
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$lAk6SGd8H0xOyr4hhEMLVGU0/Aoj0M8LdUl1dAcEXKk";

    #[test]
    fn good_lines_stay_in_force_and_bad_ones_are_named() {
        let text = format!(
            "# people\n\nscanner {HASH}\n\"Front \\\"A\\\" desk\"\t{HASH} a@x.example,*@Lab.example\n\
             nobody\nmd5 $1$abc$def\nscanner {HASH}\n\"open {HASH}\nbad {HASH} nobody\n  last {HASH}"
        );
        let (users, bad) = Users::parse(&text);
        let names: Vec<&str> = users.all().iter().map(|user| user.name.as_str()).collect();
        assert_eq!(names, ["scanner", "Front \"A\" desk", "last"]);
        let lines: Vec<usize> = bad.iter().map(|bad| bad.line).collect();
        assert_eq!(lines, [5, 6, 7, 8, 9]);
        assert!(
            bad[2]
                .to_string()
                .starts_with("line 7: the user of this line is on line 3")
        );
        assert!(bad.iter().all(|bad| !bad.reason.contains("abc")));
        assert!(!format!("{users:?}").contains("argon2"));
    }

    #[test]
    fn senders_are_compared_as_mailboxes() {
        let senders = Senders::new(&["Scan@x.example".into(), "*@lab.example".into()]).unwrap();
        assert_eq!(senders.to_string(), "Scan@x.example,*@lab.example");
        for (path, allowed) in [
            ("scan@X.example", true),
            ("anybody@LAB.example", true),
            ("a@sub.lab.example", false),
            ("other@x.example", false),
            ("lab.example", false),
        ] {
            let path = ReversePath::Address(path.parse().unwrap());
            assert_eq!(senders.allow(&path), allowed, "{path}");
            assert!(Senders::default().allow(&path));
        }
        assert!(senders.allow(&ReversePath::Null));
        for wrong in [
            "",
            "nobody",
            "*@",
            "*",
            "a b@x.example",
            "a@x.example,b@x.example",
            "*@x y",
        ] {
            assert!(Senders::new(&[wrong.into()]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn editing_keeps_what_others_wrote() {
        let text = format!("# ours\nanna {HASH}\n\nbob {HASH} b@x.example\n# end");
        let senders = Senders::new(&["a@x.example".into()]).unwrap();
        let changed = add(&text, "anna", "NEW", &senders);
        assert_eq!(
            changed,
            format!("# ours\nanna NEW a@x.example\n\nbob {HASH} b@x.example\n# end\n")
        );
        let added = add(&text, "c d", HASH, &Senders::default());
        assert!(added.ends_with(&format!("# end\n\"c d\" {HASH}\n")));
        assert!(Users::parse(&added).0.get("c d").is_some());
        assert_eq!(
            remove(&text, "bob").unwrap(),
            format!("# ours\nanna {HASH}\n\n# end\n")
        );
        assert_eq!(remove(&text, "eve"), Err(EditError::NoSuchUser("eve".into())));
        // A line that is not understood is still the user's.
        assert_eq!(remove("eve\neve x\n", "eve").unwrap(), "");
    }

    #[test]
    fn every_name_survives_being_written() {
        for name in [
            "a",
            "a b",
            "#a",
            "\"",
            "a\"b\\",
            "\\",
            "ä",
            "a#b",
            "\u{feff}x",
            "\u{a0}",
        ] {
            check_name(name).unwrap();
            let text = add("", name, HASH, &Senders::default());
            let (users, bad) = Users::parse(&text);
            assert!(users.get(name).is_some(), "{text} {bad:?}");
            assert_eq!(remove(&text, name).unwrap(), "");
        }
        assert!(
            check_name("a\nb").is_err() && check_name("").is_err() && check_name(&"x".repeat(256)).is_err()
        );
    }

    #[test]
    fn nobody_costs_what_ours_cost_and_others_are_named() {
        let hash = |cost: &str| {
            format!("$argon2id$v=19${cost}$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
        };
        let (cheap, ours) = (hash("m=64,t=3,p=1"), hash("m=7168,t=5,p=1"));
        for (text, cost, unlike) in [
            (String::new(), "$m=7168,t=5,p=1$", vec![]),
            (
                format!("a {cheap}\nb {ours}\nc {cheap}"),
                "$m=7168,t=5,p=1$",
                vec![1, 3],
            ),
            (format!("a {cheap}\nb {cheap}"), "$m=64,t=3,p=1$", vec![1, 2]),
        ] {
            let (users, bad) = Users::parse(&text);
            assert!(bad.is_empty(), "{bad:?}");
            assert!(users.nobody().contains(cost), "{text}");
            assert_eq!(users.unlike_ours(), unlike);
        }
    }
}
