//! The pool's transitions, each with an explicit clock.

use super::*;
use crate::node::Mode;

struct Fixture {
    pool: Pool,
    config: Config,
    now: Instant,
    slots: u32,
}

impl Fixture {
    fn new() -> Self {
        let mut config = Config::default();
        config.pick.slow_start = Duration::ZERO;
        Self {
            // Long after our own start.
            pool: Pool::new(BTreeMap::new(), Instant::now()),
            config,
            now: Instant::now() + Duration::from_secs(60),
            slots: 0,
        }
    }

    fn register(&mut self, name: &str, port: u16, state: Told) -> Result<(), Refusal> {
        let registration = Registration {
            name: name.into(),
            address: ([127, 0, 0, 1], port).into(),
            state,
            in_flight: 3,
            slots: self.slots,
        };
        self.pool.register(&registration, &self.config, self.now)
    }

    fn probe(&mut self, result: Result<(), String>) -> usize {
        let due = self.pool.probes_due(&self.config.probe, self.now);
        for claim in &due {
            self.pool
                .probed(claim, result.clone(), &self.config.probe, self.now);
        }
        due.len()
    }

    fn ready(&mut self, name: &str, port: u16) {
        self.register(name, port, Told::Ready).unwrap();
        self.probe(Ok(()));
    }

