//! A node's transitions, each with an explicit clock.

use super::*;

fn settings() -> Probe {
    Probe::default()
}

fn node(origin: Origin, now: Instant) -> Node {
    Node::new("127.0.0.1:10025".parse().unwrap(), origin, 0, now)
}

fn registered(told: Told, until: Instant) -> Origin {
    Origin::Registered { told, until }
}

#[test]
fn pauses_double_up_to_their_limit() {
    let pauses: Vec<u128> = [0, 1, 2, 3, 5, 6, 40, u32::MAX]
        .map(|failures| pause(failures, &settings()).as_millis())
        .to_vec();
    assert_eq!(pauses, [500, 500, 1000, 2000, 8000, 10_000, 10_000, 10_000]);
}

/// What happens to a node, a letter each: `+` a good probe, `-` a failed one, `x` a failure with real mail,
/// `d`, `m`, `0` an operator's drain, maintenance and weight of 0, `u` ready again; then the state.
fn check(origin: Origin, events: &str, expected: State) {
    let now = Instant::now();
    let mut node = node(origin, now);
    for event in events.chars() {
        match event {
            '+' => node.probe_good(&settings(), now),
            '-' => node.probe_failed("mute", &settings(), now),
            'x' => node.set_aside("refused", &settings(), now),
            'd' => node.word.mode = Mode::Drain,
            'm' => node.word.mode = Mode::Maint,
            'u' => node.word.mode = Mode::Ready,
            '0' => node.word.weight = 0,
            _ => unreachable!(),
        }
    }
    let (state, reason) = node.state(now);
    assert_eq!(state, expected, "{origin:?} {events} {reason}");
    assert_eq!(reason.is_empty(), state == State::Ready);
}

#[test]
fn a_static_node_rises_and_falls() {
    check(Origin::Static, "", State::Joining);
    check(Origin::Static, "+", State::Joining);
    check(Origin::Static, "++", State::Ready);
    check(Origin::Static, "-", State::Down);
    check(Origin::Static, "++--", State::Ready);
    check(Origin::Static, "++---", State::Down);
    check(Origin::Static, "++--+--", State::Ready);
    check(Origin::Static, "++x", State::Down);
    check(Origin::Static, "++x+", State::Down);
    check(Origin::Static, "++x++", State::Ready);
    check(Origin::Static, "++x+-+", State::Down);
}

#[test]
fn a_registered_node_joins_with_one_probe() {
    let until = Instant::now() + Duration::from_secs(60);
    let ready = registered(Told::Ready, until);
    check(ready, "", State::Joining);
    check(ready, "+", State::Ready);
    check(ready, "-", State::Down);
    check(ready, "+x", State::Down);
    check(ready, "+x++", State::Ready);
    check(ready, "+d", State::Draining);
    check(ready, "+dx", State::Down);
    check(ready, "+du", State::Ready);
    check(ready, "+m", State::Maint);
    check(ready, "+xm", State::Maint);
    check(ready, "+mu", State::Ready);
    check(ready, "+0", State::Draining);
    check(registered(Told::Maint, until), "+", State::Maint);
    check(registered(Told::Draining, until), "+", State::Draining);
    check(registered(Told::Down, until), "+", State::Down);
    check(registered(Told::Leaving, until), "+", State::Down);
    check(registered(Told::Ready, Instant::now()), "+", State::Down);
}

#[test]
fn probes_are_made_where_they_tell_something() {
    let now = Instant::now();
    let later = now + Duration::from_secs(60);
    let mut node = node(registered(Told::Ready, later), now);
    assert!(node.is_probe_due(now));
    node.probe_good(&settings(), now);
    assert!(!node.is_probe_due(later - Duration::from_secs(1)));
    node.set_aside("mute", &settings(), now);
    assert!(!node.is_probe_due(now));
    assert!(node.is_probe_due(now + Duration::from_millis(500)));
    assert!(!node.is_probe_due(later), "a lapsed lease is not probed");
    node.origin = Origin::Static;
    node.probe_good(&settings(), now);
    node.probe_good(&settings(), now);
    assert!(!node.is_probe_due(now + Duration::from_secs(1)));
    assert!(node.is_probe_due(now + Duration::from_secs(2)));
}

#[test]
fn a_share_grows_after_a_node_has_come() {
    let now = Instant::now();
    let mut node = node(Origin::Static, now);
    let settings = Pick {
        connections_max: 100,
        slow_start: Duration::from_secs(4),
        ..Pick::default()
    };
    let share = |node: &Node, seconds| {
        let candidate = node.candidate(&settings, now + Duration::from_secs(seconds));
        candidate.connections_max
    };
    assert_eq!(share(&node, 0), 100, "it was there when we began");
    node.risen = Some(now);
    let shares = [0, 1, 2, 4, 9].map(|seconds| share(&node, seconds));
    assert_eq!(shares, [10, 32, 55, 100, 100]);
}

#[test]
fn capacity_and_weight_bound_what_a_node_gets() {
    let now = Instant::now();
    let mut node = node(Origin::Static, now);
    let settings = Pick {
        connections_max: 100,
        connections_per_slot: 4,
        ..Pick::default()
    };
    for (slots, percent, told, weight, expected) in [
        (0, 100, 0, 100, (100, None)),
        (8, 100, 0, 100, (32, Some(8.0))),
        (8, 50, 0, 100, (16, Some(4.0))),
        (8, 50, 0, 50, (8, Some(2.0))),
        (8, 100, 5, 100, (5, Some(8.0))),
        (50, 100, 0, 100, (100, Some(50.0))),
        (8, 1, 0, 1, (1, Some(0.01))),
        (8, 100, 0, 200, (64, Some(16.0))),
    ] {
        node.slots = slots;
        node.said.percent = percent;
        node.said.connections_max = told;
        node.word.weight = weight;
        let candidate = node.candidate(&settings, now);
        let found = (candidate.connections_max, candidate.slots);
        assert_eq!(found, expected, "{slots} {percent} {told} {weight}");
    }
}

#[test]
fn clients_left_without_an_answer_set_a_node_aside() {
    let now = Instant::now();
    let until = now + Duration::from_secs(60);
    let mut node = node(registered(Told::Ready, until), now);
    node.probe_good(&settings(), now);
    let ended = |node: &mut Node, pick, is_cut| {
        node.running.insert(pick, (now, Moves::new(now)));
        node.ended(pick, is_cut, &settings(), now + Duration::from_secs(1));
        node.state(now).0
    };
    for pick in [1, 2] {
        assert_eq!(ended(&mut node, pick, true), State::Ready);
    }
    assert_eq!(
        ended(&mut node, 3, false),
        State::Ready,
        "an answer ends the row"
    );
    assert_eq!(node.latency.seconds(), Some(1.0));
    for pick in [4, 5] {
        assert_eq!(ended(&mut node, pick, true), State::Ready);
    }
    assert_eq!(ended(&mut node, 6, true), State::Down);
    assert!(node.running.is_empty());
}
