//! A name server with a script: records of every type, names that do not answer, names that fail. Over UDP and TCP, on loopback.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, NS, PTR, TXT};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::AbortHandle;

/// What is said about a name.
#[derive(Clone, Debug)]
pub enum Said {
    Record(RData),
    /// No answer to a question of this type; of any, when none is named.
    Silence(Option<RecordType>),
    /// Records of this name are kept for so many seconds.
    Ttl(u32),
    /// No answer to a question for which there is no record.
    Otherwise,
    Failure,
}

/// By [`key`].
pub type Script = HashMap<String, Vec<Said>>;

pub struct Dns {
    pub address: SocketAddr,
    queries: Arc<AtomicUsize>,
    tasks: [AbortHandle; 2],
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// `name TYPE data` a line: A, AAAA, MX (`10 host`, `0 .`), NS, PTR, CNAME, TXT, or TTL (`60`), SILENT and FAILS.
pub fn script(lines: &[&str]) -> Script {
    let mut script = Script::new();
    for line in lines {
        let mut words = line.splitn(3, ' ');
        let (name, kind) = (words.next().unwrap(), words.next().unwrap());
        let data = words.next().unwrap_or_default();
        let said = match kind {
            "SILENT" => Said::Silence(None),
            "FAILS" => Said::Failure,
            "TTL" => Said::Ttl(data.parse().unwrap()),
            kind => Said::Record(record(kind, data)),
        };
        script.entry(name.to_lowercase()).or_default().push(said);
    }
    script
}

pub fn record(kind: &str, data: &str) -> RData {
    match kind {
        "A" => RData::A(A(data.parse().unwrap())),
        "AAAA" => RData::AAAA(AAAA(data.parse().unwrap())),
        "PTR" => RData::PTR(PTR(name(data))),
        "NS" => RData::NS(NS(name(data))),
        "CNAME" => RData::CNAME(CNAME(name(data))),
        "TXT" => RData::TXT(TXT::new(vec![data.to_owned()])),
        "MX" => {
            let (preference, host) = data.split_once(' ').unwrap();
            RData::MX(MX::new(preference.parse().unwrap(), name(host)))
        }
        other => panic!("no record type {other}"),
    }
}

/// A name as scripts have it: its labels as they are, in lower case, with dots between them and none at the end.
pub fn key(name: &Name) -> String {
    let labels: Vec<_> = name.iter().map(String::from_utf8_lossy).collect();
    labels.join(".").to_lowercase()
}

/// An absolute name; its labels may hold anything but dots.
pub fn name(text: &str) -> Name {
    let labels = text.split('.').filter(|label| !label.is_empty());
    Name::from_labels(labels.map(str::as_bytes)).unwrap()
}

impl Dns {
    pub async fn start(script: Script) -> Self {
        let script = Arc::new(script);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = UdpSocket::bind(address).await.unwrap();
        let queries = Arc::new(AtomicUsize::new(0));
        let (counter, answers) = (Arc::clone(&queries), Arc::clone(&script));
        let udp = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((count, peer)) = socket.recv_from(&mut buffer).await {
                counter.fetch_add(1, Ordering::Relaxed);
                if let Some(mut answer) = answer(&buffer[..count], &answers) {
                    let whole = answer.to_vec().unwrap();
                    if whole.len() > 512 {
                        answer.answers.clear();
                        answer.metadata.truncation = true;
                    }
                    let _ = socket.send_to(&answer.to_vec().unwrap(), peer).await;
                }
            }
        });
        let tcp = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&script)));
            }
        });
        Self {
            address,
            queries,
            tasks: [udp.abort_handle(), tcp.abort_handle()],
        }
    }

    /// Queries over UDP so far.
    pub fn queries(&self) -> usize {
        self.queries.load(Ordering::Relaxed)
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Script>) -> Option<()> {
    loop {
        let length = stream.read_u16().await.ok()?;
        let mut query = vec![0; usize::from(length)];
        stream.read_exact(&mut query).await.ok()?;
        let answer = answer(&query, &script)?.to_vec().ok()?;
        stream.write_u16(answer.len() as u16).await.ok()?;
        stream.write_all(&answer).await.ok()?;
    }
}

fn has(said: &[Said], kind: RecordType) -> bool {
    said.iter()
        .any(|one| matches!(one, Said::Record(data) if data.record_type() == kind))
}

/// Follows CNAMEs within the script (RFC 1034 4.3.2).
fn answer(query: &[u8], script: &Script) -> Option<Message> {
    let query = Message::from_vec(query).ok()?;
    let question = query.queries.first()?.clone();
    let kind = question.query_type();
    let mut response = query.into_response();
    response.metadata.recursion_available = true;
    let mut asked = question.name().clone();
    for _ in 0..10 {
        let Some(said) = script.get(&key(&asked)) else {
            response.metadata.response_code = ResponseCode::NXDomain;
            return Some(response);
        };
        let mut alias = None;
        let ttl = said.iter().find_map(|one| match one {
            Said::Ttl(seconds) => Some(*seconds),
            _ => None,
        });
        for one in said {
            match one {
                Said::Silence(None) => return None,
                Said::Silence(Some(silent)) if *silent == kind => return None,
                Said::Silence(_) => {}
                Said::Otherwise if has(said, kind) => {}
                Said::Otherwise => return None,
                Said::Ttl(_) => {}
                Said::Failure => response.metadata.response_code = ResponseCode::ServFail,
                Said::Record(data) if data.record_type() == kind => {
                    let record = Record::from_rdata(asked.clone(), ttl.unwrap_or(60), data.clone());
                    response.answers.push(record);
                }
                Said::Record(RData::CNAME(target)) => alias = Some(target.0.clone()),
                Said::Record(_) => {}
            }
        }
        match alias {
            Some(target) => {
                let data = RData::CNAME(CNAME(target.clone()));
                response.answers.push(Record::from_rdata(asked, 60, data));
                asked = target;
            }
            None => return Some(response),
        }
    }
    Some(response)
}
