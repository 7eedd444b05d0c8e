//! A node's own word: what it says when it registers, or as HAProxy's agent-check has it, one line `75% maxconn:30 up ready #reason`.
//!
//! Of several words of a kind the last one holds; a word that is not said leaves what was said before, an unknown one is left out.
//! An agent that cannot be reached says nothing: whether the node works is seen by its greeting.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest line that is read, bytes.
const LINE_BYTES_MAX: usize = 1024;

/// What a node says of itself when it registers, or by its agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Told {
    /// Send mail.
    Ready,
    /// Send nothing new.
    Draining,
    /// Somebody works on it.
    Maint,
    /// Its own canary failed.
    Down,
    /// Forget it.
    Leaving,
}

/// What an agent has said so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agent {
    is_up: bool,
    mode: Told,
    /// Of its capacity so much is to be used now, percent.
    pub percent: u32,
    /// Connections that it wants at most; 0 for no word.
    pub connections_max: u32,
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            is_up: true,
            mode: Told::Ready,
            percent: 100,
            connections_max: 0,
        }
    }
}

impl Agent {
    /// Reads its line.
    pub fn hear(&mut self, line: &str) {
        let line = line.split(['\r', '\n']).next().unwrap_or_default();
        let words = line.split('#').next().unwrap_or_default();
        for word in words
            .split([' ', '\t', ','])
            .filter(|word| !word.is_empty())
        {
            match word.to_ascii_lowercase().as_str() {
                "up" => self.is_up = true,
                "down" | "failed" | "fail" | "stopped" => self.is_up = false,
                "ready" => self.mode = Told::Ready,
                "drain" => self.mode = Told::Draining,
                "maint" => self.mode = Told::Maint,
                word => self.number(word),
            }
        }
    }

    fn number(&mut self, word: &str) {
        if let Some(percent) = word.strip_suffix('%') {
            self.percent = percent
                .parse()
                .map_or(self.percent, |percent: u32| percent.min(100));
        } else if let Some(most) = word.strip_prefix("maxconn:") {
            self.connections_max = most.parse().unwrap_or(self.connections_max);
        }
    }

    /// How the node stands by its word.
    pub fn told(&self) -> Told {
        match (self.is_up, self.mode) {
            (_, Told::Maint) => Told::Maint,
            (false, _) => Told::Down,
            (true, mode) => mode,
        }
    }
}

/// Asks an agent for its line.
pub async fn ask(address: SocketAddr, deadline: Duration) -> Result<String, String> {
    let asked = async {
        let stream = TcpStream::connect(address).await?;
        let mut line = Vec::new();
        let mut stream = stream.take(LINE_BYTES_MAX as u64);
        while !line.contains(&b'\n') && stream.read_buf(&mut line).await? > 0 {}
        Ok::<_, std::io::Error>(line)
    };
    let line = timeout(deadline, asked).await;
    let line = line.map_err(|_| "no answer in time".to_owned())?;
    let line = line.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a node is told to be after these lines: state, percent, connections.
    fn check(lines: &[&str], told: Told, percent: u32, connections_max: u32) {
        let mut agent = Agent::default();
        for line in lines {
            agent.hear(line);
        }
        let found = (agent.told(), agent.percent, agent.connections_max);
        assert_eq!(found, (told, percent, connections_max), "{lines:?}");
    }

    #[test]
    fn words_of_agents() {
        check(&[""], Told::Ready, 100, 0);
        check(&["ready up 100%\n"], Told::Ready, 100, 0);
        check(
            &["75% maxconn:30 up ready #busy, 10%\r\n"],
            Told::Ready,
            75,
            30,
        );
        check(&["drain\n"], Told::Draining, 100, 0);
        check(&["down #no signatures\n"], Told::Down, 100, 0);
        check(&["stopped,maint\n"], Told::Maint, 100, 0);
        check(&["drain 50%\n", "up\n"], Told::Draining, 50, 0);
        check(&["drain 50%\n", "ready\n"], Told::Ready, 50, 0);
        check(&["down\n", "50%\n"], Told::Down, 50, 0);
        check(&["down\n", "UP 900%\n"], Told::Ready, 100, 0);
        check(&["up\ndown\n"], Told::Ready, 100, 0);
        check(&["nonsense maxconn:x y%\n"], Told::Ready, 100, 0);
        check(&["down # drain\n", "up # 10%\n"], Told::Ready, 100, 0);
    }
}
