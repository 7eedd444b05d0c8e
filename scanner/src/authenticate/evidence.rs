//! What was found out about a sender, as a header field and as points. Pure.

use mail::authres;
use mail::header;
use mail::trace::Spf;

use super::Settings;

/// Results as RFC 8601 2.7 names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Verified.
    Pass,
    /// Not verified.
    Fail,
    /// Nothing that could be relied on.
    Neutral,
    /// Nothing there.
    None,
    /// Not used, by our own rule.
    Policy,
    /// No answer.
    TempError,
    /// Cannot be verified.
    PermError,
}

impl Word {
    /// The word in the field.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Neutral => "neutral",
            Self::None => "none",
            Self::Policy => "policy",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

/// One DKIM signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Whether it holds.
    pub word: Word,
    /// Why not.
    pub reason: Box<str>,
    /// Whose it is.
    pub domain: Box<str>,
    /// Which key.
    pub selector: Box<str>,
}

/// DMARC's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dmarc {
    /// Whether an aligned identifier was verified.
    pub word: Word,
    /// The author's domain; empty where there is none.
    pub from: Box<str>,
    /// What that domain wants done: `reject`, `quarantine`, `none`, or nothing.
    pub policy: &'static str,
    /// Several authors' domains.
    pub several: bool,
}

/// The ARC chain's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arc {
    /// Whether the whole chain holds.
    pub word: Word,
    /// Who sealed it last.
    pub sealer: Box<str>,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// As the edge saw it.
    pub spf: Spf,
    /// Of whom SPF spoke.
    pub spf_domain: Box<str>,
    /// Each signature, in the message's order.
    pub dkim: Vec<Signature>,
    /// DMARC.
    pub dmarc: Dmarc,
    /// ARC.
    pub arc: Arc,
}

impl Signature {
    /// What holds for all of a message's.
    pub fn unnamed(word: Word, reason: &str) -> Self {
        Self {
            word,
            reason: reason.into(),
            domain: "".into(),
            selector: "".into(),
        }
    }
}

impl Arc {
    /// No chain, or none that was looked at.
    pub fn none() -> Self {
        Self {
            word: Word::None,
            sealer: "".into(),
        }
    }
}

impl Evidence {
    /// Nothing but SPF, and why.
    pub fn unverified(spf: Spf, spf_domain: Box<str>, word: Word, reason: &str) -> Self {
        let dkim = Signature::unnamed(word, reason);
        Self {
            spf,
            spf_domain,
            dkim: if word == Word::None {
                Vec::new()
            } else {
                vec![dkim]
            },
            dmarc: Dmarc {
                word,
                from: "".into(),
                policy: "",
                several: false,
            },
            arc: Arc::none(),
        }
    }

    /// The whole field, under our name.
    pub fn field(&self, authserv_id: &str) -> String {
        let mut results = vec![authserv_id.to_owned()];
        if self.spf != Spf::None {
            let domain = authres::value(&self.spf_domain);
            results.push(format!("spf={} smtp.mailfrom={domain}", self.spf.as_str()));
        }
        for signature in &self.dkim {
            let mut result = format!("dkim={}", signature.word.as_str());
            if !signature.reason.is_empty() {
                result += &format!(" reason={}", quoted(&signature.reason));
            }
            if !signature.domain.is_empty() {
                let (domain, selector) = (&signature.domain, &signature.selector);
                result += &format!(" header.d={}", authres::value(domain));
                result += &format!(" header.s={}", authres::value(selector));
            }
            results.push(result);
        }
        if self.dkim.is_empty() {
            results.push("dkim=none".into());
        }
        let dmarc = &self.dmarc;
        let mut result = format!("dmarc={}", dmarc.word.as_str());
        if dmarc.several {
            result += " reason=\"several authors\"";
        }
        if !dmarc.from.is_empty() {
            result += &format!(" header.from={}", authres::value(&dmarc.from));
        }
        if !dmarc.policy.is_empty() {
            result += &format!(" policy.dmarc={}", dmarc.policy);
        }
        results.push(result);
        if self.arc.word != Word::None {
            let mut result = format!("arc={}", self.arc.word.as_str());
            if !self.arc.sealer.is_empty() {
                result += &format!(" header.d={}", authres::value(&self.arc.sealer));
            }
            results.push(result);
        }
        header::fold(authres::NAME, &results.join("; "))
    }

    /// Points in hundredths, and the rules that gave them. What failed for want of an answer gives none.
    pub fn points(&self, settings: &Settings) -> (i32, Vec<&'static str>) {
        let points = &settings.points;
        let trusted = settings.trusted_sealers.iter();
        let vouched = self.arc.word == Word::Pass
            && trusted
                .into_iter()
                .any(|sealer| sealer.eq_ignore_ascii_case(&self.arc.sealer));
        let (value, test) = match (self.dmarc.word, self.dmarc.policy) {
            _ if self.dmarc.several => (points.several_from, "AUTH_SEVERAL_FROM"),
            (Word::Pass, _) => (points.dmarc_pass, "AUTH_DMARC_PASS"),
            (Word::Fail, _) if vouched => (0.0, "AUTH_ARC_TRUSTED"),
            (Word::Fail, "reject") => (points.dmarc_reject, "AUTH_DMARC_REJECT"),
            (Word::Fail, "quarantine") => (points.dmarc_quarantine, "AUTH_DMARC_QUARANTINE"),
            _ => return (0, Vec::new()),
        };
        ((value * 100.0).round() as i32, vec![test])
    }
}

/// As a quoted string, whatever an error says.
fn quoted(text: &str) -> String {
    let plain = text
        .chars()
        .filter(|c| (' '..='~').contains(c) && !"\"\\".contains(*c));
    format!("\"{}\"", plain.take(100).collect::<String>())
}
