//! `queue export`, `queue import` and `queue backup`: messages as files.

use super::args::{Export, Import};
use super::exit::Failure;
use super::queue::chosen;
use super::say;
use crate::admin::Door;
use crate::admin::view::Imported;
use crate::clock::Clock;
use crate::files::write_private;
use crate::mail::{Address, BodyType, Envelope, Peer, QueueId, ReversePath};
use crate::spool::{Message, Origin, write_envelope};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// A message without an envelope file is read into memory, to bring its line ends in order; larger ones are no mail.
const LARGEST: u64 = 256 * 1024 * 1024;

/// Writes messages as files: `ID.eml`, as it was received, and `ID.env`, the envelope.
pub(super) async fn export(door: &Door, export: Export) -> Result<(), Failure> {
    let ids = chosen(door, &export.ids, export.all, &export.filters).await?;
    fs::create_dir_all(&export.to).map_err(|error| unwritable(&export.to, &error))?;
    for id in &ids {
        let path = export.to.join(format!("{id}.eml"));
        save(door, &format!("/v1/queue/message/{id}/body"), &path).await?;
        let mut envelope = Vec::new();
        let from = format!("/v1/queue/message/{id}/envelope");
        door.fetch(&from, |piece| envelope.write_all(piece)).await?;
        // The envelope last: where it is, the message is whole.
        let path = path.with_extension("env");
        write_private(&path, &envelope).map_err(|error| unwritable(&path, &error))?;
        say(&format!("{id}: exported"));
    }
    say(&format!("{} messages are in {}", ids.len(), export.to.display()));
    Ok(())
}

/// Writes a backup of the whole spool to `file`, whole or not at all.
pub(super) async fn backup(door: &Door, file: &Path) -> Result<(), Failure> {
    save(door, "/v1/backup", file).await?;
    let size = fs::metadata(file)
        .map_err(|error| unwritable(file, &error))?
        .len();
    say(&format!(
        "{} has the whole queue ({}). To restore it: stop the bridge, move the directory `spool` in its state_dir away, \
         unpack this file there with tar as the user that runs the bridge, and start it",
        file.display(),
        crate::admin::view::about(size)
    ));
    Ok(())
}

/// Takes messages over: each is in the queue once, however often it is taken over.
pub(super) async fn import(door: &Door, import: Import) -> Result<(), Failure> {
    let mut failed = 0;
    let sources = sources(&import)?;
    for source in &sources {
        match take_over(door, source).await {
            Ok(Imported { id, new: true }) => say(&format!("{id}: imported")),
            Ok(Imported { id, new: false }) => say(&format!("{id}: is in the queue already")),
            Err(error) => {
                failed += 1;
                say(&format!("{}: not imported: {error}", source.message.display()));
            }
        }
    }
    match (sources.len(), failed) {
        (0, _) => Err(Failure::data(
            "there is nothing to import: no file that ends in .env or .eml",
        )),
        (_, 0) => Ok(()),
        _ => Err(Failure::told()),
    }
}

/// A message to be taken over.
struct Source {
    message: PathBuf,
    envelope: GivenEnvelope,
}

enum GivenEnvelope {
    /// In this file.
    File(PathBuf),
    /// By the command line.
    Typed(Envelope),
}

fn sources(import: &Import) -> Result<Vec<Source>, Failure> {
    let typed = typed_envelope(import)?;
    let mut sources = Vec::new();
    for path in &import.paths {
        let mut files = Vec::new();
        if path.is_dir() {
            for entry in fs::read_dir(path).map_err(|error| unreadable(path, &error))? {
                let file = entry.map_err(|error| unreadable(path, &error))?.path();
                let is = |ending: &str| file.extension().is_some_and(|found| found == ending);
                // With an envelope from the command line every message counts, else every envelope.
                if is("eml") && (typed.is_some() || !file.with_extension("env").exists())
                    || is("env") && typed.is_none()
                {
                    files.push(file);
                }
            }
            files.sort();
        } else {
            files.push(path.clone());
        }
        for file in files {
            let envelope = match &typed {
                Some(envelope) => GivenEnvelope::Typed(envelope.clone()),
                None if file.with_extension("env").exists() => {
                    GivenEnvelope::File(file.with_extension("env"))
                }
                None => {
                    return Err(Failure::data(format!(
                        "{} has no envelope: there is no file of this name that ends in .env, so say with --to who \
                         gets the message, and with --from where reports go. Nothing was imported",
                        file.display()
                    )));
                }
            };
            sources.push(Source {
                message: match envelope {
                    GivenEnvelope::File(_) => file.with_extension("eml"),
                    GivenEnvelope::Typed(_) => file,
                },
                envelope,
            });
        }
    }
    Ok(sources)
}

