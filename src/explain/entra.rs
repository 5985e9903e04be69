//! Microsoft Entra's token errors ("Microsoft Entra authentication and authorization error codes").

use super::{Class, Entry};
use crate::mail::EnhancedCode;
use crate::mail::Scope;

/// Classifies a refused token request: by the AADSTS numbers first, by the OAuth error (RFC 6749 §5.2) without a
/// known one. Unknown errors are held: a wrong guess must not cost mail.
#[must_use]
pub fn entra(error: &str, numbers: &[u32]) -> &'static Entry {
    let known = numbers
        .iter()
        .find_map(|number| TABLE.iter().find(|(codes, _)| codes.contains(number)));
    match known {
        Some((_, entry)) => entry,
        None if error == "temporarily_unavailable" => &BUSY,
        None => &UNKNOWN,
    }
}

const fn held(code: &'static str, meaning: &'static str, remedy: &'static str) -> Entry {
    Entry {
        code,
        class: Class::Held,
        scope: Scope::Account,
        status: EnhancedCode::new(7, 8),
        meaning,
        remedy,
    }
}

const BUSY: Entry = Entry {
    code: "temporarily_unavailable",
    class: Class::Deferred,
    scope: Scope::Account,
    status: EnhancedCode::new(4, 5),
    meaning: "Microsoft Entra is busy",
    remedy: "nothing is to be done: delivery goes on by itself",
};

const UNKNOWN: Entry = held(
    "unknown token error",
    "Microsoft Entra refuses to issue a token",
    "look up the AADSTS number of the diagnostic text at https://login.microsoftonline.com/error",
);

const TABLE: &[(&[u32], Entry)] = &[
    (
        &[7_000_215],
        held(
            "AADSTS7000215",
            "the client secret is wrong",
            "put the secret's Value, not its Secret ID, in the secret file; Entra shows the value only once, so make a \
             new one under App registrations > your app > Certificates & secrets",
        ),
    ),
    (
        &[7_000_222],
        held(
            "AADSTS7000222",
            "the client secret has expired",
            "make a new one in Microsoft Entra under App registrations > your app > Certificates & secrets, and put its \
             Value in the secret file",
        ),
    ),
    (
        &[7_000_216, 7_000_218],
        held(
            "AADSTS7000218",
            "Microsoft Entra wants a client secret or certificate for this application",
            "configure `client_secret`; or, for a user's sign-in, switch on \"Allow public client flows\" under \
             Authentication",
        ),
    ),
    (
        &[700_025],
        held(
            "AADSTS700025",
            "the application is a public client and must not send a secret",
            "remove `client_secret`",
        ),
    ),
    (
        &[700_016, 700_011, 70_001],
        held(
            "AADSTS700016",
            "the tenant knows no application with this client id",
            "check `client_id` (Application (client) ID on the app's Overview page) and `tenant`",
        ),
    ),
    (
        &[7_000_112],
        held(
            "AADSTS7000112",
            "the application is disabled",
            "enable it in Microsoft Entra under Enterprise applications > your app > Properties",
        ),
    ),
    (
        &[7_000_229],
        held(
            "AADSTS7000229",
            "the application has no service principal in the tenant",
            "create its enterprise application, for example by granting admin consent on the API permissions page",
        ),
    ),
    (
        &[90_002, 900_023],
        held(
            "AADSTS90002",
            "there is no such tenant in this cloud",
            "check `tenant` (Directory (tenant) ID or a verified domain) and `cloud`",
        ),
    ),
    (
        &[90_038, 900_382, 900_432],
        held(
            "AADSTS900432",
            "the tenant belongs to another national cloud",
            "set `cloud`",
        ),
    ),
    (
        &[500_011, 50_001],
        held(
            "AADSTS500011",
            "the tenant does not know Microsoft Graph by the name that was asked for",
            "check `cloud` and `endpoints.graph`; does the tenant have Exchange Online?",
        ),
    ),
    (
        &[70_011, 28_000, 28_002, 28_003, 700_022, 700_023, 1_002_012],
        held(
            "AADSTS70011",
            "the scope of the token request is refused",
            "check `cloud` and `endpoints.graph`",
        ),
    ),
    (
        &[65_001, 90_094, 90_095, 65_004, 650_056, 650_057],
        held(
            "AADSTS65001",
            "nobody has consented to what the application asks for",
            "an administrator must choose \"Grant admin consent\" on the app's API permissions page",
        ),
    ),
    (
        &[53_000, 53_001, 53_002, 53_003, 530_032, 530_035, 50_131],
        held(
            "AADSTS53003",
            "a Conditional Access policy or the security defaults forbid the sign-in",
            "exclude this application or the network of this machine in Microsoft Entra under Conditional Access",
        ),
    ),
    (
        &[50_194, 9_001_023, 90_130, 50_059],
        held(
            "AADSTS50194",
            "`common` and `organizations` are no tenants for an application's own sign-in",
            "set `tenant` to your own",
        ),
    ),
    (
        &[700_024, 700_027, 50_012, 50_013, 50_027, 500_133],
        held(
            "AADSTS700027",
            "the certificate or its signature is refused",
            "check the certificate of the app and the clock of this machine",
        ),
    ),
    (
        &[
            50_033, 50_087, 90_006, 90_012, 90_024, 90_033, 90_055, 90_090, 90_091, 70_012, 50_166, 50_196,
        ],
        BUSY,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_decide_and_unknown_ones_hold() {
        assert_eq!(entra("invalid_client", &[7_000_215]).code, "AADSTS7000215");
        assert_eq!(entra("invalid_request", &[1, 90_033]).class, Class::Deferred);
        assert_eq!(entra("temporarily_unavailable", &[]).class, Class::Deferred);
        assert_eq!(entra("brand_new", &[123]).class, Class::Held);
    }

    #[test]
    fn every_number_stands_in_the_table_once() {
        let mut all: Vec<u32> = TABLE
            .iter()
            .flat_map(|(codes, _)| codes.iter().copied())
            .collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
