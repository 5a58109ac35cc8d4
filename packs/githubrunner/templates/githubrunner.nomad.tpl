[[- /* Derived from nomad/githubrunner.nomad.hcl: tests/packages.rs checks that both define the same job. */ -]]
variable "image" {
  type    = string
  default = [[ var "image" . | toJson ]]
}

variable "binary" {
  type    = string
  default = [[ var "binary" . | toJson ]]
}

variable "driver" {
  type    = string
  default = [[ var "driver" . | toJson ]]
}

variable "user" {
  type    = string
  default = [[ var "user" . | toJson ]]
}

variable "namespace" {
  type    = string
  default = [[ var "namespace" . | toJson ]]
}

variable "datacenters" {
  type    = list(string)
  default = [[ var "datacenters" . | toJson ]]
}

variable "node_pool" {
  type    = string
  default = [[ var "node_pool" . | toJson ]]
}

variable "service_tags" {
  type    = list(string)
  default = [[ var "service_tags" . | toJson ]]
}

variable "links" {
  type    = map(string)
  default = [[ var "links" . | toJson ]]
}

variable "replicas" {
  type    = number
  default = [[ var "replicas" . | toJson ]]
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

[[- if eq (var "token_source" .) "variable" ]]
      # The GitHub token, unless the configuration has other credentials.
      template {
        # The item `status_token` is for the page and the API. Without it, `status` in the configuration decides.
        data        = "{{ with nomadVar \"nomad/jobs/githubrunner\" }}GH_TOKEN={{ .token }}\nGH_ENTERPRISE_TOKEN={{ .token }}\n{{ with .status_token }}GITHUBRUNNER_STATUS_TOKEN={{ . }}\n{{ end }}{{ end }}"
        destination = "secrets/github.env"
        env         = true
        change_mode = "restart"
      }
[[- else if eq (var "token_source" .) "vault" ]]
      vault {
        role = [[ var "vault_role" . | toJson ]]
      }

      template {
        data        = "{{ with secret \"[[ var "secret_path" . ]]\" }}GH_TOKEN={{ .Data.data.token }}\nGH_ENTERPRISE_TOKEN={{ .Data.data.token }}\n{{ end }}"
        destination = "secrets/github.env"
        env         = true
        change_mode = "restart"
      }
[[- else if eq (var "token_source" .) "secret" ]]
      # Nomad 1.11 and later.
      secret "github" {
        provider = [[ var "secret_provider" . | toJson ]]
        path     = [[ var "secret_path" . | toJson ]]
        config {
[[- if eq (var "secret_provider" .) "vault" ]]
          engine = "kv_v2"
[[- else ]]
          namespace = [[ var "namespace" . | toJson ]]
[[- end ]]
        }
      }
[[- else ]]
[[ fail "token_source must be one of variable, vault, secret" ]]
[[- end ]]

      env {
        # Set explicitly: raw_exec tasks inherit the agent's environment, which may have another address.
[[- if eq (var "token_source" .) "secret" ]]
        GH_TOKEN            = "${secret.github.token}"
        GH_ENTERPRISE_TOKEN = "${secret.github.token}"
[[- end ]]
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
