//! Envelopes as JSON, for what is kept outside the spool. Later releases read what earlier ones wrote.

use mail::envelope::{Notify, OriginalRecipient, Ret};
use mail::{Address, Body, MailParameters, RcptParameters, Recipient};
use serde::{Deserialize, Serialize};

/// The parameters of MAIL.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Parameters {
    eight_bit: bool,
    smtputf8: bool,
    /// RET: whole message or header only.
    full: Option<bool>,
    envid: Option<String>,
}

impl From<&MailParameters> for Parameters {
    fn from(parameters: &MailParameters) -> Self {
        Self {
            eight_bit: parameters.body == Body::EightBitMime,
            smtputf8: parameters.smtputf8,
            full: parameters.ret.map(|ret| ret == Ret::Full),
            envid: parameters.envid.as_deref().map(str::to_owned),
        }
    }
}

impl From<Parameters> for MailParameters {
    fn from(stored: Parameters) -> Self {
        Self {
            body: if stored.eight_bit {
                Body::EightBitMime
            } else {
                Body::SevenBit
            },
            smtputf8: stored.smtputf8,
            ret: stored
                .full
                .map(|full| if full { Ret::Full } else { Ret::Headers }),
            envid: stored.envid.map(Into::into),
        }
    }
}

/// One forward-path.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Path {
    /// The mailbox.
    pub address: String,
    /// NOTIFY: success, failure, delay.
    #[serde(default)]
    notify: Option<[bool; 3]>,
    /// ORCPT: kind and address.
    #[serde(default)]
    orcpt: Option<(String, String)>,
}

impl From<&Recipient> for Path {
    fn from(recipient: &Recipient) -> Self {
        let parameters = &recipient.parameters;
        Self {
            address: recipient.address.to_string(),
            notify: parameters
                .notify
                .map(|notify| [notify.success, notify.failure, notify.delay]),
            orcpt: parameters
                .orcpt
                .as_ref()
                .map(|orcpt| (orcpt.kind.to_string(), orcpt.address.to_string())),
        }
    }
}

impl TryFrom<Path> for Recipient {
    type Error = String;

    fn try_from(stored: Path) -> Result<Self, String> {
        let address = Address::parse(&stored.address)
            .map_err(|error| format!("stored {:?}: {error}", stored.address))?;
        Ok(Self {
            address,
            parameters: RcptParameters {
                notify: stored.notify.map(|[success, failure, delay]| Notify {
                    success,
                    failure,
                    delay,
                }),
                orcpt: stored.orcpt.map(|(kind, address)| OriginalRecipient {
                    kind: kind.into(),
                    address: address.into(),
                }),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_come_back() {
        let parameters = MailParameters {
            body: Body::EightBitMime,
            smtputf8: true,
            ret: Some(Ret::Headers),
            envid: Some("QQ 314".into()),
        };
        let json = serde_json::to_string(&Parameters::from(&parameters)).unwrap();
        let stored: Parameters = serde_json::from_str(&json).unwrap();
        assert_eq!(MailParameters::from(stored), parameters);

        let recipient = Recipient {
            address: Address::parse("Joe@one.example").unwrap(),
            parameters: RcptParameters {
                notify: Some(Notify {
                    success: false,
                    failure: true,
                    delay: false,
                }),
                orcpt: Some(OriginalRecipient {
                    kind: "rfc822".into(),
                    address: "j@old.example".into(),
                }),
            },
        };
        let json = serde_json::to_string(&Path::from(&recipient)).unwrap();
        let stored: Path = serde_json::from_str(&json).unwrap();
        assert_eq!(Recipient::try_from(stored), Ok(recipient));
    }
}
