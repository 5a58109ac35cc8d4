//! Labels as people write them, and as attackers do.

use super::*;

fn rules() -> LabelRules {
    LabelRules::new("nomadtools *(.*)").unwrap()
}

fn says(labels: &[&str]) -> Vec<(String, String)> {
    rules().check(labels).unwrap_or_else(|problem| panic!("{problem}")).into_iter().collect()
}

fn why(rules: &LabelRules, label: &str) -> String {
    match rules.check(&[label]) {
        Ok(runs_on) => panic!("{label:?} is allowed: {runs_on:?}"),
        Err(problem) => problem.to_string(),
    }
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

#[test]
fn nomadtools_example() {
    assert_eq!(says(&["nomadtools mem=1000"]), [pair("mem", "1000"), pair("nomadtools", "")]);
}

#[test]
fn keys_are_lower_case_values_are_not() {
    assert_eq!(
        says(&["Nomadtools MEM=5 Image=A/b:C"]),
        [pair("image", "A/b:C"), pair("mem", "5"), pair("nomadtools", "")]
    );
}

#[test]
fn neither_order_nor_duplicates_matter() {
    assert_eq!(says(&["b x=1", "a x=2", "B x=1"]), says(&["B x=1", "a x=2", "b x=1", "a x=2"]));
}

#[test]
fn the_expression_matches_at_the_start_of_any_label() {
    assert!(rules().matches(&["self-hosted", "nomadtools mem=1"]).is_yes());
    assert!(!rules().matches(&["xnomadtools"]).is_yes());
    assert!(!rules().matches::<&str>(&[]).is_yes());
    let rules = |text| LabelRules::new(text).unwrap();
    assert!(rules("a|b").matches(&["b"]).is_yes());
    assert!(!rules("a|b").matches(&["cb"]).is_yes());
    assert!(rules("(?i)NOMAD").matches(&["nomadtools"]).is_yes());
    assert!(rules("(?P<x>a)(?P=x)$").matches(&["aa"]).is_yes());
    assert!(rules(r"a\Z").matches(&["a"]).is_yes() && !rules(r"a\Z").matches(&["a\n"]).is_yes());
    assert!(rules("(?!self-hosted).*").matches(&["x"]).is_yes());
    assert!(LabelRules::new("(").is_err());
}

#[test]
fn an_expression_that_takes_forever_is_aborted_and_reported() {
    let evil = LabelRules::new(r"(?:(?!windows)\w+[ -]*)+$").unwrap();
    assert!(evil.may_give_up());
    assert!(!LabelRules::new(r"nomadtools( .*)?\Z").unwrap().may_give_up());
    let mut verdicts = Verdicts::new(&evil);
    assert_eq!(verdicts.of(&["linux-x64"]), Match::Yes);
    assert_eq!(verdicts.of(&["windows"]), Match::No);
    let hostile = |number: usize| format!("{}{number}!", "a".repeat(200));
    for number in 0..10_000 {
        assert_eq!(verdicts.of(&[hostile(number)]), Match::GaveUp);
    }
    // A known verdict is kept.
    assert_eq!(verdicts.of(&["linux-x64"]), Match::Yes);
    assert_eq!(verdicts.of(&["linux-arm64"]), Match::GaveUp);
    verdicts.next_repository();
    assert_eq!(verdicts.of(&["linux-arm64"]), Match::Yes);
}

#[test]
fn all_labels_of_a_pass_take_a_limited_number_of_steps() {
    let evil = LabelRules::new(r"(?:(?!windows)\w+[ -]*)+$").unwrap();
    let mut verdicts = Verdicts::new(&evil);
    let hostile = |repository: usize, number: usize| format!("{}{repository}-{number}!", "a".repeat(200));
    let repositories = 200;
    for repository in 0..repositories {
        verdicts.next_repository();
        for number in 0..200 {
            assert_eq!(verdicts.of(&[hostile(repository, number)]), Match::GaveUp);
        }
    }
    let most = STEPS_OF_PASS + STEPS_OF_REPOSITORY + repositories * STEPS_AT_LEAST;
    assert!((STEPS_OF_PASS..=most).contains(&verdicts.steps()), "{}", verdicts.steps());
    // The last repository still has its share.
    verdicts.next_repository();
    for number in 0..100 {
        assert_eq!(verdicts.of(&[format!("linux-{number}")]), Match::Yes);
    }
    assert_eq!(verdicts.of(&[hostile(repositories, 0)]), Match::GaveUp);
}

#[test]
fn many_cheap_labels_are_limited_too() {
    let rules = LabelRules::new(r"(?!windows)\w+$").unwrap();
    let mut verdicts = Verdicts::new(&rules);
    let judged = (0..50_000).filter(|number| verdicts.of(&[format!("linux{number}")]).is_yes()).count();
    assert_eq!(judged, STEPS_OF_REPOSITORY / STEPS_BACK[0]);
    // Without backtracking there is nothing to limit.
    let rules = LabelRules::new(r"linux\w+$").unwrap();
    let mut verdicts = Verdicts::new(&rules);
    assert!((0..50_000).all(|number| verdicts.of(&[format!("linux{number}")]).is_yes()));
}

#[test]
fn the_total_length_of_labels_is_limited() {
    let labels = |count: usize| (0..count).map(|n| format!("{n:04}{}", "x".repeat(60))).collect::<Vec<_>>();
    assert!(rules().check(&labels(32)).is_ok());
    assert_eq!(rules().check(&labels(33)), Err(LabelProblem::TooLong));
}

#[test]
fn an_expression_without_backtracking_is_fast() {
    let evil = LabelRules::new(r"(?:(a+)+)\1b").unwrap();
    assert!(!evil.matches(&["a".repeat(1_000_000)]).is_yes());
}

#[test]
fn hcl_code_is_refused() {
    for label in [
        "a\"b",
        "a\nb",
        "${x}",
        "%{x}",
        "{{x}}",
        "a#b",
        "a\\b",
        "a'b'",
        "a\tb",
        "a\u{0}",
        "ä",
        "a\u{202e}b",
        "a;b",
        "a$b",
        "a\r",
        "<<EOF",
    ] {
        let text = why(&rules(), label);
        assert!(text.contains("which runson_allowed does not list"), "{text}");
        assert!(text.chars().all(|c| !c.is_control()), "{text:?}");
    }
}

#[test]
fn numeric_keys_need_numbers() {
    for size in SIZES {
        assert!(rules().check(&[format!("{size}=1234567")]).is_ok());
        for bad in ["12345678", "1e6", "10+90000", "10//", "null", "1.5", "0x10", "1_000"] {
            let text = why(&rules(), &format!("{}={bad}", size.to_uppercase()));
            assert!(text.contains(&format!("gives {size} a value that is not a number")), "{text}");
        }
        assert!(why(&rules(), &format!("{size}=-1")).contains("does not begin with"));
    }
}

#[test]
fn values_cannot_be_options_or_paths_upwards() {
    for bad in ["tag=-v", "tag=/etc", "tag=.x", "tag==x", "image=@x"] {
        assert!(why(&rules(), bad).contains("does not begin with"), "{bad}");
    }
    assert!(why(&rules(), "image=a/../b").contains("with .."));
}

#[test]
fn lengths_spaces_commas_and_empty_labels_are_checked() {
    assert!(rules().check(&["a".repeat(256)]).is_ok());
    assert!(why(&rules(), &"a".repeat(257)).contains("longer than 256"));
    assert!(why(&rules(), &"ä".repeat(10_000_000)).len() < 300);
    for bad in ["a  b", " a", "a "] {
        assert!(why(&rules(), bad).contains("single spaces"), "{bad:?}");
    }
    assert!(why(&rules(), "a,b").contains("comma"));
    assert!(why(&rules(), "").contains("is empty"));
    assert_eq!(rules().check::<&str>(&[]), Err(LabelProblem::Empty));
    assert!(rules().check(&vec!["a"; 100]).is_ok());
    assert_eq!(rules().check(&vec!["a"; 101]), Err(LabelProblem::TooMany));
}

#[test]
fn limits() {
    let rules = rules()
        .with_limits([("CPU".to_owned(), 4000), ("mem".to_owned(), 1000), ("gpus".to_owned(), 2)].into());
    assert!(rules.check(&["cpu=4000 mem=1000 maxmem=1000 gpus=2 disk=9999999"]).is_ok());
    for bad in ["cpu=4001", "mem=1001", "maxmem=1001", "gpus=3"] {
        assert!(why(&rules, bad).contains("the limit in runson_limits"), "{bad}");
    }
    assert!(why(&rules, "gpus=all").contains("not a number"));
}

#[test]
fn other_characters_can_be_allowed() {
    let rules = rules().with_allowed(AllowedCharacters::parse("[a-z;äö]").unwrap()).with_max_length(5);
    assert!(rules.check(&["aä;ö"]).is_ok());
    assert!(rules.check(&["A"]).is_err() && rules.check(&["aaaaaa"]).is_err());
    for bad in
        ["[]", "", "[z-a]", "[a-z\"]", "[ -~]", "[\\]", "[\n]", "[{]", "[,]", "[#]", "[\u{0}-\u{10ffff}]"]
    {
        assert!(AllowedCharacters::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_hostile_text_is_safe_to_show() {
    assert_eq!(harmless("a\u{1b}[31m\"\\\nä"), "a\\u{1b}[31m\\\"\\\\\\u{a}ä");
    assert_eq!(harmless(&"x".repeat(1000)).chars().count(), 65);
}

#[test]
fn cores_cannot_circumvent_a_limit_for_cpu() {
    let rules = |key: &str, limit| rules().with_limits([(key.to_owned(), limit)].into());
    for (key, limit, good, bad) in [
        ("cpu", 8000, "cores=2", "cores=3"),
        ("cpu", 3000, "cpu=3000", "cores=1"),
        ("cores", 2, "cpu=8000", "cpu=8001"),
        ("mem", 1000, "maxmem=1000", "maxmem=1001"),
    ] {
        let check = |label: &str| rules(key, limit).check(&["nomadtools".to_owned(), label.to_owned()]);
        assert!(check(good).is_ok(), "{key}: {limit} and {good}");
        assert!(
            check(bad).unwrap_err().to_string().contains("the limit in runson_limits"),
            "{key}: {limit}, {bad}"
        );
    }
    let both = LabelRules::new("x").unwrap().with_limits([("cpu".into(), 100), ("cores".into(), 9)].into());
    assert!(both.check(&["cores=9"]).is_ok(), "its own limit counts");
}

#[test]
fn invisible_characters_cannot_be_allowed() {
    for class in ["[a-z\u{202e}]", "[a\u{200b}]", "[\u{0}-\u{10ffff}]", "[\u{e0041}]"] {
        assert!(AllowedCharacters::parse(class).is_err(), "{class:?}");
    }
}

#[test]
fn keys_and_their_values_can_be_limited() {
    let keys = |entries: &[(&str, &[&str])]| -> Keys {
        let globs = |globs: &[&str]| globs.iter().map(|glob| ValueGlob::new(glob).unwrap()).collect();
        entries.iter().map(|(key, values)| ((*key).to_owned(), globs(values))).collect()
    };
    let rules = LabelRules::new("nomadtools")
        .unwrap()
        .with_allow_keys(Some(keys(&[("image", &["acme/*"]), ("mem", &[])])))
        .with_deny_keys(keys(&[("docker", &[]), ("mem", &["9*"])]));
    for good in [
        "nomadtools",
        "nomadtools nodocker",
        "nomadtools image=ACME/x",
        "nomadtools MEM=100 image=acme/a/b:1",
    ] {
        assert!(rules.check(&[good]).is_ok(), "{good}");
    }
    for (bad, why) in [
        ("nomadtools image=evil/x", "gives image a value that allow_keys does not list"),
        ("nomadtools cpu=100", "gives a value to cpu, which allow_keys does not list"),
        ("nomadtools Docker", "has docker, which deny_keys lists"),
        ("nomadtools docker=host", "has docker, which deny_keys lists"),
        ("nomadtools mem=9000", "gives mem a value that deny_keys lists"),
    ] {
        let said = rules.check(&["nomadtools", bad]).unwrap_err().to_string();
        assert!(said.ends_with(why), "{bad}: {said}");
    }
    // Nothing is allowed a value.
    let none = LabelRules::new("x").unwrap().with_allow_keys(Some(Keys::new()));
    assert!(none.check(&["x", "y"]).is_ok() && none.check(&["x mem=1"]).is_err());
}
