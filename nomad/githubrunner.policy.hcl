# What the daemon may do: nothing outside of its namespace, and no variables but its own and its runners'.
# NTGithubRunner is `nomad.jobprefix`; change it here where the configuration changes it.
#
#   nomad acl policy apply -namespace github -job githubrunner githubrunner nomad/githubrunner.policy.hcl

namespace "github" {
  # list-jobs and read-job: to see its runners. submit-job: to have templates parsed, to register and to stop.
  capabilities = ["list-jobs", "read-job", "submit-job"]

  variables {
    # Which of several deployments this is, and who leads among replicas.
    path "githubrunner/*" {
      capabilities = ["read", "write"]
    }

    # The secrets of its runners, each readable by its own job only. (`read` includes `list`.)
    path "nomad/jobs/NTGithubRunner-*" {
      capabilities = ["list", "read", "write", "destroy"]
    }
  }
}
