//! What githubrunner asks of Nomad.
