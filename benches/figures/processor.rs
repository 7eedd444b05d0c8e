//! Processor time of this process, and waiting until it has nothing to do.

/// Processor time of this process, seconds.
pub fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = behind_name.split_whitespace().skip(11).take(2);
    ticks
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

/// Waits until this process has next to nothing to do; how long that took, seconds.
pub async fn quiet() -> f64 {
    let start = std::time::Instant::now();
    let mut before = processor_seconds();
    while start.elapsed().as_secs() < 60 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let now = processor_seconds();
        if now - before < 0.015 {
            break;
        }
        before = now;
    }
    start.elapsed().as_secs_f64()
}
