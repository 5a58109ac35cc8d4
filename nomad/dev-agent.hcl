# The configuration that `scripts/dev` adds to `nomad agent -dev`. For experiments only.

# The demo's runners are plain processes.
plugin "raw_exec" {
  config {
    enabled = true
  }
}

# Cloud fingerprinting can delay the start on a closed network.
client {
  options = {
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
  }
}

disable_update_check = true
