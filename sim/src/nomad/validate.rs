//! The servers' validation of a job, in the format of go-multierror (contract, section 2).

use serde_json::Value;

use super::{
    gotime,
    spec::{int, list, text},
};

/// Formats nested errors.
pub fn multierror(errors: &[String]) -> String {
    let count = match errors.len() {
        1 => "1 error occurred:".to_owned(),
        n => format!("{n} errors occurred:"),
    };
    let points: String = errors.iter().map(|error| format!("\n\t* {error}")).collect();
    format!("{count}{points}\n\n")
}

/// The errors of a job in the servers' form.
pub fn job(job: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    if text(job, "Region").is_empty() {
        errors.push("Missing job region".into());
    }
    let id = text(job, "ID");
    if id.is_empty() {
        errors.push("Missing job ID".into());
    } else if id.contains(' ') {
        errors.push("Job ID contains a space".into());
    } else if id.contains('\0') {
        errors.push("Job ID contains a null character".into());
    }
    if text(job, "Name").is_empty() {
        errors.push("Missing job name".into());
    } else if text(job, "Name").contains('\0') {
        errors.push("Job Name contains a null character".into());
    }
    let kind = text(job, "Type");
    if !matches!(kind.as_str(), "service" | "batch" | "system" | "sysbatch") {
        errors.push(format!("Invalid job type: {kind:?}"));
    }
    if list(job, "Datacenters").any(|dc| dc == "") {
        errors.push("Job datacenter must be non-empty string".into());
    }
    if list(job, "TaskGroups").next().is_none() {
        errors.push("Missing job task groups".into());
    }
    constraints(job, &mut errors);
    let names: Vec<String> = list(job, "TaskGroups").map(|group| text(group, "Name")).collect();
    for (at, name) in names.iter().enumerate() {
        if name.is_empty() {
            errors.push(format!("Job task group {} missing name", at + 1));
        } else if let Some(first) = names.iter().take(at).position(|other| other == name) {
            errors.push(format!("Job task group {} redefines '{name}' from group {}", at + 1, first + 1));
        }
    }
    for group in list(job, "TaskGroups") {
        let wrong = self::group(group, &kind);
        if !wrong.is_empty() {
            errors.push(format!(
                "Task group {} validation failed: {}",
                text(group, "Name"),
                multierror(&wrong)
            ));
        }
    }
    if !(1..=100).contains(&int(job, "Priority")) {
        errors.push("job priority must be between [1, 100]".into());
    }
    errors
}

fn constraints(owner: &Value, errors: &mut Vec<String>) {
    for (at, constraint) in list(owner, "Constraints").enumerate() {
        let operand = text(constraint, "Operand");
        let mut wrong = Vec::new();
        if text(constraint, "LTarget").is_empty() && operand != "distinct_hosts" {
            wrong.push("no attribute provided but is required by operator".to_owned());
        }
        if operand == "regexp" && fancy_regex::Regex::new(&text(constraint, "RTarget")).is_err() {
            wrong.push(format!(
                "Regular expression failed to compile: {}",
                super::filter::regexp_error(&text(constraint, "RTarget"))
            ));
        }
        if !wrong.is_empty() {
            errors.push(format!("Constraint {} validation failed: {}", at + 1, multierror(&wrong)));
        }
    }
}

fn group(group: &Value, kind: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text(group, "Name").is_empty() {
        errors.push("Missing task group name".into());
    }
    if int(group, "Count") < 0 {
        errors.push("Task group count can't be negative".into());
    }
    if list(group, "Tasks").next().is_none() {
        errors.push("Missing tasks for task group".into());
    }
    if int(&group["Disconnect"], "LostAfter") < 0 {
        errors.push("lost_after cannot be a negative duration".into());
    }
    if !group["MaxRunDuration"].is_null() && !matches!(kind, "batch" | "sysbatch") {
        errors.push(format!("Job type {kind:?} does not allow max_run_duration"));
    }
    constraints(group, &mut errors);
    restart(&group["RestartPolicy"], &mut errors);
    reschedule(&group["ReschedulePolicy"], &mut errors);
    let disk = int(&group["EphemeralDisk"], "SizeMB");
    if disk < 10 {
        errors.push(format!("minimum DiskMB value is 10; got {disk}"));
    }
    let names: Vec<String> = list(group, "Tasks").map(|task| text(task, "Name")).collect();
    for (at, name) in names.iter().enumerate() {
        if name.is_empty() {
            errors.push(format!("Task {} missing name", at + 1));
        } else if let Some(first) = names.iter().take(at).position(|other| other == name) {
            errors.push(format!("Task {} redefines '{name}' from task {}", at + 1, first + 1));
        }
    }
    if list(group, "Tasks").filter(|task| task["Leader"] == true).count() > 1 {
        errors.push("Only one task may be marked as leader".into());
    }
    for task in list(group, "Tasks") {
        let wrong = self::task(task, disk);
        if !wrong.is_empty() {
            errors.push(format!("Task {} validation failed: {}", text(task, "Name"), multierror(&wrong)));
        }
    }
    errors
}

fn restart(policy: &Value, errors: &mut Vec<String>) {
    let mode = text(policy, "Mode");
    let (attempts, interval, delay) =
        (int(policy, "Attempts"), int(policy, "Interval"), int(policy, "Delay"));
    if !matches!(mode.as_str(), "fail" | "delay") {
        errors.push(format!("Unsupported restart mode: {mode:?}"));
    }
    if attempts == 0 && mode != "fail" {
        errors.push(format!("Restart policy {mode:?} with 0 attempts is ambiguous"));
    }
    if interval < 5_000_000_000 {
        errors.push(format!("Interval can not be less than 5s (got {})", gotime::format(interval)));
    }
    if attempts.saturating_mul(delay) > interval {
        errors.push(format!(
            "Nomad can't restart the TaskGroup {attempts} times in an interval of {} with a delay of {}",
            gotime::format(interval),
            gotime::format(delay)
        ));
    }
}