    fn claim(&mut self) -> Option<Claim> {
        self.pool.claim(&[], &self.config.pick, self.now)
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// `name state in_flight`, comma-separated.
    #[track_caller]
    fn check(&self, expected: &str) {
        let nodes = self.pool.shown(self.now);
        let nodes: Vec<String> = nodes
            .iter()
            .map(|node| format!("{} {} {}", node.name, node.state.as_str(), node.in_flight))
            .collect();
        assert_eq!(nodes.join(", "), expected);
    }
}

#[test]
fn connections_are_shared_out_and_given_back() {
    let mut f = Fixture::new();
    f.ready("a", 1);
    f.ready("b", 2);
    let first = f.claim().unwrap();
    let second = f.claim().unwrap();
    assert_ne!(first.name, second.name);
    let third = f.claim().unwrap();
    assert_eq!(third.name, first.name, "equals take turns");
    f.pool.release(&second);
    assert_eq!(f.claim().unwrap().name, second.name);
    f.check("a ready 2, b ready 1");
    let tried = [second.name.clone()];
    let pick = f.config.pick;
    assert_eq!(f.pool.claim(&tried, &pick, f.now).unwrap().name, first.name);
    assert_eq!(f.pool.claim(&["a".into(), "b".into()], &pick, f.now), None);
    f.config.pick.connections_max = 1;
    assert_eq!(f.claim(), None, "full");
}

#[test]
fn a_node_joins_when_it_answers_and_lapses_when_it_is_silent() {
    let mut f = Fixture::new();
    f.register("a", 1, Told::Ready).unwrap();
    f.check("a joining 0");
    assert_eq!(f.claim(), None);
    assert_eq!(f.probe(Ok(())), 1);
    f.check("a ready 0");
    f.pass(5);
    f.register("a", 1, Told::Ready).unwrap();
    f.pass(5);
    f.check("a ready 0");
    f.pass(1);
    f.check("a down 0");
    assert_eq!(f.claim(), None);
    assert_eq!(f.probe(Ok(())), 0, "nobody knows whether it is still there");
    f.register("a", 1, Told::Ready).unwrap();
    f.check("a joining 0");
    f.pass(3600 + 6);
    f.pool.sweep(f.now);
    f.check("");
}

#[test]
fn a_node_that_drains_keeps_what_it_has() {
    let mut f = Fixture::new();
    f.ready("a", 1);
    let claim = f.claim().unwrap();
    f.register("a", 1, Told::Draining).unwrap();
    f.check("a draining 1");
    assert_eq!(f.claim(), None);
    f.pool.release(&claim);
    f.check("a draining 0");
    f.register("a", 1, Told::Down).unwrap();
    f.check("a down 0");
    f.register("a", 1, Told::Ready).unwrap();
    f.check("a ready 0");
    f.register("a", 1, Told::Leaving).unwrap();
    f.check("");
    f.pool.release(&claim);
}

#[test]
fn an_operators_word_outlives_registration() {
    let mut f = Fixture::new();
    f.ready("a", 1);
    assert!(f.pool.say("a", |word| word.mode = Mode::Drain));
    f.check("a draining 0");
    f.register("a", 1, Told::Ready).unwrap();
    f.check("a draining 0");
    f.register("a", 1, Told::Leaving).unwrap();
    f.check("");
    f.register("a", 2, Told::Ready).unwrap();
    f.probe(Ok(()));
    f.check("a draining 0");
    assert!(f.pool.say("a", |word| word.mode = Mode::Ready));
    f.check("a ready 0");
    assert!(!f.pool.say("b", |word| word.mode = Mode::Drain));
    assert!(!f.pool.say("b", |word| word.mode = Mode::Ready));
    assert!(f.pool.words().is_empty());
}

#[test]
fn a_name_belongs_to_one_node() {
    let mut f = Fixture::new();
    let nodes = [StaticNode {
        name: "s".into(),
        address: ([127, 0, 0, 1], 9).into(),
        slots: 0,
        proxy_protocol: false,
        agent: None,
    }];
    f.pool.set_static(&nodes, f.now);
    assert_eq!(f.register("s", 1, Told::Ready), Err(Refusal::Static));
    assert_eq!(f.register("", 1, Told::Ready), Err(Refusal::BadName));
    assert_eq!(f.register("a b", 1, Told::Ready), Err(Refusal::BadName));
    f.ready("a", 1);
    let claim = f.claim().unwrap();
    let holder = ([127, 0, 0, 1], 1).into();
    assert_eq!(f.register("a", 2, Told::Ready), Err(Refusal::Held(holder)));
    assert_eq!(
        f.register("a", 2, Told::Leaving),
        Err(Refusal::Held(holder))
    );
    f.pass(6);
    f.register("a", 2, Told::Ready).unwrap();
    f.check("a joining 0, s joining 0");
    f.pool.release(&claim);
    f.pool.failed(&claim, "late", &f.config.probe, f.now);
    f.check("a joining 0, s joining 0");
    f.config.registration.nodes_max = 2;
    assert_eq!(f.register("b", 3, Told::Ready), Err(Refusal::Full));
}

#[test]
fn a_node_that_fails_is_set_aside_and_probed_back() {
    let mut f = Fixture::new();
    f.ready("a", 1);
    let (one, two) = (f.claim().unwrap(), f.claim().unwrap());
    f.pool.failed(&one, "refused", &f.config.probe, f.now);
    f.pool.failed(&two, "refused", &f.config.probe, f.now);
    f.check("a down 2");
    f.register("a", 1, Told::Ready).unwrap();
    f.check("a down 2");
    assert_eq!(f.probe(Ok(())), 0);
    f.now += Duration::from_millis(500);
    assert_eq!(f.probe(Err("mute".into())), 1);
    f.now += Duration::from_millis(999);
    assert_eq!(f.probe(Ok(())), 0, "the pause has doubled once, not twice");
    f.now += Duration::from_millis(1);
    assert_eq!(f.probe(Ok(())), 1);
    f.check("a down 2");
    f.now += Duration::from_millis(500);
    assert_eq!(f.probe(Ok(())), 1);
    f.check("a ready 2");
}

#[test]
fn static_nodes_follow_the_configuration() {
    let mut f = Fixture::new();
    let node = |name: &str, port| StaticNode {
        name: name.into(),
        address: ([127, 0, 0, 1], port).into(),
        slots: 0,
        proxy_protocol: false,
        agent: None,
    };
    f.pool.set_static(&[node("a", 1), node("b", 2)], f.now);
    f.probe(Ok(()));
    f.now += Duration::from_millis(500);
    f.probe(Ok(()));
    f.check("a ready 0, b ready 0");
    f.pool.set_static(&[node("b", 2), node("c", 3)], f.now);
    f.check("b ready 0, c joining 0");
    f.pool.set_static(&[node("b", 4)], f.now);
    f.check("b joining 0");
}

#[test]
fn changes_are_told_once() {
    let mut f = Fixture::new();
    let told = |f: &mut Fixture| {
        let changes = f.pool.sweep(f.now);
        let word = |change: Change| (change.name, change.state.map(State::as_str));
        changes.into_iter().map(word).collect::<Vec<_>>()
    };
    f.ready("a", 1);
    assert_eq!(told(&mut f), [("a".to_owned(), Some("ready"))]);
    assert_eq!(told(&mut f), []);
    f.pass(6);
    assert_eq!(told(&mut f), [("a".to_owned(), Some("down"))]);
    f.register("a", 1, Told::Leaving).unwrap();
    assert_eq!(told(&mut f), [("a".to_owned(), None)]);
    assert_eq!(told(&mut f), []);
}

#[test]
fn words_are_remembered_from_before_a_restart() {
    let maint = Word {
        mode: Mode::Maint,
        weight: 50,
    };
    let mut f = Fixture::new();
    f.pool = Pool::new(BTreeMap::from([("a".into(), maint)]), f.now);
    f.register("a", 1, Told::Ready).unwrap();
    assert_eq!(f.probe(Ok(())), 0, "nobody knocks where somebody works");
    f.check("a maint 0");
    assert!(f.pool.say("a", |word| *word = Word::default()));
    assert_eq!(f.probe(Ok(())), 1);
    f.check("a ready 0");
}

#[test]
fn a_word_is_taken_back_while_its_node_is_away() {
    let mut f = Fixture::new();
    f.ready("a", 1);
    assert!(f.pool.say("a", |word| word.mode = Mode::Drain));
    f.register("a", 1, Told::Leaving).unwrap();
    assert!(f.pool.say("a", |word| word.mode = Mode::Ready));
    f.ready("a", 1);
    f.check("a ready 0");
}

#[test]
fn slots_share_connections_out() {
    let mut f = Fixture::new();
    f.slots = 6;
    f.ready("big", 1);
    f.slots = 2;
    f.ready("small", 2);
    for _ in 0..8 {
        f.claim().unwrap();
    }
    f.check("big ready 6, small ready 2");
    for _ in 0..24 {
        f.claim().unwrap();
    }
    f.check("big ready 24, small ready 8");
    assert_eq!(f.claim(), None, "four for each slot");
}

#[test]
fn a_slow_node_gets_less() {
    let mut f = Fixture::new();
    f.ready("fast", 1);
    f.ready("slow", 2);
    let probe = f.config.probe;
    for _ in 0..20 {
        for claim in [f.claim().unwrap(), f.claim().unwrap()] {
            let milliseconds = if claim.name == "fast" { 100 } else { 400 };
            let ended = f.now + Duration::from_millis(milliseconds);
            f.pool.ended(&claim, false, &probe, ended);
        }
    }
    for _ in 0..10 {
        f.claim().unwrap();
    }
    f.check("fast ready 7, slow ready 3");
}

#[test]
fn a_node_that_hangs_gets_less_before_anything_has_ended() {
    let mut f = Fixture::new();
    f.ready("a", 1);
    f.ready("b", 2);
    let probe = f.config.probe;
    for _ in 0..2 {
        let claim = f.claim().unwrap();
        f.pool
            .ended(&claim, false, &probe, f.now + Duration::from_millis(100));
    }
    let hangs = f.claim().unwrap();
    hangs.moves.moved(true, f.now);
    f.now += Duration::from_secs(2);
    for _ in 0..5 {
        assert_ne!(f.claim().unwrap().name, hangs.name);
    }
    // A client that says nothing is no fault of its node.
    hangs.moves.moved(false, f.now);
    f.now += Duration::from_secs(2);
    assert_eq!(f.claim().unwrap().name, hangs.name);
}

#[test]
fn an_agents_word_holds() {
    let mut f = Fixture::new();
    let node = StaticNode {
        name: "a".into(),
        address: ([127, 0, 0, 1], 1).into(),
        slots: 8,
        proxy_protocol: true,
        agent: Some(([127, 0, 0, 1], 2).into()),
    };
    f.pool.set_static(std::slice::from_ref(&node), f.now);
    let due = f.pool.probes_due(&f.config.probe, f.now);
    assert_eq!((due[0].agent, due[0].proxy_protocol), (node.agent, true));
    f.now += Duration::from_secs(2);
    f.probe(Ok(()));
    f.now += Duration::from_millis(500);
    f.probe(Ok(()));
    f.now += Duration::from_secs(3);
    for (line, expected) in [
        ("50%\n", "a ready 0"),
        ("drain\n", "a draining 0"),
        ("ready down #no rules\n", "a down 0"),
        ("up maint\n", "a maint 0"),
        ("ready\n", "a ready 0"),
        ("0%\n", "a draining 0"),
    ] {
        f.pool.heard(&due[0], line);
        f.check(expected);
    }
}

#[test]
fn a_node_that_comes_gets_its_whole_share_within_seconds() {
    let mut f = Fixture::new();
    f.config.pick.slow_start = Duration::from_secs(3);
    f.slots = 10;
    f.ready("old", 1);
    f.pass(3);
    f.register("old", 1, Told::Ready).unwrap();
    f.ready("new", 2);
    for _ in 0..11 {
        f.claim().unwrap();
    }
    f.check("new ready 1, old ready 10");
    f.pass(3);
    for _ in 0..9 {
        f.claim().unwrap();
    }
    f.check("new ready 10, old ready 10");
}
