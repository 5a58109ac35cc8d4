//! The page and the API: what they show, to whom, and how a browser handles it, in a world with hostile external text.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "page/browser.rs"]
mod browser;
#[path = "page/world.rs"]
mod world;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use githubrunner::{
    secret::Secret,
    status::{Access, Status, serve},
    text::is_harmful,
};
use serde_json::Value;

/// The longest wait for a response.
const WITHIN: Duration = Duration::from_secs(20);

/// Serves a status on a separate thread, until the process ends.
fn served(status: &Status) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let (address, status) = (listener.local_addr().unwrap(), status.clone());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { serve(tokio::net::TcpListener::from_std(listener).unwrap(), status).await });
    });
    address
}

fn status(access: Access) -> (Status, SocketAddr) {
    let status = Status::new(Duration::from_secs(60));
    status.open_to(access);
    let address = served(&status);
    (status, address)
}

fn open(address: SocketAddr, path: &str, more: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WITHIN)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\n{more}\r\n").unwrap();
    stream
}

/// The head and the body of a response.
fn get(address: SocketAddr, path: &str, more: &str) -> (String, String) {
    let mut answer = String::new();
    open(address, path, more).read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

fn state(address: SocketAddr) -> Value {
    let (head, body) = get(address, "/api/v1/state", "");
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: application/json"), "{head}");
    assert!(!body.chars().any(is_harmful), "{body}");
    serde_json::from_str(&body).unwrap()
}

fn schema() -> jsonschema::Validator {
    let schema = std::fs::read_to_string("docs/state.schema.json").unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
}

#[test]
fn the_state_fits_its_schema_with_hostile_text() {
    let (status, address) = status(Access::Local);
    let schema = schema();
    let check = |state: &Value| {
        let wrong: Vec<String> =
            schema.iter_errors(state).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    };
    let before = state(address);
    check(&before);
    assert_eq!((&before["revision"], &before["last_pass"]), (&Value::from(0), &Value::Null));
    status.classes(["small"].into_iter());
    world::hostile().tell(&status);
    let after = state(address);
    check(&after);
    assert_eq!(after["jobs"]["queued"], 1000);
    let classes = serde_json::json!([
        {"name": "small", "queued": 0, "held": 0, "running": 0, "runners": 0},
        {"name": "gpu", "queued": 200, "held": 0, "running": 0, "runners": 500},
    ]);
    assert_eq!(after["classes"], classes, "what a Meta says besides is none");
    assert_eq!(after["jobs"]["waiting"]["items"].as_array().unwrap().len(), 200);
    // A URL that is not a web page is omitted.
    let links = after["jobs"]["waiting"]["items"].as_array().unwrap().iter();
    assert!(links.clone().all(|job| job["url"].is_null()), "{:?}", links.clone().next());
    let text = after.to_string();
    assert!(!text.contains("ghp_aaa") && text.len() < 1_000_000, "{}", text.len());
    // A working day has the other values.
    let (day, address) = self::status(Access::Local);
    world::working_day(&day);
    let day = state(address);
    check(&day);
    assert_eq!(day["jobs"]["running"], 6);
    let points = day["history"]["points"].as_array().unwrap();
    assert_eq!(points.len(), 60);
    assert_eq!(
        (&points[59]["taken"], &points[59]["queue_p95_seconds"]),
        (&Value::from(6), &Value::from(31.0))
    );
    assert!(day["history"]["queue_p50_seconds"].is_number());
    let why = &day["jobs"]["waiting"]["items"][0]["reason"];
    assert_eq!(
        (&why["word"], &why["text"]),
        (&Value::from("unplaced"), &Value::from("Nomad cannot place it: memory exhausted on 3 nodes"),)
    );
    let mut wrong = day;
    wrong["jobs"]["waiting"]["items"][0]["state"] = Value::from("lost");
    assert!(!schema.is_valid(&wrong), "the schema takes everything");
}

#[test]
fn external_text_is_never_html() {
    let (status, address) = status(Access::Local);
    let (_, empty) = get(address, "/", "");
    world::hostile().tell(&status);
    let (head, page) = get(address, "/", "");
    assert!(
        head.starts_with("http/1.1 200") && head.contains("content-type: text/html; charset=utf-8"),
        "{head}"
    );
    assert!(
        head.contains("content-security-policy: default-src 'none'; style-src 'self'; script-src 'self'"),
        "{head}"
    );
    assert!(!page.chars().any(|c| is_harmful(c) && c != '\n'), "harmful characters");
    // Compares the page's elements: it has those of a page without external text, and more of some of them.
    let elements = |page: &str| -> std::collections::BTreeSet<String> {
        let tags = page.split('<').skip(1);
        tags.map(|tag| tag.chars().take_while(|c| !c.is_whitespace() && *c != '>').collect()).collect()
    };
    let known: std::collections::BTreeSet<String> =
        ["table", "thead", "tbody", "tr", "th", "td", "meter", "li", "p", "span", "ul", "strong", "time"]
            .iter()
            .flat_map(|name| [(*name).to_owned(), format!("/{name}")])
            .chain(elements(&empty))
            .collect();
    let unknown: Vec<String> = elements(&page).difference(&known).cloned().collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert_eq!(page.matches("<script").count(), 1);
    let links: Vec<&str> =
        page.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(links, ["icon.svg", "style.css", "api/v1/state", "metrics"]);
    // All of it is there, as text.
    assert!(page.contains("&lt;script&gt;alert(1)") && page.contains("800 more"), "{page}");
}

#[test]
fn the_page_is_complete_without_javascript() {
    let (status, address) = status(Access::Local);
    world::working_day(&status);
    let (_, page) = get(address, "/", "");
    for text in [
        "Nomad cannot place it: memory exhausted on 3 nodes",
        "waiting for a place: scheduler.max_runners_per_repository is 8",
        "1m35s",
        "4211 of 5000",
        "out of memory",
        "client-2",
        "<noscript><meta http-equiv=\"refresh\"",
        "href=\"https:&#x2f;&#x2f;github.com&#x2f;acme&#x2f;widgets&#x2f;actions&#x2f;runs&#x2f;1&#x2f;job&#x2f;20\"",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(page.matches("<path class=\"a\" d=\"M").count() == 2, "both charts are drawn: {page}");
}

#[test]
fn page_and_api_are_protected_and_health_and_metrics_are_open() {
    let code = |address, path: &str, more: &str| get(address, path, more).0[9..12].to_owned();
    let token = "0123456789abcdef";
    let (_, closed) = status(Access::Closed);
    let (_, asking) = status(Access::Token(Secret::new(token)));
    let (_, public) = status(Access::Public);
    for address in [closed, asking, public] {
        assert_eq!(code(address, "/healthz", ""), "200");
        assert_eq!(code(address, "/readyz", ""), "503");
        assert_eq!(code(address, "/metrics", ""), "200");
    }
    for path in ["/", "/api/v1/state", "/api/v1/events"] {
        assert_eq!(code(closed, path, ""), "403");
        assert_eq!(code(asking, path, ""), "401");
        // A token in a URL would end up in histories and logs.
        assert_eq!(code(asking, &format!("{path}?token={token}"), ""), "401");
        assert_eq!(code(asking, path, "authorization: Bearer 0123456789abcdee\r\n"), "401");
    }
    for path in ["/", "/api/v1/state"] {
        assert_eq!(code(asking, path, &format!("authorization: Bearer {token}\r\n")), "200");
        assert_eq!(code(public, path, ""), "200");
    }
    assert!(get(asking, "/", "").0.contains("www-authenticate: basic"), "a browser asks for it");
    assert_eq!(code(public, "/nothing", ""), "404");
}

#[test]
fn metrics_have_the_requested_format() {
    let (_, address) = status(Access::Closed);
    let (head, page) =
        get(address, "/metrics", "accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n");
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{head}"
    );
    assert!(page.ends_with("# EOF\n"));
    let (head, page) = get(address, "/metrics", "accept: */*\r\n");
    assert!(
        head.contains("content-type: text/plain; version=0.0.4; charset=utf-8") && !page.contains("# EOF")
    );
}

/// The data of a stream's next event.
fn event(stream: &mut BufReader<TcpStream>) -> Value {
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(stream.read_line(&mut line).unwrap(), 0, "the stream has ended");
        if let Some(data) = line.strip_prefix("data: ") {
            return serde_json::from_str(data).unwrap();
        }
    }
}

