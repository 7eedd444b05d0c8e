//! The sink over real connections: sites that go and come, limits, TLS.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::*;

/// How long anything may take before a test calls it never.
const PATIENCE: Duration = Duration::from_secs(30);

fn connect(address: SocketAddr) -> std::io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(BufReader::new(stream))
}

/// The next line; empty at the end.
fn line(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    match stream.read_line(&mut line) {
        Ok(_) => line.trim_end().to_owned(),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => String::new(),
        Err(error) => panic!("{error}"),
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn sites_stand_side_by_side_and_go_down_alone() {
    let sink = Sink::start(&Settings {
        listen: vec![([127, 9, 0, 1], 0).into()],
        sites: 3,
        threads: 2,
        ..Settings::default()
    })
    .unwrap();
    let addresses = sink.addresses();
    let ips: Vec<String> = addresses.iter().map(|a| a.ip().to_string()).collect();
    assert_eq!(ips, ["127.9.0.1", "127.9.0.2", "127.9.0.3"]);
    let mut streams: Vec<_> = addresses.iter().map(|&a| connect(a).unwrap()).collect();
    for stream in &mut streams {
        assert_eq!(line(stream), "220 sink.invalid ESMTP");
    }
    sink.down(Some(addresses[1].ip()), None);
    assert_eq!(line(&mut streams[1]), "", "what stands is cut");
    wait_until("it is down", || TcpStream::connect(addresses[1]).is_err());
    streams[0].get_mut().write_all(b"NOOP\r\n").unwrap();
    assert_eq!(line(&mut streams[0]), "250 2.0.0 Ok");

    sink.up(None);
    wait_until("it is up again", || {
        TcpStream::connect(addresses[1]).is_ok()
    });
    sink.down(None, Some(Duration::from_millis(50)));
    wait_until("it comes back by itself", || {
        addresses.iter().all(|&a| TcpStream::connect(a).is_ok())
    });
}

#[test]
fn a_site_takes_so_many_sessions() {
    let sink = Sink::start(&Settings {
        site_sessions_max: 1,
        ..Settings::default()
    })
    .unwrap();
    let mut first = connect(sink.addresses()[0]).unwrap();
    assert_eq!(line(&mut first), "220 sink.invalid ESMTP");
    let mut second = connect(sink.addresses()[0]).unwrap();
    assert_eq!(line(&mut second), "421 4.7.0 Too many sessions");
    drop(first);
    wait_until("there is room again", || {
        line(&mut connect(sink.addresses()[0]).unwrap()).starts_with("220")
    });
}

#[test]
fn a_taken_port_is_an_error() {
    let sink = Sink::start(&Settings::default()).unwrap();
    let again = Sink::start(&Settings {
        listen: sink.addresses(),
        ..Settings::default()
    });
    let why = again.err().unwrap();
    assert!(why.contains(&sink.addresses()[0].to_string()), "{why}");
}
