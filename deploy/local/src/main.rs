//! `make run`: starts a whole site under `run/`, shows a line for each mail until ^C, and leaves no process behind.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use local::watch::{Follower, Watch};
use local::{Layout, Options, Scanning, Site, configs};
use tokio::signal::unix::{SignalKind, signal};

/// How often the logs are looked at.
const LOOK: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
        let mut hangup = signal(SignalKind::hangup()).map_err(|error| error.to_string())?;
        // Starting blocks; on its own thread, so that ^C is heard meanwhile. The site is handed back to be stopped here.
        let starting = tokio::task::spawn_blocking(start);
        let mut site = starting.await.map_err(|error| error.to_string())??;
        let watching = show(&site);
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            () = watching => {}
        }
        println!("stopping");
        tokio::task::spawn_blocking(move || site.stop_all())
            .await
            .map_err(|error| error.to_string())
    })
}

fn start() -> Result<Site, String> {
    let binaries = std::env::current_exe()
        .ok()
        .and_then(|path| path.parent().map(Path::to_owned))
        .ok_or("cannot tell where the programs are")?;
    let root = std::env::args()
        .nth(1)
        .map_or_else(|| PathBuf::from("run"), PathBuf::from);
    let root =
        std::path::absolute(&root).map_err(|error| format!("{}: {error}", root.display()))?;
    let mut site = Site::new(
        &root,
        Options {
            binaries,
            layout: Layout::Documented,
            scanners: 2,
            scanning: Scanning::Real { children: 2 },
            tls: true,
            json_logs: true,
            overrides: Vec::new(),
            by_dns: false,
            sink: Vec::new(),
        },
    )?;
    println!(
        "starting spamd, clamd, a sink, listserv, two scanners, balancer and mx-edge under {}",
        root.display()
    );
    site.start_all()?;
    let door = site.address("mx-edge");
    println!("ready");
    println!(
        "  first mail:  swaks --server {door} --from you@sender.example --to {}",
        configs::LIST
    );
    println!("  arrives in:  {}", site.root().join("mail").display());
    println!("  logs in:     {}", site.root().join("log").display());
    println!("  ^C stops all");
    Ok(site)
}

/// Prints a line for each mail; ends never.
async fn show(site: &Site) {
    let mut followers: Vec<Follower> = site
        .programs()
        .iter()
        .map(|name| Follower::new(&site.log_file(name)))
        .collect();
    let mut watch = Watch::default();
    loop {
        for event in followers
            .iter_mut()
            .flat_map(Follower::events)
            .collect::<Vec<_>>()
        {
            watch.take(&event);
        }
        for line in watch.lines() {
            println!("{line}");
        }
        tokio::time::sleep(LOOK).await;
    }
}
