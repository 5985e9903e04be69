//! Asking a person, or standard input, for a password.

use super::args::PasswordFrom;
use super::exit::Failure;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use zeroize::Zeroizing;

/// More than this is no password.
const MAX_PASSWORD: u64 = 4096;

/// The password, never empty. A person types it without seeing it, twice if it is a new one; a program writes it as
/// the first line of standard input.
pub(super) fn ask(prompt: &str, from: &PasswordFrom, is_new: bool) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let password = if from.password_stdin {
        line()?
    } else if io::stdin().is_terminal() {
        let password = hidden(prompt)?;
        if is_new && hidden(&format!("{prompt}, again"))? != password {
            return Err(Failure::data(
                "these are two different passwords: nothing was changed",
            ));
        }
        password
    } else {
        return Err(Failure::data(
            "there is no terminal to ask for the password: give it as the first line of standard input, with \
             --password-stdin",
        ));
    };
    if password.is_empty() {
        return Err(Failure::data("the password is empty: nothing was done"));
    }
    Ok(password)
}

/// One line of standard input without its end.
fn line() -> Result<Zeroizing<Vec<u8>>, Failure> {
    // Room for all of it from the start: a vector that grows leaves copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_PASSWORD as usize + 1));
    io::stdin()
        .lock()
        .take(MAX_PASSWORD + 1)
        .read_until(b'\n', &mut line)
        .map_err(|error| Failure::system(format!("standard input cannot be read: {error}")))?;
    if line.len() as u64 > MAX_PASSWORD {
        return Err(Failure::data(format!(
            "the password is longer than {MAX_PASSWORD} octets"
        )));
    }
    while line.last().is_some_and(|&b| b == b'\n' || b == b'\r') {
        line.pop();
    }
    Ok(line)
}

#[cfg(unix)]
fn hidden(prompt: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let failed = |error| Failure::system(format!("the terminal does not hide what is typed: {error}"));
    let before = tcgetattr(io::stdin()).map_err(failed)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    silent.local_modes.insert(LocalModes::ECHONL);
    // If standard error is closed, the person does not see the prompt, and types all the same.
    let _ = write!(io::stderr(), "{prompt}: ");
    tcsetattr(io::stdin(), OptionalActions::Flush, &silent).map_err(failed)?;
    let typed = line();
    tcsetattr(io::stdin(), OptionalActions::Flush, &before).map_err(failed)?;
    typed
}

#[cfg(not(unix))]
fn hidden(_: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    Err(Failure::data(
        "on this system the password is given as the first line of standard input, with --password-stdin",
    ))
}
