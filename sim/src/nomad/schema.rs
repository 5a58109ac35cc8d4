//! The structure of a job: the fields of each block, their names in HCL and in the API's JSON, and their
//! values if unset: in a parsed job, in a canonicalized one, and in the servers' own form (from a real
//! agent's responses).

/// A block of the job specification.
#[derive(Debug)]
pub struct Type {
    /// Its fields, ordered by their JSON names, as in the API.
    pub fields: &'static [Field],
}

/// A field of a block.
#[derive(Debug)]
pub struct Field {
    /// Its name in JSON.
    pub json: &'static str,
    /// Its name in HCL, or empty if it cannot be written there.
    pub hcl: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Unset, in a parsed job.
    pub unset: Unset,
    /// Unset, in a canonicalized job of the parse endpoint.
    pub canonical: Unset,
    /// Unset, in the servers' form.
    pub server: Unset,
}

/// The type of a field.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A string.
    Str,
    /// An integer.
    Int,
    /// A boolean.
    Bool,
    /// A duration: a string in HCL, nanoseconds in JSON.
    Span,
    /// A list of strings.
    Strs,
    /// A map of strings, written as a block or as an attribute.
    Map,
    /// Anything: a driver's configuration.
    Any,
    /// Zero or one block.
    One(&'static Type),
    /// Blocks in a list.
    Many(&'static Type),
    /// Blocks with one label, in a list; the label is this field.
    Named(&'static Type, &'static str),
    /// Blocks with one label, in a map; the label is this field too.
    Keyed(&'static Type, &'static str),
}

/// The value of an unset field.
#[derive(Debug, Clone, Copy)]
pub enum Unset {
    /// null
    Null,
    /// No field at all.
    Absent,
    /// false or true
    Bool(bool),
    /// A number.
    Int(i64),
    /// A string.
    Str(&'static str),
    /// `[]`
    Empty,
}

use Kind::{Any, Bool, Int, Keyed, Many, Map, Named, One, Span, Str, Strs};
use Unset::{Absent, Empty, Null};

const EMPTY: Unset = Unset::Str("");
const NO: Unset = Unset::Bool(false);
const ZERO: Unset = Unset::Int(0);
const SECOND: i64 = 1_000_000_000;

/// A field that is null in a parsed job and has a default in both other forms.
const fn f(json: &'static str, hcl: &'static str, kind: Kind, unset: Unset, server: Unset) -> Field {
    Field { json, hcl, kind, unset, canonical: server, server }
}

/// A field whose three forms differ.
const fn g(
    json: &'static str,
    hcl: &'static str,
    kind: Kind,
    unset: Unset,
    canonical: Unset,
    server: Unset,
) -> Field {
    Field { json, hcl, kind, unset, canonical, server }
}

/// A field with the same default everywhere.
const fn s(json: &'static str, hcl: &'static str, kind: Kind, unset: Unset) -> Field {
    f(json, hcl, kind, unset, unset)
}

/// A field that is null when unset, everywhere.
const fn n(json: &'static str, hcl: &'static str, kind: Kind) -> Field {
    f(json, hcl, kind, Null, Null)
}

/// The job.
pub static JOB: Type = Type {
    fields: &[
        n("Affinities", "affinity", Many(&AFFINITY)),
        f("AllAtOnce", "all_at_once", Bool, Null, NO),
        n("Constraints", "constraint", Many(&CONSTRAINT)),
        f("ConsulNamespace", "", Str, Null, EMPTY),
        f("CreateIndex", "", Int, Null, ZERO),
        n("Datacenters", "datacenters", Strs),
        g("DispatchIdempotencyToken", "", Str, Null, Null, EMPTY),
        s("Dispatched", "", Bool, NO),
        s("ID", "id", Str, Null),
        f("JobModifyIndex", "", Int, Null, ZERO),
        n("Meta", "meta", Map),
        g("Migrate", "migrate", One(&MIGRATE), Null, Null, Absent),
        f("ModifyIndex", "", Int, Null, ZERO),
        n("Multiregion", "multiregion", Any),
        s("Name", "name", Str, Null),
        f("Namespace", "namespace", Str, Null, Unset::Str("default")),
        g("NodePool", "node_pool", Str, Null, EMPTY, Unset::Str("default")),
        f("NomadTokenID", "", Str, Null, EMPTY),
        n("ParameterizedJob", "parameterized", One(&PARAMETERIZED)),
        f("ParentID", "", Str, Null, EMPTY),
        n("Payload", "", Str),
        n("Periodic", "periodic", One(&PERIODIC)),
        f("Priority", "priority", Int, Null, Unset::Int(50)),
        f("Region", "region", Str, Null, Unset::Str("global")),
        g("Reschedule", "reschedule", One(&RESCHEDULE), Null, Null, Absent),
        n("Spreads", "spread", Many(&SPREAD)),
        f("Stable", "", Bool, Null, NO),
        f("Status", "", Str, Null, EMPTY),
        f("StatusDescription", "", Str, Null, EMPTY),
        f("Stop", "", Bool, Null, NO),
        n("SubmitTime", "", Int),
        n("TaskGroups", "group", Named(&GROUP, "Name")),
        f("Type", "type", Str, Null, Unset::Str("service")),
        n("UI", "ui", One(&UI)),
        n("Update", "update", One(&UPDATE)),
        f("VaultNamespace", "", Str, Null, EMPTY),
        f("Version", "", Int, Null, ZERO),
        n("VersionTag", "", Any),
    ],
};

static GROUP: Type = Type {
    fields: &[
        n("Affinities", "affinity", Many(&AFFINITY)),
        n("Constraints", "constraint", Many(&CONSTRAINT)),
        n("Consul", "consul", One(&CONSUL)),
        f("Count", "count", Int, Null, Unset::Int(1)),
        n("Disconnect", "disconnect", One(&DISCONNECT)),
        n("EphemeralDisk", "ephemeral_disk", One(&DISK)),
        n("MaxClientDisconnect", "max_client_disconnect", Span),
        n("MaxRunDuration", "max_run_duration", Span),
        n("Meta", "meta", Map),
        n("Migrate", "migrate", One(&MIGRATE)),
        s("Name", "", Str, Null),
        n("Networks", "network", Many(&NETWORK)),
        g("PreventRescheduleOnLost", "prevent_reschedule_on_lost", Bool, Null, Null, NO),
        n("ReschedulePolicy", "reschedule", One(&RESCHEDULE)),
        n("RestartPolicy", "restart", One(&RESTART)),
        n("Scaling", "scaling", One(&SCALING)),
        n("Services", "service", Many(&SERVICE)),
        n("ShutdownDelay", "shutdown_delay", Span),
        n("Spreads", "spread", Many(&SPREAD)),
        n("StopAfterClientDisconnect", "stop_after_client_disconnect", Span),
        n("Tasks", "task", Named(&TASK, "Name")),
        n("Update", "update", One(&UPDATE)),
        n("Volumes", "volume", Keyed(&VOLUME, "Name")),
    ],
};

static TASK: Type = Type {
    fields: &[
        n("Actions", "action", Named(&ACTION, "Name")),
        n("Affinities", "affinity", Many(&AFFINITY)),
        n("Artifacts", "artifact", Many(&ARTIFACT)),
        g("CSIPluginConfig", "csi_plugin", Any, Absent, Absent, Null),
        n("Config", "config", Any),
        n("Constraints", "constraint", Many(&CONSTRAINT)),
        n("Consul", "consul", One(&CONSUL)),
        n("DispatchPayload", "dispatch_payload", One(&DISPATCH_PAYLOAD)),
        s("Driver", "driver", Str, EMPTY),
        n("Env", "env", Map),
        n("Identities", "", Many(&IDENTITY)),
        n("Identity", "", One(&IDENTITY)),
        s("KillSignal", "kill_signal", Str, EMPTY),
        f("KillTimeout", "kill_timeout", Span, Null, Unset::Int(5 * SECOND)),
        s("Kind", "kind", Str, EMPTY),
        s("Leader", "leader", Bool, NO),
        n("Lifecycle", "lifecycle", One(&LIFECYCLE)),
        n("LogConfig", "logs", One(&LOGS)),
        n("Meta", "meta", Map),
        s("Name", "", Str, EMPTY),
        n("Resources", "resources", One(&RESOURCES)),
        n("RestartPolicy", "restart", One(&RESTART)),
        n("ScalingPolicies", "scaling", Named(&SCALING, "Type")),
        n("Schedule", "schedule", Any),
        n("Secrets", "secret", Named(&SECRET, "Name")),
        n("Services", "service", Many(&SERVICE)),
        s("ShutdownDelay", "shutdown_delay", Span, ZERO),
        n("Templates", "template", Many(&TEMPLATE)),
        s("User", "user", Str, EMPTY),
        n("Vault", "vault", One(&VAULT)),
        n("VolumeMounts", "volume_mount", Many(&VOLUME_MOUNT)),
    ],
};

static ACTION: Type = Type {
    fields: &[n("Args", "args", Strs), s("Command", "command", Str, EMPTY), s("Name", "", Str, EMPTY)],
};

/// The constraint; its short forms (`version = …`) are the decoder's.
pub static CONSTRAINT: Type = Type {
    fields: &[
        s("LTarget", "attribute", Str, EMPTY),
        s("Operand", "operator", Str, EMPTY),
        s("RTarget", "value", Str, EMPTY),
    ],
};

/// The affinity; its short forms are the decoder's.
pub static AFFINITY: Type = Type {
    fields: &[
        s("LTarget", "attribute", Str, EMPTY),
        s("Operand", "operator", Str, EMPTY),
        s("RTarget", "value", Str, EMPTY),
        f("Weight", "weight", Int, Null, Unset::Int(50)),
    ],
};

static SPREAD: Type = Type {
    fields: &[
        s("Attribute", "attribute", Str, EMPTY),
        n("SpreadTarget", "target", Named(&SPREAD_TARGET, "Value")),
        f("Weight", "weight", Int, Null, Unset::Int(50)),
    ],
};

static SPREAD_TARGET: Type =
    Type { fields: &[s("Percent", "percent", Int, ZERO), s("Value", "", Str, EMPTY)] };

static RESTART: Type = Type {
    fields: &[
        n("Attempts", "attempts", Int),
        n("Delay", "delay", Span),
        n("Interval", "interval", Span),
        n("Mode", "mode", Str),
        f("RenderTemplates", "render_templates", Bool, Null, NO),
    ],
};

static RESCHEDULE: Type = Type {
    fields: &[
        n("Attempts", "attempts", Int),
        n("Delay", "delay", Span),
        n("DelayFunction", "delay_function", Str),
        n("Interval", "interval", Span),
        n("MaxDelay", "max_delay", Span),
        n("Unlimited", "unlimited", Bool),
    ],
};

static DISCONNECT: Type = Type {
    fields: &[
        n("LostAfter", "lost_after", Span),
        f("Reconcile", "reconcile", Str, Null, Unset::Str("best_score")),
        f("Replace", "replace", Bool, Null, Unset::Bool(true)),
        n("StopOnClientAfter", "stop_on_client_after", Span),
    ],
};

static DISK: Type = Type {
    fields: &[
        f("Migrate", "migrate", Bool, Null, NO),
        f("SizeMB", "size", Int, Null, Unset::Int(300)),
        f("Sticky", "sticky", Bool, Null, NO),
    ],
};

static MIGRATE: Type = Type {
    fields: &[
        n("HealthCheck", "health_check", Str),
        n("HealthyDeadline", "healthy_deadline", Span),
        n("MaxParallel", "max_parallel", Int),
        n("MinHealthyTime", "min_healthy_time", Span),
    ],
};

/// The update strategy.
pub static UPDATE: Type = Type {
    fields: &[
        f("AutoPromote", "auto_promote", Bool, Null, NO),
        f("AutoRevert", "auto_revert", Bool, Null, NO),
        f("Canary", "canary", Int, Null, ZERO),
        f("HealthCheck", "health_check", Str, Null, EMPTY),
        f("HealthyDeadline", "healthy_deadline", Span, Null, ZERO),
        f("MaxParallel", "max_parallel", Int, Null, ZERO),
        f("MinHealthyTime", "min_healthy_time", Span, Null, ZERO),
        f("ProgressDeadline", "progress_deadline", Span, Null, ZERO),
        f("Stagger", "stagger", Span, Null, ZERO),
    ],
};

static PERIODIC: Type = Type {
    fields: &[
        f("Enabled", "enabled", Bool, Null, Unset::Bool(true)),
        f("ProhibitOverlap", "prohibit_overlap", Bool, Null, NO),
        f("Spec", "cron", Str, Null, EMPTY),
        s("SpecType", "", Str, Unset::Str("cron")),
        f("Specs", "crons", Strs, Null, Empty),
        f("TimeZone", "time_zone", Str, Null, Unset::Str("UTC")),
    ],
};

static PARAMETERIZED: Type = Type {
    fields: &[
        n("MetaOptional", "meta_optional", Strs),
        n("MetaRequired", "meta_required", Strs),
        s("Payload", "payload", Str, EMPTY),
    ],
};

/// A task's resources.
pub static RESOURCES: Type = Type {
    fields: &[
        f("CPU", "cpu", Int, Null, Unset::Int(100)),
        f("Cores", "cores", Int, Null, ZERO),
        n("Devices", "device", Named(&DEVICE, "Name")),
        g("DiskMB", "disk", Int, Null, Null, ZERO),
        g("IOPS", "iops", Int, Null, Null, ZERO),
        f("MemoryMB", "memory", Int, Null, Unset::Int(300)),
        g("MemoryMaxMB", "memory_max", Int, Null, Null, ZERO),
        n("NUMA", "numa", One(&NUMA)),
        n("Networks", "network", Many(&NETWORK)),
        g("SecretsMB", "secrets", Int, Null, Null, ZERO),
    ],
};

static NUMA: Type = Type { fields: &[s("Affinity", "affinity", Str, EMPTY), n("Devices", "devices", Strs)] };

static DEVICE: Type = Type {
    fields: &[
        n("Affinities", "affinity", Many(&AFFINITY)),
        n("Constraints", "constraint", Many(&CONSTRAINT)),
        f("Count", "count", Int, Null, Unset::Int(1)),
        s("Name", "", Str, EMPTY),
    ],
};

/// A network. `port` blocks go to one list or the other by `static`; that is the decoder's.
pub static NETWORK: Type = Type {
    fields: &[
        g("CIDR", "", Str, EMPTY, EMPTY, Absent),
        g("CNI", "cni", Any, Null, Null, Absent),
        n("DNS", "dns", One(&DNS)),
        g("Device", "", Str, EMPTY, EMPTY, Absent),
        n("DynamicPorts", "", Many(&PORT)),
        g("Hostname", "hostname", Str, EMPTY, EMPTY, Absent),
        g("IP", "", Str, EMPTY, EMPTY, Absent),
        g("MBits", "mbits", Int, Null, Null, Absent),
        s("Mode", "mode", Str, EMPTY),
        n("ReservedPorts", "", Many(&PORT)),
    ],
};

/// A port of a network.
pub static PORT: Type = Type {
    fields: &[
        g("HostNetwork", "host_network", Str, EMPTY, EMPTY, Unset::Str("default")),
        g("IgnoreCollision", "ignore_collision", Bool, NO, NO, Absent),
        s("Label", "", Str, EMPTY),
        g("To", "to", Int, ZERO, ZERO, Absent),
        g("Value", "static", Int, ZERO, ZERO, Absent),
    ],
};

static DNS: Type = Type {
    fields: &[n("Options", "options", Strs), n("Searches", "searches", Strs), n("Servers", "servers", Strs)],
};

static SERVICE: Type = Type {
    fields: &[
        s("Address", "address", Str, EMPTY),
        f("AddressMode", "address_mode", Str, EMPTY, Unset::Str("auto")),
        n("CanaryMeta", "canary_meta", Map),
        n("CanaryTags", "canary_tags", Strs),
        g("CheckRestart", "check_restart", Any, Null, Null, Absent),
        n("Checks", "check", Many(&CHECK)),
        f("Cluster", "cluster", Str, EMPTY, Unset::Str("default")),
        n("Connect", "connect", Any),
        s("EnableTagOverride", "enable_tag_override", Bool, NO),
        n("Identity", "identity", One(&IDENTITY)),
        s("Kind", "kind", Str, EMPTY),
        n("Meta", "meta", Map),
        s("Name", "name", Str, EMPTY),
        g("Namespace", "", Str, Absent, Absent, Unset::Str("default")),
        f("OnUpdate", "on_update", Str, EMPTY, Unset::Str("require_healthy")),
        s("PortLabel", "port", Str, EMPTY),
        f("Provider", "provider", Str, EMPTY, Unset::Str("consul")),
        n("TaggedAddresses", "tagged_addresses", Map),
        n("Tags", "tags", Strs),
        s("TaskName", "task", Str, EMPTY),
        n("Weights", "weights", Any),
    ],
};

static CHECK: Type = Type {
    fields: &[
        s("AddressMode", "address_mode", Str, EMPTY),
        g("Advertise", "", Str, EMPTY, EMPTY, Absent),
        n("Args", "args", Strs),
        s("Body", "body", Str, EMPTY),
        n("CheckRestart", "check_restart", Any),
        s("Command", "command", Str, EMPTY),
        s("Expose", "expose", Bool, NO),
        s("FailuresBeforeCritical", "failures_before_critical", Int, ZERO),
        s("FailuresBeforeWarning", "failures_before_warning", Int, ZERO),
        s("GRPCService", "grpc_service", Str, EMPTY),
        s("GRPCUseTLS", "grpc_use_tls", Bool, NO),
        n("Header", "header", Any),
        s("InitialStatus", "initial_status", Str, EMPTY),
        s("Interval", "interval", Span, ZERO),
        s("Method", "method", Str, EMPTY),
        s("Name", "name", Str, EMPTY),
        s("Notes", "notes", Str, EMPTY),
        f("OnUpdate", "on_update", Str, EMPTY, Unset::Str("require_healthy")),
        s("Path", "path", Str, EMPTY),
        s("PortLabel", "port", Str, EMPTY),
        s("Protocol", "protocol", Str, EMPTY),
        s("SuccessBeforePassing", "success_before_passing", Int, ZERO),
        s("TLSServerName", "tls_server_name", Str, EMPTY),
        s("TLSSkipVerify", "tls_skip_verify", Bool, NO),
        s("TaskName", "task", Str, EMPTY),
        s("Timeout", "timeout", Span, ZERO),
        s("Type", "type", Str, EMPTY),
    ],
};

static TEMPLATE: Type = Type {
    fields: &[
        s("ChangeMode", "change_mode", Str, Unset::Str("restart")),
        n("ChangeScript", "change_script", One(&CHANGE_SCRIPT)),
        f("ChangeSignal", "change_signal", Str, Null, EMPTY),
        f("DestPath", "destination", Str, Null, EMPTY),
        f("EmbeddedTmpl", "data", Str, Null, EMPTY),
        f("Envvars", "env", Bool, Null, NO),
        s("ErrMissingKey", "error_on_missing_key", Bool, NO),
        n("Gid", "gid", Int),
        f("LeftDelim", "left_delimiter", Str, Null, Unset::Str("{{")),
        f("Once", "once", Bool, Null, NO),
        s("Perms", "perms", Str, Unset::Str("0644")),
        f("RightDelim", "right_delimiter", Str, Null, Unset::Str("}}")),
        f("SourcePath", "source", Str, Null, EMPTY),
        s("Splay", "splay", Span, Unset::Int(5 * SECOND)),
        n("Uid", "uid", Int),
        f("VaultGrace", "vault_grace", Span, Null, ZERO),
        n("Wait", "wait", One(&WAIT)),
    ],
};

static CHANGE_SCRIPT: Type = Type {
    fields: &[
        s("Args", "args", Strs, Empty),
        s("Command", "command", Str, EMPTY),
        s("FailOnError", "fail_on_error", Bool, NO),
        s("RunOnFirstRender", "run_on_first_render", Bool, NO),
        s("Timeout", "timeout", Span, Unset::Int(5 * SECOND)),
    ],
};

static WAIT: Type = Type { fields: &[n("Max", "max", Span), n("Min", "min", Span)] };

static ARTIFACT: Type = Type {
    fields: &[
        s("Chown", "chown", Bool, NO),
        n("GetterHeaders", "headers", Map),
        f("GetterInsecure", "insecure", Bool, Null, NO),
        f("GetterMode", "mode", Str, Null, Unset::Str("any")),
        n("GetterOptions", "options", Map),
        f("GetterSource", "source", Str, Null, EMPTY),
        f("RelativeDest", "destination", Str, Null, Unset::Str("local/")),
    ],
};

static VOLUME: Type = Type {
    fields: &[
        s("AccessMode", "access_mode", Str, EMPTY),
        s("AttachmentMode", "attachment_mode", Str, EMPTY),
        n("MountOptions", "mount_options", Any),
        s("Name", "", Str, EMPTY),
        s("PerAlloc", "per_alloc", Bool, NO),
        s("ReadOnly", "read_only", Bool, NO),
        s("Source", "source", Str, EMPTY),
        s("Sticky", "sticky", Bool, NO),
        s("Type", "type", Str, EMPTY),
    ],
};

static VOLUME_MOUNT: Type = Type {
    fields: &[
        f("Destination", "destination", Str, Null, EMPTY),
        f("PropagationMode", "propagation_mode", Str, Null, Unset::Str("private")),
        f("ReadOnly", "read_only", Bool, Null, NO),
        f("SELinuxLabel", "selinux_label", Str, Null, EMPTY),
        f("Volume", "volume", Str, Null, EMPTY),
    ],
};

static LOGS: Type = Type {
    fields: &[
        f("Disabled", "disabled", Bool, Null, NO),
        g("Enabled", "enabled", Bool, Null, Null, Absent),
        f("MaxFileSizeMB", "max_file_size", Int, Null, Unset::Int(10)),
        f("MaxFiles", "max_files", Int, Null, Unset::Int(10)),
    ],
};

/// A workload identity.
pub static IDENTITY: Type = Type {
    fields: &[
        n("Audience", "aud", Strs),
        s("ChangeMode", "change_mode", Str, EMPTY),
        s("ChangeSignal", "change_signal", Str, EMPTY),
        s("Env", "env", Bool, NO),
        n("ExtraClaims", "extra_claims", Map),
        s("File", "file", Bool, NO),
        s("Filepath", "filepath", Str, EMPTY),
        s("Name", "name", Str, EMPTY),
        s("ServiceName", "", Str, EMPTY),
        s("TTL", "ttl", Span, ZERO),
    ],
};

static LIFECYCLE: Type = Type { fields: &[s("Hook", "hook", Str, EMPTY), s("Sidecar", "sidecar", Bool, NO)] };

static VAULT: Type = Type {
    fields: &[
        f("AllowTokenExpiration", "allow_token_expiration", Bool, Null, NO),
        s("ChangeMode", "change_mode", Str, Unset::Str("restart")),
        s("ChangeSignal", "change_signal", Str, EMPTY),
        s("Cluster", "cluster", Str, EMPTY),
        s("DisableFile", "disable_file", Bool, NO),
        s("Env", "env", Bool, Unset::Bool(true)),
        s("Namespace", "namespace", Str, EMPTY),
        n("Policies", "policies", Strs),
        s("Role", "role", Str, EMPTY),
    ],
};

static CONSUL: Type = Type {
    fields: &[
        s("Cluster", "cluster", Str, EMPTY),
        s("Namespace", "namespace", Str, EMPTY),
        s("Partition", "partition", Str, EMPTY),
    ],
};

static SCALING: Type = Type {
    fields: &[
        s("Enabled", "enabled", Bool, Null),
        s("ID", "", Str, EMPTY),
        s("Max", "max", Int, Null),
        s("Min", "min", Int, Null),
        n("Policy", "policy", Any),
        s("Type", "", Str, Unset::Str("horizontal")),
    ],
};

static DISPATCH_PAYLOAD: Type = Type { fields: &[s("File", "file", Str, EMPTY)] };

static UI: Type =
    Type { fields: &[s("Description", "description", Str, EMPTY), n("Links", "link", Many(&LINK))] };

static LINK: Type = Type { fields: &[s("Label", "label", Str, EMPTY), s("URL", "url", Str, EMPTY)] };

static SECRET: Type = Type {
    fields: &[
        n("Config", "config", Any),
        n("Env", "env", Map),
        s("Name", "", Str, EMPTY),
        s("Path", "path", Str, EMPTY),
        s("Provider", "provider", Str, EMPTY),
    ],
};