fn reschedule(policy: &Value, errors: &mut Vec<String>) {
    let (attempts, interval, delay) =
        (int(policy, "Attempts"), int(policy, "Interval"), int(policy, "Delay"));
    if attempts == 0 || policy["Unlimited"] == true {
        return;
    }
    if interval <= 0 {
        errors.push("Interval must be a non zero value if Attempts > 0".into());
    }
    if interval < 15_000_000_000 {
        errors.push(format!("Interval cannot be less than 15s (got {})", gotime::format(interval)));
    }
    let (wanted, function) = (attempts.saturating_mul(delay), text(policy, "DelayFunction"));
    if function == "constant" && wanted > interval {
        let possible = interval / delay.max(1);
        errors.push(format!(
            "Nomad can only make {possible} attempts in {} with initial delay {} and delay function {function:?}",
            gotime::format(interval),
            gotime::format(delay)
        ));
        errors.push(format!(
            "Set the interval to at least {} to accommodate {attempts} attempts",
            gotime::format(wanted)
        ));
    }
}

fn task(task: &Value, disk: i64) -> Vec<String> {
    let mut errors = Vec::new();
    let name = text(task, "Name");
    if name.is_empty() {
        errors.push("Missing task name".into());
    }
    if name.contains(['/', '\\']) {
        errors.push("Task name cannot include slashes".into());
    }
    if text(task, "Driver").is_empty() {
        errors.push("Missing task driver".into());
    }
    if int(task, "KillTimeout") < 0 {
        errors.push("KillTimeout must be a positive value".into());
    }
    let wrong = resources(&task["Resources"]);
    if !wrong.is_empty() {
        errors.push(multierror(&wrong));
    }
    let logs = &task["LogConfig"];
    let (files, size) = (int(logs, "MaxFiles"), int(logs, "MaxFileSizeMB"));
    let mut wrong = Vec::new();
    if files < 1 {
        wrong.push(format!("minimum number of files is 1; got {files}"));
    }
    if size < 1 {
        wrong.push(format!("minimum file size is 1MB; got {size}"));
    }
    if disk <= files * size && wrong.is_empty() {
        wrong.push(format!(
            "log storage ({} MB) must be less than requested disk capacity ({disk} MB)",
            files * size
        ));
    }
    if !wrong.is_empty() {
        errors.push(multierror(&wrong));
    }
    constraints(task, &mut errors);
    for (at, template) in list(task, "Templates").enumerate() {
        let mut wrong = Vec::new();
        if text(template, "SourcePath").is_empty() && text(template, "EmbeddedTmpl").is_empty() {
            wrong.push("Must specify a source path or have an embedded template".to_owned());
        }
        let destination = text(template, "DestPath");
        if destination.is_empty() {
            wrong.push("Must specify a destination for the template".into());
        } else if escapes(&destination) {
            wrong.push("destination escapes allocation directory".into());
        }
        if !matches!(text(template, "ChangeMode").as_str(), "noop" | "signal" | "script" | "restart") {
            wrong.push(
                "Invalid change mode. Must be one of the following: noop, signal, script, restart".into(),
            );
        }
        if !wrong.is_empty() {
            errors.push(format!("Template {} validation failed: {}", at + 1, multierror(&wrong)));
        }
    }
    errors
}

/// Whether a path in a task's directory escapes the allocation's directory, which is one level above it.
fn escapes(path: &str) -> bool {
    let mut depth = 1i32;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return true;
        }
    }
    false
}

fn resources(resources: &Value) -> Vec<String> {
    let (cpu, cores, memory) = (int(resources, "CPU"), int(resources, "Cores"), int(resources, "MemoryMB"));
    let most = int(resources, "MemoryMaxMB");
    let mut errors = Vec::new();
    if cpu > 0 && cores > 0 {
        errors.push("Task can only ask for 'cpu' or 'cores' resource, not both.".into());
    }
    let mut minimum = Vec::new();
    if cpu < 1 && cores == 0 {
        minimum.push(format!("minimum CPU value is 1; got {cpu}"));
    }
    if memory < 10 {
        minimum.push(format!("minimum MemoryMB value is 10; got {memory}"));
    }
    if !minimum.is_empty() {
        errors.push(multierror(&minimum));
    }
    if memory < 0 {
        errors.push(format!("SecretsMB value (0) cannot be larger than MemoryMB value ({memory})"));
    }
    if most > 0 && most < memory {
        errors.push(format!("MemoryMaxMB value ({most}) should be larger than MemoryMB value ({memory})"));
    }
    errors
}

/// The warnings for a valid job.
pub fn warnings(job: &Value, oversubscription: bool) -> String {
    let mut warnings = Vec::new();
    for group in list(job, "TaskGroups").filter(|_| !oversubscription) {
        for task in list(group, "Tasks").filter(|task| int(&task["Resources"], "MemoryMaxMB") > 0) {
            warnings.push(format!(
                "Memory oversubscription is not enabled; Task \"{}.{}\" memory_max value will be ignored. Update the Scheduler Configuration to allow oversubscription.",
                text(group, "Name"),
                text(task, "Name")
            ));
        }
    }
    match warnings.len() {
        0 => String::new(),
        1 => format!("1 warning:\n\n* {}", warnings[0]),
        n => format!(
            "{n} warnings:\n\n{}",
            warnings.iter().map(|w| format!("* {w}")).collect::<Vec<_>>().join("\n")
        ),
    }
}
