variable "image" {
  description = "The image to run, with the program in it as `githubrunner`. Empty: `binary` is run without one."
  type        = string
  default     = ""
}

variable "binary" {
  description = "The program, where no image is given: a path on the node, with exec one that its chroot has (/usr and /bin by default)."
  type        = string
  default     = "/usr/local/bin/githubrunner"
}

variable "driver" {
  description = "What runs `binary`: exec, in a chroot as `user` (Linux, an agent that is root), or raw_exec, as the agent's own user with all it may."
  type        = string
  default     = "exec"
}

variable "user" {
  description = "Who `binary` runs as with exec."
  type        = string
  default     = "nobody"
}

variable "namespace" {
  description = "Where this job runs. The runners' namespace is `nomad.namespace` of its configuration; the policy is for both being the same."
  type        = string
  default     = "github"
}

variable "datacenters" {
  description = "Where it may run."
  type        = list(string)
  default     = ["*"]
}

variable "node_pool" {
  description = "The node pool it may run in."
  type        = string
  default     = "default"
}

variable "service_tags" {
  description = "Tags of the service: what finds the metrics, like Prometheus."
  type        = list(string)
  default     = ["prometheus"]
}

variable "links" {
  description = "Links on the job's page in Nomad's UI: labels to addresses, like a board of metrics."
  type        = map(string)
  default     = {}
}

variable "replicas" {
  description = "With more than one write `ha: {enabled: true}` into the configuration: one of them acts."
  type        = number
  default     = 1
}

variable "token_source" {
  description = "Where the GitHub token comes from: variable (item `token` of the Nomad variable nomad/jobs/githubrunner), vault (a template with Vault's `token`), or secret (Nomad's `secret` block, 1.11 and later)."
  type        = string
  default     = "variable"
}

variable "secret_path" {
  description = "With vault or secret: the path whose key `token` is the GitHub token, like secret/data/githubrunner in Vault."
  type        = string
  default     = "nomad/jobs/githubrunner"
}

variable "secret_provider" {
  description = "With secret: who has it, vault or nomad."
  type        = string
  default     = "nomad"
}

variable "vault_role" {
  description = "With vault: the role of the workload identity."
  type        = string
  default     = "nomad-workloads"
}
