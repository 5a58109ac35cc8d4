# The daemon's rights: only its own namespace, and there only its own and its runners' variables. And reading nodes.
# NTGithubRunner is `nomad.jobprefix`; if the configuration changes it, change it here too.
#
#   nomad acl policy apply -namespace github -job githubrunner githubrunner nomad/githubrunner.policy.hcl

namespace "github" {
  # list-jobs, read-job: to read its runners. submit-job: to parse templates, and to register and stop jobs.
  capabilities = ["list-jobs", "read-job", "submit-job"]

  variables {
    # The deployment ID, the key of the MAC, and the leader lock.
    path "githubrunner/*" {
      capabilities = ["read", "write"]
    }

    # The record of re-runs of lost jobs (`rerun_lost`).
    path "githubrunner/NTGithubRunner/reruns/*" {
      capabilities = ["list", "read", "write", "destroy"]
    }

    # The secrets of its runners, each readable by its own job only. (`read` includes `list`.)
    path "nomad/jobs/NTGithubRunner-*" {
      capabilities = ["list", "read", "write", "destroy"]
    }
  }
}

# Optional: with it, idle runners leave a node that is being drained at once, instead of at the drain's deadline.
node {
  policy = "read"
}

# For each further namespace that a class names (`classes.nomad.namespace`), add a block like this:
#
# namespace "gpu" {
#   capabilities = ["list-jobs", "read-job", "submit-job"]
#
#   variables {
#     path "nomad/jobs/NTGithubRunner-*" {
#       capabilities = ["list", "read", "write", "destroy"]
#     }
#   }
# }
