app {
  url = "https://docs.github.com/en/actions/how-tos/manage-runners/self-hosted-runners"
}

pack {
  name        = "githubrunner"
  description = "Supplies a Nomad cluster with the GitHub Actions runners that queued jobs need."
  version     = "0.1.0"
}
