//! What `mx-edge dns` has the operator publish, held against openssl: a sender that believes it finds this edge.

use std::path::Path;
use std::process::Stdio;

use mx_edge::config::PublicCertificate;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::edge::Site;
use crate::inside::{Inside, Mode, PATIENCE};
use crate::killed::Program;

/// What openssl writes to stdout and stderr.
async fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(arguments).kill_on_drop(true);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("openssl is installed");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output());
    let output = output.await.unwrap().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {output:?}");
    match output.stdout.is_empty() {
        true => output.stderr,
        false => output.stdout,
    }
}

/// SHA-256 as hexadecimal digits.
async fn sha256(bytes: &[u8]) -> String {
    let said = openssl(&["dgst", "-sha256", "-r"], bytes).await;
    let said = String::from_utf8(said).unwrap();
    said.split_whitespace().next().unwrap().to_owned()
}

/// A certificate for mx1.example that signs itself, made by openssl.
async fn certificate(folder: &Path, algorithm: &[&str]) -> PublicCertificate {
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let mut arguments = vec!["req", "-x509", "-nodes", "-days", "2", "-newkey"];
    arguments.extend(algorithm);
    arguments.extend([
        "-subj",
        "/CN=mx1.example",
        "-addext",
        "subjectAltName=DNS:mx1.example",
    ]);
    arguments.extend([
        "-keyout",
        key.to_str().unwrap(),
        "-out",
        certificate.to_str().unwrap(),
    ]);
    openssl(&arguments, b"").await;
    PublicCertificate {
        certificate,
        key,
        more: Vec::new(),
    }
}

#[tokio::test]
async fn what_is_published_is_what_openssl_sees() {
    let inside = Inside::start(Mode::Listening).await;
    for algorithm in [
        &["rsa:2048"][..],
        &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
    ] {
        let mut site = Site::new(&inside);
        let folder = site.folder().to_owned();
        let public = certificate(&folder, algorithm).await;
        let path = public.certificate.to_str().unwrap().to_owned();
        site.config.tls = Some(public);
        let mut program = Program::new(&site);
        let said = program
            .ask(&[
                "dns",
                "--domain",
                "lists.example",
                "--mode",
                "enforce",
                "--report",
                "mailto:tls@lists.example",
            ])
            .await;
        assert!(said.status.success(), "{said:?}");
        let text = String::from_utf8(said.stdout).unwrap();

        // RFC 7672 3.1.1: the SHA-256 of the key, as openssl takes it out of the certificate.
        let key = openssl(&["x509", "-in", &path, "-pubkey", "-noout"], b"").await;
        let key = openssl(&["pkey", "-pubin", "-outform", "DER"], &key).await;
        let hash = sha256(&key).await;
        let line = format!("_25._tcp.mx1.example. IN TLSA 3 1 1 {hash}");
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");

        // RFC 8461: the policy as it is served, and a record whose id changes with it.
        let policy = text.lines().filter_map(|line| line.strip_prefix(";   "));
        let policy: String = policy.map(|line| format!("{line}\n")).collect();
        assert_eq!(
            policy,
            "version: STSv1\nmode: enforce\nmx: mx1.example\nmax_age: 604800\n"
        );
        let id = &sha256(policy.as_bytes()).await[..32];
        for line in [
            format!("_mta-sts.lists.example. IN TXT \"v=STSv1; id={id}\""),
            "_smtp._tls.lists.example. IN TXT \"v=TLSRPTv1; rua=mailto:tls@lists.example\"".into(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }

        // A sender that goes by the line reaches this edge, and by another one does not.
        let edge = program.start(&folder.join("log")).await.to_string();
        for (hash, expected) in [(hash.clone(), true), ("00".repeat(32), false)] {
            let rrdata = format!("3 1 1 {hash}");
            let mut command = Command::new("openssl");
            command.args([
                "s_client",
                "-brief",
                "-starttls",
                "smtp",
                "-verify_return_error",
            ]);
            command.args(["-connect", &edge, "-dane_tlsa_domain", "mx1.example"]);
            command
                .args(["-dane_tlsa_rrdata", &rrdata])
                .stdin(Stdio::null());
            let reached = tokio::time::timeout(PATIENCE, command.output())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(reached.status.success(), expected, "{rrdata}: {reached:?}");
        }
        program.kill().await;
    }
}
