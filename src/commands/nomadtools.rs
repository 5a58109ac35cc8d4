//! `check --from-nomadtools FILE`: what differs for a user's own nomadtools configuration, and what stays the same.

use std::io::Write;

use crate::{
    config::{Config, DEFAULT_TEMPLATE},
    model::Registration,
    text::{LINE, shown},
};

/// Prints what differs, one line each. Contacts no server. Returns whether the file can be used.
///
/// # Errors
/// `out` cannot be written.
pub fn run(file: &str, env: &dyn Fn(&str) -> Option<String>, out: &mut dyn Write) -> anyhow::Result<bool> {
    let config = match Config::load(file, env) {
        Ok(config) => config,
        Err(errors) => {
            writeln!(out, "failure  {errors}")?;
            writeln!(out, "The file cannot be used as it is; see above.")?;
            return Ok(false);
        }
    };
    let mut say = |word: &str, text: &str| writeln!(out, "{word:8} {}", shown(text, LINE));
    say("ok", "every key is known; the file works unchanged")?;
    for difference in differences(&config) {
        say("differs", &difference)?;
    }
    for warning in config.warnings() {
        say("warning", &warning)?;
    }
    say(
        "next",
        "before you stop nomadtools, `githubrunner -c FILE check` tests Nomad and GitHub, and `plan` shows what a pass would do",
    )?;
    Ok(true)
}

/// The differences for this particular configuration.
fn differences(config: &Config) -> Vec<String> {
    let mut all = Vec::new();
    let mut say = |text: String| all.push(text);
    let template = &config.template;
    let is_default = template.name == DEFAULT_TEMPLATE;
    match config.registration() {
        Registration::Token if is_default => say(
            "runners get a registration token in their own Nomad variable; nomadtools put the long-lived token into \
             ACCESS_TOKEN of the job"
                .to_owned(),
        ),
        Registration::Token | Registration::Jit => say(format!(
            "runners register by {}, passed in the job's Nomad variable; nomadtools put a long-lived token into the job",
            config.registration()
        )),
        Registration::AccessToken => {}
    }
    let text = |key: &str| config.settings.get(key).and_then(serde_json::Value::as_str);
    if is_default && text("cache") == Some("") {
        say("no tool cache is mounted; nomadtools mounted a docker volume: set `template_settings: {cache: volume}` to get one"
            .to_owned());
    }
    if !is_default {
        if template.reads("RUN.REPO") {
            say("RUN.REPO has GitHub's spelling; nomadtools capitalized it".to_owned());
        }
        say("the job's ID, name, namespace and Meta are set after rendering, whatever the template says"
            .to_owned());
        if config.registration().needs_variable() {
            say("the template cannot read a long-lived token: it registers with RUN.CREDENTIALS".to_owned());
        }
    }
    if template.label_keys().is_none_or(|keys| !keys.is_empty()) {
        say("labels are checked before they are rendered: characters (runson_allowed), numbers (runson_numbers), sizes \
             (runson_limits); a job whose labels break the rules gets no runner, and `explain` says why"
            .to_owned());
    }
    if config.scheduler.max_runners.is_some() {
        say("scheduler.max_runners does not count dead runners".to_owned());
    }
    if config.scheduler.strict || config.scheduler.runner_inactivity_timeout.is_some() {
        say("an idle runner that no job needs is stopped after GitHub has removed its registration, never while it runs a job"
            .to_owned());
    }
    say(format!("GitHub's responses are cached in {}", config.github.cachefile.display()));
    say(format!(
        "runners of nomadtools with the prefix {} count as supply, are purged when dead, and are never stopped alive",
        config.nomad.jobprefix
    ));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(yaml: &str) -> (bool, String) {
        let mut out = Vec::new();
        let well = run(&format!("{yaml}\n"), &|_| None, &mut out).unwrap();
        (well, String::from_utf8(out).unwrap())
    }

    #[test]
    fn differences_are_listed_for_this_particular_file() {
        let (well, plain) = said("github: {token: x}\nrepos: [acme]");
        assert!(well, "{plain}");
        assert!(plain.contains("ACCESS_TOKEN of the job") && plain.contains("cache: volume"), "{plain}");
        assert!(!plain.contains("max_runners") && !plain.contains("RUN.REPO"), "{plain}");

        let (_, more) = said(
            "github: {token: x}\nrepos: [acme]\nscheduler: {max_runners: 3, strict: true}\ntemplate_settings: {cache: /c}",
        );
        assert!(more.contains("does not count dead runners"), "{more}");
        assert!(more.contains("never while it runs a job") && !more.contains("cache: volume"), "{more}");

        let (_, own) = said(
            "github: {token: x}\nrepos: [acme]\ntemplate: |\n  job \"{{ RUN.REPO }}\" { {{ CONFIG.github.token }} }",
        );
        assert!(own.contains("RUN.REPO has GitHub's spelling") && own.contains("warning"), "{own}");
        assert!(!own.contains("ACCESS_TOKEN of the job") && !own.contains("RUN.CREDENTIALS:"), "{own}");
    }

    #[test]
    fn an_invalid_file_is_reported_with_the_position() {
        let (well, said) = said("repos: [acme]\nrepos: [other]\nscheduler: {purge_failure_timeout: 1 week}");
        assert!(!well);
        assert!(said.contains(":2:1: repos") && said.contains("scheduler.purge_failure_timeout"), "{said}");
    }
}
