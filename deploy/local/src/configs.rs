//! The programs' configurations in a local site: what differs from each program's defaults, with a test's own keys laid over.

use crate::site::Site;

/// The demonstration list.
pub const LIST: &str = "dev@lists.example";
/// Its members.
pub const MEMBERS: [&str; 3] = [
    "first@one.example",
    "second@two.example",
    "third@three.example",
];

/// The configuration of a program's instance. On one machine starts, drains and returns need not be paced for the sake of others.
pub fn render(site: &Site, name: &str) -> Result<String, String> {
    let mut config: toml::Table = base(site, name)
        .parse()
        .map_err(|error| format!("{name}: {error}"))?;
    let program = if name.starts_with("scanner-") {
        "scanner"
    } else {
        name
    };
    for (key, text) in &site.options().overrides {
        if key == program || key == name {
            let over: toml::Table = text
                .parse()
                .map_err(|error| format!("override of {key}: {error}"))?;
            lay_over(&mut config, over);
        }
    }
    toml::to_string(&config).map_err(|error| format!("{name}: {error}"))
}

fn lay_over(config: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (config.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => lay_over(below, above),
            (_, value) => {
                config.insert(key, value);
            }
        }
    }
}

fn base(site: &Site, name: &str) -> String {
    let program = match name {
        "mx-edge" => edge(site),
        "balancer" => balancer(site),
        "listserv" => listserv(site),
        scanner => scanner_node(site, scanner),
    };
    program + &common(site, name)
}

/// What every program has: its control socket, its log, its certificate.
fn common(site: &Site, name: &str) -> String {
    let root = site.root().display();
    let control = site.address(&format!("{name}.control"));
    let format = if site.options().json_logs {
        "json"
    } else {
        "text"
    };
    let node = match name {
        "mx-edge" => "edge-1".to_owned(),
        "listserv" => "list-1".to_owned(),
        "balancer" => "balancer-1".to_owned(),
        scanner => scanner.replace("scanner", "scan"),
    };
    let inside = format!(
        "[inside]\ncertificate = '{root}/ca/{node}.pem'\nkey = '{root}/ca/{node}.key'\nauthority = '{root}/ca/ca.pem'\n"
    );
    format!(
        "[control]\nsocket = '{root}/control/{name}.sock'\nlisten = '{control}'\n[log]\nformat = '{format}'\n{}",
        if site.options().tls {
            inside
        } else {
            String::new()
        }
    )
}

fn edge(site: &Site) -> String {
    let root = site.root().display();
    format!(
        "name = 'edge-1'\nhostname = 'mx.lists.example'\nstate = '{root}/state/mx-edge'\n\
         [tls]\ncertificate = '{root}/public/mx.lists.example.pem'\nkey = '{root}/public/mx.lists.example.key'\n\
         [mail]\nlisten = ['{}']\n[directory]\nservers = ['{}']\npublic_key_files = ['{root}/ca/directory.pub']\n\
         [next_hop]\nhosts = ['{}']\n[spool]\nfree_bytes_min = '64MiB'\n\
         [forward]\nprobe_interval = '1s'\nretry_first = '1s'\nretry_longest = '5s'\n",
        site.address("mx-edge"),
        site.address("directory"),
        site.address("balancer"),
    )
}

fn balancer(site: &Site) -> String {
    let root = site.root().display();
    format!(
        "listen = '{}'\nstate = '{root}/state/balancer'\n[registration]\nlisten = '{}'\n",
        site.address("balancer"),
        site.address("registration")
    )
}

fn scanner_node(site: &Site, name: &str) -> String {
    let root = site.root().display();
    let (spamd, clamd) = site.scan_sockets();
    format!(
        "hostname = '{node}.lists.example'\n[authenticate]\nenabled = false\n[receive]\nlisten = '{}'\n[spamd]\naddresses = ['{}']\n[clamd]\naddresses = ['{}']\n\
         [token]\nkey_files = ['{root}/ca/verdict.key']\n[relay]\nhosts = ['{}']\n\
         [scan]\ncanary_retry = '200ms'\n[announce]\nname = '{node}'\nretry = '200ms'\ndrain_notice = '500ms'\nbalancers = ['{}']\nagent_listen = '{}'\n",
        site.address(name),
        spamd.display(),
        clamd.display(),
        site.address("listserv"),
        site.address("registration"),
        site.address(&format!("{name}.agent")),
        node = name.replace("scanner", "scan"),
    )
}

fn listserv(site: &Site) -> String {
    let root = site.root().display();
    let sink = site.address("sink");
    let delivery = if site.options().by_dns {
        format!(
            "[delivery]\ndns = ['{}']\nport = {}\n",
            site.address("dns"),
            sink.port()
        )
    } else {
        format!("[delivery]\ndefault_route = 'sink'\n[delivery.routes.sink]\nhosts = ['{sink}']\n")
    };
    format!(
        "hostname = 'lists.example'\nstate = '{root}/state/listserv'\npostmaster = ['postmaster@admin.example']\n\
         verdict_key_files = ['{root}/ca/verdict.key']\ncookie_key_files = ['{root}/ca/cookie.key']\n\
         directory_key_files = ['{root}/ca/directory.key']\n[lmtp]\nlisten = '{}'\n[publish]\nlisten = '{}'\n\
         [spool]\nfree_bytes_min = '64MiB'\n{delivery}",
        site.address("listserv"),
        site.address("directory"),
    )
}
