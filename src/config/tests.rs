//! Configurations as people write them, correct and incorrect.

use super::*;

fn no_env(_: &str) -> Option<String> {
    None
}

fn env(name: &str) -> Option<String> {
    match name {
        "GH_TOKEN" => Some("ghp_first".to_owned()),
        "GITHUB_TOKEN" => Some("ghp_second".to_owned()),
        "HOME" => Some("/home/me".to_owned()),
        _ => None,
    }
}

fn load(yaml: &str) -> Config {
    Config::load(&format!("{yaml}\n"), &env).unwrap_or_else(|errors| panic!("{yaml}: {errors}"))
}

fn errors(yaml: &str) -> String {
    match Config::load(&format!("{yaml}\n"), &no_env) {
        Ok(_) => panic!("no error: {yaml}"),
        Err(errors) => errors.to_string(),
    }
}

const REPOS: &str = "repos: [acme/widgets]\n";

fn load_more(yaml: &str) -> Config {
    load(&format!("{REPOS}{yaml}"))
}

fn more_errors(yaml: &str) -> String {
    errors(&format!("{REPOS}{yaml}"))
}

#[test]
fn nomadtools_defaults() {
    let config = load(REPOS);
    assert_eq!(config.nomad.namespace, "github");
    assert_eq!(config.nomad.jobprefix, "NTGithubRunner");
    assert_eq!(config.nomad.meta, "NOMADTOOLS");
    assert_eq!(config.github.url, "https://api.github.com");
    assert_eq!(config.github.token.unwrap().expose(), "ghp_first");
    assert_eq!(config.github.cachefile.to_str(), Some("/home/me/.cache/githubrunner/github.json"));
    assert_eq!(config.loop_interval, Duration::from_secs(60));
    assert_eq!(config.labels.to_string(), "nomadtools *(.*)");
    assert_eq!(config.template.name, "builtin:myoung34");
    let scheduler = config.scheduler;
    assert_eq!(scheduler.runner_inactivity_timeout, None);
    assert_eq!(scheduler.purge_successfull_timeout, Some(Duration::from_secs(600)));
    assert_eq!(scheduler.purge_failure_timeout, Some(Duration::from_secs(604_800)));
    assert_eq!(scheduler.pending_to_kill_listening, Some(Duration::from_secs(60)));
    assert_eq!((scheduler.max_runners, scheduler.strict), (None, false));
}

#[test]
fn the_effective_configuration() {
    let config = load(
        "nomad: {namespace: ci, jobprefix: gh}\n\
         github: {token: ghp_secret, access_token: ghp_other}\n\
         repos: [acme/widgets, acme, '*']\n\
         runson_limits: {cpu: 4000}\n\
         loop: 30\n\
         template_default_settings: {docker: dind, mem: 2000}\n\
         template_settings: {docker: host, ssh_password: hunter2, access_token: '{{ x }}'}\n\
         scheduler: {max_runners: 5, purge_failure_timeout: 1w2d3h, pending_to_kill_listening: ''}",
    );
    let yaml = config.effective(Format::Yaml);
    insta::assert_snapshot!("effective", yaml);
    // It can be read back, with the same result.
    assert_eq!(load(&yaml.replace("***", "ghp_secret")).effective(Format::Yaml), yaml);
    let json: serde_json::Value = serde_json::from_str(&config.effective(Format::Json)).unwrap();
    assert_eq!(json["scheduler"]["max_runners"], 5);
    for secret in ["ghp_secret", "ghp_other", "hunter2"] {
        assert!(!yaml.contains(secret) && !format!("{config:?}").contains(secret), "{secret}");
    }
}

#[test]
fn every_problem_is_reported_in_one_run() {
    let text = errors(
        r#"nomad:
  namespace: "*"
  jobprefix: "bad prefix"
  metta: x
github:
  tokn: ghp_x
  url: ftp://example.com
  scope: organisation
repos: []
runson_match: "("
runson_allowed: "[a-z{]"
runson_limits: {cpu: a lot}
loop: -5
loop: 7
template: ./nothing.j2
scheduler:
  purge_failure_timeout: 1 week
  max_runners: many
  max_runers: 4
  strict: maybe
  max_runners_per_group: -1
shedule: 1
"#,
    );
    insta::assert_snapshot!("every_problem", text);
}

