//! `user`: who may log in to a listener.

use super::args::{PasswordFrom, User};
use super::exit::Failure;
use super::{password, say, surroundings};
use crate::users::{self, EditError, Senders, Users, UsersError};
use std::path::{Path, PathBuf};

/// Does what was asked for. A running bridge sees every change by itself.
pub(super) fn user(config: Option<&Path>, file: Option<PathBuf>, command: User) -> Result<(), Failure> {
    let file = match file {
        Some(file) => file,
        None => surroundings::load(config)?.config.users.file,
    };
    match command {
        User::Add {
            name,
            senders,
            password,
        } => add(&file, &name, &senders, &password),
        User::Remove { name } => remove(&file, &name),
        User::List => list(&file),
        User::Verify { name, password } => verify(&file, &name, &password),
    }
}

fn add(file: &Path, name: &str, senders: &[String], from: &PasswordFrom) -> Result<(), Failure> {
    users::check_name(name).map_err(Failure::data)?;
    let given = Senders::new(senders).map_err(Failure::data)?;
    let is_known = || Ok::<_, Failure>(Users::parse(&users::read(file)?).0.get(name).is_some());
    // Who is only to send as somebody else keeps the password.
    let keeps = !given.is_everybody() && !from.password_stdin && is_known()?;
    let new_hash = match keeps {
        true => None,
        false => {
            let password = password::ask(&format!("Password of {name}"), from, true)?;
            Some(users::hash(&password).map_err(Failure::data)?)
        }
    };
    let mut said = String::new();
    users::edit(file, |text| {
        let (known, _) = Users::parse(text);
        let old = known.get(name);
        let senders = match old {
            // A new password is no reason to let a user send as anybody.
            Some(old) if given.is_everybody() => old.senders.clone(),
            _ => given.clone(),
        };
        let hash = match (&new_hash, old) {
            (Some(hash), _) => hash,
            (None, Some(old)) => &old.hash,
            (None, None) => return Err(EditError::NoSuchUser(name.to_owned()).into()),
        };
        let done = if old.is_some() { "changed" } else { "added" };
        let password = if keeps {
            "; the password stays as it was"
        } else {
            ""
        };
        said = format!("{done} {name}, who may send as {}{password}", shown(&senders));
        Ok::<_, Failure>(users::add(text, name, hash, &senders))
    })?;
    say(&said);
    Ok(())
}

fn remove(file: &Path, name: &str) -> Result<(), Failure> {
    users::edit(file, |text| users::remove(text, name).map_err(Failure::from))?;
    say(&format!("removed {name}"));
    Ok(())
}

fn list(file: &Path) -> Result<(), Failure> {
    let (users, bad) = Users::parse(&users::read(file)?);
    if users.is_empty() {
        say(&format!("nobody may log in yet: {} has no user", file.display()));
    }
    for user in users.all() {
        say(&format!("{}\tmay send as {}", user.name, shown(&user.senders)));
    }
    for line in bad {
        say(&format!("warning: {}, {line}", file.display()));
    }
    Ok(())
}

fn verify(file: &Path, name: &str, from: &PasswordFrom) -> Result<(), Failure> {
    let (users, _) = Users::parse(&users::read(file)?);
    let user = users
        .get(name)
        .ok_or_else(|| Failure::from(EditError::NoSuchUser(name.to_owned())))?;
    let password = password::ask(&format!("Password of {name}"), from, false)?;
    if !users::matches(&user.hash, &password) {
        return Err(Failure::refused(format!("this is not the password of {name}")));
    }
    say(&format!(
        "the password is right; {name} may send as {}",
        shown(&user.senders)
    ));
    Ok(())
}

fn shown(senders: &Senders) -> String {
    match senders.is_everybody() {
        true => "anybody".to_owned(),
        false => senders.to_string(),
    }
}

impl From<UsersError> for Failure {
    fn from(error: UsersError) -> Self {
        Self::system(error)
    }
}

impl From<EditError> for Failure {
    fn from(error: EditError) -> Self {
        Self::data(error)
    }
}
