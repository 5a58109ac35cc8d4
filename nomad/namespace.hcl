# The namespace of the runners' jobs: nomad namespace apply nomad/namespace.hcl
name        = "github"
description = "GitHub Actions runners, started by githubrunner"