#[test]
fn syntax_errors_give_the_position_and_what_to_do() {
    for (yaml, place, words) in [
        ("repos: [a/b", "configuration:2:1", "not YAML"),
        ("repos:\n  - *", "configuration:2:5", "put the * in quotes"),
        ("repos:\n\t- a/b", "configuration:2:", "not with tabs"),
        ("repos: [a/b]\n---\nrepos: [c/d]", "configuration:2:1", "one document"),
        ("repos: &x [*x]", "configuration:1:12", "inside its own anchor"),
        ("repos: !!python/object:os.system x", "configuration:1:8", "tag"),
        (
            "repos: !!python/object/apply:os.system [id]",
            "configuration:1:8",
            "tag !!python/object/apply:os.system",
        ),
        ("repos: [a/b]\nnomad: !!python/object:x {a: b}", "configuration:2:8", "tag"),
        ("repos: !!map [a/b]", "configuration:1:8", "tag"),
        (
            "!!python/object/apply:os.system repos: [a/b]",
            "configuration:1:",
            "tag !!python/object/apply:os.system",
        ),
        ("repos: [a/b]\nnomad: {!!int meta: x}", "configuration:2:", "tag !!int"),
        ("- a\n- b", "configuration:1:1", "expected a mapping, found a list"),
        ("{a: b}: c", "configuration:1:1", "as a key"),
    ] {
        let text = errors(yaml);
        assert!(text.contains(place), "{yaml}: {text}");
        assert!(text.contains(words), "{yaml}: {text}");
    }
}

#[test]
fn hostile_yaml_is_limited() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let item = format!("*a{}", n - 1);
        laughs.push_str(&format!("a{n}: &a{n} [{}]\n", vec![item; 10].join(", ")));
    }
    assert!(errors(&laughs).contains("too large after its aliases are expanded"));
    for deep in ["[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(50_000)] {
        assert!(errors(&deep).contains("configuration:1"), "{}", &deep[..10]);
    }
    assert!(errors(&format!("a: {}", "x".repeat(5 << 20))).contains("larger than 4 MiB"));
    for odd in [
        "\u{0}",
        "\u{feff}",
        "%YAML 9.9\n---\n",
        "? \n: \n",
        "<<: 1",
        "!<",
        "&",
        "*",
        "'",
        "\"\\",
        "|",
        ">-\n x",
        "a: !!int x",
    ] {
        let _ = Config::load(&format!("{odd}\n"), &no_env);
    }
}

#[test]
fn anchors_and_merges_work_as_in_pyyaml() {
    let config = load_more(
        "template_default_settings: &base\n  docker: dind\n  mem: 1\n\
         template_settings:\n  <<: *base\n  mem: 2\n  flag: yes\n  octal: 010\n  version: 1.10\n  text: '010'",
    );
    let settings = serde_json::Value::Object(config.settings);
    assert_eq!(settings["docker"], "dind");
    assert_eq!(settings["mem"], 2);
    assert_eq!(settings["flag"], true);
    assert_eq!(settings["octal"], 8);
    assert_eq!(settings["version"], 1.1);
    assert_eq!(settings["text"], "010");
}

#[test]
fn times_and_loops() {
    let scheduler =
        |text: &str| load_more(&format!("scheduler: {{runner_inactivity_timeout: {text}}}")).scheduler;
    assert_eq!(scheduler("''").runner_inactivity_timeout, None);
    assert_eq!(scheduler("~").runner_inactivity_timeout, None);
    assert_eq!(scheduler("90").runner_inactivity_timeout, Some(Duration::from_secs(90)));
    assert_eq!(load_more("scheduler: {purge_failure_timeout: }").scheduler.purge_failure_timeout, None);
    assert_eq!(load_more("loop: 0.5").loop_interval, Duration::from_millis(500));
    assert_eq!(load_more("loop: 5m").loop_interval, Duration::from_secs(300));
    for bad in ["0", "-1", "1e9", "[1]", "soon", ".inf", "99999999999999999999"] {
        assert!(more_errors(&format!("loop: {bad}")).contains(": loop: "), "{bad}");
    }
}

