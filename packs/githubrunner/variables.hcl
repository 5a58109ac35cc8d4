variable "image" {
  description = "The image to run, with the program in it as `githubrunner`. Empty: run `binary` without an image."
  type        = string
  default     = ""
}

variable "binary" {
  description = "The program, if no image is given: a path on the node. With exec, the path must exist in the chroot (/usr and /bin by default)."
  type        = string
  default     = "/usr/local/bin/githubrunner"
}

variable "driver" {
  description = "The driver for `binary`: exec, in a chroot as `user` (needs Linux and an agent that runs as root), or raw_exec, as the agent's own user with all its rights."
  type        = string
  default     = "exec"
}

variable "user" {
  description = "The user that `binary` runs as with exec."
  type        = string
  default     = "nobody"
}

variable "namespace" {
  description = "The namespace of this job. The runners' namespace is `nomad.namespace` in the configuration; the policy assumes that both are the same. Classes can have other namespaces, which the policy must name."
  type        = string
  default     = "github"
}

variable "datacenters" {
  description = "The datacenters it may run in."
  type        = list(string)
  default     = ["*"]
}

variable "node_pool" {
  description = "The node pool it may run in."
  type        = string
  default     = "default"
}

variable "service_tags" {
  description = "Tags of the service, for discovery by Prometheus, for example."
  type        = list(string)
  default     = ["prometheus"]
}

variable "links" {
  description = "Links on the job's page in Nomad's UI: labels to URLs, like a dashboard."
  type        = map(string)
  default     = {}
}

variable "replicas" {
  description = "The number of replicas. For more than one, set `ha: {enabled: true}` in the configuration: one of them acts."
  type        = number
  default     = 1
}

variable "token_source" {
  description = "The source of the GitHub token: variable (item `token` of the Nomad variable nomad/jobs/githubrunner), vault (a template with Vault's `token`), or secret (Nomad's `secret` block, 1.11 and later)."
  type        = string
  default     = "variable"
}

variable "secret_path" {
  description = "With vault or secret: the path whose key `token` holds the GitHub token, like secret/data/githubrunner in Vault."
  type        = string
  default     = "nomad/jobs/githubrunner"
}

variable "secret_provider" {
  description = "With secret: the provider, vault or nomad."
  type        = string
  default     = "nomad"
}

variable "vault_role" {
  description = "With vault: the role of the workload identity."
  type        = string
  default     = "nomad-workloads"
}
