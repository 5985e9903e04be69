//! Which mailbox a message goes out from.

use crate::config::SenderPattern;
use crate::mail::Address;

/// A mailbox, and how it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The mailbox that sends.
    pub mailbox: Address,
    /// True if the configuration names it, false if it only fits a pattern: then nobody has said that it exists.
    pub listed: bool,
}

/// The mailbox for a message whose From field (RFC 5322 §3.6.2) names `from`: that sender's own if `send_as` has it,
/// else the account's `own`. An address in `send_as` counts before a domain.
#[must_use]
pub fn choose_mailbox(own: &Address, send_as: &[SenderPattern], from: &[Address]) -> Choice {
    let listed = |mailbox: &Address| Choice {
        mailbox: mailbox.clone(),
        listed: true,
    };
    for sender in from {
        if sender.key() == own.key() {
            return listed(own);
        }
        let exact = send_as.iter().find_map(|pattern| match pattern {
            SenderPattern::Address(address) if address.key() == sender.key() => Some(address),
            _ => None,
        });
        if let Some(address) = exact {
            return listed(address);
        }
        let fits = |pattern: &SenderPattern| matches!(pattern, SenderPattern::Domain(domain) if sender.domain().eq_ignore_ascii_case(domain));
        if send_as.iter().any(fits) {
            return Choice {
                // One mailbox, however its users write it.
                mailbox: sender.key().parse().unwrap_or_else(|_| sender.clone()),
                listed: false,
            };
        }
    }
    listed(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn the_from_field_decides_where_the_configuration_knows_the_sender() {
        let own = address("scanner@x.example");
        let send_as = [
            SenderPattern::Domain("y.example".to_owned()),
            SenderPattern::Address(address("Desk@y.example")),
            SenderPattern::Address(address("alarm@z.example")),
        ];
        for (from, mailbox, listed) in [
            ("", "scanner@x.example", true),
            ("scanner@x.example", "scanner@x.example", true),
            ("SCANNER@X.example", "scanner@x.example", true),
            ("other@x.example", "scanner@x.example", true),
            ("alarm@z.example", "alarm@z.example", true),
            ("bob@z.example", "scanner@x.example", true),
            ("desk@Y.example", "Desk@y.example", true),
            ("Bob@Y.example", "bob@y.example", false),
            ("bob@sub.y.example", "scanner@x.example", true),
            ("bob@z.example bob@y.example", "bob@y.example", false),
        ] {
            let senders: Vec<Address> = from.split_whitespace().map(address).collect();
            let choice = choose_mailbox(&own, &send_as, &senders);
            assert_eq!(choice.mailbox.to_string(), mailbox, "{from}");
            assert_eq!(choice.listed, listed, "{from}");
        }
    }

    #[test]
    fn without_send_as_all_mail_goes_out_from_the_accounts_mailbox() {
        let own = address("scanner@x.example");
        let choice = choose_mailbox(&own, &[], &[address("bob@y.example")]);
        assert_eq!((choice.mailbox, choice.listed), (own, true));
    }
}
