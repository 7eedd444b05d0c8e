//! What a client that misbehaves meets, who is spared it, and what changes under stress; with the clock paused.

use super::*;

/// Decides by address, and as it is told to about the connection.
struct Guarded {
    decider: Decider,
    exempt: bool,
    /// Said for the greeting, after the wait.
    greeting: Result<(), Reply>,
    start_tls: Result<(), Reply>,
}

impl Guarded {
    fn new() -> Self {
        Self {
            decider: Decider::new(Protocol::Smtp),
            exempt: false,
            greeting: Ok(()),
            start_tls: Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl Handler for Guarded {
    fn is_exempt(&self) -> bool {
        self.exempt
    }

    async fn screen(&mut self, _: &Facts) -> Option<Screening> {
        Some(Screening {
            teaser: Some("mx.example".into()),
            over: Box::pin(tokio::time::sleep(Duration::from_secs(6))),
        })
    }

    async fn waited(&mut self, _: &Facts) -> Result<(), Reply> {
        self.greeting.clone()
    }

    async fn start_tls(&mut self, _: &Facts) -> Result<(), Reply> {
        self.start_tls.clone()
    }

    async fn mail(
        &mut self,
        facts: &Facts,
        reverse_path: &ReversePath,
        parameters: &MailParameters,
        size: Option<u64>,
    ) -> Result<(), Reply> {
        let Self { decider, .. } = self;
        decider.mail(facts, reverse_path, parameters, size).await
    }

    async fn rcpt(
        &mut self,
        facts: &Facts,
        envelope: &Envelope,
        recipient: &Recipient,
    ) -> Result<(), Reply> {
        self.decider.rcpt(facts, envelope, recipient).await
    }

    async fn message(
        &mut self,
        facts: &Facts,
        envelope: &Envelope,
        message: Bytes,
        presence: &Presence,
    ) -> Vec<Reply> {
        let Self { decider, .. } = self;
        decider.message(facts, envelope, message, presence).await
    }
}

fn stress(now: watch::Receiver<bool>) -> Stress {
    Stress {
        now,
        command: Duration::from_secs(10),
        data_block: Duration::from_secs(10),
        handshake: Duration::from_secs(10),
        errors_max: 1,
        junk_commands_max: 1,
    }
}

/// Settings that are, or will be, under stress.
fn under(now: watch::Receiver<bool>) -> Settings {
    let mut settings = smtp();
    settings.guard.stress = Some(stress(now));
    settings
}

/// A client that has waited longer than stress allows is left about at once.
const HURRIED: Duration = Duration::from_secs(2);

#[tokio::test(start_paused = true)]
async fn the_replies_to_many_errors_wait() {
    let mut settings = smtp();
    settings.guard.errors_soft = 3;
    settings.guard.error_delay = Duration::from_secs(1);
    settings.errors_max = 9;
    let mut served = serve_smtp(settings);
    served.say("", "220").await;
    let began = Instant::now();
    for _ in 0..3 {
        served.say("WHAT\r\n", "500").await;
    }
    assert_eq!(began.elapsed().as_secs(), 0);
    served.say("WHAT\r\n", "500").await;
    assert_eq!(began.elapsed().as_secs(), 1);
    served.say("NOOP\r\n", "250").await;
    assert_eq!(began.elapsed().as_secs(), 1, "no error, no wait");
    // In a group each counts.
    served.say("EHLO x\r\n", "250 ").await;
    served.say("WHAT\r\nWHAT\r\nWHAT\r\nNOOP\r\n", "250").await;
    assert_eq!(began.elapsed().as_secs(), 4);
    served.say("WHAT\r\nWHAT\r\n", "421 4.7.0").await;
    assert_eq!(served.ending().await, Ending::Errors);
}

#[tokio::test(start_paused = true)]
async fn under_stress_deadlines_are_short_and_one_error_is_enough() {
    let (stress, now) = watch::channel(false);
    let mut settings = under(now);
    settings.guard.errors_soft = 0;
    settings.guard.error_delay = Duration::from_secs(1);
    let mut waiting = serve_smtp(settings.clone());
    waiting.say("", "220").await;
    let mut erring = serve_smtp(settings);
    erring.say("WHAT\r\n", "500").await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    stress.send_replace(true);
    let began = Instant::now();
    assert!(waiting.rest().await.starts_with("421 4.4.2 "));
    assert!(began.elapsed() <= HURRIED, "it had waited long enough");
    let mut erring_again = serve_smtp(under(stress.subscribe()));
    erring_again.say("", "220").await;
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(9)).await;
    erring_again.say("NOOP\r\n", "250").await;
    erring_again.say("WHAT\r\n", "421 4.7.0").await;
    assert_eq!(began.elapsed().as_secs(), 9, "nobody is made to wait");
    assert_eq!(erring_again.ending().await, Ending::Errors);
}

#[tokio::test(start_paused = true)]
async fn stress_hurries_who_is_silent_in_a_message_or_does_not_read() {
    let (stress, now) = watch::channel(false);
    let mut sending = serve_smtp(under(now.clone()));
    sending.say("HELO x\r\n", "250").await;
    sending
        .say("MAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n", "354")
        .await;
    // Its replies fill the stream, and it takes none.
    let mut deaf = serve_smtp(under(now));
    deaf.say("", "220").await;
    let help = "HELP\r\n".repeat(8000);
    deaf.stream.write_all(help.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!sending.ending.is_finished() && !deaf.ending.is_finished());
    stress.send_replace(true);
    let began = Instant::now();
    assert_eq!(deaf.ending.await.unwrap(), Ending::TimedOut);
    assert!(began.elapsed() <= HURRIED, "{:?}", began.elapsed());
    assert!(sending.rest().await.starts_with("421 4.4.2 "));
    assert!(began.elapsed() <= HURRIED, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_handshake_under_stress_has_less_time() {
    let (stress, now) = watch::channel(true);
    let mut settings = under(now);
    settings.tls = Some(testing::certificate().0);
    let mut served = serve_smtp(settings);
    served.say("STARTTLS\r\n", "220 2.0.0").await;
    let began = Instant::now();
    assert_eq!(served.rest().await, "");
    assert_eq!(began.elapsed().as_secs(), 10);
    drop(stress);
}

#[tokio::test(start_paused = true)]
async fn too_many_commands_that_bring_no_message_are_errors() {
    let mut settings = smtp();
    settings.errors_max = 2;
    settings.guard.junk_commands_max = 4;
    let mut served = serve_smtp(settings.clone());
    served.say("EHLO x\r\n", "250 ").await;
    served
        .say("NOOP\r\nRSET\r\nVRFY a\r\nHELP\r\n", "214")
        .await;
    // A message makes good what was wasted before it.
    served
        .say("MAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n", "354")
        .await;
    served.say(".\r\n", "250 2.0.0").await;
    served.say("EHLO x\r\n", "250 ").await;
    for junk in ["RSET\r\n", "NOOP\r\n", "HELP\r\n"] {
        served.say(junk, "2").await;
    }
    served.say("NOOP\r\n", "250").await;
    served.say("NOOP\r\n", "250").await;
    assert!(served.rest().await.starts_with("421 4.7.0 "));
    assert_eq!(served.ending().await, Ending::Errors);

    let (_stress, now) = watch::channel(true);
    settings.guard.stress = Some(stress(now));
    let mut stressed = serve_smtp(settings);
    stressed.say("EHLO x\r\n", "250 ").await;
    stressed.say("NOOP\r\n", "250").await;
    stressed.say("NOOP\r\n", "250").await;
    assert!(stressed.rest().await.starts_with("421 4.7.0 "));
}

#[tokio::test(start_paused = true)]
async fn who_is_exempt_may_err() {
    let (_stress, now) = watch::channel(true);
    let mut settings = under(now);
    settings.errors_max = 2;
    settings.guard.errors_soft = 0;
    settings.guard.error_delay = Duration::from_secs(1);
    settings.guard.junk_commands_max = 2;
    let mut served = serve_with(
        settings,
        Guarded {
            exempt: true,
            ..Guarded::new()
        },
    );
    served.say("", "220 ").await;
    let began = Instant::now();
    for _ in 0..30 {
        served.say("WHAT\r\n", "500").await;
        served.say("NOOP\r\n", "250").await;
    }
    assert_eq!(began.elapsed().as_secs(), 0, "nor does it wait");
    served.say("QUIT\r\n", "221").await;
    assert_eq!(served.ending().await, Ending::Quit);
}

#[tokio::test(start_paused = true)]
async fn who_waited_may_be_shown_out_all_the_same() {
    let began = Instant::now();
    let mut served = serve_with(
        smtp(),
        Guarded {
            greeting: Err(Reply::new(521, (5, 3, 2), "listed")),
            ..Guarded::new()
        },
    );
    let said = served.rest().await;
    assert_eq!(said, "220-mx.example\r\n521 5.3.2 listed\r\n");
    assert_eq!(began.elapsed().as_secs(), 6);
    assert_eq!(served.ending().await, Ending::Refused);
    // At RCPT too it is said for the whole connection.
    let mut served = serve_smtp(smtp());
    served.say("HELO x\r\n", "250").await;
    served.say("MAIL FROM:<>\r\n", "250 2.1.0").await;
    served
        .say("RCPT TO:<521-a@example.org>\r\nNOOP\r\n", "521 5.7.1")
        .await;
    assert_eq!(served.rest().await, "");
    assert_eq!(served.ending().await, Ending::Refused);
}

#[tokio::test(start_paused = true)]
async fn a_refused_starttls_leaves_the_session_in_the_clear() {
    let mut settings = smtp();
    settings.tls = Some(testing::certificate().0);
    let mut served = serve_with(
        settings,
        Guarded {
            start_tls: Err(Reply::new(454, (4, 7, 0), "too many")),
            ..Guarded::new()
        },
    );
    served.say("EHLO x\r\n", "250 ").await;
    served.say("STARTTLS\r\n", "454 4.7.0").await;
    served.say("MAIL FROM:<>\r\n", "250 2.1.0").await;
    served.say("QUIT\r\n", "221").await;
    assert_eq!(served.ending().await, Ending::Quit);
}
