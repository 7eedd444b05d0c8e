//! What the rules say of a recipient and of a message: judged, logged with the evidence, shown to the second policy.

use mail::{Envelope, Recipient};
use smtp::server::{Facts, Objection};
use tracing::info;

use super::Session;
use crate::admission::{Refused, Standing};
use crate::config::Action;
use crate::policy::content::Judgement;
use crate::policy::decide::{Decision, Finding};
use crate::policy::{self, Scanning, Transaction};
use crate::reason::Reason;
use crate::shadow::About;

impl Session {
    /// Logs what speaks against a recipient's mail and does not refuse it; a refusal is logged where it is said.
    fn log_warnings(&self, facts: &Facts, envelope: &Envelope, to: &str, decision: &Decision) {
        let warned = &self.edge.metrics.warned;
        for finding in &decision.warned {
            warned.with_label_values(&[finding.reason.label()]).inc();
            info!(
                event = "warned",
                session = %facts.session,
                client = %facts.client.ip(),
                helo = %facts.helo,
                from = %envelope.reverse_path,
                to,
                reason = finding.reason.label(),
                evidence = finding.evidence
            );
        }
        for (rule, what) in &decision.named {
            let hits = &self.edge.metrics.rule_hits;
            hits.with_label_values(&[&**rule, what]).inc();
            info!(
                event = "rule",
                session = %facts.session,
                client = %facts.client.ip(),
                from = %envelope.reverse_path,
                to,
                rule = %rule,
                outcome = what
            );
        }
    }

    /// Whether a recipient's mail may come, and how it is scanned.
    pub(super) async fn admit(
        &mut self,
        facts: &Facts,
        envelope: &Envelope,
        recipient: &Recipient,
    ) -> Result<Scanning, Refused> {
        let recipients = &self.edge.recipients;
        let known = recipients.lookup(&recipient.address, facts.local.ip());
        self.transaction.accepted = envelope.recipients.len();
        let action = self.rules.ruling.policy.rules.null_sender_recipients;
        let most = match action {
            Action::Enforce => self.rules.null_sender_recipients_max,
            Action::Warn | Action::Off => usize::MAX,
        };
        let admitted = policy::recipient(known, &self.transaction, most);
        self.shadow_notification(facts, envelope, recipient, &admitted);
        let scanning = admitted?;
        if action == Action::Warn {
            self.warn_of_notification(facts, envelope, recipient);
        }
        if scanning == Scanning::Ordinary {
            self.decide(facts, envelope, recipient).await?;
        }
        Ok(scanning)
    }

    /// One that goes to more than it should, and may.
    fn warn_of_notification(&self, facts: &Facts, envelope: &Envelope, recipient: &Recipient) {
        let most = self.rules.null_sender_recipients_max;
        let Transaction {
            null_sender,
            accepted,
            ..
        } = self.transaction;
        if null_sender && accepted >= most {
            let finding = Finding {
                reason: Reason::NullSenderRecipients,
                evidence: format!("{} of {most}", accepted + 1),
            };
            let decision = Decision {
                warned: vec![finding],
                ..Decision::default()
            };
            let to = recipient.address.to_string();
            self.log_warnings(facts, envelope, &to, &decision);
        }
    }

    /// What the second policy says to one more recipient of a notification.
    fn shadow_notification(
        &self,
        facts: &Facts,
        envelope: &Envelope,
        recipient: &Recipient,
        admitted: &Result<Scanning, Reason>,
    ) {
        let live = match admitted {
            Ok(_) => None,
            Err(reason @ Reason::NullSenderRecipients) => Some(Finding {
                reason: *reason,
                evidence: String::new(),
            }),
            Err(_) => return,
        };
        if let (true, Some(shadow)) = (self.transaction.null_sender, &self.rules.shadow) {
            let about = self.about(facts, envelope, recipient.address.to_string());
            shadow.notification(self.transaction.accepted, live, &about);
        }
    }