#[test]
fn entries_of_repos() {
    let entries = load("repos: [acme/widgets, acme/w.x_y-z, acme, '*', acme]").repos;
    let shown: Vec<String> = entries.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["acme/widgets", "acme/w.x_y-z", "acme", "*"]);
    assert_eq!(load("repos: acme").repos, [RepoEntry::Owner("acme".to_owned())]);
    for bad in ["a/b/c", "https://github.com/a/b", "a/..", "''", "a b", "1", "[x]", "a/"] {
        assert!(errors(&format!("repos: [{bad}]")).contains("write owner/name"), "{bad}");
    }
    for empty in ["", "repos:", "repos: []", "nomad: {}"] {
        assert!(errors(empty).contains("the list is empty"), "{empty}");
    }
}

#[test]
fn tokens_come_from_one_source() {
    let token = |yaml: &str| load_more(yaml).github.token.map(|token| token.expose().to_owned());
    assert_eq!(token("github: {token: ghp_mine}").as_deref(), Some("ghp_mine"));
    assert_eq!(token("github: {token: ''}").as_deref(), Some("ghp_first"));
    assert_eq!(token("github: {token_file: ~/token}"), None);
    assert_eq!(
        load_more("github: {token_file: ~/token}").github.token_file.unwrap().to_str(),
        Some("/home/me/token")
    );
    assert!(more_errors("github: {token: a, token_file: b}").contains("remove one of them"));
    let app = load_more("github: {app: {app_id: 12, private_key_file: key.pem}}").github;
    assert_eq!(app.token, None);
    assert_eq!(app.app.unwrap().issuer, "12");
    for bad in [
        "{}",
        "{client_id: a, app_id: 1, private_key: x}",
        "{client_id: a}",
        "{client_id: a, private_key: x, privat_key: y}",
    ] {
        assert!(more_errors(&format!("github: {{app: {bad}}}")).contains("github.app"), "{bad}");
    }
}

#[test]
fn addresses_of_github() {
    let url = |text: &str| load_more(&format!("github: {{url: '{text}'}}")).github.url;
    assert_eq!(url("https://ghe.example.com/api/v3/"), "https://ghe.example.com/api/v3");
    assert_eq!(url("github.com"), "https://github.com");
    assert_eq!(url("http://127.0.0.1:8080"), "http://127.0.0.1:8080");
    for bad in ["ftp://x", "https://", "https://me:pw@x", "https://x?y", "http://[", "unix:///x"] {
        assert!(more_errors(&format!("github: {{url: '{bad}'}}")).contains("github.url"), "{bad}");
    }
}

#[test]
fn templates_are_found_in_all_places() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("job.j2", "{{ RUN.CREDENTIALS }}");
    let load = |template: &str| {
        write("config.yml", &format!("{REPOS}template: {template}\n"));
        Config::load(directory.path().join("config.yml").to_str().unwrap(), &no_env)
    };
    // Relative to the configuration, because it is not in the working directory.
    assert_eq!(load("job.j2").unwrap().template.text, "{{ RUN.CREDENTIALS }}");
    assert_eq!(load("builtin:docker").unwrap().template.name, "builtin:docker");
    assert_eq!(load("'job \"x\" {}'").unwrap().template.name, "template");
    assert_eq!(load("|\n  one\n  two").unwrap().template.text, "one\ntwo\n");
    for (bad, words) in [
        ("other.j2", "does not exist"),
        ("builtin:lxc", "builtin:raw_exec"),
        (".", "directory"),
        ("[x]", "expected text"),
    ] {
        let text = load(bad).unwrap_err().to_string();
        assert!(text.contains(":2:11: template: ") && text.contains(words), "{bad}: {text}");
    }
    write("job.j2", "");
    std::fs::write(directory.path().join("job.j2"), [0xff, 0xfe]).unwrap();
    assert!(load("job.j2").unwrap_err().to_string().contains("UTF-8"));
}

#[test]
fn a_missing_file_is_reported() {
    let text = Config::load("/nonexistent/config.yml", &no_env).unwrap_err().to_string();
    assert!(text.starts_with("/nonexistent/config.yml: cannot be read: "), "{text}");
}

