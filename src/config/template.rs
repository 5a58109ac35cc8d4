//! Finds the template, and determines how its runners register.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
    sync::LazyLock,
};

use fancy_regex::Regex;

use super::{RegistrationSetting, Tokens};
use crate::{labels::harmless, model::Registration, secret::without_assigned};

/// The default template.
pub const DEFAULT_TEMPLATE: &str = "builtin:myoung34";

/// The value of `template`'s name if the configuration contains the text itself.
pub const INLINE: &str = "template";

const BUILTIN: &str = "builtin:";

/// The names under which a template can read a long-lived token.
const TOKENS: [&str; 3] = ["CONFIG.github.token", "CONFIG.github.access_token", "SETTINGS.access_token"];

/// Nomad drops the source of a job above 1 MB (contract nomad.md §2).
const BYTES_MAX: u64 = 1_000_000;

/// A template that is included in the program.
#[derive(Clone, Copy, Debug)]
pub struct BuiltinTemplate {
    /// `builtin:NAME`
    pub name: &'static str,
    /// The text.
    pub text: &'static str,
    /// The kinds of credentials that it supports. The first is its default.
    pub registrations: &'static [Registration],
}

/// What all of them share, and one of them.
macro_rules! bundled {
    ($name:literal) => {
        concat!(
            include_str!("../../templates/parts.hcl.j2"),
            include_str!(concat!("../../templates/", $name, ".hcl.j2"))
        )
    };
}

/// All of them.
pub const BUILTIN_TEMPLATES: [BuiltinTemplate; 4] = [
    BuiltinTemplate {
        name: "builtin:myoung34",
        text: bundled!("myoung34"),
        registrations: &[Registration::Token, Registration::AccessToken],
    },
    BuiltinTemplate { name: "builtin:docker", text: bundled!("docker"), registrations: &[Registration::Jit] },
    BuiltinTemplate { name: "builtin:podman", text: bundled!("podman"), registrations: &[Registration::Jit] },
    BuiltinTemplate {
        name: "builtin:raw_exec",
        text: bundled!("raw_exec"),
        registrations: &[Registration::Jit],
    },
];

/// The template of jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// `builtin:NAME`, the path of a file, or `template` if the configuration contains the text.
    pub name: String,
    /// The position of the text if the configuration contains it: `config.yml, line 4`.
    pub place: Option<String>,
    /// The text, Jinja2.
    pub text: String,
}

/// A problem and what to do about it.
pub type Problem = (String, String);

impl Template {
    /// Finds the template that a configuration names. Paths are relative to the working directory, or else to
    /// `directory`, that of the configuration.
    ///
    /// # Errors
    /// There is no such template, or a file cannot be read.
    pub fn find(value: &str, directory: Option<&Path>) -> Result<Template, Problem> {
        if value.starts_with(BUILTIN) {
            return Template::builtin(value);
        }
        let inline = || Template { name: INLINE.to_owned(), place: None, text: value.to_owned() };
        if value.contains('\n') {
            return Ok(inline());
        }
        let other = directory.map(|directory| directory.join(value));
        for path in std::iter::once(Path::new(value)).chain(other.as_deref()) {
            match read(path) {
                Ok(text) => return Ok(Template { name: path.display().to_string(), place: None, text }),
                Err(error) if absent(error.kind()) => {}
                Err(error) => {
                    return Err((
                        format!("the file {} cannot be read: {error}", path.display()),
                        "check its permissions, and that it is UTF-8".to_owned(),
                    ));
                }
            }
        }
        if value.contains('{') || value.trim_start().starts_with("job ") {
            return Ok(inline());
        }
        Err((
            format!("file \"{}\" does not exist", harmless(value)),
            format!(
                "write a path relative to the working directory or to this file, the text itself, or one of {}",
                names()
            ),
        ))
    }

    /// The same, found in a configuration at this line.
    pub(super) fn placed(self, source: &str, line: usize) -> Template {
        let place = (self.name == INLINE).then(|| format!("{source}, line {line}"));
        Template { place, ..self }
    }

    /// As in a configuration: its name, or the text itself.
    pub(super) fn shown(&self, tokens: Tokens) -> String {
        match (self.name == INLINE, tokens) {
            (true, Tokens::Hidden) => without_assigned(&self.text),
            (true, _) => self.text.clone(),
            (false, _) => self.name.clone(),
        }
    }

    /// Its name in a sentence.
    pub fn called(&self) -> String {
        match &self.place {
            Some(place) => format!("the template in {place}"),
            None => format!("the template ({})", self.name),
        }
    }

