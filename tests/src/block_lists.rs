//! Block lists served by a real rbldnsd, for an edge that stands alone ([`crate::alone`]).

use local::daemons;
use local::process::Process;

use crate::site::Harness;

/// What every zone of rbldnsd begins with.
pub const SOA: &str = "$SOA 300 ns.test. hostmaster.test. 0 600 300 86400 300\n$NS 300 ns.test.\n";

/// Has the edge ask rbldnsd, which serves these zones ([`daemons::rbldnsd`]) from the folder `rbldnsd` of the site, and starts it.
pub fn start_asking(harness: &mut Harness, zones: &[(&str, &str)]) -> Process {
    let (root, dns) = (harness.site.root(), harness.site.address("dns"));
    let log = root.join("log/rbldnsd.log");
    let rbldnsd = daemons::rbldnsd(&root.join("rbldnsd"), &log, dns, zones);
    let rbldnsd = rbldnsd.unwrap_or_else(|error| panic!("{error}"));
    let servers = format!("[dns]\nservers = ['{dns}']\n");
    harness.site.lay_over("mx-edge", &servers);
    harness.site.start("mx-edge").expect("the edge starts");
    harness.site.wait_ready("mx-edge").expect("it is ready");
    rbldnsd
}

/// Whether a list counts: 1 or 0.
pub fn list_up(harness: &Harness, list: &str) -> f64 {
    let labels = format!("list=\"{list}\"");
    harness.metric("mx-edge", "mx_edge_dnsbl_list_up", &labels)
}