#[test]
fn auto_registration_is_what_the_template_reads() {
    let registration = |yaml: &str| load_more(yaml).registration();
    assert_eq!(registration(""), Registration::Token);
    assert_eq!(registration("template: builtin:docker"), Registration::Jit);
    assert_eq!(registration("template: builtin:raw_exec"), Registration::Jit);
    assert_eq!(registration("template: '{{ RUN.CREDENTIALS }}'"), Registration::Jit);
    for reads in [
        "{{ CONFIG.github.token }}",
        "{{ CONFIG['github'].token }}",
        "{{ CONFIG.get('github').get('access_token', 'x') }}",
        "{{ SETTINGS.access_token }}",
        "{{ CONFIG.github.token.strip() }}",
        "{% set g = CONFIG.github %}{{ g.token }}",
    ] {
        let yaml = format!("template: |\n  {reads}");
        assert_eq!(registration(&yaml), Registration::AccessToken, "{reads}");
        assert_eq!(load_more(&yaml).warnings().len(), 1, "{reads}");
    }
    // Only mentioned, not read.
    assert_eq!(
        registration("template: |\n  {# CONFIG.github.token #}{{ CONFIG.nomad.namespace }}"),
        Registration::Jit
    );
    // nomadtools' own default template uses it if it is set.
    let expression = "github: {access_token: '{{ with nomadVar \"x\" }}{{ .t }}{{ end }}'}";
    assert_eq!(registration(expression), Registration::AccessToken);
    assert_eq!(registration("template_settings: {access_token: x}"), Registration::AccessToken);
    assert_eq!(registration("github: {registration: token, access_token: x}"), Registration::Token);
    assert!(load_more("github: {registration: token, access_token: x}").warnings()[0].contains("not used"));
    assert!(load_more("").warnings().is_empty());
    let text = more_errors("template: builtin:docker\ngithub: {registration: token}");
    assert!(text.contains("configuration:3:24: github.registration: builtin:docker cannot"), "{text}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(words in proptest::collection::vec(word(), 0..40)) {
        let _ = Config::load(&format!("{}\n", words.concat()), &env);
    }
}

/// Parts of YAML and of configurations.
fn word() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    prop_oneof![
        proptest::sample::select(vec![
            "repos",
            "github",
            "token",
            "nomad",
            "loop",
            "template",
            "scheduler",
            "runson_match",
            ": ",
            "\n",
            "\n  ",
            "- ",
            "[",
            "]",
            "{",
            "}",
            ", ",
            "&a ",
            "*a",
            "<<: ",
            "!",
            "!!int ",
            "|\n",
            ">",
            "'",
            "\"",
            "\\",
            "#",
            "? ",
            "---\n",
            "...\n",
            "%",
            "\t",
            "1w",
            "-1",
            "0x",
            "~",
            "@",
            "`",
            "*",
            "builtin:",
            "{{",
            "}}",
            "(",
            "(?",
            "+",
        ])
        .prop_map(str::to_owned),
        ".{0,3}",
    ]
}

#[test]
fn no_secret_is_printed_wherever_it_is() {
    let pat = format!("ghp_{}", "Zq".repeat(18));
    let yaml = format!(
        "repos: [a/b]\ngithub: {{token: x, cachefile: /var/{pat}}}\ntemplate: |\n  job \"x\" {{ password = \"inline\"\n  env {{ A = \"{pat}\" }} }}\n\
         template_settings:\n  api_key: ZZKEY\n  pat: ZZPAT\n  registry: {{auth: [{{password: ZZNESTED}}], user: shown}}\n  \
         secrets: [ZZLISTED, {{any: ZZDEEP}}, 12345678]\n  extra_config: |\n    auth {{ password = \"ZZEXTRA\" }}\n    image = \"shown\"\n  image: shown:{pat}\n"
    );
    let config = load(&yaml);
    for format in [Format::Yaml, Format::Json] {
        let text = config.effective(format);
        for secret in ["ZZ", "inline", "12345678", pat.as_str()] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        assert!(text.matches("shown").count() >= 3, "{text}");
    }
}

#[test]
fn no_error_shows_a_token_in_the_wrong_place() {
    let pat = format!("ghp_{}", "Zq".repeat(18));
    for yaml in [
        format!("repos: [a/b]\n{pat}: 1\n"),
        format!("repos: [a/b]\ngithub:\n  registration: {pat}\n"),
        format!("repos: [a/b]\ngithub:\n  {pat}: x\n"),
        format!("repos: [a/b]\ntemplate: {pat}\n"),
        format!("repos: [\"{pat} x\"]\n"),
        format!("repos: [a/b]\nnomad:\n  namespace: {pat}\n"),
        pat.clone(),
        format!("/etc/{pat}"),
    ] {
        let errors = Config::load(&yaml, &|_| None).unwrap_err().to_string();
        assert!(!errors.contains("ZqZqZqZq"), "{errors}");
    }
}

