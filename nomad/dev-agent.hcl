# What `scripts/dev` adds to `nomad agent -dev`: an agent to try things on, not one to keep.

# The demo's runners are plain processes.
plugin "raw_exec" {
  config {
    enabled = true
  }
}

# A closed network must not hold up the start: no cloud is asked whether this machine is one of its own.
client {
  options = {
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
  }
}

disable_update_check = true