    /// What the second policy would do with a recipient on whom this has been decided.
    fn shadow_recipient(&self, facts: &Facts, envelope: &Envelope, to: &str, decision: &Decision) {
        if let (Some(shadow), Some(visit)) = (&self.rules.shadow, &self.visit) {
            let about = self.about(facts, envelope, to.to_owned());
            let inquiry = &self.caller.inquiry;
            shadow.recipient(inquiry, visit.decision(), decision, about);
        }
    }

    /// Decides by client and sender, for recipients that they may concern (never a role: RFC 5321 4.5.1).
    async fn decide(
        &mut self,
        facts: &Facts,
        envelope: &Envelope,
        recipient: &Recipient,
    ) -> Result<(), Finding> {
        let to = recipient.address.to_string();
        let decision = match &self.entry.standing {
            Standing::Check => return Ok(()),
            Standing::Exempt => {
                if self.visit.as_ref().is_some_and(|visit| !visit.is_exempt()) {
                    self.shadow_recipient(facts, envelope, &to, &Decision::default());
                }
                return Ok(());
            }
            Standing::Rejected(note) => Decision {
                refusal: Some(Finding {
                    reason: Reason::Access,
                    evidence: note.to_string(),
                }),
                ..Decision::default()
            },
            standing @ (Standing::Ordinary | Standing::Warned(_)) => {
                let warns = match standing {
                    Standing::Warned(note) => Some(note.to_string()),
                    _ => None,
                };
                let mut decision = self.caller.decide(&self.rules, facts, &to).await;
                decision.warned.extend(warns.map(|evidence| Finding {
                    reason: Reason::Access,
                    evidence,
                }));
                decision
            }
        };
        self.shadow_recipient(facts, envelope, &to, &decision);
        self.log_warnings(facts, envelope, &to, &decision);
        match decision.refusal {
            Some(finding) => Err(finding),
            None => {
                // One message is held as a whole, for all its recipients.
                self.hold = self.hold.take().or(decision.hold);
                Ok(())
            }
        }
    }

    fn about(&self, facts: &Facts, envelope: &Envelope, to: String) -> About {
        About {
            session: facts.session.clone(),
            from: envelope.reverse_path.to_string(),
            to,
            known: self.caller.is_known(),
        }
    }

    /// What is said of a message, whatever was said of its recipients.
    pub(super) fn judge_message(
        &self,
        facts: &Facts,
        envelope: &Envelope,
        message: &[u8],
    ) -> Result<Judgement, Finding> {
        let hops = policy::hops(message, self.rules.hops_max).map_err(|reason| Finding {
            reason,
            evidence: String::new(),
        });
        let to: Vec<String> = (envelope.recipients.iter())
            .map(|recipient| recipient.address.to_string())
            .collect();
        let to = to.join(",");
        let (refused, looped) = match self.rules.ruling.policy.rules.hops {
            Action::Enforce => (hops.err(), None),
            Action::Warn => (None, hops.err()),
            Action::Off => (None, None),
        };
        if let Some(shadow) = &self.rules.shadow {
            let about = self.about(facts, envelope, to.clone());
            shadow.hops(message, refused.clone(), &about);
        }
        if let Some(finding) = refused {
            return Err(finding);
        }
        let checks = &self.rules.ruling.checks;
        let ordinary = self.transaction.scanning == Some(Scanning::Ordinary);
        // Whoever it is for: what is built like that is meant for parsers, not for people.
        let mut judgement = match ordinary {
            true => checks.judge(message),
            false => Judgement {
                decision: checks.structure(message),
                ..Judgement::default()
            },
        };
        judgement.decision.warned.extend(looped);
        if facts.bare_newline {
            judgement.decision.warned.push(Finding {
                reason: Reason::Session(Objection::BareNewline),
                evidence: "each was made CRLF".into(),
            });
        }
        let decision = &judgement.decision;
        if let (true, Some(shadow)) = (ordinary, &self.rules.shadow) {
            shadow.message(message, decision, &self.about(facts, envelope, to.clone()));
        }
        self.log_warnings(facts, envelope, &to, decision);
        match decision.refusal.clone() {
            Some(finding) => Err(finding),
            None => Ok(judgement),
        }
    }
}