#[test]
fn a_file_full_of_problems_gets_a_limited_report() {
    let yaml: String = (0..5000).map(|number| format!("unknown{number}: {}\n", "x".repeat(200))).collect();
    let text = Config::load(&yaml, &|_| None).unwrap_err().to_string();
    assert!(text.len() < 10_000, "{}", text.len());
    assert!(text.ends_with(" more problems"), "{text}");
}

#[test]
fn settings_that_belong_elsewhere_are_explained() {
    for (yaml, expected) in [
        ("github: {token: $GITHUB_TOKEN}", "from GITHUB_TOKEN"),
        ("github: {token: \"${MY_TOKEN}\"}", "from MY_TOKEN"),
        ("github: {access_token: \"env(PAT)\"}", "from PAT"),
        ("nomad: {address: http://x}", "NOMAD_ADDR"),
        ("nomad: {token: x}", "NOMAD_TOKEN"),
        ("nomad: {region: eu}", "NOMAD_REGION"),
    ] {
        let text = more_errors(yaml);
        assert!(text.contains(expected), "{yaml}: {text}");
    }
}

#[test]
fn a_token_from_the_environment_is_sent_only_to_its_own_hosts() {
    let load = |url: &str, variables: &[&'static str]| {
        let env = |name: &str| variables.contains(&name).then(|| name.to_lowercase());
        let yaml = format!("repos: [a/b]\ngithub: {{url: '{url}'}}\n");
        let config = Config::load(&yaml, &env).unwrap();
        (config.github.token.as_ref().map(|token| token.expose().to_owned()), config.warnings())
    };
    let all = ["GITHUB_TOKEN", "GH_TOKEN", "GITHUB_ENTERPRISE_TOKEN", "GH_ENTERPRISE_TOKEN"];
    for url in ["https://api.github.com", "github.com", "https://api.acme.ghe.com"] {
        assert_eq!(load(url, &all).0.as_deref(), Some("gh_token"), "{url}");
        assert_eq!(load(url, &["GITHUB_TOKEN"]).0.as_deref(), Some("github_token"), "{url}");
        let (token, warnings) = load(url, &["GH_ENTERPRISE_TOKEN"]);
        assert!(token.is_none() && warnings[0].contains("set GH_TOKEN"), "{url}: {warnings:?}");
    }
    for url in ["https://git.example.com/api/v3", "https://api.github.com.example.com", "https://evilghe.com"]
    {
        assert_eq!(load(url, &all).0.as_deref(), Some("gh_enterprise_token"), "{url}");
        assert_eq!(load(url, &all[..3]).0.as_deref(), Some("github_enterprise_token"), "{url}");
        let (token, warnings) = load(url, &all[..2]);
        assert!(token.is_none() && warnings[0].contains("set GH_ENTERPRISE_TOKEN"), "{url}: {warnings:?}");
    }
}

#[test]
fn a_custom_template_declares_its_numeric_keys() {
    let own = |more: &str| {
        let yaml = format!("repos: [a/b]\ntemplate: 'job {{ RUN.CREDENTIALS }}'\n{more}\n");
        Config::load(&yaml, &|_| None).unwrap().labels
    };
    assert!(own("").check(&["mem=16G"]).is_err());
    let labels = own("runson_numbers: [Disk]");
    for good in ["mem=16G", "cpu=0.5", "cpu=4+8", "disk=7"] {
        assert!(labels.check(&[good]).is_ok(), "{good}");
    }
    assert!(labels.check(&["disk=7G"]).is_err());
    // A limit requires a number.
    assert!(own("runson_numbers: []\nrunson_limits: {mem: 5}").check(&["mem=1G"]).is_err());
    let errors = |yaml: &str| Config::load(yaml, &|_| None).unwrap_err().to_string();
    let bundled = errors("repos: [a/b]\nrunson_numbers: [mem]\n");
    assert!(bundled.contains("read cpu as a number"), "{bundled}");
    assert!(errors("repos: [a/b]\nrunson_numbers: mem\n").contains("expected a list"));
}

