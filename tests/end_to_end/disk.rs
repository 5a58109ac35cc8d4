//! A full disk costs only the cache and log lines, and an invalid cache only time.

use std::{collections::BTreeSet, process::Stdio};

use tokio::process::Command;

use crate::common::site::{Running, Site, until};

/// The daemon, started by a shell that first runs something else.
fn after(site: &Site, first: &str) -> Command {
    let config = site.write_config(&site.config(""));
    let mut command = Command::new("sh");
    command.env_clear().env("NOMAD_ADDR", &site.nomad).env("PATH", "/usr/bin:/bin");
    command.arg("-c").arg(format!("{first}; exec \"$0\" \"$@\"")).arg(env!("CARGO_BIN_EXE_githubrunner"));
    command.arg("-c").arg(config).arg("run").stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Two jobs are served and nothing is left of them.
async fn serves(site: &Site) {
    for _ in 0..2 {
        let job = site.queue(&["nomadtools"], 100);
        site.served(job).await;
    }
    until(site, "nothing is left", || site.is_clean()).await;
}

#[tokio::test]
async fn it_works_when_no_file_can_grow() {
    let site = Site::start().await;
    let before = "{\"version\": 0}";
    std::fs::write(site.cache_file(), before).unwrap();
    // Every write to a file fails, as on a full disk; with the signal ignored, the program gets an error.
    let daemon = Running::spawn(after(&site, "trap '' XFSZ; ulimit -f 0"));
    serves(&site).await;
    let warnings = daemon.lines_with("cannot write the cache file");
    assert_eq!(warnings.len(), 1, "{}", daemon.log().join("\n"));
    daemon.end().await;
    assert_eq!(std::fs::read_to_string(site.cache_file()).unwrap(), before);
    let beside = std::fs::read_dir(site.cache_file().parent().unwrap()).unwrap();
    let names: BTreeSet<_> = beside.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names, BTreeSet::from(["cache.json".to_owned(), "config.yml".to_owned()]));
}

#[tokio::test]
async fn it_works_when_the_log_cannot_be_written() {
    let site = Site::start().await;
    let mut command = after(&site, "exec 2>/dev/full");
    let mut daemon = command.spawn().unwrap();
    serves(&site).await;
    assert!(daemon.try_wait().unwrap().is_none(), "the daemon goes on");
    daemon.kill().await.unwrap();
}

#[tokio::test]
async fn an_invalid_cache_is_ignored_and_replaced() {
    let other_version = "{\"version\": 9999, \"entries\": []}";
    let not_text: &[u8] = &[0xff, 0, 0xfe, 7];
    for of_no_use in [b"{\"version\": 1, \"entries\": [{" as &[u8], not_text, other_version.as_bytes()] {
        let site = Site::start().await;
        std::fs::write(site.cache_file(), of_no_use).unwrap();
        let daemon = site.run(&site.config(""));
        serves(&site).await;
        let warnings = daemon.lines_with("ignoring the cache file");
        assert_eq!(warnings.len(), 1, "{}", daemon.log().join("\n"));
        daemon.end().await;
        assert_ne!(std::fs::read(site.cache_file()).unwrap(), of_no_use);
    }
}

#[tokio::test]
async fn an_invalid_cache_directory_costs_only_the_cache() {
    let site = Site::start().await;
    let file = site.cache_file();
    std::fs::create_dir(&file).unwrap();
    let daemon = site.run(&site.config(""));
    serves(&site).await;
    assert_eq!(daemon.lines_with("cannot write the cache file").len(), 1);
    daemon.end().await;
}
