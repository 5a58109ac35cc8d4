# githubrunner as a Nomad job. docs/deployment.md has the five commands that deploy it.
#
# Its configuration and its GitHub token are in the Nomad variable `nomad/jobs/githubrunner`, items `config`
# (YAML) and `token`, which only this job's tasks can read. It talks to Nomad through the task API with its
# workload identity, which `githubrunner.policy.hcl` grants its rights.

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

job "githubrunner" {
  namespace   = var.namespace
  datacenters = var.datacenters
  node_pool   = var.node_pool
  type        = "service"

  ui {
    description = "Supplies the cluster with the GitHub Actions runners that queued jobs need. Actions: `plan`, `check`, `list`."

    dynamic "link" {
      for_each = var.links
      content {
        label = link.key
        url   = link.value
      }
    }
  }

  group "githubrunner" {
    count = var.replicas

    # Always restart: the daemon converges from any state.
    restart {
      attempts = 10
      interval = "10m"
      delay    = "5s"
      mode     = "delay"
    }

    # One allocation after the other: without `ha`, two must not act at the same time.
    update {
      max_parallel     = 1
      min_healthy_time = "5s"
      healthy_deadline = "3m"
      auto_revert      = true
    }

    network {
      port "status" {}
    }

    service {
      name     = "githubrunner"
      provider = "nomad"
      port     = "status"
      tags     = var.service_tags

      check {
        name     = "alive"
        type     = "http"
        path     = "/healthz"
        interval = "30s"
        timeout  = "5s"

        check_restart {
          limit = 3
          grace = "2m"
        }
      }

      # A deployment is healthy once it has reached Nomad and GitHub: a missing right or a wrong token reverts it.
      check {
        name     = "ready"
        type     = "http"
        path     = "/readyz"
        interval = "10s"
        timeout  = "5s"
      }
    }

    task "githubrunner" {
      driver = var.image == "" ? var.driver : "docker"
      user   = var.image == "" && var.driver == "exec" ? var.user : ""

      dynamic "config" {
        for_each = var.image == "" ? [1] : []
        content {
          command = var.binary
          args    = ["run", "-c", "${NOMAD_TASK_DIR}/config.yml"]
        }
      }

      dynamic "config" {
        for_each = var.image == "" ? [] : [1]
        content {
          image   = var.image
          command = "githubrunner"
          args    = ["run", "-c", "${NOMAD_TASK_DIR}/config.yml"]
          ports   = ["status"]
        }
      }

      # The token for the task API, in the environment and in a file.
      identity {
        env  = true
        file = true
      }

      # Reload a changed configuration. If it has an error, the daemon logs it and keeps the old one.
      template {
        data          = "{{ with nomadVar \"nomad/jobs/githubrunner\" }}{{ .config }}{{ end }}"
        destination   = "local/config.yml"
        change_mode   = "signal"
        change_signal = "SIGHUP"
      }

      # The GitHub token, unless the configuration has other credentials.
      template {
        # The item `status_token` is for the page and the API. Without it, `status` in the configuration decides.
        data        = "{{ with nomadVar \"nomad/jobs/githubrunner\" }}GH_TOKEN={{ .token }}\nGH_ENTERPRISE_TOKEN={{ .token }}\n{{ with .status_token }}GITHUBRUNNER_STATUS_TOKEN={{ . }}\n{{ end }}{{ end }}"
        destination = "secrets/github.env"
        env         = true
        change_mode = "restart"
      }

      env {
        # Set explicitly: raw_exec tasks inherit the agent's environment, which may have another address.
        NOMAD_ADDR          = "unix://${NOMAD_SECRETS_DIR}/api.sock"
        GITHUBRUNNER_STATUS = "0.0.0.0:${NOMAD_PORT_status}"
        # Keep the ETag cache, so that a restart in place does not use up GitHub's rate limit.
        XDG_CACHE_HOME      = "${NOMAD_ALLOC_DIR}/data"
      }

      # For operators, in Nomad's UI or with `nomad action -job githubrunner -group githubrunner -task githubrunner plan`.
      action "plan" {
        command = var.image == "" ? var.binary : "githubrunner"
        args    = ["-c", "local/config.yml", "plan"]
      }

      action "check" {
        command = var.image == "" ? var.binary : "githubrunner"
        args    = ["-c", "local/config.yml", "check"]
      }

      action "list" {
        command = var.image == "" ? var.binary : "githubrunner"
        args    = ["-c", "local/config.yml", "list", "-a"]
      }

      kill_timeout = "10s"

      resources {
        cpu    = 100
        memory = 128
      }
    }
  }
}