#[test]
fn a_template_that_reads_no_token_causes_no_warning() {
    let warnings = |template: &str| {
        let yaml = format!(
            "repos: [a/b]\ngithub: {{registration: access_token, token: x}}\ntemplate: '{template}'\n"
        );
        Config::load(&yaml, &|_| None).unwrap().warnings()
    };
    assert_eq!(warnings("job \"x\" {}"), Vec::<String>::new());
    let warned = warnings("job {{ CONFIG.github.token }}");
    assert!(
        warned[0].starts_with("the template in the configuration, line 3 puts a long-lived token"),
        "{warned:?}"
    );
    assert_eq!(warnings("job {{ RUN.CREDENTIALS }}").len(), 1);
}

#[test]
fn webhooks() {
    let config = load_more(
        "webhook: {listen: '127.0.0.1:8080', secret_file: ~/hook, url: 'https://ci.example.com/webhook', poll_deliveries: yes}",
    );
    let webhook = config.webhook;
    assert_eq!(webhook.listen.unwrap().to_string(), "127.0.0.1:8080");
    assert_eq!(webhook.secret_file.unwrap().to_str(), Some("/home/me/hook"));
    assert!(webhook.poll_deliveries && webhook.secret.is_none());
    assert_eq!(load_more("").webhook, WebhookConfig::default());
    let secret = load_more("webhook: {secret: a secret of sixteen and more}");
    assert!(secret.warnings().is_empty(), "{:?}", secret.warnings());
    let shown = secret.effective(Format::Yaml);
    assert!(shown.contains("secret: '***'") && !shown.contains("sixteen"), "{shown}");
    for tokens in [Tokens::Absent, Tokens::Plain] {
        assert!(!secret.tree(tokens).to_string().contains("sixteen"), "no template needs it");
    }
    assert!(load_more("webhook: {secret: hunter2}").warnings()[0].contains("shorter than 16"));
}

#[test]
fn webhooks_that_cannot_work_are_refused() {
    for (yaml, key, told) in [
        ("{listen: '127.0.0.1:80'}", "webhook.listen", "without a secret anyone could send deliveries"),
        ("{listen: here, secret: s}", "webhook.listen", "\"here\" is not an address"),
        ("{secret: s, secret_file: f}", "webhook.secret_file", "conflicts with webhook.secret"),
        ("{url: 'ftp://x'}", "webhook.url", "not an http or https URL"),
        ("{url: 'https://me:pw@x'}", "webhook.url", "contains a user name or password"),
        (
            "{poll_deliveries: true}",
            "webhook.poll_deliveries",
            "the webhook whose deliveries to read is unknown",
        ),
        ("{lissten: x}", "webhook.lissten", "did you mean \"listen\"?"),
    ] {
        let text = more_errors(&format!("webhook: {yaml}"));
        assert!(text.contains(key) && text.contains(told), "{yaml}: {text}");
    }
    let all = errors("repos: ['*']\nwebhook: {poll_deliveries: true, url: 'https://x'}");
    assert!(all.contains("cannot have a webhook"), "{all}");
}

#[test]
fn other_machines_see_the_page_only_with_a_token_or_if_it_is_public() {
    let warnings = |yaml: &str| load_more(yaml).status.warnings();
    assert!(warnings("status: {listen: 127.0.0.1:9090}").is_empty());
    assert!(warnings("status: {listen: '[::1]:9090'}").is_empty());
    let closed = warnings("status: {listen: 0.0.0.0:9090}").remove(0);
    assert!(
        closed.contains("the page and the API are closed") && closed.contains("status.token"),
        "{closed}"
    );
    assert!(warnings("status: {listen: 0.0.0.0:9090, public: true}").is_empty());
    assert!(warnings("status: {listen: 0.0.0.0:9090, token: 0123456789abcdef}").is_empty());
    assert!(warnings("status: {token: short}")[0].contains("can be guessed"));
    assert!(more_errors("status: {token: x y}").contains("a character that is not allowed in a header"));
    assert!(more_errors("status: {token: 0123456789abcdef, public: true}").contains("remove one of them"));
    let shown = load_more("status: {token: 0123456789abcdef}").effective(Format::Yaml);
    assert!(shown.contains("token: '***'") && !shown.contains("0123456789abcdef"), "{shown}");
    assert!(load_more("metrics: {per_repository: true}").status.per_repository);
}