#[test]
fn an_event_comes_at_once_and_after_each_pass() {
    let (status, address) = status(Access::Local);
    let mut stream = BufReader::new(open(address, "/api/v1/events", ""));
    assert_eq!(event(&mut stream)["queued"], 0);
    world::working_day(&status);
    assert_eq!(event(&mut stream)["queued"], 4);
}

#[test]
fn streams_are_limited_and_do_not_block_health_checks() {
    let (_, address) = status(Access::Local);
    let mut streams = Vec::new();
    let refused = (0..100).find(|_| {
        let mut stream = BufReader::new(open(address, "/api/v1/events", ""));
        let mut head = String::new();
        stream.read_line(&mut head).unwrap();
        let is_refused = head.starts_with("HTTP/1.1 503");
        streams.push(stream);
        is_refused
    });
    assert!(refused.is_some_and(|number| number < 32), "{refused:?}");
    assert!(get(address, "/healthz", "").0.starts_with("http/1.1 200"));
    // A closed stream makes room for another.
    let last = streams.len() - 1;
    streams.remove(last);
    streams.remove(0);
    let deadline = std::time::Instant::now() + WITHIN;
    loop {
        let mut stream = BufReader::new(open(address, "/api/v1/events", ""));
        let mut head = String::new();
        stream.read_line(&mut head).unwrap();
        if head.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "no stream ends: {head}");
        std::thread::yield_now();
    }
}

