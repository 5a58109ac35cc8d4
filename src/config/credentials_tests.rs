use super::super::{Config, Format, Tokens};

fn load(github: &str) -> Result<Config, String> {
    let text = format!("repos: [acme, other/app]\ngithub:\n{github}\n");
    Config::load(&text, &|_| None).map_err(|errors| errors.to_string())
}

const BOTH: &str = "  token: ghp_defaultdefaultdefaultdefaultdefault00
  tokens:
    - owners: [acme, \"acme-*\"]
      token: ghp_acmeacmeacmeacmeacmeacmeacmeacme0000
    - name: partners
      owners: [other]
      token_file: /etc/partners
  apps:
    - owners: [\"customer-*\"]
      app_id: 12
      private_key: |
        -----BEGIN RSA PRIVATE KEY-----
        c2VjcmV0
        -----END RSA PRIVATE KEY-----";

#[test]
fn each_owner_gets_the_credentials_that_name_it_and_no_secret_is_shown() {
    let config = load(BOTH).unwrap();
    let all = &config.github.credentials;
    let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["acme", "partners", "customer-*"]);
    assert!(all[2].is_app() && all[0].owners[1].covers("Acme-Labs"));
    for format in [Format::Yaml, Format::Json] {
        let shown = config.effective(format);
        assert!(!shown.contains("ghp_") && !shown.contains("c2VjcmV0"), "{shown}");
        // What is shown can be read again, but for the secrets.
        assert!(shown.contains("/etc/partners") && shown.contains("customer-*"), "{shown}");
    }
    let again = Config::load(&config.effective(Format::Yaml), &|_| None).unwrap();
    assert_eq!(again.github.credentials.len(), 3);
    let debug = format!("{:?}", config.github);
    assert!(!debug.contains("ghp_") && !debug.contains("c2VjcmV0"), "{debug}");
}

#[test]
fn no_template_sees_them() {
    let config = load(BOTH).unwrap();
    for tokens in [Tokens::Absent, Tokens::Plain] {
        let github = &config.tree(tokens)["github"];
        assert!(github.get("tokens").is_none() && github.get("apps").is_none(), "{github}");
    }
}

#[test]
fn without_them_nothing_is_shown_of_them() {
    let shown = load("  token: x").unwrap().effective(Format::Yaml);
    assert!(!shown.contains("tokens:") && !shown.contains("apps:"), "{shown}");
}

#[test]
fn an_owner_has_one_credential_of_any_type() {
    for github in [
        "  tokens: [{owners: [acme], token: a}, {name: b, owners: [ACME], token: b}]",
        "  tokens: [{owners: [acme], token: a}]\n  apps: [{name: b, owners: [acme], client_id: x, private_key_file: y}]",
    ] {
        let errors = load(github).unwrap_err();
        assert!(errors.to_ascii_lowercase().contains("acme has credentials already"), "{errors}");
    }
}

#[test]
fn what_is_wrong_is_named_with_what_to_do() {
    for (github, told) in [
        ("  tokens: {owners: [acme], token: a}", "expected a list"),
        ("  tokens: [{token: a}]", "whom these credentials are for"),
        ("  tokens: [{owners: [\"*\"], token: a}]", "for all other owners"),
        ("  tokens: [{owners: [a/b], token: a}]", "is no owner"),
        ("  tokens: [{owners: [acme]}]", "token_file or token is needed"),
        ("  tokens: [{owners: [acme], token: a, token_file: b}]", "one of them"),
        ("  tokens: [{owners: [acme], token: $TOKEN}]", "environment variables are not expanded"),
        ("  tokens: [{owners: [acme], client_id: a}]", "unknown key"),
        ("  tokens: [{name: token, owners: [acme], token: a}]", "cannot be used"),
        ("  tokens: [{name: installation-1, owners: [acme], token: a}]", "cannot be used"),
        (
            "  tokens: [{name: a, owners: [a], token: a}, {name: A, owners: [b], token: b}]",
            "another one is called",
        ),
        ("  apps: [{owners: [acme], client_id: a}]", "private_key"),
        ("  apps: [{owners: [acme], private_key_file: a}]", "client_id or app_id"),
    ] {
        let errors = load(github).unwrap_err();
        assert!(errors.contains(told), "{github}: {errors}");
    }
}