    /// Whether it reads a long-lived token, provided that its runners register with one.
    pub(super) fn reads_a_token(&self) -> bool {
        TOKENS.iter().chain(&["RUN.CREDENTIALS", "RUN.CREDENTIALS_JSON"]).any(|path| self.reads(path))
    }

    /// The label keys that it reads; `None` if it may read any.
    pub fn label_keys(&self) -> Option<BTreeSet<String>> {
        let names = self.names();
        if names.is_empty() || names.contains("RUNSON") {
            return None;
        }
        let key = |name: &String| Some(name.strip_prefix("RUNSON.")?.split('.').next()?.to_owned());
        Some(names.iter().filter_map(key).collect())
    }

    fn builtin(name: &str) -> Result<Template, Problem> {
        match BUILTIN_TEMPLATES.iter().find(|builtin| builtin.name == name) {
            Some(builtin) => {
                Ok(Template { name: name.to_owned(), place: None, text: builtin.text.to_owned() })
            }
            None => Err((
                format!("template \"{}\" does not exist", harmless(name)),
                format!("use one of {}", names()),
            )),
        }
    }

    fn as_builtin(&self) -> Option<&'static BuiltinTemplate> {
        BUILTIN_TEMPLATES.iter().find(|builtin| builtin.name == self.name)
    }

    /// The names that the template reads, like `RUN.CREDENTIALS`; empty if it cannot be parsed.
    /// `RUN["CREDENTIALS"]` and `RUN.get("CREDENTIALS")` are included.
    fn names(&self) -> BTreeSet<String> {
        static SUBSCRIPT: LazyLock<Option<Regex>> =
            LazyLock::new(|| Regex::new(r#"\[\s*['"](\w+)['"]\s*\]"#).ok());
        static GET: LazyLock<Option<Regex>> =
            LazyLock::new(|| Regex::new(r#"\.get\(\s*['"](\w+)['"]\s*(?:,[^()]*)?\)"#).ok());
        let mut text = Cow::Borrowed(self.text.as_str());
        for regex in [&*SUBSCRIPT, &*GET].into_iter().flatten() {
            text = Cow::Owned(regex.replace_all(text.as_ref(), ".$1").into_owned());
        }
        let environment = minijinja::Environment::new();
        match environment.template_from_str(&text) {
            Ok(template) => template.undeclared_variables(true).into_iter().collect(),
            Err(_) => BTreeSet::new(),
        }
    }

    /// Whether the template reads the value at a path like `RUN.CREDENTIALS` or a part of it, or reads its
    /// container as a whole and mentions the last part of the path somewhere.
    pub fn reads(&self, path: &str) -> bool {
        let Some((parents, last)) = path.rsplit_once('.') else { return false };
        let mentioned = self.text.contains(last);
        // Parsing is the expensive part.
        mentioned
            && self.names().iter().any(|name| {
                let below =
                    name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
                let above = parents.strip_prefix(name.as_str());
                below || above.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
    }
}

/// How runners register, given the setting, the template and whether an access token for jobs is configured.
///
/// # Errors
/// A bundled template does not support the setting.
pub fn registration(
    setting: RegistrationSetting,
    template: &Template,
    has_access_token: bool,
) -> Result<Registration, Problem> {
    let wanted = match setting {
        RegistrationSetting::Auto => None,
        RegistrationSetting::Jit => Some(Registration::Jit),
        RegistrationSetting::Token => Some(Registration::Token),
        RegistrationSetting::AccessToken => Some(Registration::AccessToken),
    };
    let Some(builtin) = template.as_builtin() else {
        return Ok(wanted.unwrap_or_else(|| {
            if TOKENS.iter().any(|token| template.reads(token)) {
                Registration::AccessToken
            } else {
                Registration::Jit
            }
        }));
    };
    let knows = |registration| builtin.registrations.contains(&registration);
    match wanted {
        Some(wanted) if knows(wanted) => Ok(wanted),
        Some(wanted) => {
            let known: Vec<String> = builtin.registrations.iter().map(ToString::to_string).collect();
            Err((
                format!("{} cannot register runners by {wanted}", template.name),
                format!("write auto or {}, or use another template", known.join(" or ")),
            ))
        }
        None if has_access_token && knows(Registration::AccessToken) => Ok(Registration::AccessToken),
        None => Ok(builtin.registrations.first().copied().unwrap_or(Registration::Jit)),
    }
}

fn names() -> String {
    BUILTIN_TEMPLATES.map(|builtin| builtin.name).join(", ")
}

fn absent(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename | ErrorKind::InvalidInput
    )
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(std::io::Error::other("it is a directory"));
    }
    file.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(std::io::Error::other("it is larger than 1 MB"));
    }
    Ok(text)
}
