//! Passwords: argon2id (RFC 9106), stored as PHC strings.

use argon2::password_hash::{Output, ParamsString, PasswordHash, Salt, SaltString};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::Zeroize;

/// 7 MiB and five passes: of the choices that OWASP calls equally strong, the one that needs the least memory.
const MEMORY: u32 = 7 * 1024;
const PASSES: u32 = 5;
/// What a hash that somebody brings along may cost at most.
const MAX_MEMORY: u32 = 64 * 1024;
const MAX_PASSES: u32 = 20;
const MAX_LANES: u32 = 4;

/// What is kept between two computations, in blocks of 1 KiB: as much as a hash of ours needs.
const USUAL_BLOCKS: usize = MEMORY as usize;

/// Octets of salt (RFC 9106 §3.1 recommends 16), and of the hash.
const SALT: usize = 16;
const OUTPUT: usize = 32;

/// Why a hash cannot be made or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Not argon2id, or not a PHC string at all.
    #[error(
        "the password hash is not one of argon2id ($argon2id$v=19$…): run `smtp-oauth-bridge user add NAME` for a new one"
    )]
    Unknown,
    /// It would take too much memory or time at each login.
    #[error(
        "the password hash costs too much (at most m={MAX_MEMORY}, t={MAX_PASSES}, p={MAX_LANES}): \
         run `smtp-oauth-bridge user add NAME` for a new one"
    )]
    TooCostly,
    /// The password.
    #[error("the password is empty")]
    EmptyPassword,
    /// No random numbers.
    #[error("this machine gives no random numbers")]
    NoRandom,
}

/// The memory of one computation, used again for the next: so that all of them together need that of one.
#[derive(Default)]
pub(super) struct Workspace(Vec<Block>);

/// A new hash of this password.
///
/// # Errors
/// [`HashError`]
pub fn hash(password: &[u8]) -> Result<String, HashError> {
    if password.is_empty() {
        return Err(HashError::EmptyPassword);
    }
    hash_with(password, MEMORY, PASSES)
}

fn hash_with(password: &[u8], memory: u32, passes: u32) -> Result<String, HashError> {
    let mut salt = [0; SALT];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| HashError::NoRandom)?;
    let params = Params::new(memory, passes, 1, Some(OUTPUT)).map_err(|_| HashError::Unknown)?;
    let salt = SaltString::encode_b64(&salt).map_err(|_| HashError::Unknown)?;
    let output = compute(&params, password, salt.as_salt(), &mut Workspace::default())?;
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&params).map_err(|_| HashError::Unknown)?,
        salt: Some(salt.as_salt()),
        hash: Some(output),
    };
    Ok(hash.to_string())
}

/// True if this is the password of the hash. Takes memory and time: not for the threads of the runtime.
#[must_use]
pub fn matches(hash: &str, password: &[u8]) -> bool {
    matches_in(hash, password, &mut Workspace::default())
}

/// The same in memory that is used again.
pub(super) fn matches_in(hash: &str, password: &[u8], workspace: &mut Workspace) -> bool {
    let Ok((parsed, params)) = parse(hash) else {
        return false;
    };
    let (Some(salt), Some(expected)) = (parsed.salt, parsed.hash) else {
        return false;
    };
    // Comparing outputs takes the same time whatever they are.
    compute(&params, password, salt, workspace).is_ok_and(|output| output == expected)
}

/// Checks that a hash can be used.
pub(super) fn check_hash(hash: &str) -> Result<(), HashError> {
    parse(hash).map(drop)
}

/// True if this hash costs as much as one that we make.
pub(super) fn is_as_costly_as_ours(hash: &str) -> bool {
    parse(hash)
        .is_ok_and(|(_, params)| (params.m_cost(), params.t_cost(), params.p_cost()) == (MEMORY, PASSES, 1))
}