#[test]
fn a_browser_reports_no_errors_and_contacts_no_other_host() {
    for (name, dark, width) in [("wide and light", false, 1200), ("a phone in the dark", true, 390)] {
        let Some(mut browser) = browser::Browser::start() else { return };
        let (status, address) = status(Access::Local);
        world::hostile().tell(&status);
        browser.look_like(dark, width, 900);
        browser.visit(&format!("http://{address}/"));
        browser.until("the page is live", "document.getElementById('live').textContent === 'live'");
        let script = "document.querySelectorAll('script').length + ' ' + document.querySelectorAll('main img, main svg[onload]').length";
        assert_eq!(browser.ask(script), "1 0", "{name}");
        assert_eq!(
            browser.ask("String(document.documentElement.scrollWidth <= window.innerWidth)"),
            "true",
            "{name}: it has to be scrolled sideways"
        );
        // A pass comes by itself.
        let mut quiet = world::hostile();
        quiet.plan.actions.clear();
        quiet.tell(&status);
        browser.until("the next pass", "document.getElementById('plan').textContent.includes('0 actions')");
        let seen = browser.seen();
        assert_eq!(seen.complaints, Vec::<String>::new(), "{name}");
        let here = format!("http://{address}/");
        let elsewhere: Vec<&String> = seen.requests.iter().filter(|url| !url.starts_with(&here)).collect();
        assert!(elsewhere.is_empty(), "{name}: {elsewhere:?}");
        assert!(
            seen.requests.iter().any(|url| url.ends_with("/api/v1/events")),
            "{name}: {:?}",
            seen.requests
        );
    }
}

#[test]
fn a_browser_reports_violations_of_the_policy() {
    let Some(mut browser) = browser::Browser::start() else { return };
    let (_, address) = status(Access::Local);
    browser.visit(&format!("http://{address}/"));
    browser.until("the page is live", "document.getElementById('live').textContent === 'live'");
    assert!(browser.seen().complaints.is_empty());
    // The policy refuses all of these, and reports it.
    browser.ask("document.body.insertAdjacentHTML('beforeend', '<img src=http://evil.example/x.png>'); ''");
    browser.until_complaint("evil.example");
    browser.ask("setTimeout(() => { throw new Error('this one') }, 0); ''");
    browser.until_complaint("this one");
}

/// Screenshots: `GITHUBRUNNER_PICTURE=/tmp cargo test --test page picture`. `page.png` is the one in `docs`.
#[test]
fn a_picture_is_taken_on_request() {
    let Some(directory) = std::env::var_os("GITHUBRUNNER_PICTURE") else { return };
    let Some(mut browser) = browser::Browser::start() else { return };
    let (day, of_day) = status(Access::Local);
    world::working_day(&day);
    let (hostile, of_hostile) = status(Access::Local);
    world::hostile().tell(&hostile);
    for (name, address, dark, width) in [
        ("page", of_day, false, 1100),
        ("page-dark", of_day, true, 1100),
        ("page-phone", of_day, true, 390),
        ("hostile", of_hostile, false, 1100),
        ("hostile-phone", of_hostile, false, 390),
    ] {
        browser.look_like(dark, width, 900);
        browser.visit(&format!("http://{address}/"));
        browser.until("the page is live", "document.getElementById('live').textContent === 'live'");
        let picture = browser.picture();
        assert!(picture.starts_with(b"\x89PNG"));
        std::fs::write(std::path::Path::new(&directory).join(format!("{name}.png")), picture).unwrap();
    }
}
