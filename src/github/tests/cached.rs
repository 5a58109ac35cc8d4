use std::os::unix::fs::PermissionsExt;

use super::*;

struct Disk {
    directory: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("deep/cache.json")
    }

    fn github(&self, world: &World) -> GitHub {
        let options = Options { cache: CacheStore::File(self.path()), ..world.options() };
        world.github_with(Auth::Token(Secret::new(TOKEN)), options)
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_costs_nothing_when_nothing_changed() {
    let (world, disk) = (World::new(sim::Options::default()), Disk::new());
    let repository = world.repository("octo/app", 120, 1);
    let github = disk.github(&world);
    github.repositories(&[entry("octo")], Refresh::WhenDue).await;
    let first = github.list_jobs(&repository, Look::All).await.unwrap();
    github.end_pass().await;
    let text = std::fs::read_to_string(disk.path()).unwrap();
    assert!(!text.contains("MARKED"));
    assert_eq!(std::fs::metadata(disk.path()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(disk.path().parent().unwrap()).unwrap().count(), 1);

    world.requests();
    let github = disk.github(&world);
    github.repositories(&[entry("octo")], Refresh::WhenDue).await;
    let second = github.list_jobs(&repository, Look::All).await.unwrap();
    assert_eq!(first.jobs, second.jobs);
    let requests = world.requests();
    // Cached pages keep their links: the second page of runs is requested as well.
    assert_eq!(requests.len(), 3 + 7 + 120, "{requests:?}");
    assert!(requests.iter().all(|line| line.ends_with(" 304")), "{requests:?}");
    let entries = read_cache(&disk.path()).unwrap();
    assert!(
        entries.iter().any(|entry| entry.url.starts_with("http://host.test/repos/octo/app/actions/runs?"))
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_when_nothing_changed() {
    let (world, disk) = (World::new(sim::Options::default()), Disk::new());
    let repository = world.repository("octo/app", 1, 1);
    let github = disk.github(&world);
    github.list_jobs(&repository, Look::Active).await.unwrap();
    github.end_pass().await;
    std::fs::remove_file(disk.path()).unwrap();
    for _ in 0..5 {
        github.list_jobs(&repository, Look::Active).await.unwrap();
        github.end_pass().await;
        sleep(60).await;
    }
    assert!(!disk.path().exists());
    world.repository("octo/more", 1, 1);
    world.sim(|sim, now| {
        sim.queue_run(repository.id.0, vec![sim::JobSpec::new(&["a"], Duration::from_secs(1))], now)
    });
    github.list_jobs(&repository, Look::Active).await.unwrap();
    github.end_pass().await;
    assert!(disk.path().exists());
}

#[tokio::test(start_paused = true)]
async fn responses_for_another_token_are_not_used() {
    let (world, disk) = (World::new(sim::Options::default()), Disk::new());
    let repository = world.repository("octo/app", 1, 1);
    let github = disk.github(&world);
    github.list_jobs(&repository, Look::Active).await.unwrap();
    github.end_pass().await;
    world.sim(|sim, _| sim.add_token("other", sim::Token::classic("octo", &["repo"])));
    world.requests();
    let options = Options { cache: CacheStore::File(disk.path()), ..world.options() };
    let other = world.github_with(Auth::Token(Secret::new("other")), options);
    other.list_jobs(&repository, Look::Active).await.unwrap();
    assert!(world.requests().iter().all(|line| line.ends_with(" 200")));
}

#[tokio::test(start_paused = true)]
async fn unused_entries_are_dropped() {
    let (world, disk) = (World::new(sim::Options::default()), Disk::new());
    let (kept, dropped) = (world.repository("octo/kept", 1, 1), world.repository("octo/dropped", 1, 1));
    let github = disk.github(&world);
    github.list_jobs(&dropped, Look::Active).await.unwrap();
    for _ in 0..7 * 60 + 5 {
        github.list_jobs(&kept, Look::Active).await.unwrap();
        github.end_pass().await;
        sleep(60).await;
    }
    let entries = read_cache(&disk.path()).unwrap();
    assert_eq!(entries.len(), 4, "{entries:?}");
    assert!(entries.iter().all(|entry| entry.url.contains("kept")));
}

#[tokio::test(start_paused = true)]
async fn an_invalid_file_is_ignored_and_replaced() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 1, 1);
    let good = r#"{"url":"http://host.test/repos/octo/app/actions/runs?status=queued&per_page=100&exclude_pull_requests=true",
        "who":"token-1","etag":"x","value":{"nonsense":1}}"#;
    for text in [
        "",
        "nonsense",
        "{}",
        "[1,2]",
        r#"{"version":99,"entries":[]}"#,
        &format!(r#"{{"version":2,"entries":[{good}]}}"#),
    ] {
        let disk = Disk::new();
        std::fs::create_dir_all(disk.path().parent().unwrap()).unwrap();
        std::fs::write(disk.path(), text).unwrap();
        let github = disk.github(&world);
        assert_eq!(github.list_jobs(&repository, Look::Active).await.unwrap().jobs.len(), 1);
        github.end_pass().await;
        assert!(read_cache(&disk.path()).unwrap().len() >= 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_written_does_no_harm() {
    let (world, disk) = (World::new(sim::Options::default()), Disk::new());
    let repository = world.repository("octo/app", 1, 1);
    // A file in place of the directory: not even root can write below it.
    std::fs::write(disk.path().parent().unwrap(), "").unwrap();
    let github = disk.github(&world);
    for _ in 0..2 {
        github.list_jobs(&repository, Look::Active).await.unwrap();
        github.end_pass().await;
    }
    std::fs::remove_file(disk.path().parent().unwrap()).unwrap();
    github.end_pass().await;
    assert!(disk.path().exists());
}

#[tokio::test(start_paused = true)]
async fn a_cached_value_of_another_type_is_requested_again() {
    let (world, disk) = (World::new(sim::Options::default()), Disk::new());
    let repository = world.repository("octo/app", 1, 1);
    let github = disk.github(&world);
    github.list_jobs(&repository, Look::Active).await.unwrap();
    github.end_pass().await;
    let text = std::fs::read_to_string(disk.path()).unwrap();
    std::fs::write(disk.path(), text.replace("\"jobs\":", "\"jibs\":")).unwrap();
    world.requests();
    assert_eq!(disk.github(&world).list_jobs(&repository, Look::Active).await.unwrap().jobs.len(), 1);
    assert_eq!(world.requests().iter().filter(|line| line.ends_with(" 200")).count(), 1);
}

/// Lists something, so that there is something to write.
async fn listed_once(disk: &Disk) {
    let world = World::new(sim::Options::default());
    world.repository("octo/app", 1, 1);
    let github = disk.github(&world);
    github.repositories(&[entry("octo")], Refresh::Now).await;
    github.end_pass().await;
}

#[tokio::test(start_paused = true)]
async fn writing_does_not_follow_a_planted_link() {
    let file = Disk::new();
    let directory = file.path().parent().unwrap().to_owned();
    std::fs::create_dir_all(&directory).unwrap();
    let victim = directory.join("victim");
    std::fs::write(&victim, "precious").unwrap();
    let name = file.path().file_name().unwrap().to_string_lossy().into_owned();
    for link in [format!(".{name}.new"), format!("{name}.new"), name.clone()] {
        std::os::unix::fs::symlink(&victim, directory.join(link)).unwrap();
    }
    listed_once(&file).await;
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    assert!(!read_cache(&file.path()).unwrap().is_empty(), "the link itself was replaced");
    let mode = std::fs::metadata(file.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test(start_paused = true)]
async fn files_of_a_killed_process_are_removed_and_those_being_written_are_not() {
    let file = Disk::new();
    let directory = file.path().parent().unwrap().to_owned();
    std::fs::create_dir_all(&directory).unwrap();
    let name = file.path().file_name().unwrap().to_string_lossy().into_owned();
    let (old, new) = (directory.join(format!(".{name}.a1.new")), directory.join(format!(".{name}.b2.new")));
    std::fs::write(&new, "half").unwrap();
    let written = std::fs::File::create(&old).unwrap();
    written.set_modified(std::time::SystemTime::now() - Duration::from_secs(2 * 3600)).unwrap();
    listed_once(&file).await;
    assert_eq!((old.exists(), new.exists()), (false, true));
}

#[test]
fn only_a_regular_file_of_our_own_user_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    assert!(read_cache(&pipe).unwrap_err().contains("not a regular file"));
    assert!(read_cache(directory.path()).unwrap_err().contains("not a regular file"));
    let foreign = directory.path().join("foreign");
    std::fs::write(&foreign, r#"{"version": 2, "entries": []}"#).unwrap();
    assert!(read_cache(&foreign).unwrap().is_empty());
    match std::os::unix::fs::chown(&foreign, Some(12345), None) {
        Ok(()) => assert!(read_cache(&foreign).unwrap_err().contains("belongs to user 12345")),
        Err(error) => println!("skipped: a file of another user cannot be made: {error}"),
    }
}