fn typed_envelope(import: &Import) -> Result<Option<Envelope>, Failure> {
    if import.to.is_empty() {
        return match import.from {
            None => Ok(None),
            Some(_) => Err(Failure::data("--from goes with --to")),
        };
    }
    let from = match &import.from {
        None => {
            return Err(Failure::data(
                "with --to, say with --from where reports go; --from '<>' is nowhere",
            ));
        }
        Some(text) if text == "<>" || text.is_empty() => ReversePath::Null,
        Some(text) => ReversePath::Address(address(text)?),
    };
    let to: Vec<Address> = import
        .to
        .iter()
        .map(|text| address(text))
        .collect::<Result<_, _>>()?;
    Envelope::new(from, to, BodyType::EightBitMime)
        .map(Some)
        .map_err(Failure::data)
}

fn address(text: &str) -> Result<Address, Failure> {
    text.parse()
        .map_err(|error| Failure::data(format!("{text:?} is not an address: {error}")))
}

async fn take_over(door: &Door, source: &Source) -> Result<Imported, Failure> {
    let (envelope, message): (String, Box<dyn Read + Send>) = match &source.envelope {
        GivenEnvelope::File(path) => (
            fs::read_to_string(path).map_err(|error| unreadable(path, &error))?,
            Box::new(File::open(&source.message).map_err(|error| unreadable(&source.message, &error))?),
        ),
        GivenEnvelope::Typed(envelope) => {
            let text = with_crlf(&read(&source.message)?);
            let now = Clock::machine().now();
            let message = Message {
                id: QueueId::new(now),
                arrived: now,
                envelope: envelope.clone(),
                origin: Origin {
                    client: Peer::Local,
                    greeting: "import".to_owned(),
                    esmtp: false,
                    listener: "import".to_owned(),
                    tls: false,
                    user: None,
                },
                size: text.len() as u64,
                checksum: crc32fast::hash(&text),
                report: false,
            };
            (write_envelope(&message), Box::new(io::Cursor::new(text)))
        }
    };
    let path = format!("/v1/queue/import?envelope={}", envelope.len());
    let mut content = io::Cursor::new(envelope.into_bytes()).chain(message);
    let send = move |out: &mut dyn Write| io::copy(&mut content, out).map(drop);
    Ok(door.post_stream(&path, send).await?)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut content))
        .map_err(|error| unreadable(path, &error))?;
    if content.len() as u64 > LARGEST {
        return Err(Failure::data(format!(
            "{} is too large for a message",
            path.display()
        )));
    }
    Ok(content)
}

/// Every line end as the queue keeps it, and one at the end.
fn with_crlf(text: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(text.len() + text.len() / 32);
    let mut last = 0;
    for &octet in text {
        match (last, octet) {
            (b'\r', b'\n') => lines.push(b'\n'),
            (b'\r', other) => {
                lines.push(b'\n');
                push(&mut lines, other);
            }
            (_, other) => push(&mut lines, other),
        }
        last = octet;
    }
    if last == b'\r' {
        lines.push(b'\n');
    } else if !lines.ends_with(b"\r\n") {
        lines.extend_from_slice(b"\r\n");
    }
    lines
}

/// Adds an octet; a line feed that stands alone gets its other half.
fn push(lines: &mut Vec<u8>, octet: u8) {
    match octet {
        b'\n' => lines.extend_from_slice(b"\r\n"),
        octet => lines.push(octet),
    }
}

/// Fetches a file, whole or not at all.
async fn save(door: &Door, from: &str, path: &Path) -> Result<(), Failure> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&part).map_err(|error| unwritable(&part, &error))?;
    let fetched = door.fetch(from, |piece| file.write_all(piece)).await;
    let saved = match fetched {
        Ok(()) => file
            .sync_all()
            .and_then(|()| fs::rename(&part, path))
            .map_err(|error| unwritable(path, &error)),
        Err(error) => Err(error.into()),
    };
    if saved.is_err() {
        // If it cannot be removed either, its name says that it is not whole.
        let _ = fs::remove_file(&part);
    }
    saved
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::system(format!("{} cannot be written: {error}", path.display()))
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::system(format!("{} cannot be read: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_end_becomes_that_of_mail() {
        for (text, wanted) in [
            ("a\nb\n", "a\r\nb\r\n"),
            ("a\r\nb\r\n", "a\r\nb\r\n"),
            ("a\rb", "a\r\nb\r\n"),
            ("a\r\r\n\n", "a\r\n\r\n\r\n"),
            ("a\r", "a\r\n"),
            ("", "\r\n"),
        ] {
            assert_eq!(with_crlf(text.as_bytes()), wanted.as_bytes(), "{text:?}");
        }
    }
}