/// A hash that costs as much as `like`, or as one of ours, and that nobody knows a password for: an unknown user is
/// compared with it.
pub(super) fn nobody(like: Option<&str>) -> String {
    let params = like.and_then(|hash| parse(hash).ok()).map_or_else(
        || format!("m={MEMORY},t={PASSES},p=1"),
        |(_, params)| {
            format!(
                "m={},t={},p={}",
                params.m_cost(),
                params.t_cost(),
                params.p_cost()
            )
        },
    );
    format!("$argon2id$v=19${params}$bm9ib2R5IGlzIGhlcmUu$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
}

fn parse(hash: &str) -> Result<(PasswordHash<'_>, Params), HashError> {
    let parsed = PasswordHash::new(hash).map_err(|_| HashError::Unknown)?;
    let known = parsed.algorithm == Algorithm::Argon2id.ident()
        && parsed.version == Some(Version::V0x13.into())
        && parsed.salt.is_some()
        && parsed.hash.is_some();
    let params = Params::try_from(&parsed).map_err(|_| HashError::Unknown)?;
    if !known {
        return Err(HashError::Unknown);
    }
    if params.m_cost() > MAX_MEMORY || params.t_cost() > MAX_PASSES || params.p_cost() > MAX_LANES {
        return Err(HashError::TooCostly);
    }
    Ok((parsed, params))
}

fn compute(
    params: &Params,
    password: &[u8],
    salt: Salt<'_>,
    workspace: &mut Workspace,
) -> Result<Output, HashError> {
    let mut octets = [0; Salt::MAX_LENGTH];
    let salt = salt.decode_b64(&mut octets).map_err(|_| HashError::Unknown)?;
    let length = params.output_len().unwrap_or(OUTPUT);
    workspace.0.resize(params.block_count(), Block::default());
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    let output = Output::init_with(length, |out| {
        argon2
            .hash_password_into_with_memory(password, salt, out, &mut workspace.0)
            .map_err(|_| argon2::password_hash::Error::Crypto)
    });
    workspace.0.iter_mut().for_each(|block| block.as_mut().zeroize());
    // A costly hash that somebody brought along does not make us larger for good.
    workspace.0.truncate(USUAL_BLOCKS);
    workspace.0.shrink_to(USUAL_BLOCKS);
    output.map_err(|_| HashError::Unknown)
}

/// For tests: a hash that costs next to nothing.
#[cfg(test)]
pub(super) fn cheap(password: &[u8]) -> String {
    // No parameter is out of range.
    hash_with(password, 8, 1).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_matches_its_own_hash_only() {
        let first = hash(b"a\xff b").unwrap();
        let second = hash(b"a\xff b").unwrap();
        assert_ne!(first, second);
        assert!(first.starts_with("$argon2id$v=19$m=7168,t=5,p=1$"), "{first}");
        let mut workspace = Workspace::default();
        assert!(matches_in(&first, b"a\xff b", &mut workspace));
        assert!(!matches_in(&first, b"a\xff b ", &mut workspace));
        assert!(!matches_in(&second, b"", &mut workspace));
        assert_eq!(hash(b""), Err(HashError::EmptyPassword));
    }

    #[test]
    fn hashes_of_others_are_taken_if_they_are_affordable() {
        // From the argon2 reference implementation: echo -n password | argon2 somesalt -id -t 1 -k 8 -p 1 -e
        let theirs = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        assert!(matches(theirs, b"password"));
        // Their memory is given back.
        let mut workspace = Workspace::default();
        assert!(matches_in(theirs, b"password", &mut workspace));
        assert!(
            workspace.0.capacity() <= USUAL_BLOCKS,
            "{}",
            workspace.0.capacity()
        );
        assert!(!matches(theirs, b"Password"));
        for (bad, error) in [
            ("x", HashError::Unknown),
            ("$1$abc$def", HashError::Unknown),
            (
                "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA",
                HashError::Unknown,
            ),
            ("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ", HashError::Unknown),
            (
                "$argon2id$v=19$m=9999999,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
                HashError::TooCostly,
            ),
        ] {
            assert_eq!(check_hash(bad), Err(error), "{bad}");
            assert!(!matches(bad, b"password"));
        }
    }

    #[test]
    fn nobody_costs_what_somebody_costs() {
        for like in [
            None,
            Some("$argon2id$v=19$m=64,t=3,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"),
        ] {
            let nobody = nobody(like);
            check_hash(&nobody).unwrap();
            assert!(!matches(&nobody, b""));
            assert!(nobody.contains(if like.is_some() {
                "$m=64,t=3,p=1$"
            } else {
                "$m=7168,t=5,p=1$"
            }));
        }
    }
}
