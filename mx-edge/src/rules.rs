//! Makes the rules that sessions are held to out of a configuration, and those of a second policy in its shadow. What lists are known
//! to be is kept over reloads that do not change them.

use std::net::IpAddr;
use std::sync::Arc;

use mail::{Address, Domain, Recipient, Reply};
use service::program::StartError;

use crate::admission::access::Access;
use crate::admission::{Admission, Door};
use crate::config::{Action, Config, Measure};
use crate::dnsbl::{Dnsbl, DomainLists, ListMetrics};
use crate::greylist::Greylist;
use crate::inquiry::Ruling;
use crate::metrics::Metrics;
use crate::names::Names;
use crate::network::Network;
use crate::passes::Kept;
use crate::policy::content::Checks;
use crate::policy::decide::Policy;
use crate::policy::tables::Tables;
use crate::reason::Reason;
use crate::screen::{self, Screen};
use crate::shadow::{Limits, Shadow, ShadowDoor};
use crate::spf::Checker;
use crate::wording::Words;

/// What a session is held to.
pub struct Rules {
    /// In Received fields.
    pub hostname: Domain,
    /// Who may come in, and how often.
    pub door: Door,
    /// Exempt from scanning and from SPF.
    pub own_networks: Vec<Network>,
    /// The policy, with what it can ask.
    pub ruling: Arc<Ruling>,
    /// A second one beside it.
    pub shadow: Option<Shadow>,
    /// The screen before the greeting; none when it is off.
    pub screen: Option<Screen>,
    /// This host's addresses that are backup MX alone.
    pub backup_addresses: Vec<IpAddr>,
    /// Sessions in all from which on there is stress, and below which there is none any more.
    pub stress_sessions: (usize, usize),
    /// Whether a results field is put on.
    pub results_header: bool,
    /// Where mail goes that a rule redirects.
    pub redirect_to: Option<Recipient>,
    /// See the configuration.
    pub null_sender_recipients_max: usize,
    /// See the configuration.
    pub hops_max: usize,
    /// How refusals are worded.
    pub words: Arc<Words>,
}

impl Rules {
    /// What a client is told: by what it is refused, how to find it and where to ask.
    pub fn refusal(&self, reason: Reason, evidence: &str, token: &str) -> Reply {
        self.words.told(reason.reply(evidence), token)
    }

    /// Whether a client that came to this address of ours is at a backup MX.
    pub fn is_backup(&self, local: IpAddr) -> bool {
        self.backup_addresses.contains(&local)
    }
}

/// What outlives rules.
pub struct Shared<'a> {
    /// Counters.
    pub metrics: &'a Metrics,
    /// Who has passed the screen.
    pub passes: &'a screen::Memory,
    /// Who came again.
    pub greylist: &'a Arc<Kept>,
    /// What all sessions share.
    pub admission: &'a Admission,
}

/// The rules for new sessions. What `kept` ones know of lists is kept when these have not changed.
pub fn rules(
    config: &Config,
    shared: &Shared<'_>,
    kept: Option<(&Config, &Rules)>,
) -> Result<Rules, StartError> {
    let lists = &shared.metrics.lists;
    let known = kept.map(|(old, rules)| (old, &*rules.ruling));
    let ruling = ruling(config, shared, lists, known, true)?;
    let shadow = match config.shadow.file.as_os_str().is_empty() {
        true => None,
        false => Some(shadow(config, shared)?),
    };
    Ok(Rules {
        hostname: config.host(),
        door: door(config)?,
        own_networks: config.mail.own_networks.clone(),
        ruling: Arc::new(ruling),
        shadow,
        screen: screen(config, shared),
        backup_addresses: config.screen.backup_addresses.clone(),
        results_header: config.spf.results_header,
        stress_sessions: config.stress_sessions(),
        redirect_to: (Address::parse(&config.policy.redirect_to).ok()).map(Into::into),
        null_sender_recipients_max: config.limits.null_sender_recipients_max,
        hops_max: config.limits.hops_max,
        words: Arc::new(Words {
            contact: config.mail.contact.clone(),
            soft: config.policy.soft_bounce,
        }),
    })
}

fn screen(config: &Config, shared: &Shared<'_>) -> Option<Screen> {
    (config.screen.action != Measure::Off).then(|| Screen::new(config, shared.passes))
}

/// Who may come in. A file that cannot be read keeps the old rules in force.
fn door(config: &Config) -> Result<Door, StartError> {
    let access = Access::load(&config.access.files).map_err(|why| StartError {
        what: "access.files".into(),
        why,
        remedy: "mend the line: NETWORK permit|reject|drop|warn|dunno [until=TIME] [note]".into(),
    })?;
    Ok(Door {
        access,
        rejects: config.access.action,
        proxies: config.mail.proxies.clone(),
        xclient_networks: config.mail.xclient_networks.clone(),
        own_networks: config.mail.own_networks.clone(),
        limits: config.rates.limits.clone(),
        unlimited: config.rates.skip_networks.clone(),
        sessions_per_client_max: config.limits.sessions_per_client_max,
    })
}

/// The second policy: another configuration's, before this one's clients. Its lists are asked apart, and not counted as ours.
fn shadow(config: &Config, shared: &Shared<'_>) -> Result<Shadow, StartError> {
    let file = &config.shadow.file;
    let mut other: Config = service::config::load(file).map_err(|why| StartError {
        what: format!("shadow.file {}", file.display()),
        why,
        remedy: "correct it, or take shadow.file out".into(),
    })?;
    other.hostname.clone_from(&config.hostname);
    let (mail, ours) = (&mut other.mail, &config.mail);
    mail.own_networks.clone_from(&ours.own_networks);
    mail.proxies.clone_from(&ours.proxies);
    mail.xclient_networks.clone_from(&ours.xclient_networks);
    let door = ShadowDoor {
        door: door(&other)?,
        admission: shared.admission.apart(other.rates.entries_max),
        screen: screen(&other, shared),
        differences: shared.metrics.shadow_admissions.clone(),
    };
    let lists = ListMetrics::unseen();
    let ruling = ruling(&other, shared, &lists, None, false)?;
    let limits = Limits {
        hops_max: other.limits.hops_max,
        null_sender_recipients_max: other.limits.null_sender_recipients_max,
    };
    Ok(Shadow::new(ruling, door, limits, &shared.metrics.shadow))
}

fn ruling(
    config: &Config,
    shared: &Shared<'_>,
    lists: &ListMetrics,
    kept: Option<(&Config, &Ruling)>,
    remembers: bool,
) -> Result<Ruling, StartError> {
    let resolvers = |remedy: &str| {
        let remedy = format!("name resolvers in dns.servers, or set {remedy}");
        move |why| StartError {
            what: "[dns]".into(),
            why,
            remedy,
        }
    };
    let same = kept.filter(|(old, _)| (&old.dnsbl, &old.dns) == (&config.dnsbl, &config.dns));
    let dnsbl = match same {
        _ if config.dnsbl.action == Measure::Off => None,
        Some((_, kept)) if kept.dnsbl.is_some() => kept.dnsbl.clone(),
        _ => {
            let unlisted = remembers.then_some(&shared.passes.unlisted);
            if let (Some(passes), Some(_)) = (unlisted, kept) {
                // What other lists said says nothing of these.
                passes.forget_all();
            }
            Dnsbl::new(&config.dnsbl, &config.dns, lists, unlisted)
                .map_err(resolvers("dnsbl.action = \"off\""))?
        }
    };
    let same = same.filter(|(old, _)| old.policy.domain_lists == config.policy.domain_lists);
    let domain_lists = match same {
        Some((_, kept)) if kept.domain_lists.is_some() => kept.domain_lists.clone(),
        _ => DomainLists::new(&config.policy, &config.dnsbl, &config.dns, lists)
            .map_err(resolvers("policy.domain_listed = \"off\""))?,
    };
    let spf = config.spf.enabled.then(|| {
        let (dns, deadline) = (&config.dns, config.spf.deadline);
        Checker::new(&dns.servers, dns.timeout, deadline)
    });
    let names = Names::new(&config.dns.servers, config.dns.timeout);
    let tables = Tables::load(&config.policy.tables).map_err(|why| StartError {
        what: "policy.tables".into(),
        why,
        remedy: "mend the line: KEY permit|reject|hold|dunno [until=TIME] [note]".into(),
    })?;
    let checks = Checks::new(config).map_err(|why| StartError {
        what: "policy.body".into(),
        why,
        remedy: "make the patterns simpler".into(),
    })?;
    Ok(Ruling {
        checks,
        policy: Policy {
            rules: config.policy.clone(),
            tables: Arc::new(tables),
            spoke_first: config.screen.action.at_rcpt(),
            listed: config.dnsbl.action.at_rcpt(),
            drops: drops(config),
            greylist: config.greylist.action,
            greylist_spf_pass: config.greylist.spf_pass,
        },
        exempt: config.policy.skip_networks.clone(),
        own_networks: config.mail.own_networks.clone(),
        spf_skip: config.spf.skip_networks.clone(),
        spf: spf.transpose().map_err(resolvers("spf.enabled = false"))?,
        dnsbl,
        domain_lists,
        greylist: (config.greylist.action != Action::Off)
            .then(|| Arc::new(Greylist::new(&config.greylist, shared.greylist))),
        names: Arc::new(names.map_err(resolvers("127.0.0.1:53 there"))?),
        timeout: config.policy.timeout,
        questions: shared.metrics.questions.clone(),
    })
}

/// Whose hits end a session.
fn drops(config: &Config) -> Vec<Reason> {
    [
        (Reason::SpokeFirst, config.screen.action),
        (Reason::Listed, config.dnsbl.action),
    ]
    .into_iter()
    .filter_map(|(reason, measure)| (measure == Measure::Drop).then_some(reason))
    .collect()
}
